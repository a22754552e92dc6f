"""PyTorch optimizers that no library has soundly, and several optimizers as one.

All state is in `state` and `param_groups`, so that state_dict() saves the whole of it.
"""

import math
from collections.abc import Callable, Iterable
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


def adamw_for(tensors: Tensors, hyperparameters: spec.Hyperparameters) -> torch.optim.Optimizer:
    """Return AdamW, made with lr=1, for these tensors."""
    betas, decay = adamw.betas(hyperparameters), hyperparameters.weight_decay
    return torch.optim.AdamW(tensors, lr=1.0, betas=betas, weight_decay=decay, fused=True)


def matrices_apart(
    params: spec.Parameters,
    hyperparameters: spec.Hyperparameters,
    info: spec.TrainingInfo,
    make: Callable[[Tensors], torch.optim.Optimizer],
) -> tuple[torch.optim.Optimizer, Any]:
    """Return the optimizer that `make` makes for the hidden matrices with AdamW for the rest."""

    def for_others(tensors: Tensors) -> torch.optim.Optimizer:
        return adamw_for(tensors, hyperparameters)

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


class _Changed(torch.optim.Optimizer):
    """An optimizer whose directions pass through `change` before the step; weights decay apart."""

    def __init__(self, params: Any, change: Change, defaults: dict[str, Any]) -> None:
        super().__init__(params, {"lr": 1.0, "step": 0, **defaults})
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
        states = [self.state[tensor] for tensor in tensors]
        directions = self._directions(group, gradients, states)
        directions = self._change(directions, tensors, gradients, states, group)
        torch._foreach_mul_(tensors, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(tensors, directions, alpha=-group["lr"])

    def _directions(
        self, group: dict[str, Any], gradients: Tensors, states: list[dict[str, Any]]
    ) -> Tensors:
        raise NotImplementedError


class ChangedAdam(_Changed):
    """AdamW whose directions, bias-corrected, pass through `change` before the step."""

    def __init__(
        self,
        params: Tensors,
        change: Change,
        betas: tuple[float, float],
        weight_decay: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, change, {"betas": betas, "weight_decay": weight_decay, "eps": eps})

    def _directions(
        self, group: dict[str, Any], gradients: Tensors, states: list[dict[str, Any]]
    ) -> Tensors:
        (beta1, beta2), step = group["betas"], group["step"]
        for state, gradient in zip(states, gradients, strict=True):
            if not state:
                state["exp_avg"] = torch.zeros_like(gradient)
                state["exp_avg_sq"] = torch.zeros_like(gradient)
        means = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        scales = torch._foreach_sqrt(squares)
        torch._foreach_div_(scales, math.sqrt(1 - beta2**step))
        torch._foreach_add_(scales, group["eps"])
        torch._foreach_mul_(scales, 1 - beta1**step)
        return list(torch._foreach_div(means, scales))


class ChangedMomentum(_Changed):
    """SGD with momentum whose directions pass through `change` before the step.

    The momentum is a sum, in which each gradient weighs `momentum` times the one after it. `change`
    gets it, or with `nesterov` the gradient plus `momentum` times the sum; it must not write to it.
    """

    def __init__(
        self,
        params: Any,
        change: Change,
        momentum: float,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {"momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov}
        super().__init__(params, change, defaults)

    def _directions(
        self, group: dict[str, Any], gradients: Tensors, states: list[dict[str, Any]]
    ) -> Tensors:
        for state, gradient in zip(states, gradients, strict=True):
            if not state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
        totals = [state["momentum_buffer"] for state in states]
        torch._foreach_mul_(totals, group["momentum"])
        torch._foreach_add_(totals, gradients)
        if group["nesterov"]:
            return list(torch._foreach_add(gradients, totals, alpha=group["momentum"]))
        return totals


class Outer(torch.optim.Optimizer):
    """An optimizer and, after every `inner_steps` of its steps, one of an outer optimizer.

    `outer` gets (parameter at the last outer step, parameter now, the outer momentum) and returns
    (parameter, momentum). The state and the groups are ours, which a loaded state replaces.
    """

    def __init__(
        self,
        inner: torch.optim.Optimizer,
        inner_steps: int,
        outer: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    ) -> None:
        super().__init__(inner.param_groups, {"inner_steps": inner_steps, "inner_step": 0})
        self._inner, self._outer = inner, outer

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of the inner optimizer, and what is due of the outer."""
        started = [
            (tensor, tensor.clone())
            for group in self.param_groups
            for tensor in group["params"]
            if tensor.grad is not None and not self.state[tensor]
        ]
        self._inner.state, self._inner.param_groups = self.state, self.param_groups
        self._inner.step()
        # Only now, since the inner optimizer asks whether a state is empty.
        for tensor, start in started:
            self.state[tensor].update(anchor=start, outer_momentum=torch.zeros_like(start))
        for group in self.param_groups:
            group["inner_step"] = (group["inner_step"] + 1) % group["inner_steps"]
            if group["inner_step"] == 0:
                self._step_outer(tensor for tensor in group["params"] if self.state[tensor])

    def _step_outer(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            state = self.state[tensor]
            value, momentum = self._outer(state["anchor"], tensor, state["outer_momentum"])
            tensor.copy_(value)
            state["anchor"], state["outer_momentum"] = value, momentum


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
