"""`algoperf calibrate`: what class of hardware this machine is of, and its budgets."""

import argparse
import json
import shlex
from typing import TYPE_CHECKING

from algoperf.experiments import calibrate
from algoperf.experiments.calibrate import Calibrated, CalibrateRequest
from algoperf.machine import class_file, hardware_class
from algoperf.machine.hardware_class import Measurement, Ratio, Spread
from algoperf.study.progress import Show

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

DONE = 0
MANY_PERCENT = 100 * hardware_class.SAME_WITHIN


def run(arguments: argparse.Namespace, command: str, console: "Console", note: Show) -> int:
    """Carry out `algoperf calibrate`.

    Args:
        arguments: The parsed arguments.
        command: The command line, for the runs' meta data.
        console: The console of standard output.
        note: Prints a line to standard error.

    Returns:
        The exit code.

    Raises:
        UserError: A workload or the other class is not found or cannot be compared.
    """
    request = CalibrateRequest(
        workloads=arguments.workloads,
        frameworks=arguments.frameworks,
        scale=arguments.scale,
        data=arguments.data,
        steps=arguments.steps,
        repeats=arguments.repeats,
        threads=arguments.threads,
        against=arguments.against,
        name=arguments.name,
        out=arguments.out,
    )
    done = calibrate.calibrate(request, note, command)
    if arguments.json:
        text = json.dumps(class_file.to_json(done.hardware_class), indent=2)
        console.out(text, highlight=False)
        for line in lines(done):
            note(line)
        return DONE
    console.print(_times(done))
    if done.ratios:
        console.print(_ratios(done))
    console.print(_budgets(done))
    for line in lines(done):
        console.print(line, soft_wrap=True)
    return DONE


def lines(done: Calibrated) -> list[str]:
    """Return what came of a calibration in words.

    Args:
        done: What came of it.
    """
    known, against = done.hardware_class, done.hardware_class.against
    contended = sum(each.contended for each in done.measurements)
    texts = []
    if contended:
        runs = sum(each.runs for each in done.measurements)
        texts.append(
            f"contended: in {contended} of {runs} runs others used the cores, so that these times "
            "may be too long; calibrate again on a quiet machine (docs/resources.md)"
        )
    if done.joins:
        texts.append(
            f"the same class: {known}, with equal devices and versions and step times within "
            f"{MANY_PERCENT:g} %; its times and budgets stay"
        )
    elif against is not None:
        texts.append(f"another class than {against.name} ({against.id}): {_why(done)}")
    else:
        texts.append(f"a new class: {known}; its budgets are the workloads' own")
    words = shlex.join(["algoperf", "run", "--hardware-class", str(done.path)])
    texts.append(f"wrote {done.path}; run by it with: {words} ...")
    return texts


def _why(done: Calibrated) -> str:
    if done.differences:
        return "; ".join(done.differences)
    far = max(done.ratios, key=lambda each: max(each.step, 1 / each.step))
    return (
        f"devices and versions are equal, but a step of {far.workload} in {far.framework} takes "
        f"{far.step:.3f} times what it took in that class; is the machine busy, or throttled?"
    )


def _times(done: Calibrated) -> "Table":
    table = _table("Times of the reference algorithm (median; lowest and highest run)")
    for name in (
        "workload",
        "framework",
        "steps",
        "runs",
        "step s",
        "evaluation s",
        "first step s",
    ):
        _column(table, name)
    for each in done.measurements:
        table.add_row(
            each.workload,
            each.framework,
            str(each.steps),
            _runs(each),
            *map(_spread, (each.step, each.evaluation, each.first_step)),
        )
    return table


def _ratios(done: Calibrated) -> "Table":
    other = done.hardware_class if done.joins else done.hardware_class.against
    assert other is not None
    table = _table(f"Over class {other.name} ({other.id})")
    for name in ("workload", "framework", "step", "between", "evaluation"):
        _column(table, name)
    for each in done.ratios:
        table.add_row(each.workload, each.framework, *_ratio(each))
    return table


def _budgets(done: Calibrated) -> "Table":
    table = _table("Budgets in this class")
    for name in ("workload", "own s", "factor", "budget s"):
        _column(table, name)
    for key, own_s in done.own_budgets_s.items():
        budget = done.hardware_class.budget(key)
        if budget is not None:
            table.add_row(
                key.workload, f"{own_s:,.6g}", f"{budget.factor:.3f}", f"{budget.budget_s:,.4g}"
            )
    return table


def _runs(each: Measurement) -> str:
    return f"{each.runs}" + (f" ({each.contended} contended)" if each.contended else "")


def _spread(spread: Spread) -> str:
    return f"{spread.median_s:.3g} ({spread.low_s:.3g}-{spread.high_s:.3g})"


def _ratio(ratio: Ratio) -> tuple[str, str, str]:
    between = f"{ratio.low:.3f}-{ratio.high:.3f}"
    return f"{ratio.step:.3f}", between, f"{ratio.evaluation:.2f}"


def _table(title: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _column(table: "Table", name: str) -> None:
    is_text = name in ("workload", "framework")
    table.add_column(name, justify="left" if is_text else "right", no_wrap=not is_text)
