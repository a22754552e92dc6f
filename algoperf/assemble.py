"""From a plan to a trial that is ready to run, and from its end to the result that is written."""

import contextlib
import dataclasses
import functools
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from algoperf import backends, hardware, run_log, search_space, seeds, spec, submission, workload
from algoperf.backends.shared import OptimizerFunctions, StepSettings
from algoperf.clock import Ledger
from algoperf.data import batches
from algoperf.evaluate import Evaluator
from algoperf.trial import Functions, Goal, Limits, Trial, cause_of
from algoperf.trial_plan import TrialPlan

RECORD_EVERY_STEPS = 10
SELF_TUNING_BUDGET_FACTOR = 1.5
Report = Callable[..., None]


@dataclasses.dataclass(frozen=True)
class Assembled:
    """A trial and what its result needs beside it."""

    plan: TrialPlan
    trial: Trial
    backend: backends.Backend
    log: run_log.TrialLog
    flags: dict[str, Any]
    batch_size: int
    evaluator: Evaluator


def assemble(plan: TrialPlan, ledger: Ledger, report: Report) -> Assembled:
    """Load, check and build everything; raise UserError for a user's mistake. All of it is set-up time."""
    definition = workload.find(plan.workload)
    scale = definition.scales[plan.scale]
    backend = backends.load(plan.framework, compile_model=plan.compile)
    loaded = submission.load(submission.inspect(Path(plan.submission)), plan.framework)
    point = tuning_point(plan, loaded)
    data = definition.load_data(scale, plan.data)
    bound = backend.workload(definition, scale, plan.source_kind, data)
    batch_size, note = choose_batch_size(plan, loaded, point, scale)
    if note:
        report("note", text=note)
    rows = batches.row_count(data.splits["train"])
    if batch_size > rows:
        raise spec.UserError(
            f"batch size {batch_size} is larger than the training split of {rows} rows"
        )
    limits = _limits(plan, scale)
    goal = _goal(plan, definition, scale)
    flags = run_log.with_hashes(_flags(plan, loaded, data.fingerprint, batch_size, goal, scale))
    folder = run_log.trial_folder(
        plan.out_folder,
        plan.experiment,
        loaded.outline.name,
        plan.study,
        plan.workload,
        plan.framework,
        plan.trial,
    )
    drawn = {"batch_size"} if plan.batch_size is None and "batch_size" in (point or {}) else set()
    run_log.check_same_configuration(folder, {key: flags[key] for key in flags.keys() - drawn})
    hyperparameters = None if point is None else spec.make_hyperparameters(point)
    log = run_log.TrialLog(folder, ("loss", *definition.metrics), workload.SPLITS)
    aside = run_log.set_aside(folder)
    if aside is not None:
        text = f"an earlier run of this trial was interrupted; what it left is in {aside}"
        report("note", text=text)
    # Before a function of the submission runs: however it ends, the folder says what it was.
    log.begin(flags, _meta(plan, flags, data), point)
    log.copy_source(loaded.source_files)

    evaluator = Evaluator(backend, bound, definition, data, scale)

    def measure(split: str, params: Any, model_state: Any) -> dict[str, float]:
        check_all_read(loaded.outline, hyperparameters)  # after a step, since schedules read late
        return evaluator(split, params, model_state)

    seed = seeds.trial_seed(plan.seed, plan.study, plan.trial)
    functions = submission_functions(loaded, backend, bound, hyperparameters)
    with _discarding(log):
        trial = Trial(
            backend=backend,
            workload=bound,
            functions=functions,
            queue=batches.TrainingQueue(data.splits["train"], batch_size, seed, backend.place),
            evaluate=measure,
            goal=goal,
            limits=limits,
            ledger=ledger,
            log=log,
            seed=seed,
            hyperparameters=hyperparameters,
            report=functools.partial(report, "evaluation"),
        )
    evaluator.warm_up(trial.state.params, trial.state.model_state)
    return Assembled(plan, trial, backend, log, flags, batch_size, evaluator)


@contextlib.contextmanager
def _discarding(log: run_log.TrialLog) -> Iterator[None]:
    """Leave no trial behind where a user's mistake shows late: nothing but the message."""
    try:
        yield
    except spec.UserError:
        log.discard()
        raise


def check_all_read(outline: submission.Outline, hyperparameters: Any) -> None:
    """Raise UserError for a hyperparameter that neither the library nor the submission reads."""
    if hyperparameters is None or outline.is_full_form:
        return
    for name in spec.unread(hyperparameters):
        raise spec.UserError(
            f"submission {outline.path}: nobody reads hyperparameter {name!r}; "
            f"the library itself reads: {', '.join(submission.LIBRARY_NAMES)}"
        )


