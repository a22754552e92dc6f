"""From what was asked to the trials that are run."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf import backends, errors, workload
from algoperf.backends.ranks import OPTIMIZER
from algoperf.data import validation_seed
from algoperf.data.formats import sources
from algoperf.errors import UserError
from algoperf.machine import class_file, hardware, hardware_class, launchers
from algoperf.machine.hardware_class import HardwareClass, Key
from algoperf.run_folder import device_history
from algoperf.study import carbon, outcome, outrun, population, study, wandb_run
from algoperf.study.companions import Companion, Companions
from algoperf.study.outrun import Ends
from algoperf.study.request import RunRequest
from algoperf.submission import copies, loading, search_space, submission_source
from algoperf.trial import choices
from algoperf.trial.plan import TrialPlan
from algoperf.workload import catalogue, outside, pretrained


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """What `algoperf run` will do: a trial's plan, which of them to run, and what to say before."""

    trial: TrialPlan
    outline: loading.Outline
    chosen: study.Slice
    notes: tuple[str, ...]
    companions: Companions
    request: RunRequest

    def carry_out(self, observe: study.Observe) -> list[dict[str, Any]]:
        """Run the trials, and return their results; see `study.run` and `population.run`."""
        if self.trial.population is not None:
            return population.run(
                *(self.trial, self.outline, self.chosen, observe),
                self.request.retry_failed,
                self.request.overwrite,
            )
        return study.run(
            self.trial,
            self.outline,
            self.chosen,
            observe,
            self.request.retry_failed,
            self.companions,
            self.request.overwrite,
            self.request.rerun_contended,
            Ends(
                self.request.stop_outrun, self.request.studies if self.request.stop_late else None
            ),
        )

    def populations(self) -> list[str]:
        """Return a line on each study of a population; none of other studies."""
        if self.trial.population is None:
            return []
        lines = []
        chosen = self.chosen
        for number in range(chosen.first_study, chosen.first_study + chosen.studies):
            plan = dataclasses.replace(self.trial, study=number)
            text = population.summary(study.trial_folder(plan, self.outline).parent)
            name = f"{plan.workload} {plan.framework} {self.outline.name} study {number}"
            lines += [f"{name}: {text}"] if text else []
        return lines

    def save_best(self, results: Sequence[Mapping[str, Any]]) -> str:
        """Write the best trial's point as the DEFAULTS of a copy of the submission.

        Args:
            results: The results of the trials.

        Returns:
            A line that says what was written, or why nothing was; empty where none was asked for.
        """
        target = self.request.save_best
        if target is None:
            return ""
        trial = self.trial
        ended = [outcome.read(trial.out_folder, trial.experiment, each) for each in results]
        best = outcome.best(ended)
        if best is None:
            return f"{target} is not written: no trial has a result to choose by"
        copies.write_with_defaults(self.outline.path, target, best.point)
        return (
            f"{target} is {self.outline.path.name} with the DEFAULTS of study "
            f"{best.result['study']} trial {best.result['trial']}"
        )


def make_all(
    requests: Sequence[RunRequest], command: str = "", show_progress: bool = False
) -> list[RunPlan]:
    """Look up everything that was asked for in one call, before the first trial runs.

    Args:
        requests: What was asked, each with results in folders of its own.
        command: The command line, for the runs' meta data.
        show_progress: Whether trials tell where they are twice a second.

    Raises:
        UserError: One of them cannot be run, or not beside the others.
    """
    plans = [make(request, command, show_progress) for request in requests]
    if len(plans) > 1:
        _check_beside_each_other(plans)
    planned = [
        {
            "experiment": plan.trial.experiment,
            "submission": plan.outline.name,
            "workload": plan.trial.workload,
            "framework": plan.trial.framework,
            **dataclasses.asdict(plan.chosen),
        }
        for plan in plans
    ]
    return [
        dataclasses.replace(plan, trial=dataclasses.replace(plan.trial, planned=planned))
        for plan in plans
    ]


