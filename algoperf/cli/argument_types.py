"""What an argument of the command line may be, how a mistake in one is reported, and the arguments
that several subcommands have.
"""

import argparse
from typing import NoReturn

USER_MISTAKE = 2


class Parser(argparse.ArgumentParser):
    """Reports a mistake in the arguments in one line, as every other mistake."""

    def error(self, message: str) -> NoReturn:
        """Leave with the message."""
        self.exit(USER_MISTAKE, f"algoperf: {message}; see: {self.prog} --help\n")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def seconds(text: str) -> float:
    """A finite number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def seed(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def words(text: str) -> list[str]:
    """Words with commas between."""
    return [word for word in text.split(",") if word]


def positives(text: str) -> list[int]:
    """Whole numbers of at least 1, with commas between."""
    return [positive(word) for word in words(text)]


def numbers(text: str) -> list[float]:
    """Numbers with commas between."""
    try:
        return [float(word) for word in words(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers with commas between") from None


def add_rows(command: argparse.ArgumentParser) -> None:
    """The arguments that choose a workload's rows."""
    add = command.add_argument
    add("--scale", default="mini", help="size of model and data (default: %(default)s)")
    add(
        "--data",
        metavar="builtin|hub|FOLDER",
        help="where the rows come from (default: the scale's own)",
    )
    add("--skip-bad-rows", action="store_true", help="count rows that cannot be read, and go on")
