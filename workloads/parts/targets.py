"""Targets of AlgoPerf's workloads: the published ones, and those of mini that nadamw reaches."""

from collections.abc import Mapping
from typing import Any

from algoperf.workload import Target, Variant

ALGOPERF = "AlgoPerf's own; nobody trained this scale here"


def published(validation: float, test: float) -> Target:
    """Return AlgoPerf's target of a full scale, by its metric on validation and test rows."""
    return Target(validation=validation, test=test, provenance=ALGOPERF)


def mini(
    validation: float, reached: str, *, ceiling: float, baselines: Mapping[str, float]
) -> Target:
    """Return the target of built-in rows.

    Args:
        validation: The metric on validation rows.
        reached: In how many steps nadamw reaches it, with how many seeds.
        ceiling: What the metric of these rows cannot pass.
        baselines: What trivial methods reach, by name.
    """
    provenance = f"docs/targets.md: nadamw reaches it in {reached}"
    return Target(validation, provenance, ceiling=ceiling, baselines=baselines)


def variant(changes: Mapping[str, Any], full: tuple[float, float], mini: Target) -> Variant:
    """Return a named variant of AlgoPerf's.

    Args:
        changes: The axes' values.
        full: AlgoPerf's validation and test targets.
        mini: The target of built-in rows.
    """
    return Variant(changes, {"full": {"folder": published(*full)}, "mini": {"builtin": mini}})
