"""From a plan to a trial that is ready to run, in steps that a trial of one process and one of two
(`trainer`, `refereed`) share.
"""

import contextlib
import dataclasses
import functools
import importlib
import os
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf import backends, errors, spec, workload
from algoperf.backends.ranks import ALONE, Ranks
from algoperf.data import batches, provenance, select
from algoperf.data.loading import load_data as load_rows
from algoperf.data.tokenizers import PAD_ID
from algoperf.machine import environment, load, memory, resources
from algoperf.machine.nvml import EnergyCounter
from algoperf.run_folder import device_history, run_log, writing
from algoperf.run_folder.checkpoint import Checkpoints
from algoperf.submission import loading, older
from algoperf.submission.blame import cause_of
from algoperf.trial import adapt, choices, preservation, seeds, transplant, trust
from algoperf.trial.clock import Ledger
from algoperf.trial.evaluate import Evaluator
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.loop import Functions, Trial
from algoperf.trial.plan import TrialPlan
from algoperf.trial.referee import Referee
from algoperf.workload import catalogue, metric, outside, pretrained

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
    clock_load: load.Load
    gauges: load.Gauges  # what the load is read from, while the trial runs
    parameters: Mapping[str, float]
    trained: Callable[[], pretrained.Trained]  # after the trial's end
    submitted: "Submitted"
    referee: Referee

    def processes(self) -> Sequence[Mapping[str, Any]]:
        """Return nothing: this process trained alone."""
        return ()

    def real_token_share(self) -> float | None:
        """Return the share of training tokens that were no padding; None without buckets."""
        return None if self.buckets is None else self.buckets.real_share

    def checksum(self) -> int:
        """Return the checksum of the last parameters."""
        return self.trial.checksum()

    def raised_flags(self) -> Sequence[str]:
        """Return what the submission should not have done and was seen to do."""
        return self.guard.flags


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is trained: a workload's facts, at the scale of the run."""

    definition: workload.WorkloadDefinition
    scale: workload.Scale


@dataclasses.dataclass(frozen=True)
class Instruments:
    """What computes and what measures, loaded before anything of the submission.

    Attributes:
        cache: Whether programs were compiled for it before: see `environment.compilation_cache`.
    """

    backend: backends.Backend
    meter: resources.Meter
    guard: trust.Guard
    threads: int
    cache: str | None


@dataclasses.dataclass(frozen=True)
class Bound:
    """The rows, and the model that is built for them in a framework.

    Attributes:
        settings: What the model was built with.
    """

    data: workload.Data
    workload: spec.Workload
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Submitted:
    """What a submission's own code says of its trial, as plain values.

    Attributes:
        point: The hyperparameters, None where the submission is given none,
        point_source: and where they are from, in words.
        batch_size: The rows of a batch,
        note: and what a user should know of how they were chosen, else empty.
        source_files: All files of the submission by their path relative to its folder.
        search_space: What the members of a population explore, in AlgoPerf's form; None for any
            other trial.
    """

    point: Mapping[str, Any] | None
    point_source: str
    batch_size: int
    note: str
    source_files: Mapping[str, Path]
    search_space: Any = None


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What plan, submission and workload decide together.

    Attributes:
        flags: The whole configuration, as `flags_<n>.json` holds it.
    """

    limits: Limits
    goal: Goal
    flags: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Folder:
    """The trial's run folder, with what an earlier process of the trial left in it.

    Attributes:
        flags: The whole configuration, with what the trial's first process had.
        saved: The newest checkpoint that fits, None where the trial starts.
        preemptions: How many processes worked on the trial before, 0 where it starts.
        parameters: How many numbers train, and how many there are.
        parts: How many processes have saved the checkpoint, where it was on another number of
            devices than it goes on on; else None.
    """

    log: run_log.TrialLog
    flags: dict[str, Any]
    checkpoints: Checkpoints
    saved: preservation.Saved | None
    preemptions: int
    parameters: Mapping[str, float]
    parts: int | None = None


@dataclasses.dataclass(frozen=True)
class Made:
    """A trial, as far as it is the trainer's.

    Attributes:
        view: What the submission sees of the workload.
        buckets: The training rows by length, where batches are cut to their rows.
        functions: The submission's functions, in the full form.
    """

    trial: Trial
    view: older.View
    buckets: batches.Buckets | None
    functions: Functions


def assemble(
    plan: TrialPlan, ledger: Ledger, report: Report, asked_to_stop: Asked = lambda: False
) -> Assembled:
    """Load, check and build all that a trial needs in one process; all of it is set-up time.

    A trial that was interrupted goes on where it was saved.

    Args:
        plan: The trial's plan.
        ledger: Its stopwatches.
        report: Called with the name and the values of each event: notes and evaluations.
        asked_to_stop: Whether the trial was asked to save and stop.

    Raises:
        UserError: A user's mistake.
    """
    subject = look_up(plan)
    instruments = load_instruments(plan, subject)
    outline = outline_of(plan)
    loaded = dataclasses.replace(loading.load(outline, plan.framework), outline=outline)
    submitted = submit(plan, loaded, subject)
    bound = bind(plan, subject, instruments.backend)
    configuration = configure(plan, subject, outline, submitted, bound, instruments, report)
    folder = open_folder(
        plan, subject, outline, submitted, bound, configuration, instruments, report
    )
    return build(
        plan, subject, loaded, submitted, bound, configuration, folder, instruments,
        ledger, report, asked_to_stop,
    )  # fmt: skip


def outline_of(plan: TrialPlan) -> loading.Outline:
    """Return what a plan's submission shows without being run, under its name in the run folder."""
    outline = loading.inspect(Path(plan.submission))
    return outline if plan.name is None else dataclasses.replace(outline, name=plan.name)


