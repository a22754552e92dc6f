"""Several processes that train one PyTorch model, by torch.distributed: one on each device.

Gradients are averaged by DistributedDataParallel, which also is the parameter container that a
submission gets, as AlgoPerf's are; where parameters are divided, by `fully_shard`, and the
container is the model itself. On processors they talk by gloo, on GPUs by NCCL; what the
loop asks (`algoperf.backends.ranks`) goes by gloo in both cases, since it is numbers of the host.
"""

import datetime
import os
import time
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from algoperf.backends import torch_batch_norm, torch_shards
from algoperf.backends.ranks import ALONE, PARAMETERS, Ranks
from algoperf.errors import UserError

distributed: Any = torch.distributed
# A trial stands still while it is evaluated, for however long. Who has died is seen by its process.
PATIENCE = datetime.timedelta(days=30)


class TorchRanks:
    """A group of processes on one machine (see `algoperf.backends.ranks.Ranks`).

    Making one joins the default group of torch.distributed, and sets the environment variables that
    torchrun sets, which submissions read.

    Args:
        rank: The number of this process.
        count: How many there are.
        meeting: A file that does not exist, by which the processes find one another.
        shard: What their devices divide among them.
    """

    def __init__(self, rank: int, count: int, meeting: str, shard: str | None = None) -> None:
        self.rank, self.count, self.shard = rank, count, shard
        self._trained: nn.Module | None = None
        self._agreement_s = 0.0
        self.hand_over_parts = shard == PARAMETERS
        has_gpu = torch.cuda.is_available()
        self.device = take(rank, count)
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ.update({name: str(number) for name, number in names.items()})
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if has_gpu else "gloo",
            store=distributed.FileStore(meeting, count),
            rank=rank,
            world_size=count,
            timeout=PATIENCE,
        )

    def largest(self, value: int) -> int:
        """Return the largest of what the processes give."""
        began_s = time.perf_counter()
        number = torch.tensor(value)
        distributed.all_reduce(number, op=distributed.ReduceOp.MAX)
        self._agreement_s += time.perf_counter() - began_s
        return int(number)

    def from_first(self, value: Any) -> Any:
        """Return what rank 0 gives."""
        values = [value]
        distributed.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def gathered(self, value: Any) -> list[Any]:
        """Return what each process gives, by rank."""
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Return once every process has come here."""
        distributed.all_reduce(torch.zeros(()))

    def leave(self) -> None:
        """Return: nobody needs this process any more."""

    def summed(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over the processes; it has no gradient."""
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total

    def container(self, model: nn.Module) -> nn.Module:
        """Return the model as the processes train it together: each backward pass leaves the mean
        of their gradients, and batch norms take their statistics over the rows of all.
        """
        torch_batch_norm.share(model, summed_with_gradient)
        if self.shard == PARAMETERS:
            return torch_shards.divide(model, self.device, self.count)
        on = [self.device.index] if self.device.type == "cuda" else None
        self._trained = DistributedDataParallel(model, device_ids=on, forward_sync_buffers=False)
        return self._trained

    def communication_s(self) -> dict[str, float | None]:
        """Return what this process has spent on the others.

        How long gradients travel is the mean of the steps that DistributedDataParallel has looked
        at: the first ten, and every hundredth.
        """
        trained: Any = self._trained
        logged = {} if trained is None else trained._get_ddp_logging_data()
        travelled_ns = logged.get("avg_backward_comm_time")
        return {
            "agreement_s": self._agreement_s,
            "gradients_s": None if travelled_ns is None else travelled_ns / 1e9,
        }


def take(rank: int, count: int) -> torch.device:
    """Let this process compute on one of so many devices, and return it: a GPU, or the processor
    with its share of the cores.

    Raises:
        UserError: There are not so many GPUs.
    """
    if torch.cuda.is_available():
        if count > torch.cuda.device_count():
            raise UserError(
                f"--devices {count}: PyTorch has {torch.cuda.device_count()} of them here"
            )
        torch.cuda.set_device(rank)
        return torch.device("cuda", rank)
    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    return torch.device("cpu")


def summed_with_gradient(value: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over the processes, through which gradients flow."""
    return _Sum.apply(value)  # type: ignore[no-any-return, no-untyped-call]


class _Sum(torch.autograd.Function):
    """The gradient of a sum over the processes is the sum of what they send back."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def join(
    rank: int, devices: int, meeting: str, shard: str | None = None, processes: int | None = None
) -> Ranks:
    """Let this process be one of those that train together; see `algoperf.backends.join`.

    Parameters that are divided are so on one device as well, in one part: what an optimizer makes
    of them lies as it will on several, with which the trial may go on.
    """
    if devices == 1 and shard != PARAMETERS:
        return ALONE
    return TorchRanks(rank, devices, meeting, shard)


def bare(params: nn.Module) -> nn.Module:
    """Return the model of a container, which it is itself where one process trains."""
    return params.module if isinstance(params, DistributedDataParallel) else params
