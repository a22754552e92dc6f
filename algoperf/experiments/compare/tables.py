"""Show a comparison as tables in a terminal."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from algoperf.experiments.compare import agreement, measures
from algoperf.experiments.compare.document import Comparison, Row, Spread
from algoperf.experiments.compare.request import setting_text

if TYPE_CHECKING:
    from rich.table import Table

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Column:
    """A column that shows one measure.

    Attributes:
        measure: The measure's name.
        heading: The column's heading.
        form: The format of the numbers.
        factor: The number by which values are multiplied, to change their unit.
        always: Whether the column is shown even if no row has the measure.
    """

    measure: str
    heading: str
    form: str
    factor: float = 1.0
    always: bool = False


COSTS = (
    Column("total_s", "total s", ".1f"),
    Column("submission_s", "training s", ".1f"),
    Column("step_s", "step ms", ".2f", 1e3),
    Column("compile_s", "compile s", ".2f"),
    Column("samples_per_s", "samples/s", ",.0f"),
    Column("inference_s_per_example", "inference ms/row", ".3f", 1e3),
    Column("peak_process_bytes", "peak MiB", ",.0f", 1 / MIB),
    Column("peak_device_bytes", "device MiB", ",.0f", 1 / MIB),
    Column("cpu_s", "CPU s", ".1f"),
    Column("trainable_share", "trainable %", ".3g", 100.0),
    Column("device_energy_j", "device J", ",.0f"),
)


def qualities(comparison: Comparison) -> tuple[Column, ...]:
    """Return the columns of the first table; the target metric's has the name of the metric."""
    metric = comparison.goal.metric
    has_target = comparison.goal.validation is not None
    others = [name for name in comparison.plan.definition.metrics if name != metric]
    return (
        Column("metric", metric, ".4f", always=True),
        Column("best", "best", ".4f", always=True),
        Column("test_metric", "test", ".4f"),
        *(Column(measures.test_of(name), f"test {name}", ".4f") for name in others),
        Column("validation_loss", "loss", ".4f"),
        Column("time_to_target_s", "time to target s", ".2f", always=has_target),
        Column("steps_to_target", "steps to target", ".0f", always=has_target),
        Column("gradient_norm_mean", "gradient norm: mean", ".3g"),
        Column("gradient_norm_last", "last", ".3g"),
    )


def costs(comparison: Comparison) -> tuple[Column, ...]:
    """Return the columns of the second table.

    The heading of energy that no sensor measured says that it is estimated.
    """
    what = "estimated " if comparison.estimates_energy else ""
    return (
        *COSTS,
        Column("energy_kwh", f"{what}energy Wh", ".3g", 1e3),
        Column("co2_kg", f"{what}CO2 g", ".3g", 1e3),
    )


def heading(comparison: Comparison) -> list[str]:
    """Return the lines above the tables: what is compared, and on which machine it was measured."""
    plan, goal = comparison.plan, comparison.goal
    target = "no target" if goal.validation is None else f"target {goal.validation:g}"
    named = f"; {plan.submissions[0]}" if len(plan.submissions) == 1 else ""
    lines = [
        f"{plan.definition.name} at {plan.scale}, data: {plan.data}{named}; validation "
        f"{goal.metric}, {target}; {plan.max_steps} steps, evaluated every "
        f"{plan.eval_every_steps}"
    ]
    machines = " | ".join(comparison.machines) or "no run has ended"
    return [*lines, f"times are of this machine and load: {machines}"]


def tables(comparison: Comparison) -> Iterable["Table"]:
    """Yield the tables of quality and of cost, and, with two frameworks, of their agreement."""
    yield _table(comparison, "quality", qualities(comparison), reached=True)
    yield _table(comparison, "cost", costs(comparison))
    if comparison.agreements:
        yield _agreement(comparison)


def legend(comparison: Comparison) -> list[str]:
    """Return the lines below the tables, which explain the figures."""
    lines = []
    if any(len(row.trials) > 1 for row in comparison.rows):
        lines.append(
            "median over the trials, and below least..most; a missed target counts as infinite"
        )
    if comparison.goal.validation is not None:
        lines.append("time to target: clock at the first evaluation that met it; -: never")
    lines.append(
        "total: wall; training: the submission's clock; step: median between evaluations; compile: "
        "first step less that"
    )
    if comparison.agreements:
        lines.append(
            f"agreement: largest |a - b| / max(|a|, |b|); first: up to step {agreement.FIRST_STEPS}"
        )
    if any(row.arm.batch_size is not None for row in comparison.rows):
        lines.append("all run as many steps: the larger the batch, the more rows are seen")
    if any(row.arm.shard is not None for row in comparison.rows):
        lines.append("shard: what the devices divide; peak: of the first process")
    if any(row.arm.learning_rate is not None for row in comparison.rows):
        lines.append(
            "learning rate: the hyperparameter learning_rate; all others are the submission's own"
        )
    return lines


def cell(spread: Spread | None, column: Column) -> str:
    """Return the text of a cell.

    It is the median, and on a second line the range where the trials differ. A value that is not
    known, or a target that was missed, is shown as '-'.
    """
    if spread is None:
        return "-"

    def told(value: float) -> str:
        return "-" if math.isinf(value) else f"{value * column.factor:{column.form}}"

    low, high = told(spread.low), told(spread.high)
    return told(spread.median) if low == high else f"{told(spread.median)}\n{low}..{high}"


def dimensions(comparison: Comparison) -> list[str]:
    """Return the fields of an arm that tell the rows apart.

    These are the framework and those that the comparison names.
    """
    return [*comparison.rows[0].arm.setting, "framework"]


def _table(
    comparison: Comparison, title: str, columns: Sequence[Column], *, reached: bool = False
) -> "Table":
    spreads = [row.spreads for row in comparison.rows]
    shown = [
        column
        for column in columns
        if column.always or any(spread[column.measure] is not None for spread in spreads)
    ]
    names = dimensions(comparison)
    counts = reached and comparison.goal.validation is not None
    headings = [column.heading for column in shown] + (["reached"] if counts else [])
    table = _new_table(title, [name.replace("_", " ") for name in names], headings)
    for row, spread in zip(comparison.rows, spreads, strict=True):
        cells = [cell(spread[column.measure], column) for column in shown]
        cells += [f"{row.reached}/{len(row.trials)}"] if counts else []
        table.add_row(*_named(row, names), *cells)
    return table


def _named(row: Row, names: Sequence[str]) -> list[str]:
    return [setting_text(getattr(row.arm, name)) for name in names]


def _agreement(comparison: Comparison) -> "Table":
    names = [name for name in dimensions(comparison) if name != "framework"]
    headings = [
        "training loss: step 0",
        "first",
        "all",
        "validation loss",
        f"last {comparison.goal.metric}",
    ]
    table = _new_table("agreement", [name.replace("_", " ") for name in names], ["of", *headings])
    for arm, measured in comparison.agreements:
        differences = (
            measured.step_0,
            measured.first_steps,
            measured.all_steps,
            measured.validation_loss,
            measured.metric_last,
        )
        cells = ["-" if each is None else f"{each:.1e}" for each in differences]
        pair = " and ".join(measured.frameworks) + ("" if measured.same_rows else " (other data)")
        table.add_row(*(setting_text(getattr(arm, name)) for name in names), pair, *cells)
    return table


def _new_table(title: str, left: Sequence[str], right: Sequence[str]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    return table
