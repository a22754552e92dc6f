"""From a plan to a trial that is ready to run, and from its end to the result that is written."""

import contextlib
import dataclasses
import functools
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from algoperf import backends, errors, spec, workload
from algoperf.data import batches, provenance, select
from algoperf.data.loading import load_data as load_rows
from algoperf.data.tokenizers import PAD_ID
from algoperf.machine import memory, resources
from algoperf.machine.nvml import EnergyCounter
from algoperf.run_folder import run_log, writing
from algoperf.run_folder.checkpoint import Checkpoints
from algoperf.submission import loading, older
from algoperf.submission.blame import cause_of
from algoperf.trial import adapt, choices, preservation, seeds, trust
from algoperf.trial.clock import Ledger
from algoperf.trial.evaluate import Evaluator
from algoperf.trial.loop import Trial
from algoperf.trial.plan import TrialPlan
from algoperf.workload import catalogue, outside, pretrained

Report = Callable[..., None]
Asked = Callable[[], bool]


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
    buckets: batches.Buckets | None
    checkpoints: Checkpoints
    guard: trust.Guard
    meter: resources.Meter
    parameters: Mapping[str, float]
    trained: Callable[[], pretrained.Trained]  # after the trial's end

    def save_model(self, folder: Path) -> str:
        """Write the trained model into the folder, if the trial has one, and say what was done."""
        if self.trial.status in ("failed", "diverged"):
            return f"{folder}: no model is saved of a trial that {self.trial.status}"
        self.trained().save(folder)
        return f"the trained model is in {folder}"