def _check_beside_each_other(plans: Sequence[RunPlan]) -> None:
    for option, field in (("--save-best", "save_best"), ("--save-model", "save_model")):
        if getattr(plans[0].request, field) is not None:
            raise UserError(
                f"{option} is for one submission, workload and framework, and these are "
                f"{len(plans)} combinations"
            )
    submissions = {plan.outline.path: plan.outline.name for plan in plans}
    if plans[0].request.name is not None and len(submissions) > 1:
        raise UserError(f"--name names one submission, and these are {len(submissions)}")
    for path, name in submissions.items():
        for other, same in submissions.items():
            if same == name and other != path:
                raise UserError(
                    f"submissions {path} and {other} are both named {name!r}; run them one by one, "
                    "each with its --name"
                )


def make(request: RunRequest, command: str = "", show_progress: bool = False) -> RunPlan:
    """Look up what was asked for, before any framework is loaded.

    Args:
        request: What was asked.
        command: The command line, for the runs' meta data.
        show_progress: Whether trials tell where they are twice a second.

    Raises:
        UserError: It cannot be run; one line says why.
    """
    launched = launchers.launch(os.environ)
    if launched is not None:
        request = dataclasses.replace(request, devices=launched.devices(request.devices))
    definition = catalogue.find(request.workload, request.suite)
    if request.until == "end" and request.max_steps is None:
        raise UserError("--until end needs --max-steps, which is then the only end")
    scale_name = errors.choose(
        f"scale of {definition.name}", request.scale, list(definition.scales)
    )
    scale = definition.scales[scale_name]
    kind, source = sources.resolve(definition, scale, request.data)
    precision = request.precision or scale.precision
    secret = request.validation_seed
    if secret is not None:
        validation_seed.check(definition, source)
    known = None
    if request.hardware_class is not None:
        known = class_file.read(request.hardware_class)
    path, origin = loading.locate(request.submission)
    outline = loading.inspect(path)
    if request.name is not None:
        outline = dataclasses.replace(outline, name=study.check_name("--name", request.name))
    if request.threads is not None:
        hardware.check_threads(request.threads)
    framework = loading.choose_framework(outline, request.framework)
    backends.check_installed(framework)
    ruleset = request.tuning_ruleset or "none"
    size = study.check_search_space(outline, ruleset, request.search_space)
    chosen = study.choose_slice(
        ruleset, request.trials, request.studies, request.trial_range, size, request.study_range
    )
    _check_exchanges(request, ruleset)
    chosen_by = ""
    if not request.framework:
        chosen_by = " (the one that it serves)" if len(outline.frameworks) == 1 else " (default)"
    notes = [f"submission: {origin} ({path}), framework: {framework}{chosen_by}"]
    notes += loading.notes(outline, framework)
    if outline.self_tunes and ruleset == "none" and request.search_space is None:
        ruleset = "self"
        notes.append(f"submission {outline.name}: it has no search space, so it runs self-tuning")
    if request.search_space is not None and ruleset == "none":
        notes.append(
            "--search-space without --tuning-ruleset: each trial takes a point of it, not the "
            "DEFAULTS"
        )
    if request.save_best is not None:
        _check_save_best(request.save_best, outline, ruleset)
    if scale.trainable is not None and not request.pretrained:
        notes.append(
            f"{definition.name}: what does not train stays at its random first values; give "
            "--pretrained to start from a trained model"
        )
    if secret is not None:
        notes.append(
            f"validation and test rows are drawn by a secret; its commitment is {secret.commitment}"
        )
    if request.search_space is not None:
        notes += filter(None, [search_space.repeated_text(Path(request.search_space))])
    outside.check_model(definition, framework)
    trial = TrialPlan(
        workload=definition.name,
        scale=scale_name,
        data=source,
        source_kind=kind,
        framework=framework,
        submission=str(path),
        out=str(request.out.resolve()),
        experiment=study.check_name(
            "--experiment",
            request.experiment
            or default_experiment(
                *(scale_name, kind, precision, secret, scale.precision),
                None if known is None else known.name,
            ),
        ),
        study=0,
        trial=1,
        seed=request.seed,
        tuning_ruleset=ruleset,
        search_space=None
        if request.search_space is None
        else str(Path(request.search_space).resolve()),
        batch_size=request.batch_size,
        compile=request.compile and framework == "pytorch",
        pretrained=_pretrained(request.pretrained),
        save_model=_save_model(request.save_model, definition, chosen),
        precision=precision,
        accumulate=request.accumulate,
        checkpoint_activations=request.checkpoint_activations,
        offload=request.offload,
        suite=None if request.suite is None else str(Path(request.suite).resolve()),
        base_workload=definition.base,
        changes=dict(definition.changes),
        skip_bad_rows=request.skip_bad_rows,
        rouge_tokenizer=request.rouge_tokenizer,
        drop_duplicates=request.drop_duplicates,
        balance=request.balance,
        validation_seed=None if secret is None else secret.rows_seed,
        validation_commitment=None if secret is None else secret.commitment,
        keep_going=request.keep_going,
        checkpoints=request.checkpoints,
        checkpoint_every_s=request.checkpoint_every_s,
        max_steps=request.max_steps,
        eval_every_steps=request.eval_every_steps,
        until=request.until,
        show_progress=show_progress,
        command=command,
        name=outline.name,
        threads=request.threads,
        devices=request.devices,
        processes=_processes(request, framework),
        shard=None if request.shard == "none" else request.shard,
        change_devices=request.change_devices,
        workload_folder=None if definition.reference == definition.name else definition.reference,
        workload_hash=None if definition.outside is None else definition.outside.source_hash,
    )
    if trial.rouge_tokenizer is not None:
        judged = choices.judged(trial, definition)
        notes.append(
            f"{definition.name}: judged by {', '.join(judged.metrics)}, which count words of any "
            "script and have no target"
        )
    if known is not None:
        trial = _in_class(trial, known, request, definition, notes)
    if ruleset == population.RULESET:
        if scale.trainable is not None and not request.pretrained:
            raise UserError(
                f"--tuning-ruleset population on {definition.name}: what does not train has values "
                "of each trial's seed, so its members cannot copy each other; give --pretrained"
            )
        trial = dataclasses.replace(trial, population=_population(request, chosen, scale.step_hint))
    trial = dataclasses.replace(trial, referee=request.referee or study.usual_referee(trial))
    trial.computation.check_form(is_full_form=outline.is_full_form)
    if trial.change_devices and trial.devices is None:
        raise UserError(
            f"{device_history.OPTION}: say on how many devices a trial goes on, as by --devices 2"
        )
    if trial.shard is not None and trial.devices in (None, 1) and not trial.change_devices:
        raise UserError(
            f"--shard {trial.shard} divides it among devices: say of how many, as by --devices 2"
        )
    # In JAX a full form gets parameters that lie in parts, which its own step may leave so.
    is_divided_by_jax = trial.shard != OPTIMIZER and trial.framework == "jax"
    is_theirs = outline.is_full_form and not is_divided_by_jax
    if trial.shard is not None and is_theirs:
        raise UserError(
            f"--shard {trial.shard} is done by the library's own step, in the optimizer form only; "
            "this submission is in the full form, whose own step divides what it wants to"
        )
    if trial.devices is not None:
        _check_devices(trial, outline)
    for option, is_asked in (
        ("--stop-outrun", request.stop_outrun),
        ("--stop-late", request.stop_late),
    ):
        if is_asked:
            _check_ends_early(trial, option)
    if request.stop_late:
        outrun.check_late(trial.suite, [trial.base_workload])
    return RunPlan(trial, outline, chosen, tuple(notes), _companions(request), request)


