"""Leaderboards as tables for the screen."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from algoperf.trial.plan import LATE
from scoring.analysis import costs
from scoring.analysis.analysis import Summary
from scoring.analysis.bounds import ScoreBounds
from scoring.analysis.leaderboard import Cell, Leaderboard
from scoring.analysis.restated import Restated, RestatedTime
from scoring.analysis.robustness import ALL_AXES, Robustness
from scoring.analysis.workload_agreement import (
    NEAR,
    SUBSET,
    Agreement,
    Subset,
    WorkloadAgreement,
)
from scoring.benchmarks.pools import Entry
from scoring.reading.trials import Finding

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

MAX_DETAIL_ROWS = 60
MAX_FINDINGS = 20
MAX_VARIANTS_TOLD = 20
# These columns may be left out where the screen is narrow.
EXPENDABLE = ("P(1st)", "rank", "speed-up")
LABEL_WIDTH = 20  # A longer name is folded before a column is left out.
INTERPOLATED = "~"  # A time or a number of steps with this mark is of no evaluation.
WITHOUT_FIRST_STEP = "w/o 1st step"
BOUNDS, PLACES = "can end in", "places"
LONG_FIRST_STEP = 0.1  # Of the time to the target.
LEFT = ("submission", "workload", "credit", "axis", "variant", "outcome", "target")


def to_table(summary: Summary, width: int) -> "Group":
    """Return the tables of one leaderboard: ranking, times to target, robustness, and notes.

    Args:
        summary: The leaderboard and its statistics.
        width: The width of the screen in characters. Columns of the ranking that do not fit are
            left out, and a note names them.
    """
    from rich.console import Group
    from rich.text import Text

    ranking, left_out = _ranking(summary, width)
    shown: list[Table | Text] = [ranking]
    shown += [Text(line, style="dim") for line in _notes(summary)]
    if left_out:
        line = f"Too wide for this screen: {', '.join(left_out)} (--out DIR and --json have all)."
        shown.append(Text(line, style="dim"))
    for table, what in _details(summary):
        if table.row_count > MAX_DETAIL_ROWS:
            shown.append(Text(f"{what}: --out DIR or --json.", style="dim"))
        else:
            shown.append(table)
    shown += [Text(line, style="dim") for line in _robustness_notes(summary)]
    shown += [Text(line, style="dim") for line in agreement_told(summary)]
    return Group(*shown)


def _details(summary: Summary) -> Iterable[tuple["Table", str]]:
    """Yield each table below the ranking, with a title to name it by if it is too long to show."""
    yield _detail(summary.board), "Times by workload and study"
    if summary.steps.gaps:
        yield _frameworks(summary), "Frameworks by workload"
    if summary.robustness.variants:
        yield _by_axis(summary.robustness), "Robustness by axis"
        yield _by_variant(summary.robustness), "Robustness by variant"
    if summary.agreement is not None:
        yield _agreement(summary.agreement), "Which workloads tell the order"
    if summary.restated is not None:
        yield _restated(summary.restated), "Estimates of times in another hardware class"


def _ranking(summary: Summary, width: int) -> tuple["Table", Sequence[str]]:
    """Return the ranking, and the columns left out (as few as possible) to fit it into `width`."""
    columns = _ranking_columns(summary)
    title = f"{summary.board.title} ({summary.board.rules.name})"
    folded = max(0, max(map(len, columns["submission"]), default=0) - LABEL_WIDTH)
    for count in range(len(EXPENDABLE) + 1):
        for left_out in itertools.combinations(EXPENDABLE, count):
            shown = {name: cells for name, cells in columns.items() if name not in left_out}
            table = _table(title)
            _columns(table, *shown)
            for row in zip(*shown.values(), strict=True):
                table.add_row(*row)
            if _width(table) - folded <= width:
                return table, left_out
    return table, left_out


def _ranking_columns(summary: Summary) -> dict[str, list["Text | str"]]:
    """Return the cells of the ranking by column, best entry first."""
    board, studies, speedups = summary.board, summary.studies, summary.speedups
    rows = board.rows
    columns: dict[str, list[Text | str]] = {
        "#": [str(row.rank) for row in rows],
        "submission": [_marked(row.entry) for row in rows],
        "score": [f"{row.score:.4f}" for row in rows],
        "95 %": [between(ends, ".3f") for ends in studies.score_interval.tolist()],
        "rank": [between(ends, ".0f") for ends in studies.rank_interval.tolist()],
        "P(1st)": ["?" if math.isnan(p) else f"{p:.2f}" for p in studies.p_first.tolist()],
    }
    if summary.bounds is not None:
        ends = zip(summary.bounds.lowest, summary.bounds.highest, strict=True)
        places = zip(summary.bounds.best_place, summary.bounds.worst_place, strict=True)
        columns[BOUNDS] = [between(pair, ".4f") for pair in ends]
        columns[PLACES] = [between(pair, ".0f") for pair in places]
    if board.benchmark.variant_of:
        columns["base score"] = [f"{row.base_score:.4f}" for row in rows]
    columns["reached"] = [f"{row.workloads_reached}/{len(board.targets)}" for row in rows]
    columns["speed-up"] = [
        "-" if math.isnan(speedup) else f"{speedup:.2f} ({between(ends, '.2f')})"
        for speedup, ends in zip(speedups.mean_S.tolist(), speedups.interval.tolist(), strict=True)
    ]
    return columns


def _width(table: "Table") -> int:
    """Return the width of a table in characters if nothing limits it."""
    from rich.console import Console

    return Console(width=10_000).measure(table).maximum


def _marked(entry: Entry) -> "Text":
    """Return an entry's label, with a mark if any of its trials was flagged or contended."""
    from rich.text import Text

    flagged = (" FLAGGED", "bold red") if entry.flags else ""
    contended = (" CONTENDED", "yellow") if entry.contended_trials else ""
    return Text.assemble(entry.label, flagged, contended)


