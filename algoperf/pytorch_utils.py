"""What PyTorch submissions ask of their surroundings; AlgoPerf's names. PyTorch is imported when a
function is called.
"""

from typing import Any


def pytorch_setup() -> tuple[bool, int, Any, int]:
    """Return (whether several processes train, our rank, our `torch.device`, how many GPUs train).

    A trial is one process here, on one device: the first is always False and the rank 0.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    return False, 0, torch.device("cuda", 0) if has_gpu else torch.device("cpu"), int(has_gpu)


def start_group_of_one() -> None:
    """Make this process the only one of `torch.distributed`'s default group, so that what a
    submission reduces over all processes is what it has. Nothing is sent anywhere.
    """
    import torch
    import torch.distributed

    distributed: Any = torch.distributed
    if not distributed.is_available() or distributed.is_initialized():
        return
    kind = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(kind, store=distributed.HashStore(), rank=0, world_size=1)