def _processes(request: RunRequest, framework: str) -> int | None:
    """Return how many processes have JAX's devices; None for one, and in PyTorch, whose devices
    have one each.
    """
    asked, devices = request.processes, request.devices
    if asked is None:
        return None
    if devices is None and asked > 1:
        raise UserError(
            f"--processes {asked} divides devices among them: say how many, as by --devices {asked}"
        )
    devices = devices or 1
    if framework == "pytorch":
        if asked != devices:
            raise UserError(
                f"--processes {asked}: PyTorch has a process for each device, here {devices}; "
                "leave it out"
            )
        return None
    if devices % asked:
        raise UserError(
            f"--processes {asked}: --devices {devices} does not divide by it, and each process has "
            "the same number"
        )
    return None if asked == 1 else asked


def _check_devices(trial: TrialPlan, outline: loading.Outline) -> None:
    if (trial.devices != 1 or trial.change_devices) and not trial.has_referee:
        raise UserError(
            "--devices: what several train is judged in another process: leave out --referee inline"
        )
    if (trial.world_size > 1 or trial.change_devices) and trial.compile:
        raise UserError("--devices: --compile is for one device")
    if trial.change_devices and trial.population is not None:
        raise UserError(
            f"{device_history.OPTION}: the members of a population copy each other, and so train "
            "on one number of devices"
        )
    if trial.change_devices and trial.processes is not None:
        raise UserError(
            f"{device_history.OPTION}: parts of several processes of JAX are not divided anew; "
            "leave out --processes"
        )
    if trial.world_size > 1 and trial.population is not None:
        raise UserError(
            "--devices: the members of a population train on one device of PyTorch's, or in one "
            "process of JAX"
        )
    contract = submission_source.contract_of(outline.path, trial.framework)
    if trial.processes is not None and contract.device_axis:
        raise UserError(
            "--processes: this submission runs under jax.pmap, which has the devices of one "
            "process; leave it out"
        )