def between(ends: Sequence[float], form: str) -> str:
    """Return an interval as text.

    Args:
        ends: The lower and upper end.
        form: The format of an end, such as '.3f'.

    Returns:
        'low-high'; a single number where both ends look the same; '?' where the interval is not
        estimable (NaN).
    """
    low, high = (f"{end:{form}}" for end in ends)
    if math.isnan(ends[0]):
        return "?"
    return low if low == high else f"{low}-{high}"


def _notes(summary: Summary) -> Iterable[str]:
    """Yield the notes below the ranking, which explain its numbers and its flags."""
    studies, speedups, board = summary.studies, summary.speedups, summary.board
    if studies.not_estimable:
        yield (
            "95 %, rank, P(1st), interval of the speed-up: not estimable "
            f"({studies.not_estimable})."
        )
    else:
        count = board.times_SWN.shape[-1]
        yield (
            f"95 %: interval of the expected score of a competition with {count} studies; rank, "
            f"P(1st): 95 % of such competitions ({studies.method})."
        )
    if summary.bounds is not None:
        yield bounds_told(summary.bounds)
    if board.benchmark.variant_of:
        yield "Base score: without held-out variants; --no-held-out gives its intervals and ratios."
    if board.ignored:
        variants = f"{len(board.ignored)} held-out variant{'' if len(board.ignored) == 1 else 's'}"
        yield f"Base workloads alone (--no-held-out): {variants} not counted."
    if any(cell.interpolated for row in board.rows for cell in row.cells.values()):
        yield (
            f"{INTERPOLATED}: interpolated between the last evaluation that missed the target and "
            "the first that met it; --rules by-the-rules takes the latter."
        )
    if has_long_first_steps(board):
        yield f"{WITHOUT_FIRST_STEP}: the time without the first step, which compiles."
    censored = [
        f"{label} ({note})"
        for index, label in enumerate(board.labels)
        if label != speedups.reference and (note := speedups.note(index))
    ]
    yield f"Speed-up: geometric mean over workloads of {speedups.reference}'s time over its own."
    flagged = [row.entry for row in board.rows if row.entry.flags]
    if flagged:
        trials = sum(entry.flagged_trials for entry in flagged)
        yield (
            f"FLAGGED: {trials} trial{'' if trials == 1 else 's'} saw the submission do what it "
            "should not; the findings say what, docs/trust.md what it means."
        )
    contended = sum(row.entry.contended_trials for row in board.rows)
    if contended:
        yield (
            f"CONTENDED: {contended} trial{'' if contended == 1 else 's'} waited for work beside "
            "them, so their times are too long (docs/resources.md); --exclude-contended leaves "
            "them out, algoperf run --rerun-contended repeats them."
        )
    by_steps = board.order_by_steps
    if by_steps:
        yield f"By steps the order is another: {', '.join(by_steps)}."
    of_frameworks = frameworks_told(summary)
    if of_frameworks:
        yield of_frameworks
    if censored:
        late = any(run.status == LATE for row in board.rows for run in row.entry.runs)
        limit = "the budget, or of a late trial its clock" if late else "the budget"
        yield f"A miss counts as {limit}: {'; '.join(censored)}."


