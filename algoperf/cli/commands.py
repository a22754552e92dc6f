"""The command `algoperf`: one function a subcommand. Nothing else reads argv or prints.

What a subcommand needs is imported inside it, so that `--help` loads neither a framework nor NumPy.
"""

import argparse
import dataclasses
import functools
import gc
import json
import shlex
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algoperf.cli import parser
from algoperf.cli.argument_types import USER_MISTAKE, masked
from algoperf.errors import UnreadableRowError, UserError, choose

if TYPE_CHECKING:
    from rich.console import Console

    from algoperf.data.validation_seed import ValidationSeed
    from algoperf.study.executors import executor

CAMPAIGN_WORKERS = 2
SCORING_GC_OBJECTS = 500_000  # new ones, before what refers to itself is looked for
DONE, TRIAL_FAILED, CHECK_FAILED, NOT_VERIFIED = 0, 1, 1, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit code."""
    parsed = parser.parser(
        {
            "run": run_command,
            "status": status_command,
            "score": score_command,
            "pack": pack_command,
            "unpack": unpack_command,
            "campaign": campaign_command,
            "data": data_command,
            "workloads": workloads_command,
            "submissions": submissions_command,
            "check": check_command,
            "variants": variants_command,
            "compare": compare_command,
            "decide": decide_command,
            "calibrate": calibrate_command,
            "commitment": commitment_command,
        }
    ).parse_args(argv)
    if argv is None:  # From here on the command line is recorded, by others of this process, too.
        sys.argv[1:] = masked(sys.argv[1:])
    if parsed.command not in (
        *(run_command, campaign_command, compare_command, decide_command),
        *(variants_command, check_command, calibrate_command),
    ):
        return _carry_out(parsed)
    from algoperf.machine import stopping, supervision, terminal

    is_own_process = argv is None
    if is_own_process:
        terminal.outlive(output=terminal.HUNG_UP, errors=terminal.UNREAD)
    try:
        with stopping.leaving() as stops:
            stopping.let_through()
            code = _carry_out(parsed)
            # The exit code is decided; a signal during the exit is not to change it.
            stops.ignores_afterwards = is_own_process
    except stopping.StoppedError:
        print("algoperf: stopped; nothing is lost, the same command goes on", file=sys.stderr)
        return supervision.INTERRUPTED
    return code


def _carry_out(parsed: argparse.Namespace) -> int:
    """Call a subcommand, and turn what it raises into a line for the user and an exit code."""
    from algoperf.machine.stopping import StoppedError
    from algoperf.machine.supervision import INTERRUPTED, InterruptedRunError

    try:
        code: int = parsed.command(parsed)
    except (UserError, UnreadableRowError) as error:
        if parsed.debug:
            traceback.print_exc()
        print(f"algoperf: {error}", file=sys.stderr)
        return USER_MISTAKE
    except InterruptedRunError as interrupted:
        print(
            f"algoperf: stopped; {interrupted} is saved, and the same command goes on with it",
            file=sys.stderr,
        )
        return INTERRUPTED
    except StoppedError:
        raise
    except KeyboardInterrupt:
        print("algoperf: interrupted; what was measured is in the run folder", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return DONE
    return code


def campaign_command(arguments: argparse.Namespace) -> int:
    """Run what is missing of a campaign, and print how many runs reached each target."""
    from algoperf import backends
    from algoperf.data import validation_seed
    from algoperf.experiments import campaign
    from algoperf.run_folder import writing
    from algoperf.workload import catalogue

    _resolve_campaign(arguments)
    for framework in arguments.frameworks:
        choose("framework", framework, list(backends.FRAMEWORKS))
    _check_kind(arguments)
    if arguments.tuning_ruleset is not None:
        return _leaderboard(arguments)
    definition = catalogue.find(arguments.workload, arguments.suite)
    scale = definition.scales[choose(f"scale of {definition.name}", "mini", [*definition.scales])]
    secret = validation_seed.resolve(arguments.validation_seed)
    todo = campaign.jobs(
        definition.name,
        arguments.submissions,
        arguments.frameworks,
        arguments.seeds,
        arguments.learning_rate_factors,
        arguments.steps or scale.step_hint,
        arguments.eval_every_steps or campaign.EVAL_EVERY_STEPS,
        arguments.until,
        arguments.suite,
        definition.reference,
        rerun_contended=arguments.rerun_contended,
        validation_seed=secret,
    )
    failed = _run_missing(todo, arguments, secret)
    rows = campaign.curves(todo, arguments.out)
    with writing.asked("--out", arguments.out):
        campaign.write_curves(rows, arguments.out / "curves.csv")
    targets = arguments.targets or [target.validation for target in scale.targets.values()]
    print("\n".join(campaign.table(rows, targets, definition.higher_is_better)))
    return TRIAL_FAILED if failed else DONE


def _resolve_campaign(arguments: argparse.Namespace) -> None:
    """Take the settings of a campaign that is joined from its folder."""
    from algoperf.experiments import joining

    if arguments.join is None:
        if arguments.workload is None:
            raise UserError("campaign needs --workload, or --join DIR to share one that was begun")
        return
    usual = parser.campaign_defaults()
    for name in (*joining.SETTINGS, "out"):
        if getattr(arguments, name) != getattr(usual, name):
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"--join takes its settings from {arguments.join}; leave out {option}")
    arguments.out = arguments.join
    for name, value in joining.settings(arguments.join).items():
        setattr(arguments, name, value)


def _check_kind(arguments: argparse.Namespace) -> None:
    """Refuse the options that this kind of campaign does not have."""
    usual = parser.campaign_defaults()
    ruleset = arguments.tuning_ruleset
    if arguments.stop_outrun and ruleset != "external":
        raise UserError(
            "--stop-outrun goes with --tuning-ruleset external, whose studies have several trials"
        )
    if ruleset is None and arguments.stop_late:
        raise UserError("--stop-late goes with --tuning-ruleset: other runs are not scored")
    if ruleset is None and arguments.hardware_class is not None:
        raise UserError(
            "--hardware-class goes with --tuning-ruleset: runs for a target are counted in steps"
        )
    if ruleset is not None:
        for name in ("learning_rate_factors", "steps", "until", "targets"):
            if getattr(arguments, name) != getattr(usual, name):
                raise UserError(
                    f"--{name.replace('_', '-')} goes without --tuning-ruleset, whose trials run "
                    "to the workload's target or budget"
                )
    if ruleset != "external" and arguments.trials != usual.trials:
        raise UserError("--trials goes with --tuning-ruleset external: other studies have one")


def _leaderboard(arguments: argparse.Namespace) -> int:
    """Run what is missing of a leaderboard's studies."""
    from algoperf.cli.argument_types import words
    from algoperf.data import validation_seed
    from algoperf.experiments import campaign

    secret = validation_seed.resolve(arguments.validation_seed)
    todo = campaign.entries(
        words(arguments.workload),
        arguments.submissions,
        arguments.frameworks,
        arguments.tuning_ruleset,
        arguments.trials,
        arguments.seeds,
        arguments.suite,
        rerun_contended=arguments.rerun_contended,
        validation_seed=secret,
        alone=True,  # Another process may run the studies before it.
        hardware_class=arguments.hardware_class,
        stop_outrun=arguments.stop_outrun,
        stop_late=arguments.stop_late,
        eval_every_steps=arguments.eval_every_steps,
    )
    failed = _run_missing(todo, arguments, secret)
    command = ["algoperf", "score", str(arguments.out), *campaign.suite_words(arguments.suite)]
    print(f"{len(todo)} studies in {arguments.out}; score them with: {shlex.join(command)}")
    return TRIAL_FAILED if failed else DONE