def _meta(plan: TrialPlan, flags: Mapping[str, Any], data: workload.Data) -> dict[str, Any]:
    rows = {split: batches.row_count(data.splits[split]) for split in workload.SPLITS}
    return {
        "versions": flags["versions"],
        "hardware": flags["hardware"],
        "data": {**data.notes, "rows": rows},
        "command": plan.command,
    }


def tuning_point(plan: TrialPlan, loaded: submission.Submission) -> Mapping[str, Any] | None:
    """The trial's hyperparameters: drawn, or the defaults, or none at all."""
    module = loaded.module
    space = None
    if plan.search_space is not None:
        space = search_space.read(plan.search_space)
    elif plan.tuning_ruleset == "external" or loaded.outline.is_full_form:
        space = search_space.beside(loaded.outline.path, getattr(module, "SEARCH_SPACE", None))
    defaults = getattr(module, "DEFAULTS", None)
    if plan.tuning_ruleset == "external" or (
        plan.search_space is not None and plan.tuning_ruleset == "none"
    ):
        if space is None:
            raise spec.UserError(
                f"submission {loaded.outline.path} has no search space; give --search-space FILE, a "
                "tuning_search_space.json beside it, or SEARCH_SPACE in it"
            )
        drawn = search_space.point(space, plan.seed, plan.study, plan.trial - 1)
        return drawn if loaded.outline.is_full_form else {**(defaults or {}), **drawn}
    if not loaded.outline.is_full_form:
        return dict(defaults or {})
    if space is None or plan.tuning_ruleset == "self":
        return (
            dict(defaults)
            if isinstance(defaults, Mapping) and plan.tuning_ruleset != "self"
            else None
        )
    return search_space.point(space, plan.seed, plan.study, 0)


def choose_batch_size(
    plan: TrialPlan,
    loaded: submission.Submission,
    point: Mapping[str, Any] | None,
    scale: workload.Scale,
) -> tuple[int, str]:
    """Return (batch size, note): the command line's, the point's, the submission's, or the workload's own."""
    if plan.batch_size is not None:
        return plan.batch_size, ""
    if point is not None and "batch_size" in point and not loaded.outline.is_full_form:
        return int(point["batch_size"]), ""
    own = loaded.functions.get("get_batch_size")
    if own is None:
        return scale.batch_size, ""
    try:
        return int(own(workload_name=plan.workload)), ""
    except (
        Exception
    ) as error:  # published tables raise whatever they like for a name that they do not know
        reason = f"get_batch_size does not know {plan.workload} ({type(error).__name__})"
        return (
            scale.batch_size,
            f"{reason}; the workload's own batch size {scale.batch_size} is taken",
        )


def submission_functions(
    loaded: submission.Submission,
    backend: backends.Backend,
    bound: spec.Workload,
    hyperparameters: Any,
) -> Functions:
    """The submission in the full form, whichever form it has."""
    given = loaded.functions
    if loaded.outline.is_full_form:
        update = given["update_params"]
        return Functions(
            given["init_optimizer_state"],
            update,
            given.get("data_selection", _next_batch),
            given.get("prepare_for_eval"),
            wants_train_state="train_state" in update.takes,
        )
    info = spec.TrainingInfo(bound.step_hint, bound.loss_type, bound.max_allowed_runtime_sec)
    make = given[submission.OPTIMIZER_FUNCTIONS[backend.name]]
    rate = given.get("learning_rate")
    own_eval_params = given.get("eval_params")
    settings = {
        name: getattr(hyperparameters, name)
        for name in ("grad_clip", "label_smoothing", "dropout_rate")
        if hasattr(hyperparameters, name)
    }
    _ = getattr(hyperparameters, "batch_size", None)  # read by `choose_batch_size`

    def learning_rate(step: int) -> float | None:
        return None if rate is None else rate(step=step, hyperparameters=hyperparameters, info=info)

    def eval_params(params: Any, optimizer_state: Any) -> Any:
        assert own_eval_params is not None
        return own_eval_params(
            params=params,
            optimizer_state=optimizer_state,
            hyperparameters=hyperparameters,
            info=info,
        )

    form = backend.optimizer_form(
        OptimizerFunctions(
            lambda params, hyperparameters: make(
                params=params, hyperparameters=hyperparameters, info=info
            ),
            eval_params,
            learning_rate,
            RECORD_EVERY_STEPS,
        ),
        StepSettings(**settings),
    )
    return Functions(
        submission.function_of(form.init_optimizer_state),
        submission.function_of(form.update_params),
        _next_batch,
        eval_params=None if own_eval_params is None else form.eval_params,
    )


