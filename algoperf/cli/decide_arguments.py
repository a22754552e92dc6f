"""The arguments of `algoperf decide`."""

import argparse
from pathlib import Path

from algoperf.cli.argument_types import positive, some_words

DESCRIPTION = (
    "which submissions are ahead, from as few runs as it takes: run what tells most next, stop "
    "when the order is known; or, with --replay, play finished logs as if they were running and "
    "count cost and errors (docs/decide.md)"
)


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add(
        "submissions",
        nargs="*",
        metavar="SUBMISSION",
        help="Python files, their folders, or names from `algoperf submissions`; with --replay, "
        "names in the logs (default there: all)",
    )
    add("--workloads", type=some_words, default=[], help="names from `algoperf workloads`, commas")
    add("--framework", default="pytorch", help="jax or pytorch, for all (default: pytorch)")
    add("--studies", type=positive, default=3, help="of each workload at most (default: 3)")
    add(
        "--tuning-ruleset",
        choices=("self",),
        help="self: 1.5 times the budget (default: every submission runs at its DEFAULTS)",
    )
    add(
        "--out",
        type=Path,
        default=Path("decide"),
        metavar="DIR",
        help="run folders and decisions.jsonl (default: decide); what is there is not run again",
    )
    add(
        "--most",
        type=float,
        metavar="SECONDS",
        help="of submission time, over all runs, at which to give up; with --replay the share of a "
        "pair's whole cost",
    )
    add(
        "--confidence",
        type=float,
        default=0.925,
        help="of a forecast; 1 minus it is the error of the test (default: 0.925)",
    )
    add(
        "--stop-by",
        type=some_words,
        default=["bounds", "forecast", "test"],
        metavar="NAMES",
        help="what may decide, with commas: bounds (no end could change it), forecast, test "
        "(anytime-valid); default: all three",
    )
    add(
        "--order",
        choices=("value", "cheapest", "given"),
        default="value",
        help="of workloads: what tells most per second, cheapest first, as given (default: value)",
    )
    add("--no-caps", action="store_true", help="run on where the rival was four times faster")
    add("--no-curves", action="store_true", help="leave learning curves out of the forecast")
    add(
        "--small",
        type=float,
        default=0.0,
        metavar="DIFFERENCE",
        help="of scores that is too small to matter: say so once it is likely (default: 0, never)",
    )
    add(
        "--prior",
        action="append",
        default=[],
        metavar="LOGS",
        help="finished logs from which the forecast takes how often each workload's target is "
        "reached; may be repeated (default: none)",
    )
    add(
        "--prior-targets",
        action="append",
        default=[],
        metavar="FILE",
        help="the --targets of each --prior, in the same order",
    )
    add(
        "--families",
        type=Path,
        metavar="FILE",
        help="JSON: the family of each submission by name; a pair's families are left out of its "
        "prior (default: the first word of a name)",
    )
    add("--replay", metavar="LOGS", help="finished logs to play, in place of running anything")
    add("--targets", metavar="FILE", help="with --replay, as for `algoperf score`")
    add(
        "--rotations",
        type=positive,
        metavar="N",
        help="with --replay, in how many orders of the studies each pair is played (default: 1)",
    )
    add("--steps", action="store_true", help="with --replay, also what was run and why")
    add("--again", type=Path, metavar="LOG", help="repeat the decisions of a decisions.jsonl")
