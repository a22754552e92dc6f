"""Say in short texts what came of trials: of one when it ends, and of all of a study.

The sentences claim only what the result holds: a trial whose process died says what its last
evaluation saw, and a divergence names the step at which it began.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algoperf.machine import load
from algoperf.run_folder import run_log
from algoperf.study import carbon
from algoperf.trial.clock import PARTS

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Result = Mapping[str, Any]
WIDTH = 80  # The columns of a table where no terminal says how many there are.
# What a status is called where its name says too little.
STATUS = {"budget": "missed"}


@dataclasses.dataclass(frozen=True)
class Ended:
    """A trial that has ended.

    Attributes:
        result: The content of its `result.json`.
        point: Its hyperparameters; empty where it was given none.
    """

    result: Result
    point: Mapping[str, Any]

    @property
    def group(self) -> tuple[str, str, str]:
        """Workload, framework and submission."""
        return self.result["workload"], self.result["framework"], self.result["submission"]


def read(out: Path, experiment: str, result: Result) -> Ended:
    """Return an ended trial with the point that its run folder holds."""
    folder = run_log.trial_folder(
        *(out, experiment, result["submission"], result["study"]),
        *(result["workload"], result["framework"], result["trial"]),
    )
    return Ended(result, run_log.read_json(folder / run_log.HYPERPARAMETERS) or {})


def of_trial(result: Result, *, brief: bool = False) -> str:
    """Return a few lines that describe the result of a trial.

    Args:
        result: The content of its `result.json`.
        brief: Whether to leave out what is usual: the metrics, the ledger and generated texts.
    """
    lines = [headline(result)] if brief else [headline(result) + _miss(result), *_details(result)]
    used = result.get("resources", {})
    contended = load.text(result)
    if contended:
        lines.append(f"  {contended}")
    if used.get("processes"):
        lines.append(f"  {_processes(used['processes'])}")
    if "carbon" in used:
        lines.append(f"  {carbon.line(used['carbon'])}")
    if result["status"] != "diverged":
        lines += [
            f"  not finite: {name}, {seen['times']} times from step {seen['first_step']} to "
            f"{seen['last_step']}"
            for name, seen in result.get("not_finite", {}).items()
        ]
    lines += [f"  flagged: {text} (docs/trust.md)" for text in result.get("flags", [])]
    for row in [] if brief else result.get("examples", []):
        lines += [
            f"  {f'{name}:':<11} {_short(row[name])}"
            for name in ("source", "reference", "prediction")
            if name in row  # recorded speech has no source to print
        ]
    return "\n".join(lines)


def _processes(processes: Sequence[Mapping[str, Any]]) -> str:
    """Return a line of what each of several processes used that trained together."""
    parts = [
        f"processor time {_range([each['cpu_s'] for each in processes])} s",
        f"memory {_range([each['peak_process_bytes'] / 1e6 for each in processes])} MB",
    ]
    gradients_s = [each["gradients_s"] for each in processes]
    if None not in gradients_s:
        parts.append(
            f"gradients travel {_range([1e3 * each_s for each_s in gradients_s])} ms a step"
        )
    waited_s = {each["rank"]: each["agreement_s"] for each in processes}
    if None not in waited_s.values():
        least = min(waited_s, key=lambda rank: float(waited_s[rank]))
        parts.append(f"waiting for others {_range([*waited_s.values()])} s (least: rank {least})")
    return f"{len(processes)} processes: {', '.join(parts)}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def _details(result: Result) -> list[str]:
    """Return the lines of the last metrics and of the ledger."""
    lines = []
    metrics = [
        f"{name} {value:.4f}"
        for name, value in result["final"].items()
        if not name.endswith("num_examples")
    ]
    if metrics:
        lines.append("  last evaluation: " + ", ".join(metrics))
    ledger = result["ledger"]
    if ledger.get("wall_s"):
        parts = [
            f"{part} {ledger[f'{part}_s']:.2f}"
            for part in (*PARTS, "other")
            if part != "recompilation" or ledger.get(f"{part}_s")
        ]
        first_step_s = ledger["first_step_s"]
        first_step = "no first step" if first_step_s is None else f"first step {first_step_s:.2f}"
        lines.append(
            f"  seconds: {' + '.join(parts)} = {ledger['wall_s']:.2f} wall "
            f"({ledger['data_wait_s'] / max(ledger['submission_s'], 1e-9):.1%} of "
            f"the submission's waiting for data, {first_step})"
        )
    return lines


def _miss(result: Result) -> str:
    """Return when the evaluation before the one that reached the target was, in parentheses."""
    miss = result.get("last_miss") if result["status"] == "reached" else None
    if not miss:
        return ""
    between = result.get("interpolated")
    about = f"; interpolated {between['time_s']:.2f} s" if between else ""
    return f" (missed at {miss['time_s']:.2f} s, step {miss['step']}{about})"


def turn(result: Result) -> str:
    """Return what a member of a population came to in its turn."""
    metric = result["target"]["metric"]
    value = result["final"].get(f"validation/{metric}", math.nan)
    clock_s = result["ledger"]["submission_s"]
    return f"step {result['steps']}, clock {clock_s:.2f} s: validation {metric} {value:.4f}"


def headline(result: Result) -> str:
    """Return the line that says which trial it was and what came of it."""
    return (
        f"{result['workload']} {result['framework']} {result['submission']} study "
        f"{result['study']} trial {result['trial']}: {in_words(result)}"
    )


def in_words(result: Result) -> str:
    """Return what came of a trial, without its name."""
    target = result.get("target") or {}
    aim = (
        "no target"
        if target.get("validation") is None
        else f"target {target['metric']} {target['validation']:g}"
    )
    steps, clock_s = result["steps"], result["ledger"].get("submission_s") or 0.0
    match result["status"]:
        case "reached":
            return (
                f"reached {aim} after {result['time_to_target_s']:.2f} s, "
                f"{result['steps_to_target']} steps"
            )
        case "failed":
            when = f"after {steps} steps"
            if not result["ledger"].get("wall_s"):  # It died, and its last evaluation is known.
                when = f"after at least {steps} steps" if steps else "before its first evaluation"
            return f"failed {when}: {result['error']['cause']}"
        case "budget":
            return (
                f"did not reach {aim} in its budget of {result['budget_s']:g} s, {steps} steps"
                f"{_best_text(result)}"
            )
        case "stopped":
            return (
                f"stopped after {clock_s:.2f} s, {steps} steps, as another member of its "
                f"population reached the target{_best_text(result)}"
            )
        case "outrun":
            return (
                f"outrun after {clock_s:.2f} s, {steps} steps: another trial of its study reached "
                f"{aim} in {result['outrun_s']:.2f} s{_best_text(result)}"
            )
        case "late":
            rival, count = result["late"], result["late"]["studies"]
            studies = "its study" if count == 1 else f"each of its {count} studies"
            return (
                f"late after {clock_s:.2f} s, {steps} steps: {rival['submission']} reached {aim} "
                f"within {rival['slowest_s']:.2f} s in {studies}, and after "
                f"{rival['after_s']:.2f} s there is no credit{_best_text(result)}"
            )
        case "diverged":
            seen = result.get("not_finite", {})
            what = ", ".join(
                f"{name} not finite from step {each['first_step']} on"
                for name, each in seen.items()
            )
            return (
                f"diverged ({what or 'loss not finite'}); ended after {clock_s:.2f} s, "
                f"{steps} steps"
            )
    scoreable = "" if result["scoreable"] or target.get("validation") is None else "; not scoreable"
    return f"complete after {clock_s:.2f} s, {steps} steps ({aim}{scoreable}){_best_text(result)}"


def _best_text(result: Result) -> str:
    value = best_value(result)
    if value is None:
        return ""
    return f"; best {result['target']['metric']} {value:.4f} at step {result['best']['step']}"


def best_value(result: Result) -> float | None:
    """Return the best value of the target's metric on the validation split, or None."""
    metric = (result.get("target") or {}).get("metric")
    value = (result.get("best") or {}).get(f"validation/{metric}")
    return None if value is None or math.isnan(value) else float(value)