def _next_batch(input_queue: Any, **_: Any) -> Any:
    return next(input_queue)


def _goal(plan: TrialPlan, definition: workload.WorkloadDefinition, scale: workload.Scale) -> Goal:
    target = scale.targets.get(plan.source_kind)
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


def _limits(plan: TrialPlan, scale: workload.Scale) -> Limits:
    # A limit in steps takes the place of the one in time, so that it means the same on any machine.
    budget_s = _budget_s(plan, scale) if plan.max_steps is None else math.inf
    max_steps = plan.max_steps
    if plan.source_kind not in scale.targets:  # nothing to reach: the step hint is the end
        max_steps = min(filter(None, (plan.max_steps, scale.step_hint)))
    return Limits(budget_s, scale.eval_every_s, plan.eval_every_steps, max_steps)


def _flags(
    plan: TrialPlan,
    loaded: submission.Submission,
    fingerprint: str,
    batch_size: int,
    goal: Goal,
    scale: workload.Scale,
) -> dict[str, Any]:
    space = None if plan.search_space is None else search_space.read(plan.search_space).digest
    return {
        **plan.settings(),
        "submission": loaded.outline.name,
        "submission_path": plan.submission,
        "submission_hash": submission.source_hash(loaded.outline.path),
        "data_fingerprint": fingerprint,
        "search_space": space,
        "batch_size": batch_size,
        "study": plan.study,
        "trial": plan.trial,
        "target": {
            "metric": goal.metric,
            "higher_is_better": goal.higher_is_better,
            "validation": goal.validation,
            "test": goal.test if goal.until == "test" else None,
        },
        "budget_s": _budget_s(plan, scale),
        "step_hint": scale.step_hint,
        "versions": hardware.versions(),
        "hardware": hardware.describe(),
    }


def run(assembled: Assembled) -> None:
    """Run the trial to its end; what no submission's function raised (an evaluation's error) fails it as well."""
    with _discarding(assembled.log):
        try:
            assembled.trial.run()
        except spec.UserError:
            raise
        except Exception as error:
            assembled.trial.fail(cause_of(error), traceback.format_exc())


def result(assembled: Assembled) -> dict[str, Any]:
    """What `result.json` holds of a trial that has ended."""
    trial, flags = assembled.trial, assembled.flags
    evaluations = trial.evaluations
    reached = trial.status == "reached"
    misses = evaluations[:-1] if reached else evaluations
    totals = trial.ledger.totals()
    trained_s = trial.ledger.submission.elapsed_s - (trial.ledger.first_step_s or 0.0)
    steps = trial.state.step
    return {
        **{
            key: flags[key]
            for key in ("workload", "framework", "submission", "study", "trial", "target")
        },
        **{key: flags[key] for key in ("budget_s", "step_hint", "batch_size", "config_hash")},
        "seed": seeds.trial_seed(assembled.plan.seed, assembled.plan.study, assembled.plan.trial),
        "status": trial.status,
        "scoreable": assembled.plan.max_steps is None and flags["target"]["validation"] is not None,
        "steps": steps,
        "time_to_target_s": evaluations[-1][1] if reached else None,
        "steps_to_target": evaluations[-1][0] if reached else None,
        "last_miss": {"step": misses[-1][0], "time_s": misses[-1][1]} if misses else None,
        "best": _best(trial),
        "final": evaluations[-1][2] if evaluations else {},
        "ledger": totals,
        "samples_per_s": (steps - 1) * assembled.batch_size / trained_s
        if trained_s > 0 and steps > 1
        else None,
        "inference_s_per_example": assembled.evaluator.inference_s_per_example,
        "peak_process_bytes": hardware.peak_process_memory_bytes(),
        "peak_device_bytes": assembled.backend.peak_device_memory_bytes(),
        "error": trial.error,
    }


def _best(trial: Trial) -> dict[str, float]:
    column = f"validation/{trial.goal.metric}"
    best: dict[str, float] = {}
    for step, elapsed_s, metrics in trial.evaluations:
        if trial.goal.is_better(metrics[column], best.get(column)):
            best = {column: metrics[column], "step": step, "time_s": elapsed_s}
    return best