def _run_missing(
    todo: "Sequence[executor.Task]", arguments: argparse.Namespace, secret: "ValidationSeed | None"
) -> int:
    """Run what is missing of a campaign; return how many runs failed."""
    from algoperf.cli import executor_arguments
    from algoperf.data import validation_seed
    from algoperf.experiments import joining
    from algoperf.run_folder import writing

    workers = arguments.workers
    if workers is None and arguments.executor == executor_arguments.LOCAL:
        workers = CAMPAIGN_WORKERS
    chosen = executor_arguments.executor(arguments, 1, workers)
    executor_arguments.check_secret(chosen, secret)
    writing.make_folder("--out", arguments.out)
    if arguments.join is None:
        with writing.asked("--out", arguments.out):
            joining.record(arguments.out, vars(arguments), secret)
    else:
        joining.check_secret(arguments.join, secret)
    return chosen.run(
        todo,
        arguments.out,
        functools.partial(print, flush=True),
        validation_seed.as_input(secret),
    )


def run_command(arguments: argparse.Namespace) -> int:
    """Run trials and print what came of each."""
    from rich.console import Console

    from algoperf.cli.run_command import run
    from algoperf.study.outcome import WIDTH

    command = shlex.join(["algoperf", *sys.argv[1:]])
    shown = Console(width=None if sys.stdout.isatty() else WIDTH, markup=False, highlight=False)
    return run(arguments, command, shown, Console(stderr=True))


