"""`algoperf compare`: start the missing runs, read the ended ones, and show and write them."""

import argparse
import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from algoperf.cli import executor_arguments, run_arguments, summary
from algoperf.cli.argument_types import Parser
from algoperf.cli.compare_arguments import SUBMISSION
from algoperf.errors import UserError
from algoperf.experiments.compare import document, plots, request, tables
from algoperf.experiments.compare.document import Comparison
from algoperf.run_folder import run_log, writing

if TYPE_CHECKING:
    from rich.console import Console

DONE, RUN_FAILED = 0, 1
# Options that the comparison sets for each run itself, or that its runs cannot share.
OWN_OPTIONS = frozenset(
    f"--{name}"
    for name in (
        *("workload", "submission", "framework", "scale", "data", "pretrained", "batch-size"),
        *("seed", "studies", "trials", "trial-range", "max-steps", "eval-every-steps", "until"),
        *("experiment", "out", "json", "skip-bad-rows", "suite", "save-model", "rouge-tokenizer"),
        *("threads", "overwrite", "rerun-contended", "name", "save-best", "validation-seed"),
        *("executor", "time-limit-min", "memory-gb", "gpus", "sbatch", "ray-address", "workers"),
    )
)


def run(
    arguments: argparse.Namespace, command: str, console: "Console", note: Callable[[str], None]
) -> int:
    """Carry out `algoperf compare`.

    Args:
        arguments: The parsed arguments.
        command: The command line, which is recorded in `compare.json`.
        console: The console of standard output.
        note: Called with a line for the user after each run.

    Returns:
        The exit code: 1 if a run failed, else 0.

    Raises:
        UserError: The arguments contain a mistake.
    """
    asked = request.make(make_request(arguments))
    if arguments.dry_run:
        for line in _listed(asked):
            console.print(line, soft_wrap=True)
        return DONE
    writing.make_folder("--out", asked.out)
    failed = 0
    if not arguments.no_run:
        chosen = executor_arguments.executor(arguments, asked.threads, arguments.workers)
        executor_arguments.check_secret(chosen, asked.standard_input)
        failed = chosen.run(asked.runs, asked.out, note, asked.standard_input)
    comparison = document.make(asked)
    with writing.asked("--out", asked.out):
        written = _write(comparison, command)
    if arguments.json:
        console.print(json.dumps(_plain(comparison, command), indent=2), soft_wrap=True)
    else:
        _show(comparison, console)
        console.print(f"written: {', '.join(map(str, written))}", soft_wrap=True)
    return RUN_FAILED if failed else DONE


def make_request(arguments: argparse.Namespace) -> request.CompareRequest:
    """Return the request that the arguments of `algoperf compare` describe.

    Raises:
        UserError: `--run-options` contains a mistake.
    """
    if arguments.submission is not None and arguments.submissions is not None:
        raise UserError("--submission with --submissions: give one of them")
    submission = arguments.submission or SUBMISSION
    words = ["--workload", arguments.workload, "--submission", submission]
    parser = Parser(prog="algoperf run")
    run_arguments.declare(parser)
    own = run_arguments.request(parser.parse_args([*words, *_run_options(arguments.run_options)]))
    return request.CompareRequest(
        run=dataclasses.replace(
            own,
            seed=arguments.seed,
            scale=arguments.scale,
            data=arguments.data,
            pretrained=arguments.pretrained,
            skip_bad_rows=arguments.skip_bad_rows,
            validation_seed=arguments.validation_seed,
        ),
        submissions=arguments.submissions,
        learning_rates=arguments.learning_rates,
        techniques=arguments.techniques,
        frameworks=arguments.frameworks,
        batch_sizes=arguments.batch_sizes,
        shards=arguments.shards,
        trials=arguments.trials,
        max_steps=arguments.max_steps,
        eval_every_steps=arguments.eval_every_steps,
        target=arguments.target,
        workers=arguments.workers or 1,
        threads=arguments.threads,
        out=arguments.out,
        may_run=not arguments.no_run,
    )


def _run_options(text: str) -> list[str]:
    """Return the words of --run-options, none of which the comparison itself may set."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--run-options {text!r}: {error}") from error
    for word in words:
        if word.partition("=")[0] in OWN_OPTIONS:
            raise UserError(
                f"--run-options: {word} cannot be given for all runs; see: algoperf compare --help"
            )
    return words


def _listed(asked: request.ComparePlan) -> list[str]:
    lines = []
    for each in asked.runs:
        state = "done  " if each.has_ended(asked.out) else "to run"
        lines.append(f"{state} {shlex.join(['algoperf', *each.words])}")
    to_run = sum(line.startswith("to run") for line in lines)
    return [*lines, f"{len(lines)} runs, {to_run} to run, {asked.threads} threads each"]


def _plain(comparison: Comparison, command: str) -> object:
    return summary.finite(document.to_json(comparison, command))


def _write(comparison: Comparison, command: str) -> list[Path]:
    out = comparison.plan.out
    paths = [out / "compare.csv", out / "compare.json"]
    document.write_csv(comparison, paths[0])
    run_log.write_json(paths[1], _plain(comparison, command))
    return paths + plots.write(comparison, out)


def _show(comparison: Comparison, console: "Console") -> None:
    for line in tables.heading(comparison):
        console.print(line, soft_wrap=True)
    if comparison.machines:
        for table in tables.tables(comparison):
            console.print(table)
        for line in tables.legend(comparison):
            console.print(line, soft_wrap=True)
    for note in comparison.notes:
        console.print(f"note: {note}", soft_wrap=True)
