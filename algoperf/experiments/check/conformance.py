"""The checks of a submission on one workload; docs/check.md says what each of them means."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algoperf import errors, spec
from algoperf.backends import shared
from algoperf.experiments.check import agreement, verdicts
from algoperf.experiments.check.case import Case, Checksums, Rehearsal, Saved
from algoperf.experiments.check.rehearsal import SAVED_AT, rehearse
from algoperf.experiments.check.verdicts import Report
from algoperf.trial import adapt

OTHER_NAME = "a_workload_by_another_name"
DRAWN_STEPS = 3
# How far training may move where prepare_for_eval swaps parameters and swaps back: rounding.
OF_THE_WAY, OF_THE_PARAMETERS = 1e-3, 1e-6
Point = Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Points:
    """The points of a submission's trials: without tuning, another one that is drawn, self-tuning.

    `drawn` and `of_self_tuning` are a reason (str) where there is no such trial.
    """

    usual: Point
    drawn: Mapping[str, Any] | str
    of_self_tuning: Point | str


def examine(
    case: Case, points: Points, batch_size_note: str, report: Report, updates: Path | None = None
) -> None:
    """Make all checks of one workload.

    Args:
        case: What is rehearsed.
        points: The hyperparameters of trials.
        batch_size_note: What `get_batch_size` says of a name that it cannot know.
        report: Takes the verdicts.
        updates: A file for the first updates, for `agreement`; None writes none.
    """
    base = rehearse(case, save=True)
    if not _judge_base(case, base, report):
        return
    if updates is not None:
        agreement.write(updates, case, base)
    if not _judge_repeats(case, base, batch_size_note, report):
        report.skipped(verdicts.SAVES, "two runs differ anyhow")
    else:
        _judge_saving(case, base, report)
    _judge_drawn(case, base, points, report)
    _judge_self_tuning(points, report)


def _judge_base(case: Case, base: Rehearsal, report: Report) -> bool:
    """What one run shows; whether it came to its end."""
    if base.problem is not None:
        check, reason = base.problem
        for passed in _passed_before(check):
            report.ok(passed)
        report.failed(check, reason)
        report.skip_rest(f"needs {check}")
        return False
    report.ok(verdicts.INITIALISES)
    report.ok(verdicts.UPDATES, f"{len(base.updates)} steps")
    report.ok(verdicts.PARAMETERS)
    report.judge(verdicts.BATCH, base.batch_problem)
    report.judge(verdicts.FINITE, _not_finite(base), f"loss {base.losses[-1]:.3g}")
    report.judge(verdicts.MOVES, *_unmoved(base))
    report.judge(verdicts.HYPERPARAMETERS, *_unread(case, base))
    return True


def _passed_before(check: str) -> Sequence[str]:
    """The checks that a run passed before one ended it."""
    if check == verdicts.PARAMETERS:
        return (verdicts.INITIALISES, verdicts.UPDATES)
    return (verdicts.INITIALISES,) if check == verdicts.UPDATES else ()


def _not_finite(base: Rehearsal) -> str | None:
    for name, values in base.last.items():
        if not np.isfinite(values).all():
            return f"{name} has values that are not finite after {len(base.updates)} steps"
    if not all(math.isfinite(loss) for loss in base.losses):
        return f"the loss is {next(loss for loss in base.losses if not math.isfinite(loss))}"
    return None


def _unmoved(base: Rehearsal) -> tuple[str | None, str]:
    """The problem that nothing moved, if so, and a note of what did not."""
    names = list(base.last)
    unmoved = [name for name in names if np.array_equal(base.last[name], base.first[name])]
    steps = len(base.updates)
    if len(unmoved) == len(names):
        return f"no parameter moved in {steps} steps; an update changes or returns parameters", ""
    if not unmoved:
        return None, ""
    return None, "; ".join([f"not moved: {shared.some(unmoved, len(names))}", *base.notes])


def _unread(case: Case, rehearsal: Rehearsal) -> tuple[str | None, str]:
    if rehearsal.hyperparameters is None:
        return None, "none given"
    try:
        adapt.check_all_read(case.outline, rehearsal.hyperparameters)
    except errors.UserError as error:
        return str(error), ""
    unread = spec.unread(rehearsal.hyperparameters) if case.outline.is_full_form else []
    return None, f"not read: {', '.join(unread)}" if unread else ""


def _judge_repeats(case: Case, base: Rehearsal, note: str, report: Report) -> bool:
    """Determinism, evaluations, the name; whether two runs are the same.

    One run that changes name and evaluations at once settles all three where it changes nothing.
    """
    together = rehearse(case, name=OTHER_NAME, evaluate=True)
    if _difference(base.updates, together) is None:
        report.ok(verdicts.DETERMINISTIC)
        report.ok(verdicts.EVALUATION, " and ".join(base.evaluates))
        report.ok(verdicts.NAME, note)
        return True
    problem = _difference(base.updates, rehearse(case))
    report.judge(verdicts.DETERMINISTIC, problem and f"two runs with one seed differ: {problem}")
    if problem is not None:
        for check in (verdicts.EVALUATION, verdicts.NAME):
            report.skipped(check, "two runs differ anyhow")
        return False
    if _not_finite(base) is None:
        report.judge(verdicts.EVALUATION, *_evaluated(case, base))
    else:
        report.skipped(verdicts.EVALUATION, "the loss is not finite, which ends a run")
    problem = _difference(base.updates, rehearse(case, name=OTHER_NAME))
    report.judge(verdicts.NAME, problem and f"under another name: {problem}", note)
    return True


def _evaluated(case: Case, base: Rehearsal) -> tuple[str | None, str]:
    """The problem of training with evaluations in between, if any, and a note."""
    rehearsal = rehearse(case, evaluate=True)
    problem = _difference(base.updates, rehearsal)
    if problem is None or rehearsal.problem is not None or "prepare_for_eval" not in base.evaluates:
        return problem and f"evaluations change training: {problem}", ""
    way, apart, size = (
        agreement.distance(base.last, base.first),
        agreement.distance(rehearsal.last, base.last),
        agreement.distance(base.last, {}),
    )
    note = f"training after prepare_for_eval moves by {apart / max(way, 1e-30):.1e} of its way"
    within = apart <= OF_THE_WAY * way + OF_THE_PARAMETERS * size
    return None if within else f"{note}: {problem}", note


def _difference(
    expected: Sequence[Checksums], rehearsal: Rehearsal, first_step: int = 1
) -> str | None:
    """Where a run's updates part from the expected ones: the problem that ended it, or the step."""
    if rehearsal.problem is not None:
        return rehearsal.problem[1]
    for step, (one, other) in enumerate(zip(expected, rehearsal.updates, strict=False), first_step):
        apart = [name for name in one if one[name] != other[name]]
        if apart:
            return f"from step {step} on, in {apart[0]} ({len(apart)} of {len(one)} parameters)"
    if len(expected) != len(rehearsal.updates):
        return f"{len(rehearsal.updates)} updates instead of {len(expected)}"
    return None