def assemble(
    plan: TrialPlan, ledger: Ledger, report: Report, asked_to_stop: Asked = lambda: False
) -> Assembled:
    """Load, check and build everything; raise UserError for a user's mistake. All of it is set-up
    time. A trial that was interrupted goes on where it was saved.
    """
    definition = catalogue.find(plan.workload_reference, plan.suite)
    outside.check_unchanged(definition, plan.workload_hash)
    scale = definition.scales[plan.scale].on(plan.source_kind)
    if plan.pretrained is not None:
        scale = pretrained.starting_from(definition, plan.pretrained, scale)
    computation = plan.computation
    backend = backends.load(plan.framework, compile_model=plan.compile, computation=computation)
    meter = _meter(backend)
    with outside.blaming(definition):
        definition.import_measures()
    # All that measures is loaded, and nothing of the submission.
    guard = trust.Guard(packages=[definition.package])
    loaded = loading.load(loading.inspect(Path(plan.submission)), plan.framework)
    point = choices.tuning_point(plan, loaded)
    data = load_data(plan, definition, scale)
    with outside.blaming(definition):
        bound = backend.workload(definition, scale, plan.source_kind, data)
    settings = {**scale.model, **data.model}
    if plan.pretrained is not None:
        bound.pretrained = pretrained.load(definition.pretrained, plan.pretrained, settings)
    if plan.save_model is not None:
        pretrained.check_saved(definition.pretrained[0], bound, settings)
    batch_size, note = choices.choose_batch_size(plan, loaded, point, scale)
    if note:
        report("note", text=note)
    computation.check_batch_size(batch_size)
    rows = batches.row_count(data.splits["train"])
    if batch_size > rows:
        raise errors.UserError(
            f"batch size {batch_size} is larger than the training split of {rows} rows"
        )
    limits = choices.limits(plan, scale)
    goal = choices.goal(plan, definition, scale)
    flags = run_log.with_hashes(
        choices.flags(plan, loaded, data.fingerprint, batch_size, goal, scale)
        | pretrained.flags(bound.pretrained)
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
    log = run_log.TrialLog(folder, definition.measured, workload.SPLITS)
    say = functools.partial(_say, report)
    checkpoints = Checkpoints(folder)
    saved = preservation.find(checkpoints, log) if plan.checkpoints else None
    for name in checkpoints.damaged:
        say(f"checkpoint {name} is damaged and not used")
    aside = run_log.set_aside(folder) if saved is None else None
    if aside is not None:
        say(f"an earlier run of this trial was interrupted; what it left is in {aside}")
    # Before a function of the submission runs: however it ends, the folder says what it was.
    trained_count = memory.count(bound.param_shapes)
    room, warning = memory.check(
        trained_count,
        frozen=bound.frozen_count,
        checkpoints=plan.checkpoints,
        free_device_bytes=backend.free_device_memory_bytes(),
    )
    if warning is not None:
        say(warning)
    meta = {**choices.meta(plan, flags, data, scale), "memory": room}
    begun_before = log.begin(flags, meta, point)
    log.copy_source(loaded.source_files)

    view = older.view(loaded.contract, bound, backend.place, hyperparameters)
    evaluator = Evaluator(backend, bound, definition, data, scale)
    at_the_end = plan.until != "test"  # when the test split is looked at, once

    def measure(split: str, params: Any, model_state: Any) -> dict[str, float]:
        adapt.check_all_read(
            loaded.outline, hyperparameters
        )  # after a step, since schedules read late
        values = evaluator(
            split,
            view.first(params),
            view.first_state(model_state),
            whole=split == "test" and at_the_end,
        )
        if evaluator.written is not None and split != "train":
            log.predictions(evaluator.written.rows())
        return values

    train = data.splits["train"]
    buckets = batches.make_buckets(train, scale.buckets, PAD_ID)
    seed = seeds.trial_seed(plan.seed, plan.study, plan.trial)
    functions = adapt.submission_functions(loaded, backend, bound, hyperparameters)
    keeper = preservation.Preservation(
        checkpoints if plan.checkpoints else None,
        log,
        backend,
        plan.checkpoint_every_s,
        asked_to_stop,
        say,
        meter=meter,
    )
    queue = batches.TrainingQueue(train, batch_size, seed, view.place, buckets=buckets)
    bound.seal()
    with _discarding(log, saved):
        trial = Trial(
            backend=backend,
            workload=view.workload,
            functions=functions,
            queue=queue,
            evaluate=measure,
            goal=goal,
            limits=limits,
            ledger=ledger,
            log=log,
            seed=seed,
            hyperparameters=hyperparameters,
            report=functools.partial(report, "evaluation"),
            keeper=keeper,
            untimed=guard.untimed,
        )
    guard.checksum = lambda trained: backend.checksum(*trained)
    if functions.selects_data:
        guard.more.append(_selection(train, queue, backend, trial).findings)
    if bound.frozen_count:
        guard.more.append(functools.partial(_changed_frozen, bound, view, trial))
    evaluator.warm_up(view.first(trial.state.params), view.first_state(trial.state.model_state))
    if saved is not None and trial.status is None:
        keeper.go_on(trial, saved)
        trial.preemptions = begun_before
        say(f"goes on from step {trial.state.step}, clock {ledger.submission.elapsed_s:.1f} s")

    def trained() -> pretrained.Trained:
        by_framework: Any = bound
        values = by_framework.folded(
            view.first(trial.evaluated), view.first_state(trial.state.model_state)
        )
        return pretrained.Trained(definition.pretrained[0], settings, values, data.tokenizer)

    return Assembled(
        *(plan, trial, backend, log, flags, batch_size, evaluator, buckets, checkpoints, guard),
        meter,
        _counts(trained_count, bound.frozen_count),
        trained,
    )


def _counts(trained: int, frozen: int) -> dict[str, float]:
    """What the result says of the number of parameters."""
    total = trained + frozen
    return {"total": total, "trainable": trained, "trainable_share": trained / total}


def _changed_frozen(bound: spec.Workload, view: older.View, trial: Trial) -> list[str]:
    now = trial.state
    changed = bound.changed_frozen(view.first(now.params), view.first_state(now.model_state))
    return ["frozen parameters were changed"] if changed else []


def _meter(backend: backends.Backend) -> resources.Meter:
    """Of energy only where the framework has a device: nothing else loads NVML."""
    has_device = backend.free_device_memory_bytes() is not None
    energy = EnergyCounter() if has_device else None
    return resources.Meter(backend.peak_device_memory_bytes, energy)


def _selection(
    train: workload.Rows, queue: batches.TrainingQueue, backend: backends.Backend, trial: Trial
) -> provenance.Selection:
    def last() -> tuple[int, Any]:
        return trial.state.step, trial.last_batch

    return provenance.Selection(provenance.Rows(train), queue, backend.fetch, last)


def _say(report: Report, text: str) -> None:
    report("note", text=text)


def load_data(
    plan: TrialPlan, definition: workload.WorkloadDefinition, scale: workload.Scale
) -> workload.Data:
    """The rows of a run, less what the plan's choices leave out; the notes say what that is."""
    if plan.skip_bad_rows:
        scale = select.skip_bad_rows(definition, scale)
    with outside.blaming(definition):
        data = load_rows(definition, scale, plan.data)
    if plan.drop_duplicates:
        data = select.drop_duplicates(data)
    if plan.balance:
        data = select.balance(data, seed=0)  # the same rows whatever the seed of training
    return data


@contextlib.contextmanager
def _discarding(log: run_log.TrialLog, saved: Any) -> Iterator[None]:
    """Leave no trial behind where a user's mistake shows late, nothing but the message; unless it
    was measured in part before.
    """
    try:
        yield
    except errors.UserError:
        if saved is None:
            log.discard()
        raise


def run(assembled: Assembled) -> None:
    """Run the trial to its end; what no submission's function raised (an evaluation's error) fails
    it as well.
    """
    with _discarding(assembled.log, assembled.trial.preemptions or None):
        try:
            assembled.trial.run()
        except (errors.UserError, writing.UnwritableError):
            raise
        except Exception as error:
            assembled.trial.fail(cause_of(error), traceback.format_exc())
