"""Settle what a plan, a submission and a workload decide together.

These are the tuning point, the batch size, the goal, the limits and the recorded configuration.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from algoperf import errors, workload
from algoperf.data import batches
from algoperf.machine import hardware
from algoperf.submission import loading, search_space, submission_source
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.plan import TrialPlan

SELF_TUNING_BUDGET_FACTOR = 1.5
DRAWING_RULESETS = ("external", "population")


def tuning_point(plan: TrialPlan, loaded: loading.Submission) -> Mapping[str, Any] | None:
    """Return the hyperparameters of a trial.

    They are drawn from a search space under the external and the population ruleset, or where the
    run names one and has no ruleset; a member of a population that has copied another has what the
    plan says; in the optimizer form the DEFAULTS fill in what the space does not name.
    Otherwise they are the submission's DEFAULTS, or, for the full form without any, the first point
    of its search space.

    Returns:
        The values by name; None for the full form under self-tuning, or where it has none of these.

    Raises:
        UserError: A point is to be drawn, and the submission has no search space.
    """
    if plan.point is not None:
        return dict(plan.point)
    module = loaded.module
    space = search_space_of(plan, loaded)
    defaults = getattr(module, "DEFAULTS", None)
    if _is_drawn(plan):
        if space is None:
            raise errors.UserError(
                f"submission {loaded.outline.path} has no search space; give "
                "--search-space FILE, a "
                "tuning_search_space.json beside it, or SEARCH_SPACE in it"
            )
        drawn = search_space.point(space, plan.seed, plan.study, plan.trial - 1)
        return drawn if loaded.outline.is_full_form else {**(defaults or {}), **drawn}
    if not loaded.outline.is_full_form:
        return dict(defaults or {})
    if plan.tuning_ruleset == "self":
        return None
    if isinstance(defaults, Mapping):
        return dict(defaults)
    return None if space is None else search_space.point(space, plan.seed, plan.study, 0)


def point_source(plan: TrialPlan, loaded: loading.Submission) -> str:
    """Return where the `tuning_point` of a trial is from, in words."""
    if plan.point is not None:
        return "its point in the population"
    outline, module = loaded.outline, loaded.module
    space = search_space_of(plan, loaded)
    if _is_drawn(plan):
        assert space is not None
        name = Path(space.where).name if plan.search_space is not None else _space_name(outline)
        return f"point {plan.trial} {'listed in' if space.points else 'drawn from'} {name}"
    if not outline.is_full_form or isinstance(getattr(module, "DEFAULTS", None), Mapping):
        if outline.is_full_form and plan.tuning_ruleset == "self":
            return "no point: it tunes itself"
        return "its DEFAULTS" if getattr(module, "DEFAULTS", None) else "no hyperparameters"
    if plan.tuning_ruleset == "self":
        return "no point: it tunes itself"
    if space is None:
        return "no hyperparameters"
    return f"point 1 {'listed in' if space.points else 'drawn from'} {_space_name(outline)}"


def search_space_of(plan: TrialPlan, loaded: loading.Submission) -> search_space.SearchSpace | None:
    """Return the search space that a trial's point is from; None where it takes none."""
    if plan.search_space is not None:
        return search_space.read(plan.search_space)
    if plan.tuning_ruleset in DRAWING_RULESETS or loaded.outline.is_full_form:
        literal = getattr(loaded.module, "SEARCH_SPACE", None)
        return search_space.beside(loaded.outline.path, literal)
    return None


def _space_name(outline: loading.Outline) -> str:
    file = search_space.file_of(outline.path)
    return "its SEARCH_SPACE" if file is None else f"its {file.name}"


def _is_drawn(plan: TrialPlan) -> bool:
    """Whether a trial's point is one of a search space, drawn or listed."""
    return plan.tuning_ruleset in DRAWING_RULESETS or (
        plan.search_space is not None and plan.tuning_ruleset == "none"
    )


def choose_batch_size(
    plan: TrialPlan,
    loaded: loading.Submission,
    point: Mapping[str, Any] | None,
    scale: workload.Scale,
) -> tuple[int, str]:
    """Return the batch size of a trial, and a note about how it was chosen.

    The first that is given counts: the command line's; the tuning point's (in the optimizer form);
    the submission's `get_batch_size`, for the workload or for the workload that it is a variant of;
    and the workload's own.

    Returns:
        The number of rows in a batch, and a note for the user, which is empty where there is
        nothing to say.
    """
    if plan.batch_size is not None:
        return plan.batch_size, ""
    if point is not None and "batch_size" in point and not loaded.outline.is_full_form:
        return int(point["batch_size"]), ""
    own = loaded.functions.get("get_batch_size")
    if own is None:
        return scale.batch_size, ""
    reason = ""
    for name in filter(None, (plan.workload, plan.base_workload)):
        try:
            size, scaled = _scaled(int(own(workload_name=name)), scale)
        except Exception as error:  # Published tables raise all kinds of errors for unknown names.
            reason = reason or f"get_batch_size does not know {name} ({type(error).__name__})"
        else:
            notes = [scaled, f"{reason}; its {size} for {name} is taken" if reason else ""]
            return size, "; ".join(filter(None, notes))
    return scale.batch_size, f"{reason}; the workload's own batch size {scale.batch_size} is taken"


def _scaled(size: int, scale: workload.Scale) -> tuple[int, str]:
    """Return the batch size for a scale of what a submission asks for, and a note about it.

    Tables of batch sizes are of the published workloads, which are far larger than mini.
    """
    published = scale.published_batch_size
    if published is None:
        return size, ""
    smaller = max(1, round(size * scale.batch_size / published))
    return smaller, (
        f"get_batch_size asks for {size} of the published workload, whose batch is {published}; "
        f"here that is {smaller} of {scale.batch_size}"
    )


