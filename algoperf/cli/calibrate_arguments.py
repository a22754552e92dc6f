"""The arguments of `algoperf calibrate`."""

import argparse
from pathlib import Path

from algoperf.cli.argument_types import positive, some_words

DESCRIPTION = (
    "measure the reference algorithm's step and evaluation times here, and write the hardware "
    "class of this machine, which budgets belong to (docs/hardware_class.md)"
)


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add(
        "--workloads",
        type=some_words,
        required=True,
        metavar="NAMES",
        help="names from `algoperf workloads`, or folders, with commas",
    )
    add(
        "--frameworks",
        type=some_words,
        default=["jax", "pytorch"],
        metavar="NAMES",
        help="default: jax,pytorch; a budget is one for all of them",
    )
    add("--scale", default="mini", help="of all workloads (default: %(default)s)")
    add(
        "--data",
        metavar="builtin|hub|FOLDER",
        help="where the rows come from (default: the scale's own)",
    )
    add(
        "--against",
        metavar="FILE",
        help="the class that budgets are to be relative to, as another machine's or this one's of "
        "before; a machine with the same devices and versions and step times within 5 %% is of "
        "that class (default: budgets stay the workloads' own)",
    )
    add("--name", help="of the class (default: processor and cores, or the accelerators)")
    add(
        "--steps",
        type=positive,
        help="length of each run (default: that of --against, else 30 s of the workload's own "
        "budget, in steps)",
    )
    add(
        "--repeats",
        type=positive,
        default=3,
        help="runs of each workload in each framework (default: %(default)s)",
    )
    add(
        "--threads",
        type=positive,
        metavar="N",
        help="cores of each run, as in `algoperf run` (default: all); part of the class",
    )
    add(
        "--out",
        type=Path,
        default=Path("calibration"),
        metavar="DIR",
        help="hardware_class.json and the run folders (default: calibration)",
    )
    add("--json", action="store_true", help="print the class as JSON instead of tables")