def point_text(point: Mapping[str, Any] | None) -> str:
    """Return hyperparameters in one line, by name, numbers to four digits."""
    return ", ".join(f"{name} {_number(value)}" for name, value in sorted((point or {}).items()))


def _number(value: Any, digits: int = 4) -> str:
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def best(ended: Iterable[Ended]) -> Ended | None:
    """Return the best of some trials of one workload: the fastest to the target.

    Where none reached it, it is the one with the best value on the validation split. Trials that
    failed or diverged do not count.
    """
    whole = [each for each in ended if each.result["status"] not in ("failed", "diverged")]
    reached = [each for each in whole if each.result["time_to_target_s"] is not None]
    if reached:
        return min(reached, key=lambda each: float(each.result["time_to_target_s"]))
    valued = [each for each in whole if best_value(each.result) is not None]
    if not valued:
        return None
    sign = -1.0 if valued[0].result["target"]["higher_is_better"] else 1.0
    return min(valued, key=lambda each: sign * (best_value(each.result) or 0.0))


def best_line(ended: Sequence[Ended]) -> str:
    """Return the line that names the best trial of a group."""
    first = best(ended)
    if first is None:
        return f"none of {len(ended)} trials has a result to choose by"
    result = first.result
    if result["status"] == "reached":
        how = f"target after {result['time_to_target_s']:.2f} s, {result['steps_to_target']} steps"
    else:
        how = _best_text(result).removeprefix("; best ")
    at = f", at {point_text(first.point)}" if first.point else ""
    return f"best of {len(ended)} (*): study {result['study']} trial {result['trial']}, {how}{at}"


