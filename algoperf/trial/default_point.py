"""Ask a submission for its default hyperparameters, in a process of its own that runs its file."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from algoperf.errors import UserError, is_finite_number
from algoperf.machine import own_code
from algoperf.submission import loading, submission_source
from algoperf.submission.loading import Outline
from algoperf.submission.search_space import Point
from algoperf.trial import choices

RATE = "learning_rate"


def default_point(outline: Outline, framework: str, seed: int) -> Point:
    """Return the hyperparameters of a run that names neither a ruleset nor a search space.

    Values that are neither numbers nor texts nor None, which no search space can hold, are left
    out in the optimizer form, where DEFAULTS fill them in.

    Args:
        outline: The submission's outline.
        framework: The framework of the run.
        seed: The seed of the run, on which a drawn point depends.

    Returns:
        The values by name; empty where the submission is given none.

    Raises:
        UserError: The submission's file cannot be run, or its hyperparameters cannot be written.
    """
    text = str(outline.path)
    return dict(_asked(text, framework, seed, submission_source.source_hash(outline.path)))


def learning_rate(outline: Outline, framework: str, seed: int) -> float:
    """Return the default learning rate.

    Raises:
        UserError: As for `default_point`, or there is no hyperparameter of that name.
    """
    rate = default_point(outline, framework, seed).get(RATE)
    if not is_finite_number(rate):
        where = "DEFAULTS or search space" if outline.is_full_form else "DEFAULTS"
        raise UserError(
            f"submission {outline.name} has no {RATE} in its {where}, so it cannot be run at "
            f"other rates ({outline.path})"
        )
    return float(rate)


def space_at(outline: Outline, framework: str, seed: int, rate: float) -> dict[str, Any]:
    """Return a search space whose only point is the default one with another learning rate.

    Every trial of every study is at that point. In the optimizer form the space has the learning
    rate alone, since DEFAULTS fill in the rest.

    Args:
        outline: The submission's outline.
        framework: The framework of the run.
        seed: The seed of the run.
        rate: The learning rate.

    Returns:
        The content of the search space's file.

    Raises:
        UserError: As for `learning_rate`.
    """
    learning_rate(outline, framework, seed)
    others = default_point(outline, framework, seed) if outline.is_full_form else {}
    return {name: {"feasible_points": [value]} for name, value in {**others, RATE: rate}.items()}


@functools.lru_cache
def _asked(path: str, framework: str, seed: int, _source_hash: str) -> Point:
    ended = subprocess.run(
        own_code.program("algoperf.trial.default_point", repr((path, framework, seed))),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    answer = ended.stdout.rpartition("\n")[2]
    if not answer:
        last = ended.stderr.strip().rpartition("\n")[2]
        raise UserError(
            f"submission {path}: the process that ran its file ended with code {ended.returncode} "
            f"({last})"
        )
    content = json.loads(answer)
    if "error" in content:
        raise UserError(content["error"])
    point: Point = content["point"]
    return point


def main(asked: tuple[str, str, int]) -> int:
    """Write the default point of a submission to standard output, as JSON.

    Args:
        asked: The submission's path, the framework, and the seed of the run.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the submission prints is no answer
    try:
        content: dict[str, Any] = {"point": _point(*asked)}
    except UserError as error:
        content = {"error": str(error)}
    with answers:
        answers.write("\n" + json.dumps(content))
    return 0


def _point(path: str, framework: str, seed: int) -> dict[str, Any]:
    outline = loading.inspect(Path(path))
    if outline.self_tunes:
        return {}
    point = choices.default_point(loading.load(outline, framework), seed, 0) or {}
    odd = [name for name, value in point.items() if not _is_scalar(value)]
    if odd and outline.is_full_form:
        raise UserError(
            f"submission {outline.name}: {odd[0]} is no number or text, so that no search space "
            f"can hold it ({path})"
        )
    return {name: value for name, value in point.items() if name not in odd}


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, bool | str) or is_finite_number(value)