def submit(plan: TrialPlan, loaded: loading.Submission, subject: Subject) -> Submitted:
    """Ask a loaded submission for its point and its batch size."""
    point = choices.tuning_point(plan, loaded)
    space = None if plan.population is None else choices.search_space_of(plan, loaded)
    batch_size, note = choices.choose_batch_size(plan, loaded, point, subject.scale)
    source = choices.point_source(plan, loaded)
    return Submitted(
        point, source, batch_size, note, loaded.source_files, None if space is None else space.form
    )


def look_up(plan: TrialPlan) -> Subject:
    """Find the workload of a plan, and its scale for the plan's rows and weights."""
    definition = catalogue.find(plan.workload_reference, plan.suite)
    outside.check_unchanged(definition, plan.workload_hash)
    definition = choices.judged(plan, definition)
    scale = definition.scales[plan.scale].on(plan.source_kind)
    if plan.pretrained is not None:
        scale = pretrained.starting_from(definition, plan.pretrained, scale)
    scale = dataclasses.replace(scale, budget_s=plan.budget_factor * scale.budget_s)
    return Subject(definition, scale)


def load_instruments(
    plan: TrialPlan, subject: Subject, *, trains: bool = True, ranks: Ranks = ALONE
) -> Instruments:
    """Load the framework and all that measures, and begin to watch it.

    Args:
        plan: The trial's plan.
        subject: What is trained.
        trains: Whether the submission trains in this process: what the framework imports late is
            then imported now, so that it is on nobody's clock.
        ranks: The processes that train together.
    """
    if trains:
        for name in backends.modules_of(plan.framework):
            importlib.import_module(name)
    backend = backends.load(
        plan.framework, compile_model=plan.compile, computation=plan.computation, ranks=ranks
    )
    meter = _meter(backend)
    with outside.blaming(subject.definition):
        subject.definition.import_measures()
    guard = trust.Guard(
        checksum=lambda trained: backend.checksum(*trained),
        packages=[subject.definition.package],
    )
    cache = environment.compilation_cache(plan.framework, os.environ)
    return Instruments(backend, meter, guard, backend.threads(), cache)


def bind(
    plan: TrialPlan,
    subject: Subject,
    backend: backends.Backend,
    data: workload.Data | None = None,
) -> Bound:
    """Build the model for its rows, which are loaded where they are not given."""
    definition, scale = subject.definition, subject.scale
    if data is None:
        data = load_data(plan, definition, scale)
    settings = {**scale.model, **data.model}
    weights = None
    if plan.pretrained is not None:
        weights = pretrained.load(definition.pretrained, plan.pretrained, settings)
    with outside.blaming(definition):
        bound = backend.workload(definition, scale, plan.source_kind, data, weights)
    if plan.save_model is not None:
        pretrained.check_saved(definition.pretrained[0], bound, settings)
    return Bound(data, bound, settings)


