"""Describe workloads in short texts for the command line, and results as plain JSON values."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from algoperf.workload import WorkloadDefinition


def finite(value: Any) -> Any:
    """Return the value with None in place of NaN and infinities, which JSON does not have.

    Args:
        value: Plain values, nested in dicts and lists.
    """
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def of_workload(definition: WorkloadDefinition) -> dict[str, Any]:
    """Return the facts of a workload as plain values."""
    return {
        "name": definition.name,
        "summary": definition.summary,
        "loss_type": definition.loss_type.name,
        "target_metric": definition.target_metric,
        "sources": list(definition.sources),
        "base": definition.base,
        "changes": dict(definition.changes),
        "variants": {name: dict(each.changes) for name, each in definition.variants.items()},
        "scales": {name: dataclasses.asdict(scale) for name, scale in definition.scales.items()},
    }


def workload_lines(described: Iterable[dict[str, Any]], *, details: bool) -> list[str]:
    """Return lines that describe workloads, with one line for each scale.

    Args:
        described: What `of_workload` returned for each workload.
        details: Whether to add the baselines of the targets and how the targets were set.
    """
    lines = []
    for facts in described:
        lines.append(f"{facts['name']}: {facts['summary']}")
        for name, scale in facts["scales"].items():
            default = scale["default_source"]
            others = ", ".join(each for each in facts["sources"] if each != default) or "no other"
            lines.append(
                f"  {name}: batch {scale['batch_size']}, step hint {scale['step_hint']}, "
                f"budget {scale['budget_s']:g} s, {_evaluation(scale)}, "
                f"data: {default} (or {others})"
            )
            for source, target in scale["targets"].items():
                lines.append(
                    f"    target on {source}: {facts['target_metric']} {target['validation']:g}"
                )
                if details:
                    lines += _target_details(target)
        for name, changes in facts["variants"].items():
            listing = ", ".join(f"{axis} {value}" for axis, value in changes.items())
            lines.append(f"  variant {facts['name']}_{name}: {listing}")
    return lines


def _evaluation(scale: dict[str, Any]) -> str:
    """Return when a scale evaluates, in words."""
    if scale["eval_share"] is None:
        return f"evaluation every {scale['eval_every_s']:g} s"
    return f"evaluation at most {scale['eval_share']:.0%} of the time"


def _target_details(target: dict[str, Any]) -> list[str]:
    lines = [f"      baseline: {name} {value:.4f}" for name, value in target["baselines"].items()]
    if target["ceiling"] is not None:
        lines.append(f"      ceiling: {target['ceiling']:.4f}")
    return [*lines, f"      set by: {target['provenance']}"]