def status_command(arguments: argparse.Namespace) -> int:
    """Show what ran, runs, waits and failed below some folders."""
    from rich.console import Console

    from algoperf.cli.status_command import run
    from algoperf.study.outcome import WIDTH

    shown = Console(width=None if sys.stdout.isatty() else WIDTH, markup=False, highlight=False)
    return run(arguments.folder, shown, as_json=arguments.json)


def score_command(arguments: argparse.Namespace) -> int:
    """Score the runs below the given folders."""
    from rich.console import Console

    usual = gc.get_threshold()
    # What is read stays to the end, so that looking for what can go finds next to nothing. Imports
    # are most of the objects.
    gc.set_threshold(SCORING_GC_OBJECTS, *usual[1:])
    try:
        return _score(arguments, Console())
    finally:
        gc.set_threshold(*usual)


def _score(arguments: argparse.Namespace, console: "Console") -> int:
    from algoperf.run_folder import writing
    from scoring import report

    if arguments.out is not None:
        writing.check_folder("--out", arguments.out)
    options = report.Options(
        out=arguments.out,
        as_json=arguments.json,
        rules=arguments.rules,
        tuning_ruleset=arguments.tuning_ruleset,
        targets=arguments.targets,
        suite=arguments.suite,
        held_out=not arguments.no_held_out,
        exclude=tuple(arguments.exclude),
        framework=arguments.framework,
        restate=arguments.restate,
        reference=arguments.reference,
        interval=arguments.interval,
        resamples=arguments.resamples,
        count_unfinished=arguments.count_unfinished,
        strict=arguments.strict,
        exclude_contended=arguments.exclude_contended,
        partial=arguments.partial,
        studies=arguments.studies,
        trials=arguments.trials,
        open_trials=arguments.open_trials,
        command=shlex.join(["algoperf", *sys.argv[1:]]),
    )
    return report.score_command(arguments.paths, console, options)


def pack_command(arguments: argparse.Namespace) -> int:
    """Write the trials of run folders to one compressed file."""
    from algoperf.run_folder import archive

    packed = archive.pack(arguments.sources, arguments.file, replace=arguments.replace)
    print(
        f"{arguments.file}: {_trials(packed.trials)}, {packed.added} of them new, "
        f"{packed.replaced} replaced; {packed.bytes:,} bytes"
    )
    for why, count in packed.left_out.items():
        print(f"left out: {_trials(count)} {archive.WHY_LEFT_OUT[why]}")
    if packed.machines > 1:
        print(
            f"they record {packed.machines} kinds of machine, versions and settings, which "
            "`algoperf score` never pools"
        )
    return DONE


def unpack_command(arguments: argparse.Namespace) -> int:
    """Write the run folders of a packed file."""
    from algoperf.run_folder import archive

    added = archive.unpack(arguments.file, arguments.folder)
    print(f"{arguments.folder}: {_trials(added)} written; what was there already is as it was")
    return DONE


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"


def data_command(arguments: argparse.Namespace) -> int:
    """Print facts of the rows that a run would train on, or write these rows as files."""
    from algoperf.workload import catalogue, outside

    *action, name = arguments.words
    if action not in ([], ["export"]):
        given = shlex.join(arguments.words)
        raise UserError(f"data takes WORKLOAD or export WORKLOAD, not {given}")
    definition = catalogue.find(name)
    with outside.blaming(definition):
        return _data(arguments, action, definition)