def configure(
    plan: TrialPlan,
    subject: Subject,
    outline: loading.Outline,
    submitted: Submitted,
    bound: Bound,
    instruments: Instruments,
    report: Report,
) -> Configuration:
    """Decide limits and goal, and say what the whole configuration is."""
    batch_size = submitted.batch_size
    if submitted.note:
        report("note", text=submitted.note)
    plan.computation.check_batch_size(batch_size)
    rows = batches.row_count(bound.data.splits["train"])
    if batch_size > rows:
        raise errors.UserError(
            f"batch size {batch_size} is larger than the training split of {rows} rows"
        )
    goal = choices.goal(plan, subject.definition, subject.scale)
    fingerprint = bound.data.fingerprint
    by_period = run_log.begun_without(_run_folder(plan, outline), "eval_share")
    limits = choices.limits(plan, subject.scale, begun_by_period=by_period)
    flags = run_log.with_hashes(
        choices.flags(
            plan,
            outline,
            fingerprint,
            batch_size,
            goal,
            subject.scale,
            limits,
            threads=instruments.threads,
        )
        | pretrained.flags(bound.workload.pretrained)
    )
    return Configuration(limits, goal, flags)


def _run_folder(plan: TrialPlan, outline: loading.Outline) -> Path:
    return run_log.trial_folder(
        plan.out_folder,
        plan.experiment,
        outline.name,
        plan.study,
        plan.workload,
        plan.framework,
        plan.trial,
    )


def open_folder(
    plan: TrialPlan,
    subject: Subject,
    outline: loading.Outline,
    submitted: Submitted,
    bound: Bound,
    configuration: Configuration,
    instruments: Instruments,
    report: Report,
    *,
    with_arrays: bool = True,
    evaluators: int = 0,
) -> Folder:
    """Open the run folder, look for a checkpoint, and write what the trial is.

    It is written before the submission trains: however that ends, the folder says what it was.
    `evaluators` is how many devices evaluate beside the first one.
    """
    flags, point = configuration.flags, submitted.point
    folder = _run_folder(plan, outline)
    drawn = {"batch_size"} if plan.batch_size is None and "batch_size" in (point or {}) else set()
    compared = {key: flags[key] for key in flags.keys() - drawn}
    before = run_log.read_flags(folder)
    run_log.check_same_as_begun(folder, compared, may_change_devices=plan.change_devices)
    log = run_log.TrialLog(folder, subject.definition.measured, workload.SPLITS)
    checkpoints = Checkpoints(folder, count=_processes_before(plan, before))
    saved = None
    if plan.checkpoints:
        saved = preservation.find(checkpoints, log, with_arrays=with_arrays)
    for name in checkpoints.damaged:
        say(report, f"checkpoint {name} is damaged and not used")
    parts = None
    if before is not None and saved is None:  # It starts over, on as many devices as are asked for.
        run_log.check_same_configuration(folder, compared, [folder])
    elif before is not None and saved is not None and plan.change_devices:
        flags, is_changed = _on_other_devices(plan, flags, before, saved, report)
        parts = checkpoints.processes(saved.document) if is_changed else None
    cache = instruments.cache
    if saved is not None:  # Its own first process may have filled the cache.
        cache = (run_log.read_flags(folder) or {}).get("compilation_cache")
    if cache is not None:
        flags = run_log.with_hashes({**flags, "compilation_cache": cache})
    aside = run_log.set_aside(folder) if saved is None else None
    if aside is not None:
        say(report, f"an earlier run of this trial was interrupted; what it left is in {aside}")
    trained, frozen = memory.count(bound.workload.param_shapes), bound.workload.frozen_count
    room, warning = check_memory(
        plan, bound, instruments.backend, has_referee=plan.has_referee, evaluators=evaluators
    )
    if warning is not None:
        say(report, warning)
    if not any(folder.parents[2].glob(f"study_*/{folder.parent.name}/trial_*/flags_*.json")):
        for remark in subject.definition.remarks(bound.data):  # of all trials the first says it
            say(report, remark)
    meta = {**choices.meta(plan, flags, bound.data, subject.scale), "memory": room}
    signatures = metric.signatures(subject.definition.accumulators)
    if signatures:
        meta["metric_signatures"] = signatures
    begun_before = log.begin(flags, meta, point)
    log.copy_source(submitted.source_files)
    return Folder(
        log,
        flags,
        checkpoints,
        saved,
        preemptions=0 if saved is None else begun_before,
        parameters=_counts(trained, frozen),
        parts=parts,
    )


