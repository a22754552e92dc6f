"""Set-up functions that PyTorch submissions call, under AlgoPerf's names.

PyTorch is imported when a function is called, not when this module is.
"""

from typing import Any


def pytorch_setup() -> tuple[bool, int, Any, int]:
    """Return the facts about the devices that PyTorch submissions ask for.

    A trial here is one process on one device: the first GPU, or the CPU where there is none.

    Returns:
        Whether several processes train together (always False), the rank of this process (always
        0), its `torch.device`, and the number of GPUs that train (1 or 0).
    """
    import torch

    has_gpu = torch.cuda.is_available()
    return False, 0, torch.device("cuda", 0) if has_gpu else torch.device("cpu"), int(has_gpu)


def start_group_of_one() -> None:
    """Make this process the only member of the default group of `torch.distributed`.

    A submission that reduces a value over all processes then gets that value back, and nothing is
    sent anywhere. Where the package is not available or a group exists already, nothing is done.
    """
    import torch
    import torch.distributed

    distributed: Any = torch.distributed
    if not distributed.is_available() or distributed.is_initialized():
        return
    kind = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(kind, store=distributed.HashStore(), rank=0, world_size=1)