def _check_ends_early(trial: TrialPlan, option: str) -> None:
    """Check that trials end by time and at a target; UserError if not."""
    if trial.population is not None:
        raise UserError(
            f"{option} with --tuning-ruleset population: its members end when one of them "
            "reaches the target"
        )
    if trial.until == "end" or trial.max_steps is not None:
        other = "--until end" if trial.until == "end" else "--max-steps"
        raise UserError(f"{option} with {other}: it is for trials to a target, by time")


def scale_of(trial: TrialPlan) -> workload.Scale:
    """Return the scale of a trial's workload, with the workload's own budget."""
    definition = catalogue.find(trial.workload_reference, trial.suite)
    return definition.scales[trial.scale].on(trial.source_kind)


def _in_class(
    trial: TrialPlan,
    known: HardwareClass,
    request: RunRequest,
    definition: workload.WorkloadDefinition,
    notes: list[str],
) -> TrialPlan:
    """Return a trial with its budget in a hardware class, and add a note that says it.

    A held-out variant takes its base's factor.

    Raises:
        UserError: The run is not of the class, or the class has not measured the workload.
    """
    option = f"--hardware-class {request.hardware_class}"
    apart = hardware_class.differences(hardware_class.describe(request.threads), known.machine)
    if apart:
        raise UserError(
            f"{option}: this run is not of class {known}: {'; '.join(apart)}; give what the class "
            f"has (--threads), or measure its own: algoperf calibrate --against "
            f"{request.hardware_class}"
        )
    key = Key(definition.base or definition.name, trial.scale, trial.source_kind)
    budget = known.budget(key)
    if budget is None:
        listed = ", ".join(str(each.key) for each in known.budgets)
        raise UserError(
            f"{option}: class {known} has no budget of {key}; it has {listed}; "
            "measure this workload too: algoperf calibrate --workloads"
        )
    own_s = scale_of(trial).budget_s
    notes.append(
        f"hardware class {known}: the budget of {trial.workload} is {budget.factor * own_s:.4g} s, "
        f"{budget.factor:.4g} times its own of {own_s:g} s"
    )
    return dataclasses.replace(
        trial,
        hardware_class={"name": known.name, "id": known.id},
        class_times=known.recorded(key, trial.framework),
    )


