"""The arguments of every subcommand, and what `--help` says of them."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from algoperf import __version__
from algoperf.cli import (
    calibrate_arguments,
    decide_arguments,
    executor_arguments,
    run_arguments,
)
from algoperf.cli import compare_arguments as compare_arguments
from algoperf.cli import variants_arguments as variant_arguments
from algoperf.cli.argument_types import (
    SECRET,
    Parser,
    add_rows,
    add_validation_seed,
    commitment,
    numbers,
    positive,
    rates,
    seed,
    some_words,
    words,
)
from algoperf.study.request import DEFAULT_OUT

Command = Callable[[argparse.Namespace], int]
EPILOG = (
    "exit codes: 0 done (target reached or not), 1 a trial or a check failed (score --strict: "
    "damaged logs), 2 a mistake in what was asked, 74 a run folder takes no more (a full disk), 75 "
    "stopped by a signal and saved"
)

DEBUG = "show the traceback of a mistake; with run, of a submission's error too"


def parser(functions: Mapping[str, Command]) -> argparse.ArgumentParser:
    """Return the parser; what it parses has `command`, one of the functions by subcommand."""
    root = Parser(
        prog="algoperf",
        description="Measure how fast training algorithms train neural networks, in JAX and in "
        "PyTorch.",
        epilog=EPILOG,
    )
    root.add_argument("--version", action="version", version=f"algoperf {__version__}")
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands, functions["run"])
    _add_status(commands, functions["status"])
    _add_score(commands, functions["score"])
    _add_pack(commands, functions["pack"])
    _add_unpack(commands, functions["unpack"])
    listing = _add(commands, "workloads", functions["workloads"], "list the workloads, or show one")
    listing.add_argument(
        "name", nargs="?", help="show this workload's scales, targets and baselines"
    )
    listing.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _add_campaign(commands, functions["campaign"])
    _add_data(commands, functions["data"])
    _add_submissions(commands, functions["submissions"])
    _add_check(commands, functions["check"])
    variants = _add(
        commands, "variants", functions["variants"], "held-out variants: draw, screen, seal, verify"
    )
    variant_arguments.declare(variants)
    compare = _add(
        commands,
        "compare",
        functions["compare"],
        "submissions, learning rates, fine-tuning techniques, frameworks or batch sizes side by "
        "side: quality, time to target and cost in one table, and plots (docs/compare.md)",
    )
    compare_arguments.declare(compare)
    decide_arguments.declare(
        _add(commands, "decide", functions["decide"], decide_arguments.DESCRIPTION)
    )
    calibrate_arguments.declare(
        _add(commands, "calibrate", functions["calibrate"], calibrate_arguments.DESCRIPTION)
    )
    _add_commitment(commands, functions["commitment"])
    return root


def _add(commands: Any, name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".", epilog=EPILOG
    )
    parser.add_argument("--debug", action="store_true", help=DEBUG)
    parser.set_defaults(command=function)
    return parser


def _add_run(commands: Any, function: Command) -> None:
    run = _add(
        commands,
        "run",
        function,
        "train a workload with a submission and measure its time to target",
    )
    run_arguments.declare(run)


def _add_status(commands: Any, function: Command) -> None:
    status = _add(
        commands,
        "status",
        function,
        "what ran, runs, waits and failed below a folder, and about how much time is left; reads "
        "only, also while runs go on",
    )
    status.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=DEFAULT_OUT,
        metavar="DIR",
        help="a folder that holds runs, at any depth (default: runs)",
    )
    status.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _add_submissions(commands: Any, function: Command) -> None:
    algorithms = _add(
        commands,
        "submissions",
        function,
        "list the reference algorithms, show one, or copy one to start from",
    )
    add = algorithms.add_argument
    add("name", nargs="?", metavar="NAME", help="show this one alone")
    add(
        "--copy",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="TARGET",
        help="write its file, and a search space beside it, to TARGET: a new Python file or a "
        "folder (default: my_NAME.py)",
    )
    add("--json", action="store_true", help="print JSON instead of a table")


def _add_score(commands: Any, function: Command) -> None:
    score = _add(
        commands,
        "score",
        function,
        "time to target, performance profiles, scores and their uncertainty; docs/scoring.md "
        "explains the numbers",
    )
    add = score.add_argument
    add(
        "paths",
        nargs="+",
        metavar="PATH",
        help="folders that hold runs, at any depth, or files of `algoperf pack`",
    )
    add(
        "--rules",
        choices=("interpolated", "by-the-rules", "as-published"),
        help="when a target counts as met: interpolated between the last evaluation that missed it "
        "and the first that met it, or at the latter by AlgoPerf's rules; as-published gives the "
        "AlgoPerf leaderboards' numbers (default: interpolated, and by-the-rules for AlgoPerf's "
        "logs and workloads)",
    )
    add(
        "--targets",
        metavar="FILE",
        help="workloads, targets and budgets to score by: AlgoPerf's workload_targets.json, this "
        "library's form, algoperf-0.5, algoperf-0.6 or algoperf-2026 (default: as the runs record)",
    )
    add(
        "--tuning-ruleset",
        choices=("external", "self"),
        help="sets the budgets of --targets (default: what the runs record, else AlgoPerf's folder "
        "name, else external)",
    )
    add(
        "--suite",
        metavar="FILE",
        help="the suite of held-out variants that count, with their targets, run or not (default: "
        "all that were run)",
    )
    add(
        "--no-held-out",
        action="store_true",
        help="score the base workloads alone; without it both scores are shown",
    )
    add(
        "--exclude",
        action="append",
        default=[],
        metavar="NAME",
        help="leave a submission out (NAME or EXPERIMENT/NAME; may be repeated)",
    )
    add(
        "--framework",
        choices=("jax", "pytorch"),
        help="score the runs in this framework alone, relative to the fastest of them (default: "
        "both together)",
    )
    add(
        "--restate",
        metavar="FILE",
        help="also show an estimate of what the times would be in another hardware class, a file "
        "of `algoperf calibrate`, by the measured step times of both; scores stay those of the "
        "measured times (docs/hardware_class.md)",
    )
    add(
        "--reference",
        metavar="NAME",
        help="whose times the speed-ups are over (default: baseline, nadamw, or the best)",
    )
    add(
        "--interval",
        choices=("pooled", "percentile"),
        default="pooled",
        help="how 95 %% intervals are estimated (default: %(default)s)",
    )
    add(
        "--resamples",
        type=positive,
        default=10_000,
        metavar="N",
        help="competitions to draw (default: %(default)s)",
    )
    add(
        "--count-unfinished",
        action="store_true",
        help="count trials that are running or interrupted as if they had ended (default: a study "
        "that such a trial may still decide is left out of medians)",
    )
    add(
        "--exclude-contended",
        action="store_true",
        help="leave out trials that lost over 5 %% of their clock to other processes or to a stop "
        "(default: they count, and are marked; docs/resources.md)",
    )
    add(
        "--partial",
        action="store_true",
        help="also show the interval in which each score must end, whatever unfinished and missing "
        "trials give, and which places are settled",
    )
    add(
        "--studies",
        type=positive,
        metavar="N",
        help="with --partial, studies of each workload when all have run (default: as many as "
        "there are, or the benchmark asks for)",
    )
    add(
        "--trials",
        type=positive,
        metavar="N",
        help="with --partial, trials of each study when all have run (default: the benchmark's, or "
        "those of the fullest study)",
    )
    add(
        "--open-trials",
        action="store_true",
        help="with --partial, trials that record no end, as AlgoPerf's, may still be running",
    )
    add("--out", type=Path, metavar="DIR", help="write CSV files, plots and report.html there")
    add("--json", action="store_true", help="print JSON instead of tables")
    add("--strict", action="store_true", help="exit with 1 where logs are damaged or incomplete")


def _add_pack(commands: Any, function: Command) -> None:
    pack = _add(
        commands,
        "pack",
        function,
        "all trials below some folders that have ended in one compressed file, which `algoperf "
        "score` reads as it is and `algoperf unpack` makes folders of",
    )
    add = pack.add_argument
    add(
        "sources",
        nargs="+",
        type=Path,
        metavar="RUNS",
        help="folders that hold runs, at any depth, or such files",
    )
    add(
        "file",
        type=Path,
        metavar="FILE",
        help="the file, usually NAME.tar.xz; trials that it has already stay in it",
    )
    add(
        "--replace",
        action="store_true",
        help="where FILE has another result of a trial, take that of RUNS (default: an error)",
    )


def _add_unpack(commands: Any, function: Command) -> None:
    unpack = _add(
        commands,
        "unpack",
        function,
        "the run folders of a file of `algoperf pack`, with which `algoperf campaign --out DIR` "
        "goes on",
    )
    add = unpack.add_argument
    add("file", type=Path, metavar="FILE", help="the file")
    add(
        "folder",
        type=Path,
        metavar="DIR",
        help="where they are written; what is there of the same trials stays as it is",
    )


def _add_data(commands: Any, function: Command) -> None:
    data = _add(
        commands,
        "data",
        function,
        "facts of the rows that a run would train on: lengths, duplicates, leakage, labels; or, "
        "with export, these rows as files",
    )
    data.usage = "algoperf data [export] WORKLOAD [options]"
    add = data.add_argument
    add(
        "words",
        nargs="+",
        metavar="WORKLOAD",
        help="a name from `algoperf workloads`; after the word export, its rows are written to "
        "--out, a file for each split, as --data FOLDER reads them",
    )
    add_rows(data)
    add("--format", choices=("jsonl", "parquet"), help="of exported files (default: jsonl)")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="facts: also write facts.json and lengths.png there; export: where the files go",
    )
    add("--json", action="store_true", help="print the facts as JSON instead of tables")


def _add_commitment(commands: Any, function: Command) -> None:
    command = _add(
        commands,
        "commitment",
        function,
        "print the commitment to a secret of --validation-seed, to be published before runs; or "
        "verify the secret that is published after",
    )
    add = command.add_argument
    add("secret", metavar=SECRET, help="the secret, as run --validation-seed takes it")
    add(
        "--verify",
        type=commitment,
        metavar="HEX",
        help="exit with 1 unless this is the commitment to the secret",
    )


def _add_check(commands: Any, function: Command) -> None:
    check = _add(
        commands,
        "check",
        function,
        "check in a few steps that a submission honours the contract, or with --workload alone "
        "that a workload does; docs/check.md explains the lines",
    )
    add = check.add_argument
    add(
        "submission",
        nargs="?",
        help="a Python file, its folder, or a name from `algoperf submissions`",
    )
    add(
        "--workload",
        metavar="FOLDER|NAME",
        help="without a submission, the workload to check: its rows, its model in each framework, "
        "and that they agree; with one, the workload to check it on",
    )
    add("--scale", help="the workload's scale, without a submission (default: mini)")
    add("--framework", help="jax or pytorch (default: each that the submission serves)")
    add(
        "--workloads",
        type=words,
        metavar="NAMES",
        help="names from `algoperf workloads`, or folders, with commas, to check a submission on "
        "(default: digits,ag_news)",
    )
    add("--seed", type=seed, default=0, help="seed of all runs (default: 0)")
    add("--json", action="store_true", help="print the verdicts as JSON")


def campaign_defaults() -> argparse.Namespace:
    """Return what `algoperf campaign` takes for the options that are not given."""
    root = Parser(prog="algoperf")
    _add_campaign(root.add_subparsers(), lambda parsed: 0)
    return root.parse_args(["campaign"])


def _add_campaign(commands: Any, function: Command) -> None:
    campaign = _add(
        commands,
        "campaign",
        function,
        "many runs: of one workload, counted in steps, to set or check its target; or, with "
        "--tuning-ruleset, the studies of a leaderboard",
    )
    add = campaign.add_argument
    add(
        "--join",
        type=Path,
        metavar="DIR",
        help="share the runs of the campaign that was last started with --out DIR, on this machine "
        "or on another one that sees the folder; of the other options it takes --workers and "
        "--validation-seed, and where they run (docs/cluster.md)",
    )
    add(
        "--workload",
        help="a name from `algoperf workloads`; with --tuning-ruleset several, with commas",
    )
    add("--suite", metavar="FILE", help="the file that has held-out variants among the workloads")
    add(
        "--tuning-ruleset",
        choices=("external", "self"),
        help="run --trials trials of each study to their targets or budgets, for `algoperf score`; "
        "--seeds is then how many studies",
    )
    add(
        "--trials",
        type=positive,
        default=3,
        help="of a study, with --tuning-ruleset external (default: 3)",
    )
    add(
        "--submissions",
        type=some_words,
        default=[],
        help="Python files, their folders, or names from `algoperf submissions`, with commas "
        "(default: all of these names)",
    )
    add("--frameworks", type=some_words, default=["jax", "pytorch"], help="default: jax,pytorch")
    add("--seeds", type=positive, default=3, help="runs of each, seeds from 0 (default: 3)")
    add(
        "--learning-rate-factors",
        type=rates,
        default=[1.0],
        help="multiples of the default rate (default: 1)",
    )
    add(
        "--steps",
        type=positive,
        help="most steps of a run, where schedules keep to the step hint (default: that hint)",
    )
    add(
        "--until",
        choices=("validation", "end"),
        default="end",
        help="end at the target, or show the whole curve (default)",
    )
    add(
        "--eval-every-steps",
        type=positive,
        help="evaluate by steps (default: every 20; with --tuning-ruleset, by time as `algoperf "
        "run` does)",
    )
    add(
        "--targets",
        type=numbers,
        default=[],
        help="values to count reached runs for (default: the workload's)",
    )
    add(
        "--rerun-contended",
        action="store_true",
        help="also repeat the trials that lost over 5 %% of their clock to other processes or to a "
        "stop; what was measured is kept, in replaced_<n>",
    )
    add(
        "--stop-outrun",
        action="store_true",
        help="with --tuning-ruleset external, end each trial that has not reached the target by "
        "the best time to target of its study's others; scores are the same",
    )
    add(
        "--stop-late",
        action="store_true",
        help="with --tuning-ruleset, run the studies of one submission after those of another, in "
        "the order of --submissions, and end each trial that has not reached the target in four "
        "times what one of them took in each of its studies; scores are the same",
    )
    add(
        "--hardware-class",
        metavar="FILE",
        help="with --tuning-ruleset, take the budgets of a hardware class, as `algoperf run` does; "
        "runs have one core each, so calibrate with --threads 1",
    )
    add_validation_seed(campaign)
    add(
        "--workers",
        type=positive,
        help="one-thread processes at a time (default: 2; as jobs, as many as SLURM lets)",
    )
    executor_arguments.declare(campaign)
    add(
        "--out",
        type=Path,
        default=Path("campaign"),
        metavar="DIR",
        help="run folders and curves.csv (default: campaign)",
    )
