"""Types of arguments of the command line, and the arguments that several subcommands share.

The functions here are argparse's types: each converts the text of an argument, and raises
`argparse.ArgumentTypeError` for a text that it does not accept.
"""

import argparse
import math
import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

USER_MISTAKE = 2
SECRET = "FILE|-|env:NAME|text:SECRET"
SECRET_HELP = (
    "an organiser's secret of at least 16 characters, which draws other built-in validation and "
    "test rows that nobody knows; run folders hold a commitment to it (docs/organise.md)"
)
_PLAIN_SECRET = re.compile(r"(^|[=\s'\"])text:.*", re.DOTALL)


def masked(words: Sequence[str]) -> list[str]:
    """Return the words of a command line without a secret that one of them spells out."""
    return [_PLAIN_SECRET.sub(r"\1text:***", word) for word in words]


def commitment(text: str) -> str:
    """Return a commitment, after checking that it has 64 hexadecimal digits."""
    given = text.strip()
    if len(given) != 64 or set(given) - set(string.hexdigits):
        raise argparse.ArgumentTypeError(
            f"{text!r} is {len(given)} characters, not the 64 hexadecimal digits of a commitment"
        )
    return given


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a mistake in one line, as all other mistakes are reported."""

    def error(self, message: str) -> NoReturn:
        """Print the message with a pointer to `--help`, and exit with the code `USER_MISTAKE`."""
        self.exit(USER_MISTAKE, f"algoperf: {message}; see: {self.prog} --help\n")


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def seconds(text: str) -> float:
    """Return a finite number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def gigabytes(text: str) -> float:
    """Return a finite number of gigabytes above 0."""
    try:
        return seconds(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GB above 0") from None


def sbatch_option(text: str) -> tuple[str, str]:
    """Return the name and the value of an option of sbatch that a text like 'name=value' gives."""
    name, equals, value = text.partition("=")
    name = name.strip().removeprefix("--")
    if not equals or not value or not re.fullmatch(r"[a-z][a-z-]*", name):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, as partition=long")
    return name, value


def seed(text: str) -> int:
    """Return a whole number of at least 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def words(text: str) -> list[str]:
    """Return the words of a comma-separated list; empty ones are left out."""
    return [word.strip() for word in text.split(",") if word.strip()]


def some_words(text: str) -> list[str]:
    """Return the words of a comma-separated list, of which there is at least one.

    It is for options that mean all where they are not given.
    """
    named = words(text)
    if not named:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; give some, with commas between")
    return named


def words_or_path(text: str) -> list[str]:
    """Return the words of a comma-separated list, or the text itself where there is such a path."""
    return [text] if Path(text).exists() else words(text)


def positives(text: str) -> list[int]:
    """Return the numbers of a comma-separated list, each a whole number of at least 1."""
    return [positive(word) for word in words(text)]


def numbers(text: str) -> list[float]:
    """Return the finite numbers of a comma-separated list."""
    try:
        values = [float(word) for word in some_words(text)]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers with commas between")
    return values


def rates(text: str) -> list[float]:
    """Return the numbers of a comma-separated list, each above 0."""
    values = numbers(text)
    if min(values) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers above 0 with commas between")
    return values


def add_rows(command: argparse.ArgumentParser) -> None:
    """Add to a subcommand the arguments that select the rows of a workload."""
    add = command.add_argument
    add("--scale", default="mini", help="size of model and data (default: %(default)s)")
    add(
        "--data",
        metavar="builtin|hub|FOLDER",
        help="where the rows come from (default: the scale's own)",
    )
    add("--skip-bad-rows", action="store_true", help="count rows that cannot be read, and go on")
    add_validation_seed(command)


def add_validation_seed(command: argparse.ArgumentParser) -> None:
    """Add to a subcommand the argument for the secret that draws validation rows."""
    command.add_argument("--validation-seed", metavar=SECRET, help=SECRET_HELP)