def check_memory(
    plan: TrialPlan,
    bound: Bound,
    backend: backends.Backend,
    *,
    has_referee: bool = False,
    evaluators: int = 0,
) -> tuple[dict[str, Any], str | None]:
    """Return what `memory.check` does of the processes that train, and of those that evaluate."""
    return memory.check(
        memory.count(bound.workload.param_shapes),
        frozen=bound.workload.frozen_count,
        checkpoints=plan.checkpoints,
        free_device_bytes=backend.free_device_memory_bytes(),
        has_referee=has_referee,
        processes=plan.world_size,
        shard=plan.shard,
        evaluators=evaluators,
        evaluators_share=plan.framework == "pytorch",
    )


def _processes_before(plan: TrialPlan, before: Mapping[str, Any] | None) -> int:
    """Return how many processes have saved a trial whose checkpoints do not say so themselves."""
    if before is None or not plan.change_devices:
        return plan.world_size
    begun_with: int = device_history.of(before)[0]["devices"] or 1
    return backends.world_size(plan.framework, begun_with)


def _on_other_devices(
    plan: TrialPlan,
    flags: Mapping[str, Any],
    before: Mapping[str, Any],
    saved: preservation.Saved,
    report: Report,
) -> tuple[dict[str, Any], bool]:
    """Return the flags of a trial that may go on on another number of devices, with how many it had
    when, and whether it has another number now.
    """
    assert plan.devices is not None
    step = saved.step
    if step is None:
        raise errors.UserError(
            "its checkpoint is not one that the library wrote; give --no-checkpoint to start over"
        )
    history = device_history.after(before, step, plan.devices)
    is_changed = len(history) > 1 and history[-1]["from_step"] == step
    if is_changed:
        now = device_history.counted(plan.devices)
        say(
            report,
            f"goes on with {now} (before: {device_history.text(history[:-1])}): this is recorded, "
            "and the trial is pooled with none but those of the same numbers at the same steps",
        )
    return run_log.with_hashes(device_history.recorded(flags, history)), is_changed


def build(
    plan: TrialPlan,
    subject: Subject,
    loaded: loading.Submission,
    submitted: Submitted,
    bound: Bound,
    configuration: Configuration,
    folder: Folder,
    instruments: Instruments,
    ledger: Ledger,
    report: Report,
    asked_to_stop: Asked,
) -> Assembled:
    """Build the trial, with its queue, its evaluation and what saves it; put it where it was."""
    backend, guard = instruments.backend, instruments.guard
    hyperparameters = hyperparameters_of(submitted)
    evaluator = Evaluator(backend, bound.workload, subject.definition, bound.data, subject.scale)
    gauges = load.Gauges()
    clock_load = load.Load(gauges.read)
    measure = measuring(evaluator, folder.log, plan)
    view = older.view(loaded.contract, bound.workload, backend.place, hyperparameters)

    def evaluate(split: str, params: Any, model_state: Any) -> dict[str, float]:
        # Asked at an evaluation, so after a step: schedules read hyperparameters late.
        adapt.check_all_read(loaded.outline, hyperparameters)
        return measure(split, view.first(params), view.first_state(model_state))

    def probe(params: Any, model_state: Any) -> float:
        return evaluator.probe(view.first(params), view.first_state(model_state))

    referee = Referee(
        goal=configuration.goal,
        limits=configuration.limits,
        ledger=ledger,
        evaluate=evaluate,
        probe=probe,
        log=folder.log,
        report=telling_of_load(report, clock_load, lambda: referee.step),
        preemptions=folder.preemptions,
    )
    keeper = preservation.Preservation(
        folder.checkpoints if plan.checkpoints else None,
        folder.log,
        backend,
        plan.checkpoint_every_s,
        asked_to_stop,
        functools.partial(say, report),
        meter=instruments.meter,
        load=clock_load,
    )
    with discarding(folder.log, folder.saved):
        built = make_trial(
            plan, subject, loaded, submitted, bound, instruments, view, hyperparameters,
            limits=configuration.limits,
            ledger=ledger,
            referee=referee,
            report=report,
            keeper=keeper,
            untimed=guard.untimed,
            timed=lambda: clock_load.timed(lambda: ledger.submission.elapsed_s),
            preemptions=folder.preemptions,
        )  # fmt: skip
    trial = built.trial
    evaluator.warm_up(view.first(trial.state.params), view.first_state(trial.state.model_state))
    if folder.saved is not None and trial.status is None:
        initialise = initialising(plan, loaded, bound, backend, view, trial)
        keeper.go_on(trial, transplant.fitted(folder.saved, submitted.point, initialise))
        say_that_it_goes_on(report, referee)
    return Assembled(
        plan=plan,
        trial=trial,
        backend=backend,
        log=folder.log,
        flags=folder.flags,
        batch_size=submitted.batch_size,
        evaluator=evaluator,
        buckets=built.buckets,
        checkpoints=folder.checkpoints,
        guard=guard,
        meter=instruments.meter,
        clock_load=clock_load,
        gauges=gauges,
        parameters=folder.parameters,
        trained=lambda: trained_model(
            subject,
            bound,
            view.first(trial.evaluated()[0]),
            view.first_state(trial.state.model_state),
        ),
        submitted=submitted,
        referee=referee,
    )


