"""Ask a submission for its default hyperparameters, in a process of its own that runs its file."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from algoperf.errors import UserError, is_finite_number
from algoperf.machine import own_code
from algoperf.submission import loading, submission_source
from algoperf.submission.search_space import Point
from algoperf.trial import choices
from algoperf.trial.plan import TrialPlan

RATE = "learning_rate"


def default_point(plan: TrialPlan) -> Point:
    """Return the hyperparameters that a trial has without a search space.

    Values that are neither numbers nor texts nor None, which no search space can hold, are left
    out in the optimizer form, where DEFAULTS fill them in.

    Args:
        plan: The trial's plan, which names no search space.

    Returns:
        The values by name; empty where the submission is given none.

    Raises:
        UserError: The submission's file cannot be run, or its hyperparameters cannot be written.
    """
    path = Path(plan.submission)
    seed = plan.seed if loading.inspect(path).is_full_form else 0  # where the point may be drawn
    asked = dataclasses.replace(
        plan, seed=seed, study=0, trial=1, experiment="", command="", validation_seed=None
    )
    return dict(_answer(asked.to_json(), submission_source.source_hash(path)))


def at_learning_rate(plan: TrialPlan, rate: float) -> dict[str, Any]:
    """Return a search space whose only point is the default one with another learning rate.

    Every trial of every study is at that point. In the optimizer form the space has the learning
    rate alone, since DEFAULTS fill in the rest.

    Args:
        plan: The plan of a trial without a search space.
        rate: The learning rate.

    Returns:
        The content of the search space's file.

    Raises:
        UserError: As for `learning_rate`.
    """
    learning_rate(plan)
    is_full_form = loading.inspect(Path(plan.submission)).is_full_form
    others = default_point(plan) if is_full_form else {}
    return {name: {"feasible_points": [value]} for name, value in {**others, RATE: rate}.items()}


def learning_rate(plan: TrialPlan) -> float:
    """Return the default learning rate.

    Args:
        plan: The plan of a trial without a search space.

    Raises:
        UserError: As for `default_point`, or there is no hyperparameter of that name.
    """
    point = default_point(plan)
    rate = point.get(RATE)
    if not is_finite_number(rate):
        outline = loading.inspect(Path(plan.submission))
        where = "DEFAULTS or search space" if outline.is_full_form else "DEFAULTS"
        if RATE in point:
            raise UserError(f"submission {outline.name}: its {RATE} is {rate!r}, not a number")
        raise UserError(
            f"submission {outline.name} has no {RATE} in its {where}, so it cannot be run at "
            f"other rates ({outline.path})"
        )
    return float(rate)


@functools.lru_cache
def _answer(plan: str, _source_hash: str) -> Point:
    ended = subprocess.run(
        own_code.program("algoperf.trial.default_point"),
        input=plan,
        capture_output=True,
        text=True,
        check=False,
    )
    answer = ended.stdout.rpartition("\n")[2]
    if not answer:
        last = ended.stderr.strip().rpartition("\n")[2]
        path = TrialPlan.from_json(plan).submission
        raise UserError(
            f"submission {path}: the process that ran its file ended with code {ended.returncode} "
            f"({last})"
        )
    content = json.loads(answer)
    if "error" in content:
        raise UserError(content["error"])
    point: Point = content["point"]
    return point


def main() -> int:
    """Read a plan from standard input, and write its default point to standard output as JSON."""
    plan = TrialPlan.from_json(sys.stdin.readline())
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the submission prints is no answer
    try:
        content: dict[str, Any] = {"point": _point(plan)}
    except UserError as error:
        content = {"error": str(error)}
    with answers:
        answers.write("\n" + json.dumps(content))
    return 0


def _point(plan: TrialPlan) -> Mapping[str, Any]:
    loaded = loading.load(loading.inspect(Path(plan.submission)), plan.framework)
    point = choices.tuning_point(plan, loaded) or {}
    odd = [name for name, value in point.items() if not _is_scalar(value)]
    if odd and loaded.outline.is_full_form:
        raise UserError(
            f"submission {loaded.outline.name}: {odd[0]} is no number or text, so that no search "
            f"space can hold it ({plan.submission})"
        )
    return {name: value for name, value in point.items() if name not in odd}


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, bool | str) or is_finite_number(value)
