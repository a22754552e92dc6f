"""The command `algoperf`: one function a subcommand. Nothing else reads argv or prints.

What a subcommand needs is imported inside it, so that `--help` loads neither a framework nor NumPy.
"""

import argparse
import dataclasses
import functools
import json
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from algoperf.cli import parser
from algoperf.cli.argument_types import USER_MISTAKE
from algoperf.errors import UserError, choose

DONE, TRIAL_FAILED, CHECK_FAILED = 0, 1, 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit code."""
    parsed = parser.parser(
        {
            "run": run_command,
            "score": score_command,
            "campaign": campaign_command,
            "data": data_command,
            "workloads": workloads_command,
            "submissions": submissions_command,
            "check": check_command,
            "variants": variants_command,
            "compare": compare_command,
        }
    ).parse_args(argv)
    from algoperf.machine.supervision import INTERRUPTED, InterruptedRunError

    try:
        code: int = parsed.command(parsed)
    except UserError as error:
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
    from algoperf.experiments import campaign
    from algoperf.run_folder import writing
    from algoperf.study.executors import local
    from algoperf.workload import catalogue

    for framework in arguments.frameworks:
        choose("framework", framework, list(backends.FRAMEWORKS))
    if arguments.tuning_ruleset is not None:
        return _leaderboard(arguments)
    definition = catalogue.find(arguments.workload, arguments.suite)
    scale = definition.scales[choose(f"scale of {definition.name}", "mini", [*definition.scales])]
    todo = campaign.jobs(
        definition.name,
        arguments.submissions,
        arguments.frameworks,
        arguments.seeds,
        arguments.learning_rate_factors,
        arguments.steps or scale.step_hint,
        arguments.eval_every_steps,
        arguments.until,
        arguments.suite,
        definition.reference,
    )
    writing.make_folder("--out", arguments.out)
    failed = local.run(todo, arguments.out, arguments.workers, lambda text: print(text, flush=True))
    rows = campaign.curves(todo, arguments.out)
    with writing.asked("--out", arguments.out):
        campaign.write_curves(rows, arguments.out / "curves.csv")
    targets = arguments.targets or [target.validation for target in scale.targets.values()]
    print("\n".join(campaign.table(rows, targets, definition.higher_is_better)))
    return TRIAL_FAILED if failed else DONE


def _leaderboard(arguments: argparse.Namespace) -> int:
    """Run what is missing of a leaderboard's studies."""
    from algoperf.cli.argument_types import words
    from algoperf.experiments import campaign
    from algoperf.run_folder import writing
    from algoperf.study.executors import local

    todo = campaign.entries(
        words(arguments.workload),
        arguments.submissions,
        arguments.frameworks,
        arguments.tuning_ruleset,
        arguments.trials,
        arguments.seeds,
        arguments.suite,
    )
    writing.make_folder("--out", arguments.out)
    failed = local.run(todo, arguments.out, arguments.workers, lambda text: print(text, flush=True))
    command = ["algoperf", "score", str(arguments.out), *campaign.suite_words(arguments.suite)]
    print(f"{len(todo)} studies in {arguments.out}; score them with: {shlex.join(command)}")
    return TRIAL_FAILED if failed else DONE


def run_command(arguments: argparse.Namespace) -> int:
    """Run trials and print what came of each."""
    from rich.console import Console

    from algoperf.cli import run_arguments, summary
    from algoperf.run_folder import writing
    from algoperf.study import run_plan, study
    from algoperf.study.progress import Progress

    console = Console(stderr=True)
    say = functools.partial(console.print, highlight=False, soft_wrap=True, markup=False)
    command = shlex.join(["algoperf", *sys.argv[1:]])
    request = run_arguments.request(arguments)
    plan = run_plan.make(request, command, console.is_terminal)
    for note in plan.notes:
        say(note)
    progress = Progress(console)
    try:
        results = study.run(
            plan.trial,
            plan.outline,
            plan.chosen,
            progress,
            request.retry_failed,
            plan.companions,
        )
    except writing.UnwritableError as error:
        say(f"algoperf: {error}")
        return writing.UNWRITABLE
    finally:
        progress.close()
    if arguments.json:
        print(json.dumps(summary.finite(results), indent=2))
    else:
        _print_results(results, arguments.out / plan.trial.experiment)
    return TRIAL_FAILED if any(result["status"] == "failed" for result in results) else DONE


