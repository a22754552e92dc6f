"""From a plan to a trial that is ready to run, and from its end to the result that is written."""

import contextlib
import dataclasses
import functools
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from algoperf import (
    adapt,
    backends,
    choices,
    run_log,
    seeds,
    spec,
    submission,
    workload,
)
from algoperf.clock import Ledger
from algoperf.data import batches
from algoperf.evaluate import Evaluator
from algoperf.trial import Trial, cause_of
from algoperf.trial_plan import TrialPlan

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
    """Load, check and build everything; raise UserError for a user's mistake. All of it is set-up
    time.
    """
    definition = workload.find(plan.workload)
    scale = definition.scales[plan.scale]
    backend = backends.load(plan.framework, compile_model=plan.compile)
    loaded = submission.load(submission.inspect(Path(plan.submission)), plan.framework)
    point = choices.tuning_point(plan, loaded)
    data = definition.load_data(scale, plan.data)
    bound = backend.workload(definition, scale, plan.source_kind, data)
    batch_size, note = choices.choose_batch_size(plan, loaded, point, scale)
    if note:
        report("note", text=note)
    rows = batches.row_count(data.splits["train"])
    if batch_size > rows:
        raise spec.UserError(
            f"batch size {batch_size} is larger than the training split of {rows} rows"
        )
    limits = choices.limits(plan, scale)
    goal = choices.goal(plan, definition, scale)
    flags = run_log.with_hashes(
        choices.flags(plan, loaded, data.fingerprint, batch_size, goal, scale)
    )
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
    log.begin(flags, choices.meta(plan, flags, data, scale), point)
    log.copy_source(loaded.source_files)

    evaluator = Evaluator(backend, bound, definition, data, scale)

    def measure(split: str, params: Any, model_state: Any) -> dict[str, float]:
        adapt.check_all_read(
            loaded.outline, hyperparameters
        )  # after a step, since schedules read late
        return evaluator(split, params, model_state)

    seed = seeds.trial_seed(plan.seed, plan.study, plan.trial)
    functions = adapt.submission_functions(loaded, backend, bound, hyperparameters)
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


def run(assembled: Assembled) -> None:
    """Run the trial to its end; what no submission's function raised (an evaluation's error) fails
    it as well.
    """
    with _discarding(assembled.log):
        try:
            assembled.trial.run()
        except spec.UserError:
            raise
        except Exception as error:
            assembled.trial.fail(cause_of(error), traceback.format_exc())