def _detail(board: Leaderboard) -> "Table":
    from rich.text import Text

    table = _table("Time to target (median over studies)")
    compiles = has_long_first_steps(board)
    beside = (WITHOUT_FIRST_STEP,) if compiles else ()
    names = ("workload", "submission", "time s", *beside, "steps", "studies", "ratio", "credit")
    _columns(table, *names)
    for workload in board.layout.workloads:
        for row in sorted(board.rows, key=lambda row: _place(row.cells[workload])):
            cell = row.cells[workload]
            reached = math.isfinite(cell.median_time_s)
            mark = INTERPOLATED if cell.interpolated and reached else ""
            table.add_row(
                Text(workload),
                Text(row.entry.label),
                mark + seconds(cell.median_time_s),
                *([seconds(cell.time_without_first_step_s)] if compiles else []),
                f"{mark}{cell.median_steps:,.0f}" if reached else "-",
                f"{cell.studies_reached}/{len(cell.studies)}",
                f"{cell.ratio:.3f}" if math.isfinite(cell.ratio) else "-",
                _credit(workload, cell, board),
            )
        table.add_section()
    return table


def bounds_told(bounds: ScoreBounds) -> str:
    """Return the note that explains what scores can still become."""
    entries = len(bounds.lowest)
    return (
        f"{BOUNDS.capitalize()}: whatever the {bounds.open_studies} of {bounds.studies} studies "
        "that may still change give, the score ends in there, and each end can be reached. Places "
        f"settled: {bounds.settled} of {entries}."
    )


def _frameworks(summary: Summary) -> "Table":
    """Return the table of what a step costs in each framework, beside what algorithms differ by."""
    from rich.text import Text

    gaps = summary.steps.gaps
    names = sorted({framework for gap in gaps for framework in gap.step_s})
    table = _table("What a step costs (the cheapest of each framework)")
    seconds_a_step = [f"{name} s/step" for name in names]
    _columns(table, "workload", *seconds_a_step, "frameworks", "two algorithms")
    for gap in gaps:
        steps = [f"{gap.step_s[name]:.4g}" if name in gap.step_s else "-" for name in names]
        table.add_row(Text(gap.workload), *steps, times(gap.ratio), times(gap.apart))
    return table


def neutral_order(summary: Summary) -> list[str]:
    """Return the labels by the framework-neutral score, best first; empty where it is the same."""
    neutral = summary.steps.neutral_scores
    pairs = sorted(zip(summary.board.labels, neutral, strict=False), key=lambda pair: -pair[1])
    order = [label for label, _ in pairs]
    return [] if order == summary.board.labels[: len(order)] else order


def frameworks_told(summary: Summary) -> str:
    """Return the note on frameworks in the times; empty where one framework was run."""
    steps = summary.steps
    if not steps.gaps:
        return ""
    more = sum(gap.moves_more for gap in steps.gaps)
    text = (
        f"On {more} of {len(steps.gaps)} workloads the framework moves a time more than the choice "
        "between two algorithms does (where no two of them reach it: than it typically does)."
    )
    order = neutral_order(summary)
    if order:
        text += (
            " With every submission at the cheaper framework's step the order would be, by "
            f"estimate: {', '.join(order)}."
        )
    return text


