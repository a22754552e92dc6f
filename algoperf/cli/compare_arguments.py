"""The arguments of `algoperf compare`."""

import argparse
from pathlib import Path

from algoperf.cli import executor_arguments
from algoperf.cli.argument_types import add_rows, positive, positives, rates, seed, words

SUBMISSION = "nadamw"  # where none is given


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the subcommand's parser."""
    add = parser.add_argument
    add("workload", metavar="WORKLOAD", help="a name from `algoperf workloads`, or a folder")
    add(
        "--submissions",
        type=words,
        metavar="NAMES",
        help="Python files, their folders, or names from `algoperf submissions`, with commas, as "
        "mine.py,adamw,muon; all in one framework that they share, unless --frameworks says which",
    )
    add(
        "--learning-rates",
        type=rates,
        metavar="RATES",
        help="values of the hyperparameter learning_rate, with commas, as 1e-3,3e-3,1e-2, for "
        "--submission or each of --submissions",
    )
    add(
        "--techniques",
        type=words,
        metavar="NAMES",
        help="full (the workload itself) and suffixes of its variants, with commas: lora is "
        "WORKLOAD_lora",
    )
    add(
        "--frameworks",
        type=words,
        metavar="NAMES",
        help="jax,pytorch: the same rows, hyperparameters and initial weights, and how far the "
        "loss curves differ (default: the one that the submission serves; jax if both)",
    )
    add(
        "--batch-sizes",
        type=positives,
        metavar="SIZES",
        help="rows a step, with commas; of --techniques, --batch-sizes and --submissions with "
        "--learning-rates or --shards only one may be given, and --frameworks with any",
    )
    add(
        "--shards",
        type=words,
        metavar="NAMES",
        help="what the devices divide among them, with commas: none,optimizer,parameters; give "
        'how many as --run-options="--devices 2" (docs/devices.md); may go with --frameworks',
    )
    add_rows(parser)
    add(
        "--pretrained",
        metavar="FOLDER|NAME",
        help="every run starts from these weights, as with `algoperf run`",
    )
    add(
        "--submission",
        help="a Python file, its folder, or a name from `algoperf submissions` (default: "
        f"{SUBMISSION})",
    )
    add("--seed", type=seed, default=0, help="seed of everything, as of `algoperf run`")
    add(
        "--trials",
        "--seeds",
        type=positive,
        default=1,
        metavar="K",
        help="runs of each, which differ by their seed alone (default: 1); more may be asked for "
        "later",
    )
    add(
        "--max-steps",
        type=positive,
        metavar="N",
        help="length of every run, past the target (default: the workload's step hint)",
    )
    add(
        "--eval-every-steps",
        type=positive,
        metavar="N",
        help="all runs are evaluated at the same steps (default: a twentieth of --max-steps)",
    )
    add(
        "--target",
        type=float,
        metavar="VALUE",
        help="of the validation metric, for all rows (default: the workload's own)",
    )
    add(
        "--run-options",
        default="",
        metavar='"OPTIONS"',
        help='more options of `algoperf run` for every run, as --run-options="--carbon"',
    )
    add(
        "--workers",
        type=positive,
        help="runs at a time (default: 1; as jobs, as many as SLURM lets)",
    )
    executor_arguments.declare(parser)
    add(
        "--threads",
        type=positive,
        help="cores of each run (default: the cores there are, shared among the workers)",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="run folders, compare.csv, compare.json and plots (default: compare/WORKLOAD)",
    )
    add("--dry-run", action="store_true", help="list the runs, and which are done; run nothing")
    add("--no-run", action="store_true", help="show what has ended so far; run nothing")
    add("--json", action="store_true", help="print compare.json instead of tables")
