"""The first leaderboard's trials, whose folders were lost, as folders that `algoperf score` reads.

    python tests/benchmarks/leaderboard_trials.py unpack docs/leaderboard/trials.csv FOLDER
    algoperf score FOLDER --out SCORES
    python tests/benchmarks/leaderboard_trials.py table docs/leaderboard/trials.csv ag_news

The file has a line a trial: how it ended, the submission's time and the step of its last
evaluation, the best value of the target metric, and its point. That is all that a score needs: a
trial ends at the first evaluation that meets the target, and one that never does counts as
infinite. So each folder that `unpack` writes has one evaluation, the last. Boards since are files
of `algoperf pack`, which has the whole of each trial.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from algoperf.experiments import campaign
from algoperf.run_folder import run_log
from algoperf.workload import WorkloadDefinition, catalogue

SCALE, SOURCE, RULESET = "mini", "builtin", "external"
NAME = ("workload", "framework", "submission", "study", "trial")
COLUMNS = (*NAME, "status", "last_time_s", "last_step", "best", "hyperparameters")
Trials = dict[tuple[str, ...], dict[str, Any]]


def read(path: Path) -> Trials:
    """The trials of a file by name; none where there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {tuple(row[key] for key in NAME): row for row in csv.DictReader(file)}


def unpack(path: Path, runs: Path) -> None:
    """Write the run folders of the file's trials."""
    for line in read(path).values():
        _write(run_folder(line, runs), line, catalogue.find(line["workload"]))


def run_folder(line: dict[str, Any], runs: Path) -> Path:
    """Where `algoperf campaign` put the trial."""
    study, trial = int(line["study"]), int(line["trial"])
    entry = campaign.Entry(
        line["workload"], line["submission"], line["framework"], RULESET, trial, study
    )
    return entry.folder(runs, trial)


def _write(folder: Path, line: dict[str, Any], definition: WorkloadDefinition) -> None:
    scale = definition.scales[SCALE]
    target = {
        "metric": definition.target_metric,
        "higher_is_better": definition.higher_is_better,
        "validation": scale.targets[SOURCE].validation,
    }
    folder.mkdir(parents=True)
    pool = {"scale": SCALE, "data": SOURCE, "tuning_ruleset": RULESET}
    flags = {"target": target, "budget_s": scale.budget_s, "max_steps": None, "pool": pool}
    run_log.write_json(folder / "flags_0.json", flags)
    run_log.write_json(folder / "result.json", {"status": line["status"], "scoreable": True})
    run_log.write_json(folder / "hparams.json", json.loads(line["hyperparameters"]))
    rows = {
        "accumulated_submission_time": line["last_time_s"],
        "global_step": line["last_step"],
        f"validation/{definition.target_metric}": line["best"],
    }
    text = ",".join(rows) + "\n" + ",".join(str(value) for value in rows.values()) + "\n"
    (folder / "eval_measurements.csv").write_text(text, encoding="utf-8")


def table(path: Path, name: str) -> list[str]:
    """Lines of the page's table of a workload: of each algorithm the best of its trials."""
    trials = [line for line in read(path).values() if line["workload"] == name]
    algorithms = {line["submission"] for line in trials}
    frameworks = ("pytorch", "jax")
    found = {
        (algorithm, framework): [
            line
            for line in trials
            if (line["submission"], line["framework"]) == (algorithm, framework)
        ]
        for algorithm in algorithms
        for framework in frameworks
    }
    best = {key: min(map(_rank, each)) for key, each in found.items()}
    lines = ["| algorithm | PyTorch | JAX |", "|---|---|---|"]
    for algorithm in sorted(algorithms, key=lambda each: [best[each, f] for f in frameworks]):
        told = [_cell(found[algorithm, framework]) for framework in frameworks]
        lines.append(f"| {algorithm} | {told[0]} | {told[1]} |")
    return lines


def _rank(line: dict[str, Any]) -> tuple[bool, float]:
    """Trials that reached the target by their time, then the others by their best value."""
    reached = line["status"] == "reached"
    return not reached, float(line["last_time_s"]) if reached else -float(line["best"])


def _cell(lines: list[dict[str, Any]]) -> str:
    first = min(lines, key=_rank)
    reached = sum(line["status"] == "reached" for line in lines)
    if not reached:
        return f"missed, {float(first['best']):.3f}"
    return f"{float(first['last_time_s']):.1f} s, {first['last_step']} ({reached})"


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=["unpack", "table"])
    parser.add_argument("source", type=Path, help="the file")
    parser.add_argument("to", help="a new folder, or a workload's name")
    given = parser.parse_args()
    match given.action:
        case "unpack" if Path(given.to).exists():
            parser.error(f"{given.to}: is there already; give a new folder")
        case "unpack":
            unpack(given.source, Path(given.to))
        case "table":
            print("\n".join(table(given.source, given.to)))


if __name__ == "__main__":
    main()
