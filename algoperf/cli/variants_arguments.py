"""The arguments of `algoperf variants`."""

import argparse
from collections.abc import Callable
from pathlib import Path

from algoperf.cli import executor_arguments
from algoperf.cli.argument_types import (
    SECRET,
    SECRET_HELP,
    commitment,
    positive,
    seed,
    some_words,
)

ACTIONS = ("axes", "sample", "seal", "verify")


def span(text: str) -> tuple[int, int]:
    """Return the range that a text like '1..3' gives, for argparse.

    A single number is both ends of the range.

    Returns:
        Two whole numbers of at least 1, of which the first is not larger than the second.
    """
    first, _, last = text.partition("..")
    try:
        fewest, most = int(first), int(last or first)
    except ValueError:
        fewest, most = 0, 0
    if not 1 <= fewest <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of axes like 2 or 1..3")
    return fewest, most


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to the subcommand's parser."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, help_text: str) -> Callable[..., argparse.Action]:
        action_parser = actions.add_parser(
            name, help=help_text, description=help_text[0].upper() + help_text[1:] + "."
        )
        action_parser.add_argument(
            "--debug", action="store_true", help="show the traceback of a mistake"
        )
        return action_parser.add_argument

    action("axes", "list the axes along which variants differ, and their values")
    add = action(
        "sample",
        "draw held-out variants, screen them by runs and set their targets; interrupted, the same "
        "command goes on",
    )
    add("--seed", type=seed, required=True, help="the same seed gives the same draws everywhere")
    add("--per-workload", type=positive, required=True, help="variants of each workload")
    add("--workloads", type=some_words, metavar="NAMES", help="with commas (default: all)")
    add(
        "--axes",
        type=span,
        default=(1, 3),
        metavar="FEWEST..MOST",
        help="how many axes a variant differs on (default: 1..3)",
    )
    add(
        "--dry-run",
        action="store_true",
        help="print the first draws of each workload; run and write nothing",
    )
    add("--out", type=Path, default=Path("suite.json"), help="default: %(default)s")
    add(
        "--runs",
        type=Path,
        default=Path("variants"),
        metavar="DIR",
        help="folder of the screening runs, which are kept (default: %(default)s)",
    )
    add(
        "--curves",
        type=Path,
        metavar="FILE",
        help="keep the runs' curves in a file as well, small enough to commit beside the suite; "
        "runs whose curves it holds are not made again",
    )
    add("--validation-seed", metavar=SECRET, help=SECRET_HELP)
    add(
        "--workers",
        type=positive,
        help="one-thread processes at a time (default: 2; as jobs, as many as SLURM lets)",
    )
    executor_arguments.declare(actions.choices["sample"])
    add = action("seal", "print a commitment to a suite, to be published before it is used")
    add("suite", type=Path, metavar="SUITE", help="the file")
    _add_salt(add, "where the new salt is written, to be kept secret until the suite is published")
    add = action("verify", "check that a suite is, byte for byte, what a commitment was made of")
    add("suite", type=Path, metavar="SUITE", help="the file")
    add(
        "--commitment",
        type=commitment,
        required=True,
        metavar="HEX",
        help="what `algoperf variants seal` printed",
    )
    _add_salt(add, "the salt that was written beside it")


def _add_salt(add: Callable[..., argparse.Action], help_text: str) -> None:
    add("--salt", type=Path, metavar="FILE", help=f"{help_text} (default: SUITE.salt)")
