"""Describe results and workloads in short texts for the command line."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from algoperf.study import carbon
from algoperf.trial.clock import PARTS
from algoperf.workload import WorkloadDefinition


def of_trial(result: dict[str, Any]) -> str:
    """Return a few lines that describe the result of a trial.

    Args:
        result: The content of its `result.json`.
    """
    where = (
        f"{result['workload']} {result['framework']} {result['submission']} study "
        f"{result['study']} trial {result['trial']}"
    )
    lines = [f"{where}: {_outcome(result)}"]
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
        lines.append(
            f"  seconds: {' + '.join(parts)} = {ledger['wall_s']:.2f} wall "
            f"({ledger['data_wait_s'] / max(ledger['submission_s'], 1e-9):.1%} of "
            "the submission's waiting for data, "
            f"first step {ledger['first_step_s'] or 0:.2f})"
        )
    if "carbon" in result.get("resources", {}):
        lines.append(f"  {carbon.line(result['resources']['carbon'])}")
    if result["status"] != "diverged":
        lines += [
            f"  not finite: {name}, {seen['times']} times from step {seen['first_step']} to "
            f"{seen['last_step']}"
            for name, seen in result.get("not_finite", {}).items()
        ]
    lines += [f"  flagged: {text} (docs/trust.md)" for text in result.get("flags", [])]
    for row in result.get("examples", []):
        lines += [
            f"  source:     {_short(row['source'])}",
            f"  reference:  {_short(row['reference'])}",
            f"  prediction: {_short(row['prediction'])}",
        ]
    return "\n".join(lines)


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


def _short(text: str, most: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _outcome(result: dict[str, Any]) -> str:
    target = result.get("target") or {}
    aim = (
        "no target"
        if target.get("validation") is None
        else f"target {target['metric']} {target['validation']:g}"
    )
    steps, clock_s = result["steps"], result["ledger"].get("submission_s") or 0.0
    match result["status"]:
        case "reached":
            text = (
                f"reached {aim} after {result['time_to_target_s']:.2f} s, "
                f"{result['steps_to_target']} steps"
            )
            miss = result["last_miss"]
            return text + (
                f" (missed at {miss['time_s']:.2f} s, step {miss['step']})" if miss else ""
            )
        case "failed":
            return f"failed after {steps} steps: {result['error']['cause']}"
        case "budget":
            return f"did not reach {aim} in its budget of {result['budget_s']:g} s, {steps} steps"
        case "diverged":
            what = ", ".join(result.get("not_finite", {})) or "loss"
            return f"diverged ({what} not finite) after {clock_s:.2f} s, {steps} steps"
    scoreable = "" if result["scoreable"] or target.get("validation") is None else "; not scoreable"
    return f"complete after {clock_s:.2f} s, {steps} steps ({aim}{scoreable})"


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
                f"budget {scale['budget_s']:g} s, evaluation every {scale['eval_every_s']:g} s, "
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


def _target_details(target: dict[str, Any]) -> list[str]:
    lines = [f"      baseline: {name} {value:.4f}" for name, value in target["baselines"].items()]
    if target["ceiling"] is not None:
        lines.append(f"      ceiling: {target['ceiling']:.4f}")
    return [*lines, f"      set by: {target['provenance']}"]
