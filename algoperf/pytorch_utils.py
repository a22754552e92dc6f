"""Set-up functions that PyTorch submissions call, under AlgoPerf's names.

PyTorch is imported when a function is called, not when this module is.
"""

from typing import Any


def pytorch_setup() -> tuple[bool, int, Any, int]:
    """Return the facts about the devices that PyTorch submissions ask for.

    A trial is one process on one device (the first GPU, or the CPU where there is none), or as many
    processes as `algoperf run --devices` says.

    Returns:
        Whether several processes train together, the rank of this process, its `torch.device`, and
        the number of devices that train: 0 for one process on the CPU, as AlgoPerf counts GPUs.
    """
    import torch
    import torch.distributed

    has_gpu = torch.cuda.is_available()
    rank, count = 0, int(has_gpu)
    distributed: Any = torch.distributed
    is_shared = distributed.is_available() and distributed.is_initialized()
    if is_shared and distributed.get_world_size() > 1:
        rank, count = distributed.get_rank(), distributed.get_world_size()
    return count > 1, rank, torch.device("cuda", rank) if has_gpu else torch.device("cpu"), count


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