def _check_exchanges(request: RunRequest, ruleset: str) -> None:
    """Check that options go together with a population, or with none; UserError if not."""
    if ruleset != population.RULESET:
        for name in ("exchange_every_steps", "exchange_share"):
            if getattr(request, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise UserError(f"{option} goes with --tuning-ruleset population")
        return
    if not request.checkpoints:
        raise UserError(
            "--no-checkpoint with --tuning-ruleset population: its members are saved to make room "
            "for each other"
        )
    alone = {"--carbon": request.carbon, "--wandb": request.wandb}
    for option, is_asked in {**alone, "--rerun-contended": request.rerun_contended}.items():
        if is_asked:
            raise UserError(
                f"{option} with --tuning-ruleset population: it takes one trial after another, and "
                "members take turns"
            )


def _population(request: RunRequest, chosen: study.Slice, step_hint: int) -> dict[str, Any]:
    """Return what a study's population is, as the runs' flags record it."""
    share = request.exchange_share
    return {
        "members": chosen.last,
        "every_steps": population.every_steps(request.exchange_every_steps, step_hint),
        "share": population.SHARE if share is None else float(share),
    }


def _check_save_best(target: Path, outline: loading.Outline, ruleset: str) -> None:
    """Check that a copy with other DEFAULTS can be written, and loaded; UserError if not."""
    if ruleset == "self" and outline.is_full_form:
        raise UserError(f"--save-best {target}: under self-tuning a submission is given no point")
    copies.check_new("--save-best", target)
    copies.check_copies_alone("--save-best", outline.path, target)


def _pretrained(given: str | None) -> str | None:
    """A folder's whole path, so that the run folder says which it was; a name as it is."""
    is_folder = given is not None and Path(given).is_dir()
    return str(Path(given or "").resolve()) if is_folder else given


def _save_model(
    given: Path | None, definition: workload.WorkloadDefinition, chosen: study.Slice
) -> str | None:
    """The folder that the model is saved in; UserError where that cannot be."""
    if given is None:
        return None
    if not definition.pretrained:
        raise UserError(f"--save-model: {definition.name} has no model that transformers knows")
    if chosen.count != 1:
        raise UserError(
            f"--save-model takes the model of one trial, and these are {chosen.count}; choose one "
            "with --trial-range N:N and --studies 1"
        )
    pretrained.check_target(given)
    return str(given.resolve())


def default_experiment(
    scale: str,
    source_kind: str,
    precision: str,
    secret: validation_seed.ValidationSeed | None = None,
    usual_precision: str = "float32",
    class_name: str | None = None,
) -> str:
    """The folder of runs for which none is named: one for each scale, data, precision (but for the
    workload's own), secret that draws validation rows, and hardware class.
    """
    parts = [scale, source_kind, *([] if precision == usual_precision else [precision])]
    parts += [] if secret is None else [f"validation-{secret.short}"]
    return "-".join([*parts, *([] if class_name is None else [f"class-{class_name}"])])


def _companions(request: RunRequest) -> Companions:
    """What goes along with the trials. The energy first: W&B sends it with the result."""
    if request.carbon_country is not None and not request.carbon:
        raise UserError("--carbon-country goes with --carbon")
    companions: list[Companion] = []
    if request.carbon:
        carbon.check(request.carbon_country)
        companions.append(carbon.Carbon(request.carbon_country))
    if request.wandb:
        wandb_run.check()
        companions.append(wandb_run.WandbRun())
    return Companions(companions)