def judged(plan: TrialPlan, definition: workload.WorkloadDefinition) -> workload.WorkloadDefinition:
    """Return the workload with the metrics that the plan asks for."""
    has_all = plan.rouge_tokenizer is None or definition.target_metric.endswith(
        f"_{plan.rouge_tokenizer}"
    )
    return definition if has_all else definition.counting(str(plan.rouge_tokenizer))


def goal(plan: TrialPlan, definition: workload.WorkloadDefinition, scale: workload.Scale) -> Goal:
    """Return the target that the trial has to reach; none by metrics other than the workload's."""
    definition = judged(plan, definition)
    target = scale.targets.get(plan.source_kind) if plan.rouge_tokenizer is None else None
    return Goal(
        definition.target_metric,
        definition.higher_is_better,
        target.validation if target else None,
        target.test if target else None,
        plan.until,
    )


def _budget_s(plan: TrialPlan, scale: workload.Scale) -> float:
    factor = SELF_TUNING_BUDGET_FACTOR if plan.tuning_ruleset == "self" else 1.0
    return scale.budget_s * factor


def limits(plan: TrialPlan, scale: workload.Scale, *, begun_by_period: bool = False) -> Limits:
    """Return when the trial evaluates and when it ends.

    A limit in steps replaces the budget, so that it means the same on any machine. Without a target
    the trial ends at the workload's step hint.

    Args:
        plan: The trial's plan.
        scale: The scale of the workload.
        begun_by_period: Whether the run folder has trials that evaluated once a period: then this
            one does, too, so that they stay alike.
    """
    # A limit in steps replaces the one in time, so that it means the same on any machine.
    budget_s = _budget_s(plan, scale) if plan.max_steps is None else math.inf
    max_steps = plan.max_steps
    if max_steps is None and plan.source_kind not in scale.targets:
        max_steps = scale.step_hint  # Without a target, the trial ends here.
    by_cost = plan.eval_every_steps is None and plan.source_kind in scale.targets
    eval_share = scale.eval_share if by_cost and not begun_by_period else None
    return Limits(
        budget_s,
        scale.eval_every_s,
        plan.eval_every_steps,
        max_steps,
        plan.keep_going,
        eval_share,
        None if plan.population is None else plan.population["every_steps"],
        plan.pause_at_step,
        math.inf if plan.outrun_s is None else plan.outrun_s,
        math.inf if plan.late_s is None else plan.late_s,
    )


def flags(
    plan: TrialPlan,
    outline: loading.Outline,
    fingerprint: str,
    batch_size: int,
    goal: Goal,
    scale: workload.Scale,
    limits: Limits,
    *,
    threads: int | None = None,
) -> dict[str, Any]:
    """Return the whole configuration of a trial, as `flags_<n>.json` holds it.

    Args:
        plan: The trial's plan.
        outline: The submission's outline.
        fingerprint: The fingerprint of the data.
        batch_size: The number of rows in a batch.
        goal: The target.
        scale: The scale of the workload.
        limits: When the trial evaluates.
        threads: With how many threads the framework computes; recorded where they are not as many
            as the cores that the trial may use. None where that is not known.
    """
    space = None if plan.search_space is None else search_space.read(plan.search_space).digest
    return {
        **plan.settings(),
        "submission": outline.name,
        "submission_path": plan.submission,
        "submission_hash": submission_source.source_hash(outline.path),
        "data_fingerprint": fingerprint,
        "search_space": space,
        "batch_size": batch_size,
        "study": plan.study,
        "trial": plan.trial,
        "target": goal.flags(),
        "budget_s": _budget_s(plan, scale),
        "step_hint": scale.step_hint,
        **({} if limits.eval_share is None else {"eval_share": limits.eval_share}),
        **machine_settings(plan),
        **({"class_times": dict(plan.class_times)} if plan.class_times else {}),
        **({} if threads in (None, hardware.thread_count()) else {"framework_threads": threads}),
    }


def machine_settings(plan: TrialPlan) -> dict[str, Any]:
    """Return the part of a trial's flags that says what it runs on."""
    variables = {"environment": dict(plan.environment)} if plan.environment else {}
    return {"versions": hardware.versions(), "hardware": hardware.describe(), **variables}


def meta(
    plan: TrialPlan, flags: Mapping[str, Any], data: workload.Data, scale: workload.Scale
) -> dict[str, Any]:
    """Return the facts that `meta_data_<n>.json` holds.

    They are there under our names, and under AlgoPerf's for its readers.
    """
    rows = {split: batches.row_count(data.splits[split]) for split in workload.SPLITS}
    machine, target = flags["hardware"], flags["target"]
    accelerators = machine["accelerators"]
    return {
        "versions": flags["versions"],
        "hardware": machine,
        "data": {**data.notes, "rows": rows},
        "command": plan.command,
        "planned": [dict(each) for each in plan.planned],
        "workload.target_metric_name": target["metric"],
        "workload.validation_target_value": target["validation"],
        "workload.test_target_value": target["test"],
        "workload.max_allowed_runtime_sec": scale.budget_s,
        "workload.eval_period_time_sec": scale.eval_every_s,
        "workload.step_hint": scale.step_hint,
        **{f"workload.num_{split}_examples": count for split, count in rows.items()},
        "cpu_model_name": machine["cpu"],
        "cpu_count": machine["threads"],
        "gpu_model_name": accelerators[0] if accelerators else None,
        "gpu_count": len(accelerators),
        "os_platform": machine["system"],
        "python_version": flags["versions"]["python"],
        "rng_seed": plan.seed,
    }
