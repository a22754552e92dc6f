"""`algoperf compare`: run what is missing, read what has ended, show and write it."""

import argparse
import contextlib
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from algoperf import run_log, summary, workers
from algoperf.compare import document, plots, request, tables
from algoperf.compare.document import Comparison
from algoperf.spec import UserError

if TYPE_CHECKING:
    from rich.console import Console

DONE, RUN_FAILED = 0, 1


def run(
    arguments: argparse.Namespace, command: str, console: "Console", note: Callable[[str], None]
) -> int:
    """Do what is asked, and return the exit code: 1 where a run failed.

    `note` is told how the runs go. Raises UserError for a mistake in what was asked.
    """
    asked = request.make(arguments)
    if arguments.dry_run:
        for line in _listed(asked):
            console.print(line, soft_wrap=True)
        return DONE
    with _writing(asked.out):
        asked.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    if not arguments.no_run:
        failed = workers.run(asked.runs, asked.out, arguments.workers, note, asked.threads)
    found = document.make(asked)
    with _writing(asked.out):
        written = _write(found, command)
    if arguments.json:
        console.print(json.dumps(_plain(found, command), indent=2), soft_wrap=True)
    else:
        _show(found, console)
        console.print(f"written: {', '.join(map(str, written))}", soft_wrap=True)
    return RUN_FAILED if failed else DONE


def _listed(asked: request.Request) -> list[str]:
    lines = []
    for each in asked.runs:
        state = "done  " if each.has_ended(asked.out) else "to run"
        lines.append(f"{state} {shlex.join(['algoperf', *each.command(asked.out)])}")
    to_run = sum(line.startswith("to run") for line in lines)
    return [*lines, f"{len(lines)} runs, {to_run} to run, {asked.threads} threads each"]


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """A folder that takes no files is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}; give another folder") from error


def _plain(found: Comparison, command: str) -> object:
    return summary.finite(document.to_json(found, command))


def _write(found: Comparison, command: str) -> list[Path]:
    out = found.request.out
    paths = [out / "compare.csv", out / "compare.json"]
    document.write_csv(found, paths[0])
    run_log.write_json(paths[1], _plain(found, command))
    return paths + plots.write(found, out)


def _show(found: Comparison, console: "Console") -> None:
    for line in tables.heading(found):
        console.print(line, soft_wrap=True)
    if found.machines:
        for table in tables.tables(found):
            console.print(table)
        for line in tables.legend(found):
            console.print(line, soft_wrap=True)
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True)