def make_trial(
    plan: TrialPlan,
    subject: Subject,
    loaded: loading.Submission,
    submitted: Submitted,
    bound: Bound,
    instruments: Instruments,
    view: older.View,
    hyperparameters: Any,
    *,
    report: Report,
    **settings: Any,
) -> Made:
    """Build the queue of training batches, the submission's functions and the trial.

    Args:
        plan: The trial's plan.
        subject: What is trained.
        loaded: The submission.
        submitted: What its code says of the trial.
        bound: The training rows and the model.
        instruments: What computes, and what watches.
        view: What the submission sees of the workload.
        hyperparameters: The point, as the submission reads it.
        report: Called with the name and the values of each event.
        settings: Arguments of `Trial`.
    """
    backend, guard = instruments.backend, instruments.guard
    train = bound.data.splits["train"]
    buckets = batches.make_buckets(train, subject.scale.buckets, PAD_ID)
    seed = seeds.trial_seed(plan.seed, plan.study, plan.trial)
    queue = batches.TrainingQueue(
        train,
        submitted.batch_size,
        seed,
        view.place,
        buckets=buckets,
        augmentation=bound.data.augmentation,
        shard=(backend.ranks.rank, backend.ranks.count),
        is_packed=plan.computation.accumulate == 1 and plan.devices in (None, 1),
    )
    functions: Functions = adapt.submission_functions(
        loaded, backend, bound.workload, hyperparameters
    )
    bound.workload.seal()
    trial = Trial(
        backend=backend,
        workload=view.workload,
        functions=functions,
        queue=queue,
        seed=seed,
        hyperparameters=hyperparameters,
        ranks=backend.ranks,
        **settings,
    )
    for note in functions.notes():
        say(report, note)
    if functions.selects_data:
        keys = (*bound.workload.model_inputs, "targets")
        guard.watch(_selection(train, queue, backend, trial, keys).findings)
    if bound.workload.frozen_count:
        guard.watch(functools.partial(_changed_frozen, bound.workload, view, trial))
    return Made(trial, view, buckets, functions)


def initialising(
    plan: TrialPlan,
    loaded: loading.Submission,
    bound: Bound,
    backend: backends.Backend,
    view: older.View,
    trial: Trial,
) -> transplant.Initialise:
    """Return what gives the optimizer state that a trial would start with at another point.

    Args:
        plan: The trial's plan.
        loaded: The submission.
        bound: The model.
        backend: The framework's backend.
        view: What the submission sees of the workload.
        trial: The trial, newly initialised.
    """
    seed = seeds.trial_seed(plan.seed, plan.study, plan.trial)

    def initialise(point: Mapping[str, Any]) -> Any:
        hyperparameters = spec.make_hyperparameters(point)
        # Functions of their own: those of the trial keep what they made for its own point.
        functions = adapt.submission_functions(loaded, backend, bound.workload, hyperparameters)
        return functions.init_optimizer_state(
            workload=view.workload,
            model_params=trial.state.params,
            model_state=trial.state.model_state,
            hyperparameters=hyperparameters,
            rng=backend.random_state(seeds.pair(seed, seeds.OPTIMIZER)),
        )

    return initialise


def hyperparameters_of(submitted: Submitted) -> Any:
    """Return the point as the submission reads it, None where it is given none."""
    return None if submitted.point is None else spec.make_hyperparameters(submitted.point)


def measuring(
    evaluator: Evaluator, log: run_log.TrialLog, plan: TrialPlan
) -> Callable[[str, Any, Any], dict[str, float]]:
    """Return what measures a split, and writes the texts that were generated for it."""
    looks_at_test_last = plan.until != "test"

    def measure(split: str, params: Any, model_state: Any) -> dict[str, float]:
        whole = split == "test" and looks_at_test_last
        values = evaluator(split, params, model_state, whole=whole)
        if evaluator.written is not None and split != "train":
            log.predictions(evaluator.written.rows())
        return values

    return measure