def has_long_first_steps(board: Leaderboard) -> bool:
    """Return whether the first step, which compiles, takes a noticeable share of any time."""
    return any(
        cell.time_without_first_step_s < (1 - LONG_FIRST_STEP) * cell.median_time_s
        for row in board.rows
        for cell in row.cells.values()
    )


def _place(cell: Cell) -> float:
    """Return the time by which a cell is sorted: one without a median comes last."""
    return math.inf if math.isnan(cell.median_time_s) else cell.median_time_s


def _by_axis(robustness: Robustness) -> "Table":
    from rich.text import Text

    table = _table("Robustness by axis: held-out variants beside their bases")
    _columns(table, "axis", "submission", "base reached", "reached", "slow-down", "in steps")
    for index, one in enumerate(robustness.axes):
        if one.axis != robustness.axes[index - 1].axis:
            table.add_section()
        table.add_row(
            Text(one.axis),
            Text(one.label),
            f"{one.bases_reached}/{one.variants}",
            f"{one.reached}/{one.variants}",
            times(one.slowdown),
            times(one.steps_slowdown),
        )
    return table


def _by_variant(robustness: Robustness) -> "Table":
    from rich.text import Text

    table = _table("Robustness by variant (median times over studies)")
    numbers = ("base s", "variant s", "slow-down", "in steps")
    _columns(table, "variant", "submission", *numbers, "outcome")
    for variant, of_variant in robustness.by_variant.items():
        for one in of_variant:
            table.add_row(
                Text(variant),
                Text(one.label),
                seconds(one.base_time_s),
                seconds(one.time_s),
                times(one.slowdown),
                times(one.steps_slowdown),
                one.outcome,
            )
        table.add_section()
    return table


def _agreement(agreement: WorkloadAgreement) -> "Table":
    from rich.text import Text

    table = _table("Which workloads tell the order (Kendall's tau-b)")
    _columns(table, "workload", "others", "suite", "reached", "spread", "core-h", "target")
    for one in agreement.orders:
        table.add_row(
            Text(one.workload),
            _tau(one.with_others),
            _tau(dataclasses.replace(one.with_suite, low=math.nan)),
            f"{one.reached}/{one.submissions}",
            times(one.spread),
            hours(one.core_hours),
            one.separates,
        )
    return table


def _tau(agreement: Agreement) -> str:
    """Return an agreement with its range as text; '-' where one side ties all submissions."""
    if math.isnan(agreement.tau):
        return "-"
    ends = (agreement.low, agreement.high)
    range_shown = "" if math.isnan(ends[0]) else f" ({ends[0]:.2f} to {ends[1]:.2f})"
    return f"{agreement.tau:.2f}{range_shown}"


def agreement_told(summary: Summary) -> Iterable[str]:
    """Yield what workloads tell of the order, what a newcomer runs first, and what all cost."""
    agreement = summary.agreement
    if agreement is not None:
        yield (
            "Others: how the order by this workload's credits agrees with the score of all other "
            "workloads (1 the same order, 0 none, -1 the opposite); suite: with the whole score, "
            "of which it is a part; in brackets, 95 % of fresh competitions. Of these submissions "
            "at these targets, no others. Spread: slowest over fastest median of those that reach "
            "the target."
        )
        best, cheap = agreement.best, agreement.cheap
        if best is not None and cheap is not None:
            yield f"The {SUBSET} workloads that give the order best: {_subset(best, agreement)}."
            yield (
                f"What to run first, the cheapest {SUBSET} whose tau is at most {NEAR:g} lower: "
                f"{_subset(cheap, agreement)}; cheapest first."
            )
    yield from cost_told(summary)


def _subset(subset: Subset, agreement: WorkloadAgreement) -> str:
    share = subset.core_hours / agreement.core_hours if agreement.core_hours else math.nan
    cost = "" if math.isnan(share) else f", {share:.0%} of the cost"
    return (
        f"{', '.join(subset.workloads)} (tau {_tau(subset.with_suite)} with the suite, "
        f"{_tau(subset.with_others)} with the others{cost})"
    )


