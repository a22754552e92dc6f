"""The trials of `algoperf run` as tasks of an executor, each an `algoperf run` of its own."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from algoperf.errors import UserError
from algoperf.run_folder import run_log
from algoperf.study import study
from algoperf.study.request import RunRequest
from algoperf.study.run_plan import RunPlan


@dataclasses.dataclass(frozen=True)
class TrialTask:
    """One trial of what `algoperf run` was asked.

    Attributes:
        request: What was asked, with this trial alone.
        experiment: The name of the folder of the runs.
        submission: The submission's name, as in the run folder.
        workload: The workload's name.
        framework: The framework.
        study: The study's number, from 0.
        trial: The trial's number, from 1.
    """

    request: RunRequest
    experiment: str
    submission: str
    workload: str
    framework: str
    study: int
    trial: int

    def command(self, out: Path) -> list[str]:
        """Return the arguments of `algoperf`, of which 'run' is the first."""
        return ["run", *self.request.words()]

    def folders(self, out: Path) -> list[Path]:
        """Return its run folder, in a list."""
        return [
            run_log.trial_folder(
                *(out, self.experiment, self.submission, self.study),
                *(self.workload, self.framework, self.trial),
            )
        ]

    def has_ended(self, out: Path) -> bool:
        """Return whether it has a result that `algoperf run` would skip."""
        (folder,) = self.folders(out)
        return study.lasting_result(folder, self.request.retry_failed) is not None

    def prepare(self, out: Path) -> None:
        """Do nothing, since `algoperf run` itself resumes an interrupted trial."""


def tasks(plan: RunPlan) -> list[TrialTask]:
    """Return a task for each trial of a plan.

    Raises:
        UserError: Its folders hold another configuration, its trials are the members of a
            population, or it is to run anew what has been run, which a job that is started again
            would do again.
    """
    for option in ("overwrite", "rerun_contended"):
        if getattr(plan.request, option):
            raise UserError(
                f"--{option.replace('_', '-')} goes with --executor local: a job that is started "
                "again would begin anew; use another --experiment"
            )
    if plan.trial.population is not None:
        raise UserError(
            "--tuning-ruleset population goes with --executor local: its members take turns, and "
            "are no jobs of their own"
        )
    settings = study.asked_settings(plan.trial, plan.outline)
    listed = [
        TrialTask(
            dataclasses.replace(
                plan.request,
                framework=plan.trial.framework,
                trial_range=f"{trial}:{trial}",
                study_range=f"{number}:{number}",
                save_best=None,
            ),
            *(plan.trial.experiment, plan.outline.name, plan.trial.workload),
            *(plan.trial.framework, number, trial),
        )
        for number, trial in plan.chosen
    ]
    for task in listed:
        folder = task.folders(plan.request.out)[0]
        run_log.check_same_as_begun(folder, settings, may_change_devices=plan.trial.change_devices)
    return listed


def results(listed: Sequence[TrialTask], out: Path) -> list[dict[str, Any]]:
    """Return the results of those tasks that have one."""
    read = (run_log.read_result(task.folders(out)[0]) for task in listed)
    return [result for result in read if result is not None]
