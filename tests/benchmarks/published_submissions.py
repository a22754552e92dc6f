"""Run every submission below a folder, and print a table of what each does here.

    git clone https://github.com/mlcommons/submissions_algorithms
    python tests/benchmarks/published_submissions.py submissions_algorithms --out OUT

Each folder with a `submission.py` is trained on `--workload` for `--steps` steps, with evaluations
in between, on `--devices` devices, and checked (`algoperf check`) on the workloads of `--check`.
Nothing is installed. One process runs at a time; whatever has a line in OUT/outcomes.jsonl is not
run again, so that the command can be stopped and repeated (`--again NAME` runs those whose path
contains NAME once more).
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NONE = subprocess.DEVNULL
LIMIT_S = 900.0  # of one command; some compile for minutes
HEAD = ("submission", "framework", "trained", "loss", "check", "flags, in the library's words")


def ask(words: list[str]) -> tuple[int, str, str]:
    """Run a command of algoperf; return its exit code, its output and its last line of error."""
    command = [sys.executable, "-P", "-m", "algoperf", *words]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"did not end within {LIMIT_S:g} s"
    if "Traceback (most recent call last)" in done.stderr:
        return 70, "", "a traceback: " + done.stderr.strip().splitlines()[-1]
    return done.returncode, done.stdout, (done.stderr.strip().splitlines() or [""])[-1]


def trained(folder: Path, runs: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """How a few steps of training end."""
    every = max(1, arguments.steps // 3)
    code, output, line = ask(
        [
            *("run", "--workload", arguments.workload, "--submission", str(folder)),
            *("--max-steps", str(arguments.steps), "--eval-every-steps", str(every)),
            *("--until", "end", "--no-checkpoint", "--json", "--out", str(runs)),
            *(() if arguments.devices is None else ("--devices", str(arguments.devices))),
        ]
    )
    if code not in (0, 1):
        return {"status": "refused", "words": line.removeprefix("algoperf: ")}
    (result,) = json.loads(output)
    loss = result["final"].get("validation/loss")
    ended = {key: result[key] for key in ("framework", "status", "steps", "flags")}
    return {**ended, "loss": loss, "words": (result.get("error") or {}).get("cause", "")}


def checked(folder: Path, workloads: str) -> dict[str, Any]:
    """What `algoperf check` says; nothing where it is asked of no workload."""
    if not workloads:
        return {"check": "", "check_words": ""}
    code, output, line = ask(["check", str(folder), "--workloads", workloads, "--json"])
    if code not in (0, 1):
        return {"check": "refused", "check_words": line.removeprefix("algoperf: ")}
    report = json.loads(output)
    failed = [each for each in report["checks"] if each["status"] == "failed"]
    words = [f"{each['workload']} {each['check']}: {each['reason']}".strip() for each in failed]
    counts = f"{report['ok']} ok" + (f", {report['failed']} failed" if failed else "")
    return {"check": counts, "check_words": "; ".join(words)}


def row(outcome: dict[str, Any]) -> str:
    """A line of the table."""
    steps = f", {outcome['steps']} steps" if "steps" in outcome else ""
    loss = "" if outcome.get("loss") is None else f"{outcome['loss']:.3g}"
    flags = [f"flag: {flag}" for flag in outcome.get("flags", [])]
    words = "; ".join(filter(None, [outcome["words"], *flags, outcome["check_words"]]))
    cells = (
        *(outcome["submission"], outcome.get("framework", ""), outcome["status"] + steps, loss),
        *(outcome["check"], words.replace("|", "\\|")),
    )
    return f"| {' | '.join(cells)} |"


def outcomes(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the outcome of each submission, and write down those that are new."""
    file = arguments.out / "outcomes.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    known = {each["submission"]: each for each in map(json.loads, lines)}
    for path in sorted(arguments.repository.rglob("submission.py")):
        name = path.parent.relative_to(arguments.repository).as_posix()
        if name not in known or (arguments.again is not None and arguments.again in name):
            outcome = {
                "submission": name,
                **trained(path.parent, arguments.out / "runs" / name, arguments),
                **checked(path.parent, arguments.check),
            }
            with file.open("a", encoding="utf-8") as log:
                log.write(json.dumps(outcome) + "\n")
            known[name] = outcome
        yield known[name]


def main() -> None:
    """Print the table and its sums."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("repository", type=Path, help="a folder with submissions below it")
    parser.add_argument("--out", type=Path, default=Path("published"), help="default: %(default)s")
    parser.add_argument("--workload", default="digits", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--check", default="digits", help="'' for none; default: %(default)s")
    parser.add_argument("--devices", type=int, help="how many devices train; default: one")
    parser.add_argument("--again", metavar="NAME", help="run those whose path contains it again")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    complete = flagged = total = 0
    for outcome in outcomes(arguments):
        print(row(outcome), flush=True)
        total += 1
        complete += outcome["status"] == "complete"
        flagged += bool(outcome.get("flags"))
    print(f"\n{complete} of {total} train to the last step, {flagged} with a flag")


if __name__ == "__main__":
    main()
