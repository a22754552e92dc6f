"""From the arguments of `algoperf run` to the trials that are run."""

import argparse
import dataclasses
import os
from pathlib import Path

from algoperf import (
    backends,
    carbon,
    pretrained,
    search_space,
    study,
    submission,
    wandb_run,
    workload,
)
from algoperf.companions import Companion, Companions
from algoperf.data import sources
from algoperf.spec import UserError
from algoperf.trial_plan import TrialPlan


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """What `algoperf run` will do: a trial's plan, which of them to run, and what to say before."""

    trial: TrialPlan
    outline: submission.Outline
    chosen: study.Slice
    notes: tuple[str, ...]
    companions: Companions


def make(arguments: argparse.Namespace, command: str, show_progress: bool) -> RunPlan:
    """Check what was asked by the arguments of `algoperf run`, before any framework is loaded.

    Raises UserError, in one line, for what cannot be run.
    """
    _check_one_process()
    definition = workload.find(arguments.workload, arguments.suite)
    if arguments.until == "end" and arguments.max_steps is None:
        raise UserError("--until end needs --max-steps, which is then the only end")
    scale_name = workload.choose(
        f"scale of {definition.name}", arguments.scale, list(definition.scales)
    )
    kind, source = sources.resolve(definition, definition.scales[scale_name], arguments.data)
    path, found = submission.locate(arguments.submission)
    outline = submission.inspect(path)
    framework = submission.choose_framework(outline, arguments.framework)
    backends.check_installed(framework)
    ruleset = arguments.tuning_ruleset or "none"
    size = study.check_search_space(outline, ruleset, arguments.search_space)
    chosen = study.choose_slice(
        ruleset, arguments.trials, arguments.studies, arguments.trial_range, size
    )
    chosen_by = ""
    if not arguments.framework:
        chosen_by = " (the one that it serves)" if len(outline.frameworks) == 1 else " (default)"
    notes = [f"submission: {found} ({path}), framework: {framework}{chosen_by}"]
    notes += submission.notes(outline, framework)
    if outline.self_tunes and ruleset == "none" and arguments.search_space is None:
        ruleset = "self"
        notes.append(f"submission {outline.name}: it has no search space, so it runs self-tuning")
    if definition.scales[scale_name].trainable is not None and not arguments.pretrained:
        notes.append(
            f"{definition.name}: what does not train stays at its random first values; give "
            "--pretrained to start from a trained model"
        )
    if arguments.search_space is not None:
        notes += filter(None, [search_space.repeated_text(Path(arguments.search_space))])
    trial = TrialPlan(
        workload=definition.name,
        scale=scale_name,
        data=source,
        source_kind=kind,
        framework=framework,
        submission=str(path),
        out=str(arguments.out.resolve()),
        experiment=study.check_name(
            arguments.experiment or default_experiment(scale_name, kind, arguments.precision)
        ),
        study=0,
        trial=1,
        seed=arguments.seed,
        tuning_ruleset=ruleset,
        search_space=None
        if arguments.search_space is None
        else str(Path(arguments.search_space).resolve()),
        batch_size=arguments.batch_size,
        compile=arguments.compile and framework == "pytorch",
        pretrained=_pretrained(arguments.pretrained),
        save_model=_save_model(arguments.save_model, definition, chosen),
        precision=arguments.precision,
        accumulate=arguments.accumulate,
        checkpoint_activations=arguments.checkpoint_activations,
        suite=None if arguments.suite is None else str(Path(arguments.suite).resolve()),
        base_workload=definition.base,
        changes=dict(definition.changes),
        skip_bad_rows=arguments.skip_bad_rows,
        drop_duplicates=arguments.drop_duplicates,
        balance=arguments.balance,
        keep_going=arguments.keep_going,
        checkpoints=not arguments.no_checkpoint,
        checkpoint_every_s=arguments.checkpoint_every_s,
        max_steps=arguments.max_steps,
        eval_every_steps=arguments.eval_every_steps,
        until=arguments.until,
        show_progress=show_progress,
        command=command,
    )
    trial.computation.check_form(is_full_form=outline.is_full_form)
    return RunPlan(trial, outline, chosen, tuple(notes), _companions(arguments))


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


def default_experiment(scale: str, source_kind: str, precision: str) -> str:
    """The folder of runs for which none is named: one for each scale, data and precision."""
    return "-".join([scale, source_kind, *([] if precision == "float32" else [precision])])


def _companions(arguments: argparse.Namespace) -> Companions:
    """What goes along with the trials. The energy first: W&B sends it with the result."""
    if arguments.carbon_country is not None and not arguments.carbon:
        raise UserError("--carbon-country goes with --carbon")
    found: list[Companion] = []
    if arguments.carbon:
        carbon.check(arguments.carbon_country)
        found.append(carbon.Carbon(arguments.carbon_country))
    if arguments.wandb:
        wandb_run.check()
        found.append(wandb_run.WandbRun())
    return Companions(found)


def _check_one_process() -> None:
    processes = os.environ.get("WORLD_SIZE", "1")
    if "LOCAL_RANK" in os.environ and processes != "1":
        raise UserError(
            f"started as one of {processes} processes by torchrun or the like; a trial trains in "
            "one process here: start it without"
        )
