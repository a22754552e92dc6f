"""Launchers that start one program as several processes: torchrun, srun and those like them.

A trial on several devices has a process for each, which its own starter makes, watches and stops.
So of the processes that a launcher has started only the first one works: it starts as many as the
launcher has, and the others leave at once.
"""

import dataclasses
import os
from collections.abc import Mapping

from algoperf.errors import UserError

# What torchrun sets for each of its processes, which would tell a trial's own of another group.
TORCHRUN = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT", "TORCH_NCCL_ASYNC_ERROR_HANDLING"),
)
PREFIX = "TORCHELASTIC_"


@dataclasses.dataclass(frozen=True)
class Launch:
    """One of several processes that a launcher has started.

    Attributes:
        by: The launcher's name.
        rank: The number of this process, from 0.
        count: How many there are.
        machines: On how many machines.
        cores: How many cores of this machine the launcher has for all; None where it does not say.
    """

    by: str
    rank: int
    count: int
    machines: int
    cores: int | None = None

    def devices(self, asked: int | None) -> int:
        """Return how many devices are to train each trial.

        Args:
            asked: What `--devices` says, or None.

        Raises:
            UserError: This is not the first process, there are several machines, `--devices` says
                another number, or the launcher keeps this process from the others' cores.
        """
        if self.rank:
            raise UserError(
                f"rank {self.rank} of {self.count} that {self.by} has started: rank 0 alone runs, "
                "and starts a process for each device itself"
            )
        if self.machines > 1:
            raise UserError(
                f"started by {self.by} on {self.machines} machines: a trial is on one; share a "
                "study among machines by algoperf campaign --join or --executor (docs/cluster.md)"
            )
        if asked not in (None, self.count):
            raise UserError(
                f"--devices {asked}: started by {self.by} as {self.count} processes, which stand "
                f"for {self.count} devices; leave one of the two out"
            )
        own = len(os.sched_getaffinity(0))
        if self.cores is not None and own < self.cores:
            raise UserError(
                f"{self.by} has bound this process to {own} of {self.cores} cores, and it starts "
                f"all {self.count} itself: give srun --cpu-bind=none, or let it start one: srun "
                f"--ntasks 1 --cpus-per-task {self.cores} algoperf run --devices {self.count}"
            )
        return self.count


def launch(environment: Mapping[str, str]) -> Launch | None:
    """Return what a launcher says in a process's environment.

    Args:
        environment: The variables. torchrun, accelerate and others set RANK, LOCAL_RANK and
            WORLD_SIZE; srun sets SLURM_PROCID and, unlike sbatch, SLURM_STEP_NUM_TASKS.

    Returns:
        The launch; None where this process is the only one, or no launcher has started it.
    """
    if "LOCAL_RANK" in environment:
        local = _number(environment, "LOCAL_RANK", 0)
        count = _number(environment, "WORLD_SIZE", 1)
        here = _number(environment, "LOCAL_WORLD_SIZE", count)
        rank = _number(environment, "RANK", local)
        by = "torchrun" if "TORCHELASTIC_RUN_ID" in environment else "torchrun or the like"
        started = Launch(by, rank, count, -(-count // max(here, 1)))
    elif "SLURM_STEP_NUM_TASKS" in environment and "SLURM_PROCID" in environment:
        started = Launch(
            "srun",
            _number(environment, "SLURM_PROCID", 0),
            _number(environment, "SLURM_STEP_NUM_TASKS", 1),
            _number(environment, "SLURM_STEP_NUM_NODES", 1),
            _number(environment, "SLURM_CPUS_ON_NODE", 0) or None,
        )
    else:
        return None
    return started if started.count > 1 else None


def without(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what torchrun has told this process of its group.

    Processes that it starts are told their own; and a setting that torchrun makes by itself is none
    that a user has chosen.

    Args:
        environment: The variables; where torchrun has not set them they stay as they are.
    """
    if "LOCAL_RANK" not in environment:
        return dict(environment)
    return {
        name: value
        for name, value in environment.items()
        if name not in TORCHRUN and not name.startswith(PREFIX)
    }


def _number(environment: Mapping[str, str], name: str, without: int) -> int:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else without