def by_group(ended: Iterable[Ended]) -> dict[tuple[str, str, str], list[Ended]]:
    """Return trials by workload, framework and submission, in the order in which they come."""
    groups: dict[tuple[str, str, str], list[Ended]] = {}
    for each in ended:
        groups.setdefault(each.group, []).append(each)
    return groups


def table(ended: Sequence[Ended], width: int = WIDTH) -> "list[RenderableType]":
    """Return a table of the trials of one group, and a line on what their points share.

    Args:
        ended: The trials.
        width: The columns that there are. Where those of the hyperparameters do not fit, the points
            share one column, which wraps.
    """
    from rich.console import Console

    shown = _table(ended, in_columns=True)
    if Console(width=1000).measure(shown).maximum > width:
        shown = _table(ended, in_columns=False)
    names, differing = _names(ended)
    shared = {name: ended[0].point[name] for name in names if name not in differing}
    return [shown, f"the same in all: {point_text(shared)}"] if shared else [shown]


def table_of_one_each(ended: Sequence[Ended]) -> "Table":
    """Return a table of trials of which no two have workload, framework and submission alike."""
    from rich.table import Table

    shown = Table(**_form())
    for column in ("workload", "framework", "submission", "status"):
        shown.add_column(column, overflow="fold")
    for column in ("s to\ntarget", "steps"):
        shown.add_column(column, justify="right")
    shown.add_column("best")
    for each in ended:
        metric = (each.result.get("target") or {}).get("metric", "")
        *numbers, value = _cells(each)
        shown.add_row(*each.group, *numbers, value if value == "-" else f"{metric} {value}")
    return shown


def _form() -> dict[str, Any]:
    """Return how tables are drawn: no frame, a rule below the heading, a column between two."""
    from rich import box

    return {"box": box.SIMPLE_HEAD, "show_edge": False, "pad_edge": False, "padding": 0}


def _cells(ended: Ended) -> list[str]:
    """Return status, seconds to the target, steps, and the best value of a trial."""
    result, value = ended.result, best_value(ended.result)
    time_s = result["time_to_target_s"]
    return [
        STATUS.get(result["status"], str(result["status"])),
        "-" if time_s is None else f"{time_s:.2f}",
        f"{result['steps']}",
        "-" if value is None else f"{value:.4f}",
    ]


def _names(ended: Sequence[Ended]) -> tuple[list[str], list[str]]:
    """Return the names of the hyperparameters, and of those in which the points differ."""
    names = list(dict.fromkeys(name for each in ended for name in each.point))
    return names, [
        name for name in names if len({repr(each.point.get(name)) for each in ended}) > 1
    ]


def _table(ended: Sequence[Ended], *, in_columns: bool) -> "Table":
    from rich.table import Table

    workload, framework, submission = ended[0].group
    metric = (ended[0].result.get("target") or {}).get("metric") or "metric"
    studies = {each.result["study"] for each in ended}
    where = f", study {min(studies)}" if len(studies) == 1 else ""
    shown = Table(
        title=f"{submission} on {workload} in {framework}{where}",
        title_justify="left",
        **_form(),
    )
    _, differing = _names(ended)
    columns = [*(["study"] if len(studies) > 1 else []), "trial", "status", "s to\ntarget", "steps"]
    for column in (*columns, f"best\n{metric}"):
        shown.add_column(column, justify="left" if column == "status" else "right")
    for name in differing if in_columns else ():
        shown.add_column(name.replace("_", "_\n"), justify="right")
    if differing and not in_columns:
        shown.add_column("point", overflow="fold")
    chosen = best(ended)
    for each in ended:
        result, point = each.result, {name: each.point.get(name) for name in differing}
        cells = [f"{result['study']}"] if len(studies) > 1 else []
        cells += [f"{'*' if each is chosen else ''}{result['trial']}", *_cells(each)]
        if in_columns:
            cells += [_number(value, 3) for value in point.values()]
        elif differing:
            cells.append(point_text(point))
        shown.add_row(*cells)
    return shown


def _short(text: str, most: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
