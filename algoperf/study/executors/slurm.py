"""Run tasks as jobs of SLURM, which submitit submits as an array.

A job that is asked to stop (its time is nearly up, it is preempted) saves its trial and puts itself
into the queue again; one that is cancelled saves its trial and ends. What became of jobs is read
from the run folders, since SLURM without accounting does not know.
"""

import dataclasses
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from algoperf.errors import UserError
from algoperf.machine.supervision import INTERRUPTED
from algoperf.study.executors import cluster, job
from algoperf.study.executors.executor import Note, Task
from algoperf.study.executors.orders import Order

SIGNAL_S = 120  # how long before its time is up a job is asked to save its trial
TIME_LIMIT_MIN = 24 * 60
TIMEOUT_S = 60  # for SLURM's commands to answer


@dataclasses.dataclass(frozen=True)
class Slurm:
    """Runs tasks as jobs of SLURM; see `executor.Executor`.

    Attributes:
        threads: The cores of each job.
        workers: How many jobs run at a time; None for as many as SLURM lets.
        time_limit_min: The most minutes of a job, after which it waits for its turn again.
        memory_gb: The memory of each job; None for SLURM's own choice.
        gpus: The GPUs of each job.
        options: Other options of sbatch, as 'partition', by their names.
    """

    threads: int = 1
    workers: int | None = None
    time_limit_min: int = TIME_LIMIT_MIN
    memory_gb: float | None = None
    gpus: int = 0
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    name: ClassVar[str] = "slurm"
    keeps_secrets: ClassVar[bool] = False

    def run(self, todo: Sequence[Task], out: Path, note: Note, secret: str | None = None) -> int:
        """Run the tasks that have no result yet, and wait until all have ended.

        Args:
            todo: The tasks.
            out: The folder of the runs, which all nodes see.
            note: Called with a line for the user after each run.
            secret: None, since what jobs read would have to be written down.

        Returns:
            The number of runs that failed.

        Raises:
            UserError: There is no SLURM here, or no submitit, or SLURM refuses the jobs.
            InterruptedRunError: A signal stopped this process; its jobs go on.
        """
        assert secret is None
        _submitit()
        return cluster.run(self, todo, out, note)

    def submit(self, order: Order) -> None:
        """Submit an order as an array of jobs; UserError where SLURM refuses it."""
        submitit = _submitit()
        logs = order.path.parent / self.name
        submitter = submitit.SlurmExecutor(folder=logs / "%j")
        submitter.update_parameters(**self.parameters(order.name))
        try:
            with submitter.batch():
                for index in range(len(order.tasks)):
                    submitter.submit(carry_out, str(order.path), index)
        except RuntimeError as error:
            raise UserError(f"--executor slurm: sbatch refuses the jobs: {error}") from error

    def parameters(self, name: str) -> dict[str, Any]:
        """Return submitit's parameters for jobs of a name."""
        given: dict[str, Any] = {
            "job_name": name,
            "time": self.time_limit_min,
            "cpus_per_task": self.threads,
            "signal_delay_s": min(SIGNAL_S, self.time_limit_min * 30),
            "additional_parameters": {"requeue": True, **self.options},
            # From version 22.05 on srun does not take it over from sbatch.
            "srun_args": [f"--cpus-per-task={self.threads}"],
        }
        if self.workers is not None:
            given["array_parallelism"] = self.workers
        if self.memory_gb is not None:
            given["mem"] = f"{round(self.memory_gb * 1024)}M"
        if self.gpus:
            given["gpus_per_node"] = self.gpus
        return given

    def alive(self, listed: Collection[Order]) -> set[cluster.Job] | None:
        """Return which jobs of some orders SLURM still has; None where it does not answer."""
        names = ",".join(order.name for order in listed)
        answer = _ask("squeue", "--noheader", "--array", f"--name={names}", "--format=%j|%K")
        return None if answer is None else jobs(answer)

    def commands(self, listed: Collection[Order]) -> str:
        """Return what shows and cancels the jobs of some orders."""
        names = ",".join(order.name for order in listed)
        cancel = "; ".join(f"scancel --name {order.name}" for order in listed)
        return f"to look: squeue --name {names}; to end them: {cancel}"


def jobs(listed: str) -> set[cluster.Job]:
    """Return the jobs that squeue lists, as '<name>|<array index>' or '<name>|N/A' a line."""
    matches = filter(None, map(re.compile(r"(\S+)\|(\d+|N/A)").fullmatch, listed.split()))
    return {(match[1], int(match[2]) if match[2].isdigit() else 0) for match in matches}


def carry_out(path: str, index: int) -> int:
    """Run one task of an order in a job of SLURM; if it was asked to stop, queue it again.

    Args:
        path: The order's file.
        index: The number of the task.

    Returns:
        The exit code of the run.
    """
    code = job.carry_out(path, index)
    if code == INTERRUPTED:
        array, number = (
            os.environ.get(name) for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")
        )
        job_id = os.environ["SLURM_JOB_ID"] if array is None else f"{array}_{number}"
        # One that is cancelled is not to come again, and one that is preempted does so anyhow.
        if "JobState=RUNNING" in (_ask("scontrol", "show", "job", job_id) or ""):
            _ask("scontrol", "requeue", job_id)
    return code


def _ask(*command: str) -> str | None:
    """Return what a command of SLURM prints; None where it fails."""
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ended.stdout


def _submitit() -> ModuleType:
    if importlib.util.find_spec("submitit") is None:
        raise UserError("--executor slurm needs submitit: pip install 'algoperf[slurm]'")
    missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"--executor slurm: there is no {missing[0]} on this machine; start it where SLURM's "
            "jobs are submitted"
        )
    return importlib.import_module("submitit")