def cost_told(summary: Summary) -> Iterable[str]:
    """Yield what all trials cost, if that is recorded."""
    every = costs.total(summary.costs)
    if math.isnan(every.core_hours):
        return
    text = f"Cost: {hours(every.core_hours)} core-hours in {every.trials} trials"
    if every.ended_early:
        text += (
            f", of which {every.ended_early} were ended early, as outrun or late; had they gone "
            f"on, at most {hours(every.full_core_hours)}"
        )
    if every.unknown:
        text += f"; {every.unknown} of them do not say how long they took, and are not in it"
    yield f"{text}."


def hours(core_hours: float) -> str:
    """Return core-hours as text, with three digits; '-' where they are not known."""
    return "-" if math.isnan(core_hours) else f"{core_hours:,.3g}"


def _restated(restated: Restated) -> "Table":
    from rich.text import Text

    table = _table(
        f"Estimate, not measured: times in hardware class {restated.name} ({restated.id})\n"
        f"by measured step times there and in {restated.measured_in}"
    )
    numbers = ("measured s", "ratio", "estimate s", "budget s", "there s")
    _columns(table, "workload", "submission", *numbers)
    for one in restated.times:
        budgets = (one.budget_s, one.budget_there_s)
        table.add_row(
            Text(one.workload),
            Text(one.label),
            seconds(one.time_s),
            f"{one.ratio:.3f}",
            _estimate(one),
            *("-" if budget_s is None else f"{budget_s:,.4g}" for budget_s in budgets),
        )
    return table


def _estimate(one: RestatedTime) -> str:
    """Return an estimated time with its range as text; '-' where the target was missed."""
    if not math.isfinite(one.time_s):
        return "-"
    return f"{seconds(one.estimate_s)} ({seconds(one.low_s)}-{seconds(one.high_s)})"


def _robustness_notes(summary: Summary) -> Iterable[str]:
    robustness = summary.robustness
    if not robustness.variants:
        return
    yield (
        "Slow-down: time on the variant over time on its base; by axis, geometric mean over the "
        "variants reached beside their base. A variant of several axes counts for each of them; "
        f"in '{ALL_AXES}' every variant counts once."
    )
    if len(robustness.by_variant) <= MAX_VARIANTS_TOLD:
        yield from (
            f"{variant}: {results[0].what}." for variant, results in robustness.by_variant.items()
        )
    if robustness.unguarded:
        yield f"Without a held-out variant: {', '.join(robustness.unguarded)}."


def times(ratio: float) -> str:
    """Return a slow-down as text.

    It is 'inf' where the variant was missed, and '-' where it is not known (NaN).
    """
    return "-" if math.isnan(ratio) else f"{ratio:.2f}x" if math.isfinite(ratio) else "inf"


def seconds(time_s: float) -> str:
    """Return a median time in seconds as text; '-' where the target was missed."""
    return f"{time_s:,.2f}" if math.isfinite(time_s) else "-"


def _credit(workload: str, cell: Cell, board: Leaderboard) -> str:
    if workload in board.benchmark.variant_of:
        return "held-out"
    return cell.credit.replace("target missed (median)", "missed")


def _table(title: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    return Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _columns(table: "Table", *names: str) -> None:
    from rich.text import Text

    for name in names:
        if name in LEFT:
            table.add_column(Text(name), overflow="fold", min_width=6)
        else:
            table.add_column(Text(name), justify="right", no_wrap=True)


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Return findings as lines for the screen.

    Findings with the same message share a line, which names the first path and the number of
    others. At most MAX_FINDINGS lines are returned, and one that counts the rest.
    """
    by_message: dict[str, list[Finding]] = {}
    for finding in findings:
        by_message.setdefault(finding.message, []).append(finding)
    lines = []
    for message, of_message in by_message.items():
        more = f" (and {len(of_message) - 1} more)" if len(of_message) > 1 else ""
        lines.append(f"finding: {of_message[0].path}{more}: {message}")
    if len(lines) > MAX_FINDINGS:
        left = len(lines) - MAX_FINDINGS
        kinds = "kind" if left == 1 else "kinds"
        lines = [*lines[:MAX_FINDINGS], f"{left} more {kinds} of finding: --out DIR or --json"]
    return lines