def _data(arguments: argparse.Namespace, action: Sequence[str], definition: Any) -> int:
    from algoperf.data import select, validation_seed
    from algoperf.data.formats import sources
    from algoperf.data.report import export
    from algoperf.run_folder import writing

    scale_name = choose(f"scale of {definition.name}", arguments.scale, list(definition.scales))
    scale = definition.scales[scale_name]
    kind, source = sources.resolve(definition, scale, arguments.data)
    scale = scale.on(kind)
    secret = validation_seed.resolve(arguments.validation_seed)
    if arguments.skip_bad_rows:
        scale = select.skip_bad_rows(definition, scale)
    if not action:
        if arguments.format is not None:
            raise UserError("--format belongs to: algoperf data export WORKLOAD")
        return _print_facts(arguments, definition, scale_name, scale, kind, source, secret)
    if arguments.out is None:
        raise UserError("data export needs --out FOLDER")
    if arguments.json:
        raise UserError("--json is for facts; data export takes --format jsonl")
    form = arguments.format or "jsonl"
    writing.check_folder("--out", arguments.out)
    with writing.asked("--out", arguments.out):
        paths = export.write(definition, scale, source, form, arguments.out, secret)
    print(*paths, sep="\n")
    return DONE


def _print_facts(
    arguments: argparse.Namespace,
    definition: Any,
    scale_name: str,
    scale: Any,
    kind: str,
    source: str,
    secret: Any,
) -> int:
    from rich.console import Console

    from algoperf.data.report import facts, facts_plot, facts_table
    from algoperf.run_folder import writing

    if arguments.out is not None:
        writing.check_folder("--out", arguments.out)
    report, rows = facts.report(definition, scale_name, scale, kind, source, secret)
    if arguments.out is not None:
        with writing.asked("--out", arguments.out):
            arguments.out.mkdir(parents=True, exist_ok=True)
            facts_plot.plot(report, rows, arguments.out / "lengths.png")
            (arguments.out / "facts.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if arguments.json:
        print(json.dumps(report, indent=2))
        return DONE
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False)
    console.print("\n".join(facts_table.heading(report)), soft_wrap=True)
    for table in facts_table.tables(report):
        console.print(table)
    console.print("\n".join(facts_table.notes(report)))
    if arguments.out is not None:
        print(f"written: {arguments.out / 'lengths.png'}, {arguments.out / 'facts.json'}")
    return DONE


def workloads_command(arguments: argparse.Namespace) -> int:
    """List the workloads, or show one."""
    from algoperf.cli import summary
    from algoperf.workload import catalogue

    if arguments.name is None:
        definitions, broken = catalogue.all_workloads()
        for error in broken:
            print(f"algoperf: {error}", file=sys.stderr)
    else:
        definitions = [catalogue.find(arguments.name)]
    described = [summary.of_workload(definition) for definition in definitions]
    if arguments.json:
        print(json.dumps(described, indent=2))
    else:
        print("\n".join(summary.workload_lines(described, details=arguments.name is not None)))
    return DONE


def submissions_command(arguments: argparse.Namespace) -> int:
    """List the reference algorithms, or show or copy one."""
    import reference_algorithms
    from algoperf.submission import loading

    if arguments.copy is not None:
        return _copy_submission(arguments)
    names = reference_algorithms.names()
    if arguments.name is not None:
        names = [choose("submission", arguments.name.removesuffix(".py"), names)]
    described = [
        {
            "name": name,
            "frameworks": list(loading.inspect(reference_algorithms.path(name)).frameworks),
            "summary": reference_algorithms.summary(name),
            "path": str(reference_algorithms.path(name)),
        }
        for name in names
    ]
    if arguments.json:
        print(json.dumps(described, indent=2))
        return DONE
    width = max(len(row["name"]) for row in described)
    for row in described:
        line = f"{row['name']:{width}} {', '.join(row['frameworks']):14} {row['summary']}"
        print(_clipped(line) if arguments.name is None else line)
    if arguments.name is not None:
        print(f"{described[0]['path']}; a copy to start from: ", end="")
        print(f"algoperf submissions {described[0]['name']} --copy")
    return DONE


def _clipped(line: str) -> str:
    """Return a line of a list, cut where the terminal ends; a file gets it whole."""
    width = shutil.get_terminal_size().columns
    return f"{line[: width - 1]}…" if sys.stdout.isatty() and len(line) > width else line


