"""What weakens a ranking, in a few words that stand above it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scoring.analysis.analysis import Analysis
from scoring.analysis.leaderboard import Row
from scoring.analysis.oddities import step_time_spread
from scoring.output.page import texts
from scoring.reading.trials import INTERRUPTED, RUNNING, TrialRun, grouped
from scoring.rules.time_to_target import is_readable


def weaknesses(analysis: Analysis, machines: Mapping[str, Any]) -> list[str]:
    """Return what a reader should know before they trust the order; each a clause.

    Args:
        analysis: The leaderboard and its statistics.
        machines: The facts of `scoring.output.page.machines.machines`.
    """
    return [*_studies(analysis), *_trials(analysis), *_machines(analysis, machines)]


def _studies(analysis: Analysis) -> Iterator[str]:
    board = analysis.board
    if len(board.rows) == 1:
        yield "one submission alone, whose times are compared with its own"
    if analysis.studies.not_estimable:
        yield f"no interval, as {analysis.studies.not_estimable}"
    if len(board.targets) == 1:
        yield "one workload, which says nothing of others"


def _trials(analysis: Analysis) -> Iterator[str]:
    runs = _runs(analysis.board.rows)
    for state, what in ((RUNNING, "running"), (INTERRUPTED, "interrupted")):
        count = sum(run.unfinished == state for run in runs)
        if count:
            yield f"{texts.plural(count, 'trial')} {what}, so that medians may move"
    flagged = [row.entry.label for row in analysis.board.rows if row.entry.flags]
    if flagged:
        yield f"{' and '.join(flagged)} flagged for what a submission should not do"
    contended = sum(run.contended is True for run in runs)
    if contended:
        yield f"{texts.plural(contended, 'trial')} that waited for work beside them"
    if analysis.board.order_by_steps:
        yield f"another order by steps ({', '.join(analysis.board.order_by_steps)})"


def _machines(analysis: Analysis, machines: Mapping[str, Any]) -> Iterator[str]:
    rows = analysis.board.rows
    frameworks = sorted({row.entry.framework for row in rows})
    if len(frameworks) > 1:
        yield f"two frameworks ({' and '.join(frameworks)}), whose own speed is in the times"
    gaps = analysis.steps.gaps
    if analysis.steps.framework_dominates:
        more = sum(gap.moves_more for gap in gaps)
        yield (
            f"frameworks that move times more than algorithms do on {more} of {len(gaps)} workloads"
        )
    if machines["differing"]:
        yield f"machines that differ in {' and '.join(machines['differing'])}"
    runs = _runs(rows)
    busy = [run for run in runs if run.is_on_busy_machine]
    if busy:
        yield f"a busy machine: other processes worked during {texts.plural(len(busy), 'trial')}"
    spread = _largest_spread(rows)
    if spread:
        yield f"step times that differ up to {spread:.1f} times between trials of one submission"


def _runs(rows: Sequence[Row]) -> list[TrialRun]:
    return [run for row in rows for run in row.entry.runs]


def _largest_spread(rows: Sequence[Row]) -> float:
    """Return the largest ratio of step times of trials of one entry and workload; 0 if not odd."""
    spreads = [
        step_time_spread([run for run in of_workload if is_readable(run)])
        for row in rows
        for of_workload in grouped(row.entry.runs, lambda run: run.workload)
    ]
    return max((high / low for low, high in filter(None, spreads)), default=0.0)
