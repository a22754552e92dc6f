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
OF_THE_UPDATE, OF_THE_PARAMETERS = 0.1, 1e-6
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
    apart, way = distance(one, other), max(distance(one, first), distance(other, first))
    shares = {
        name: distance({name: one[name]}, other)
        / max(distance({name: one[name]}, first), distance({name: other[name]}, first), 1e-30)
        for name in one
    }
    worst = max(shares, key=lambda name: shares[name])
    note = (
        f"after {EARLY_AT} steps the updates differ by {apart / max(way, 1e-30):.1e} of their size"
        f", most in {worst} ({shares[worst]:.1e})"
    )
    within = apart <= OF_THE_UPDATE * way + OF_THE_PARAMETERS * distance(first, {})
    status = verdicts.OK if within else verdicts.FAILED
    return Verdict(verdicts.BOTH, workload, verdicts.AGREES, status, note)


def _read(path: Path) -> tuple[Values, Values]:
    with np.load(path) as arrays:
        parts: dict[str, dict[str, np.ndarray]] = {"first": {}, "early": {}}
        for key in arrays.files:
            part, _, name = key.partition("/")
            parts[part][name] = arrays[key]
    return parts["first"], parts["early"]
