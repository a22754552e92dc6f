"""Batch norm in PyTorch; workloads/parts/batch_norm_jax.py says which convention both follow.

Shapes: N rows, C channels, and any number of positions after them.
"""

import torch
from torch import nn

MOMENTUM, EPSILON = 0.1, 1e-5


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """PyTorch's batch norm for any number of positions: (N, C), (N, C, L), (N, C, H, W), ...

    Args:
        features: the number of channels, C.
        momentum: the weight of a batch in the running statistics.
        epsilon: what is added to the variance.
    """

    def __init__(self, features: int, momentum: float = MOMENTUM, epsilon: float = EPSILON) -> None:
        super().__init__(features, eps=epsilon, momentum=momentum)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch norm of an input with {input.ndim} axes, expected (N, C, ...)")