def _print_results(results: list[dict[str, Any]], folder: Path) -> None:
    from algoperf.cli import summary

    for result in results:
        print(summary.of_trial(result))
    if all(result["status"] == "failed" for result in results):
        print(f"runs are in {folder}; the result.json of each has its error's traceback")
    else:
        print(f"runs are in {folder}; score them with: algoperf score {folder.parent}")


def score_command(arguments: argparse.Namespace) -> int:
    """Score the runs below the given folders."""
    from rich.console import Console

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
        reference=arguments.reference,
        interval=arguments.interval,
        resamples=arguments.resamples,
        strict=arguments.strict,
        command=shlex.join(["algoperf", *sys.argv[1:]]),
    )
    return report.score_command(arguments.paths, Console(), options)


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
    from algoperf.data import select
    from algoperf.data.formats import sources
    from algoperf.data.report import export
    from algoperf.run_folder import writing

    scale_name = choose(f"scale of {definition.name}", arguments.scale, list(definition.scales))
    scale = definition.scales[scale_name]
    kind, source = sources.resolve(definition, scale, arguments.data)
    scale = scale.on(kind)
    if arguments.skip_bad_rows:
        scale = select.skip_bad_rows(definition, scale)
    if not action:
        if arguments.format is not None:
            raise UserError("--format belongs to: algoperf data export WORKLOAD")
        return _print_facts(arguments, definition, scale_name, scale, kind, source)
    if arguments.out is None:
        raise UserError("data export needs --out FOLDER")
    if arguments.json:
        raise UserError("--json is for facts; data export takes --format jsonl")
    form = arguments.format or "jsonl"
    writing.check_folder("--out", arguments.out)
    with writing.asked("--out", arguments.out):
        paths = export.write(definition, scale, source, form, arguments.out)
    print(*paths, sep="\n")
    return DONE


def _print_facts(
    arguments: argparse.Namespace,
    definition: Any,
    scale_name: str,
    scale: Any,
    kind: str,
    source: str,
) -> int:
    from rich.console import Console

    from algoperf.data.report import facts, facts_plot, facts_table
    from algoperf.run_folder import writing

    if arguments.out is not None:
        writing.check_folder("--out", arguments.out)
    report, rows = facts.report(definition, scale_name, scale, kind, source)
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
    """List the reference algorithms."""
    import reference_algorithms
    from algoperf.submission import loading

    described = [
        {
            "name": name,
            "frameworks": list(loading.inspect(reference_algorithms.path(name)).frameworks),
            "summary": reference_algorithms.summary(name),
            "path": str(reference_algorithms.path(name)),
        }
        for name in reference_algorithms.names()
    ]
    if arguments.json:
        print(json.dumps(described, indent=2))
        return DONE
    width = max(len(row["name"]) for row in described)
    for row in described:
        print(f"{row['name']:{width}} {', '.join(row['frameworks']):14} {row['summary']}")
    return DONE


def check_command(arguments: argparse.Namespace) -> int:
    """Check that a submission, or a workload, honours the contract; print a line for each check."""
    from algoperf.experiments.check import processes, verdicts

    show = (lambda verdict: None) if arguments.json else _print_verdict
    framework, given = arguments.framework, arguments.workload
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
            names = [*(arguments.workloads or []), given]
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


def compare_command(arguments: argparse.Namespace) -> int:
    """Run what is missing of a comparison, and show what has ended."""
    from rich.console import Console

    from algoperf.cli.compare_command import run

    shown = Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False)
    notes = Console(stderr=True, markup=False, highlight=False)
    words = shlex.join(["algoperf", *sys.argv[1:]])
    return run(arguments, words, shown, functools.partial(notes.print, soft_wrap=True))


def _print_verdict(verdict: Any) -> None:
    where = f"{verdict.framework:8} {verdict.workload:8}"
    status = verdict.status.upper() if verdict.status == "failed" else verdict.status
    print(f"{where} {verdict.check:15} {status:8} {verdict.reason}".rstrip(), flush=True)
