"""What PyTorch submissions ask of their surroundings; AlgoPerf's names. PyTorch is imported when a
function is called.
"""

import os
from typing import Any


def pytorch_setup() -> tuple[bool, int, Any, int]:
    """Return (whether torchrun started us, our rank, our `torch.device`, how many GPUs there
    are).
    """
    import torch

    rank = os.environ.get("LOCAL_RANK")
    index = int(rank or 0)
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda", index) if has_gpu else torch.device("cpu")
    return rank is not None, index, device, torch.cuda.device_count()