def _judge_saving(case: Case, base: Rehearsal, report: Report) -> None:
    if isinstance(base.saved, str):
        report.failed(verdicts.SAVES, base.saved)
    elif base.saved is None:
        report.skipped(verdicts.SAVES, f"training ended before step {SAVED_AT}")
    else:
        rehearsal = rehearse(case, saved=base.saved)
        problem = _difference(base.updates[SAVED_AT:], rehearsal, SAVED_AT + 1)
        report.judge(verdicts.SAVES, problem and _forgets(base.saved, problem), _size(base.saved))


def _forgets(saved: Saved, problem: str) -> str:
    return (
        f"forgets state: restored at step {saved.step} in a fresh copy, training differs "
        f"({problem}); keep nothing outside the optimizer state"
    )


def _size(saved: Saved) -> str:
    count = sum(name.startswith("state/optimizer_state") for name in saved.arrays)
    return f"{count} arrays beside the parameters"


def _judge_drawn(case: Case, base: Rehearsal, points: Points, report: Report) -> None:
    if isinstance(points.drawn, str):
        report.skipped(verdicts.SEARCH_SPACE, points.drawn)
        return
    drawn = dataclasses.replace(case, point=points.drawn)
    rehearsal = rehearse(drawn, steps=DRAWN_STEPS)
    problem = None if rehearsal.problem is None else rehearsal.problem[1]
    if problem is None and _unread(case, base)[0] is None:
        problem = _unread(drawn, rehearsal)[0]
    shown = ", ".join(f"{name} {_short(value)}" for name, value in points.drawn.items())
    report.judge(verdicts.SEARCH_SPACE, problem and f"at {shown}: {problem}", shown)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _judge_self_tuning(points: Points, report: Report) -> None:
    if isinstance(points.of_self_tuning, str):
        report.skipped(verdicts.SELF_TUNING, points.of_self_tuning)
    else:
        report.ok(verdicts.SELF_TUNING, "no point; as checked above")