def _copy_submission(arguments: argparse.Namespace) -> int:
    """Copy a reference algorithm to start from, and say how to run it."""
    from algoperf.submission import copies

    if arguments.name is None:
        raise UserError("--copy needs the name of one submission: algoperf submissions NAME --copy")
    if arguments.json:
        raise UserError("--json is for the list; --copy prints the names of the files")
    written = copies.copy_algorithm(arguments.name, arguments.copy or None)
    for path in written:
        print(path)
    words = ["algoperf", "run", "--workload", "digits", "--submission", str(written[0])]
    print(f"run it with: {shlex.join(words)}", file=sys.stderr)
    return DONE


def check_command(arguments: argparse.Namespace) -> int:
    """Check that a submission, or a workload, honours the contract; print a line for each check."""
    from algoperf.experiments.check import processes, verdicts

    framework, given = arguments.framework, arguments.workload
    asked = [*(arguments.workloads or []), *([] if given is None else [given])]
    width = max(8, *(len(Path(name).name) for name in ["", *asked]))
    show = (lambda verdict: None) if arguments.json else functools.partial(_print_verdict, width)
    if arguments.submission is None:
        if given is None:
            raise UserError("check takes a submission, or --workload FOLDER to check a workload")
        if arguments.workloads is not None:
            raise UserError("--workloads goes with a submission; a workload is checked alone")
        subject = {"workload": given}
        results = processes.check_workload(given, arguments.scale or "mini", framework, show)
    else:
        if arguments.scale is not None:
            raise UserError("--scale goes with --workload alone; submissions are checked at mini")
        subject = {"submission": arguments.submission}
        names = list(processes.WORKLOADS) if arguments.workloads is None else arguments.workloads
        if given is not None:
            names = asked
        results = processes.check(arguments.submission, framework, names, arguments.seed, show)
    counts = {
        status: sum(verdict.status == status for verdict in results) for status in verdicts.STATUSES
    }
    if arguments.json:
        checks = [dataclasses.asdict(verdict) for verdict in results]
        print(json.dumps({**subject, **counts, "checks": checks}, indent=2))
    else:
        print(", ".join(f"{count} {status}" for status, count in counts.items()))
    return CHECK_FAILED if counts[verdicts.FAILED] else DONE


def variants_command(arguments: argparse.Namespace) -> int:
    """Draw, screen, seal or verify held-out variants."""
    from algoperf.cli.variants_command import run

    return run(arguments, functools.partial(print, flush=True))


def commitment_command(arguments: argparse.Namespace) -> int:
    """Print the commitment to a secret, or verify the secret against one."""
    from algoperf.data import validation_seed
    from algoperf.data.commitment import is_same

    secret = validation_seed.resolve(arguments.secret)
    assert secret is not None
    if arguments.verify is None:
        print(secret.commitment)
        return DONE
    if not is_same(secret.commitment, arguments.verify):
        print("the secret is not what the commitment was made of")
        return NOT_VERIFIED
    print("the secret is what the commitment was made of")
    return DONE


def compare_command(arguments: argparse.Namespace) -> int:
    """Run what is missing of a comparison, and show what has ended."""
    from rich.console import Console

    from algoperf.cli.compare_command import run

    shown = Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False)
    notes = Console(stderr=True, markup=False, highlight=False)
    words = shlex.join(["algoperf", *sys.argv[1:]])
    return run(arguments, words, shown, functools.partial(notes.print, soft_wrap=True))


def decide_command(arguments: argparse.Namespace) -> int:
    """Decide which submissions are ahead, from as few runs as it takes."""
    from rich.console import Console

    from algoperf.cli import decide_command as deciding
    from algoperf.study.outcome import WIDTH

    width = None if sys.stdout.isatty() else WIDTH
    return deciding.run(arguments, Console(width=width, markup=False, highlight=False))


def calibrate_command(arguments: argparse.Namespace) -> int:
    """Measure this machine, and write its hardware class."""
    from rich.console import Console

    from algoperf.cli.calibrate_command import run

    shown = Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False)
    notes = Console(stderr=True, markup=False, highlight=False)
    words = shlex.join(["algoperf", *sys.argv[1:]])
    return run(arguments, words, shown, functools.partial(notes.print, soft_wrap=True))


def _print_verdict(width: int, verdict: Any) -> None:
    where = f"{verdict.framework:8} {verdict.workload:{width}}"
    status = verdict.status.upper() if verdict.status == "failed" else verdict.status
    print(f"{where} {verdict.check:15} {status:8} {verdict.reason}".rstrip(), flush=True)
