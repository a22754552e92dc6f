"""Do the two frameworks' sides of a submission make the same updates?

Both start from the same parameters and see the same rows. Without dropout, which each framework
draws in its own way, their parameters differ after a few steps by rounding alone.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algoperf.experiments.check import verdicts
from algoperf.experiments.check.case import Case, Rehearsal
from algoperf.experiments.check.rehearsal import EARLY_AT, rehearse
from algoperf.experiments.check.verdicts import Verdict

# How far the updates may differ, of their own size, and for rounding of the parameters' size.
# SOAP's differ by 0.78: a matrix' null space has no basis of its own.
OF_THE_UPDATE, OF_THE_PARAMETERS = 0.9, 1e-6
OF_ROUNDING = 0.05  # signs of gradients near 0 come to 0.03
# What moves that far in one framework, of all parameters' way, moves in the other one, too.
OF_THE_WAY = 1e-3
Values = Mapping[str, np.ndarray]


def distance(one: Values, other: Values) -> float:
    """The Euclidean distance of two sets of parameters; one that is not there counts as 0."""
    squares = (np.square(np.float64(one[name]) - other.get(name, 0.0)).sum() for name in one)
    return math.sqrt(sum(squares))


def file(folder: Path, framework: str, workload: str) -> Path:
    """The file of a framework's updates on a workload."""
    return folder / f"updates-{framework}-{workload}.npz"


def write(path: Path, case: Case, base: Rehearsal) -> None:
    """Write the parameters before and after the first updates, without dropout.

    Args:
        path: The file.
        case: What was rehearsed.
        base: A rehearsal of it, which serves where there is no dropout anyway.
    """
    point = case.point or {}
    if case.scale.dropout_rate or point.get("dropout_rate"):
        without = dict.fromkeys(point.keys() & {"dropout_rate"}, 0.0)
        case = dataclasses.replace(
            case,
            scale=dataclasses.replace(case.scale, dropout_rate=0.0),
            point=None if case.point is None else {**point, **without},
        )
        base = rehearse(case, steps=EARLY_AT)
    if base.problem is not None or not base.early:
        return
    arrays: dict[str, Any] = {}
    for part, values in (("first", base.first), ("early", base.early)):
        arrays |= {f"{part}/{name}": value for name, value in values.items()}
    np.savez(path, **arrays)


def verdict(folder: Path, workload: str, frameworks: Sequence[str]) -> Verdict:
    """Compare what `write` left of both frameworks."""
    files = [file(folder, framework, workload) for framework in frameworks]
    missing = [name for name, path in zip(frameworks, files, strict=True) if not path.exists()]
    if missing:
        reason = f"needs {EARLY_AT} updates in {' and '.join(missing)}"
        return Verdict(verdicts.BOTH, workload, verdicts.AGREES, verdicts.SKIPPED, reason)
    (first, one), (_, other) = map(_read, files)
    problem, note = compare(first, {frameworks[0]: one, frameworks[1]: other})
    status = verdicts.OK if problem is None else verdicts.FAILED
    reason = note if problem is None else f"{problem}; {note}"
    return Verdict(verdicts.BOTH, workload, verdicts.AGREES, status, reason)


def compare(first: Values, early: Mapping[str, Values]) -> tuple[str | None, str]:
    """Return a problem, if there is one, and how far the updates differ.

    Args:
        first: The parameters before the first update.
        early: The parameters after the last one, by framework.
    """
    one, other = early.values()
    share = {name: _share(first, one, other, [name]) for name in first}
    worst = max(share, key=lambda name: share[name])
    apart, way = distance(one, other), max(distance(one, first), distance(other, first))
    whole = _share(first, one, other, list(first))
    more = ", which is more than rounding" if whole > OF_ROUNDING else ""
    note = (
        f"after {EARLY_AT} steps the updates differ by {whole:.1e} of their size{more}, most in "
        f"{worst} ({share[worst]:.1e})"
    )
    rounding = OF_THE_PARAMETERS * distance(first, {})
    for name in first:
        ways = [distance({name: values[name]}, first) for values in early.values()]
        if min(ways) == 0 and max(ways) > OF_THE_WAY * way + rounding:
            return f"{name} moves in {list(early)[ways.index(max(ways))]} alone", note
    within = apart <= OF_THE_UPDATE * way + rounding
    return (None if within else "the frameworks do different things"), note


def _share(first: Values, one: Values, other: Values, names: Sequence[str]) -> float:
    """The distance of two sets of parameters over the longer way that one came."""
    one, other = ({name: values[name] for name in names} for values in (one, other))
    way = max(distance(one, first), distance(other, first))
    return distance(one, other) / max(way, 1e-30)


def _read(path: Path) -> tuple[Values, Values]:
    with np.load(path) as arrays:
        parts: dict[str, dict[str, np.ndarray]] = {"first": {}, "early": {}}
        for key in arrays.files:
            part, _, name = key.partition("/")
            parts[part][name] = arrays[key]
    return parts["first"], parts["early"]
