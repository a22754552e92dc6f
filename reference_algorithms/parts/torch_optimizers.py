"""PyTorch optimizers that no library has soundly, and several optimizers as one.

All state is in `state` and `param_groups`, so that state_dict() saves the whole of it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from algoperf import spec
from reference_algorithms import adamw, schedules

Tensors = list[torch.Tensor]
# (directions, parameters, gradients, their states, group) -> directions
Change = Callable[[Tensors, Tensors, Tensors, list[dict[str, Any]], dict[str, Any]], Tensors]


def with_cosine(
    optimizer: torch.optim.Optimizer,
    hyperparameters: spec.Hyperparameters,
    info: spec.TrainingInfo,
) -> tuple[torch.optim.Optimizer, Any]:
    """Return an optimizer made with lr=1 and the scheduler that warms up and decays."""
    schedule = schedules.warmup_cosine(hyperparameters, info)
    return optimizer, schedules.for_torch(optimizer, schedule)


def matrices_apart(
    params: spec.Parameters,
    hyperparameters: spec.Hyperparameters,
    info: spec.TrainingInfo,
    make: Callable[[Tensors], torch.optim.Optimizer],
) -> tuple[torch.optim.Optimizer, Any]:
    """Return the optimizer that `make` makes for the hidden matrices with AdamW for the rest."""

    def for_others(tensors: Tensors) -> torch.optim.Optimizer:
        betas, decay = adamw.betas(hyperparameters), hyperparameters.weight_decay
        return torch.optim.AdamW(tensors, lr=1.0, betas=betas, weight_decay=decay, fused=True)

    matrices = params.tensors(lambda parameter: parameter.is_matrix)
    others = params.tensors(lambda parameter: not parameter.is_matrix)
    parts = [(make, matrices), (for_others, others)]
    made = Together([function(tensors) for function, tensors in parts if tensors])
    return with_cosine(made, hyperparameters, info)


class Together(torch.optim.Optimizer):
    """Several optimizers, each with parameters of its own, as one: one state, one list of groups.

    The groups must keep their number: each optimizer owns as many as it came with.
    """

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        super().__init__([group for part in optimizers for group in part.param_groups], {})
        self._parts = [(part, len(part.param_groups)) for part in optimizers]

    def step(self, closure: Any = None) -> Any:
        """One step of each; the state and the groups are ours, which a loaded state replaces."""
        first = 0
        for part, count in self._parts:
            part.state, part.param_groups = self.state, self.param_groups[first : first + count]
            part.step()
            first += count


class ChangedAdam(torch.optim.Optimizer):
    """AdamW whose directions, bias-corrected, pass through `change` before the step."""

    def __init__(
        self,
        params: Tensors,
        change: Change,
        betas: tuple[float, float],
        weight_decay: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": 1.0, "betas": betas, "weight_decay": weight_decay, "eps": eps, "step": 0}
        super().__init__(params, defaults)
        self._change = change

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; parameters without a gradient are left alone."""
        for group in self.param_groups:
            tensors = [tensor for tensor in group["params"] if tensor.grad is not None]
            if tensors:
                group["step"] += 1
                self._step(group, tensors, [tensor.grad for tensor in tensors])

    def _step(self, group: dict[str, Any], tensors: Tensors, gradients: Tensors) -> None:
        (beta1, beta2), step = group["betas"], group["step"]
        states = [self.state[tensor] for tensor in tensors]
        for state, tensor in zip(states, tensors, strict=True):
            if not state:
                state["exp_avg"] = torch.zeros_like(tensor)
                state["exp_avg_sq"] = torch.zeros_like(tensor)
        means = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        scales = torch._foreach_sqrt(squares)
        torch._foreach_div_(scales, math.sqrt(1 - beta2**step))
        torch._foreach_add_(scales, group["eps"])
        torch._foreach_mul_(scales, 1 - beta1**step)
        directions = list(torch._foreach_div(means, scales))
        directions = self._change(directions, tensors, gradients, states, group)
        torch._foreach_mul_(tensors, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(tensors, directions, alpha=-group["lr"])


class Muon(torch.optim.Optimizer):
    """Muon in single precision, for matrices alone; see `reference_algorithms.muon`."""

    def __init__(self, params: Tensors, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": 1.0, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; parameters without a gradient are left alone."""
        for group in self.param_groups:
            for tensor in (tensor for tensor in group["params"] if tensor.grad is not None):
                state, momentum = self.state[tensor], group["momentum"]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(tensor)
                total = state["momentum_buffer"].mul_(momentum).add_(tensor.grad)
                direction = orthogonalize(tensor.grad.add(total, alpha=momentum))
                scale = 0.2 * math.sqrt(max(tensor.shape))  # Adam's usual size, Liu et al. 2025
                tensor.mul_(1 - group["lr"] * group["weight_decay"])
                tensor.add_(direction, alpha=-group["lr"] * scale)


def orthogonalize(matrix: torch.Tensor, steps: int = 5, eps: float = 1e-8) -> torch.Tensor:
    """Bring all singular values near 1 by Jordan's quintic Newton-Schulz iteration.

    torch.optim.Muon has the same in bfloat16, which a CPU without such units does slowly.
    """
    first, third, fifth = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if tall else matrix
    wide = wide / (wide.norm() + eps)
    for _ in range(steps):
        gram = wide @ wide.T
        polynomial = torch.addmm(gram, gram, gram, beta=third, alpha=fifth)
        wide = torch.addmm(wide, polynomial, wide, beta=first)
    return wide.T if tall else wide
