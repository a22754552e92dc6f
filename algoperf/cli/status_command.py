"""`algoperf status`: a table of what ran, runs, waits and failed below a folder."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from algoperf.cli import summary
from algoperf.study import status
from algoperf.study.outcome import STATUS
from algoperf.study.progress import printer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

DONE = 0


def run(folder: Path, console: "Console", *, as_json: bool) -> int:
    """Carry out `algoperf status`.

    Args:
        folder: The folder that holds the runs.
        console: The console of standard output.
        as_json: Whether to print JSON instead of a table.

    Returns:
        The exit code, 0.

    Raises:
        UserError: There is no such folder, or no trial below it.
    """
    trials = status.read(folder)
    left_s = status.left_s(trials)
    if as_json:
        described = {
            "counts": status.counts(trials),
            "left_s": left_s,
            "trials": [trial.to_json() for trial in trials],
        }
        console.print(json.dumps(summary.finite(described), indent=2), soft_wrap=True)
        return DONE
    show = printer(console)
    for (experiment, submission, workload, framework), group in itertools.groupby(
        trials, key=lambda trial: trial.group
    ):
        members = list(group)
        show(f"{submission} on {workload} in {framework} ({experiment})")
        console.print(_table(members))
        for trial in members:
            if trial.note:
                show(f"  study {trial.study} trial {trial.trial}: {trial.note}")
        console.print()
    counted = ", ".join(
        f"{count} {STATUS.get(state, state)}" for state, count in status.counts(trials).items()
    )
    show(f"{len(trials)} trial{'s' if len(trials) > 1 else ''}: {counted}{_left(trials, left_s)}")
    commands = {
        trial.command: None
        for trial in trials
        if trial.state == status.INTERRUPTED and trial.command
    }
    for command in commands:
        console.print(f"go on with: {command}", soft_wrap=True)  # as it is, to be copied
    return DONE


def _left(trials: Sequence[status.Trial], left_s: float | None) -> str:
    if left_s is None:
        return ""
    runs = any(trial.state == status.RUNNING for trial in trials)
    until = "left" if runs else "left once they go on"
    return (
        f"; about {duration(left_s)} {until}, one after the other, less where targets are reached"
    )


def _table(trials: Sequence[status.Trial]) -> "Table":
    from rich import box
    from rich.table import Table

    metric = next((trial.metric for trial in trials if trial.metric), "metric")
    target = next((trial.target for trial in trials if trial.target is not None), None)
    aim = "" if target is None else f"\n(target {target:g})"
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    columns = ["study", "trial", "state", "step", "clock s", f"best {metric}{aim}"]
    shows_left = any(trial.left_s is not None for trial in trials)
    for column in columns + ["left"] * shows_left:
        shown.add_column(column, justify="left" if column == "state" else "right")
    for trial in trials:
        has_begun = trial.step is not None
        cells = [
            f"{trial.study}",
            f"{trial.trial}",
            STATUS.get(trial.state, trial.state),
            _limited(trial.step, trial.max_steps) if has_begun else "",
            _limited(trial.clock_s, trial.budget_s, 1) if has_begun else "",
            "" if trial.value is None else f"{trial.value:.4f}",
            "" if trial.left_s is None else duration(trial.left_s),
        ]
        shown.add_row(*cells[: len(shown.columns)])
    return shown


def _limited(value: float | None, limit: float | None, digits: int = 0) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + ("" if limit is None else f" of {limit:g}")


def duration(seconds: float) -> str:
    """Return a stretch of time in the two largest of its units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