def telling_of_load(
    report: Report, clock_load: load.Load, step: Callable[[], int]
) -> Callable[[dict[str, float]], None]:
    """Return what reports an evaluation, and before it, once, that others delay the trial."""
    warned: list[str] = []

    def evaluated(metrics: dict[str, float]) -> None:
        clock_load.close(step())
        text = load.text({"load": clock_load.report()})
        if text and not warned:  # Whoever watches can still stop what is beside the trial.
            warned.append(text)
            say(report, text)
        report("evaluation", metrics)

    return evaluated


def say_that_it_goes_on(report: Report, referee: Referee) -> None:
    """Say where an interrupted trial goes on."""
    clock_s = referee.ledger.submission.elapsed_s
    say(report, f"goes on from step {referee.step}, clock {clock_s:.1f} s")


def trained_model(
    subject: Subject, bound: Bound, params: Any, model_state: Any
) -> pretrained.Trained:
    """Return the model with its trained parameters, as `--save-model` writes it."""
    by_framework: Any = bound.workload
    values = by_framework.folded(params, model_state)
    saved_as = subject.definition.pretrained[0]
    return pretrained.Trained(saved_as, bound.settings, values, bound.data.tokenizer)


def save_model(folder: Path, status: str | None, trained: Callable[[], pretrained.Trained]) -> str:
    """Write the trained model into the folder, if the trial has one, and say what was done."""
    if status in ("failed", "diverged"):
        return f"{folder}: no model is saved of a trial that {status}"
    trained().save(folder)
    return f"the trained model is in {folder}"


def _counts(trained: int, frozen: int) -> dict[str, float]:
    """Return what the result says of the number of parameters."""
    total = trained + frozen
    return {"total": total, "trainable": trained, "trainable_share": trained / total}


def _changed_frozen(bound: spec.Workload, view: older.View, trial: Trial) -> list[str]:
    now = trial.state
    changed = bound.changed_frozen(view.first(now.params), view.first_state(now.model_state))
    return ["frozen parameters were changed"] if changed else []


def _meter(backend: backends.Backend) -> resources.Meter:
    return resources.Meter(backend.peak_device_memory_bytes, energy_counter(backend))


def energy_counter(backend: backends.Backend) -> EnergyCounter | None:
    """Return a counter only where the framework has a device: nothing else loads NVML."""
    return None if backend.free_device_memory_bytes() is None else EnergyCounter()


def _selection(
    train: workload.Rows,
    queue: batches.TrainingQueue,
    backend: backends.Backend,
    trial: Trial,
    keys: Collection[str],
) -> provenance.Selection:
    def last() -> tuple[int, Any]:
        return trial.state.step, trial.last_batch

    rows = provenance.Rows(train, queue, keys)
    return provenance.Selection(rows, queue, backend.fetch, last)


def say(report: Report, text: str) -> None:
    """Report a note."""
    report("note", text=text)


def load_data(
    plan: TrialPlan, definition: workload.WorkloadDefinition, scale: workload.Scale
) -> workload.Data:
    """Return the rows of a run, without those that the plan's choices leave out.

    The notes of the data say what was left out.
    """
    if plan.skip_bad_rows:
        scale = select.skip_bad_rows(definition, scale)
    with outside.blaming(definition):
        data = load_rows(definition, scale, plan.data, plan.validation_seed)
    if plan.drop_duplicates:
        data = select.drop_duplicates(data)
    if plan.balance:
        data = select.balance(data, seed=0)  # the same rows whatever the seed of training
    return data


@contextlib.contextmanager
def discarding(log: run_log.TrialLog, saved: Any) -> Iterator[None]:
    """Leave no trial behind where a user's mistake shows late, nothing but the message; unless it
    was measured in part before.
    """
    try:
        yield
    except errors.UserError:
        if saved is None:
            log.discard()
        raise


@contextlib.contextmanager
def taking_back(folder: Folder) -> Iterator[None]:
    """Leave no change of devices behind that comes to nothing: a trial that cannot go on with
    another number can with the one that it had.
    """
    try:
        yield
    except errors.UserError:
        if folder.parts is not None:
            folder.log.take_back()
        raise


def run(assembled: Assembled) -> None:
    """Run the trial to its end; what no submission's function raised (an evaluation's error) fails
    it as well.
    """
    with discarding(assembled.log, assembled.trial.preemptions or None), assembled.gauges:
        try:
            assembled.trial.run()
        except (errors.UserError, writing.UnwritableError):
            raise
        except Exception as error:
            assembled.trial.fail(cause_of(error), traceback.format_exc())
