"""Whether an optimizer trains the same where its state or its parameters are divided.

It is tried, before a trial's first step, on small stand-ins of the parameters: once on all of them
whole, and once as the processes will have them. An optimizer that looks over all parameters at once
(as by the norm of all of them) or that takes a part of a matrix for the matrix trains otherwise in
the second case, and is refused: it would be another algorithm, and nobody would see.
"""

import dataclasses
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from algoperf import spec
from algoperf.backends import torch_optimizers, torch_shards
from algoperf.backends.ranks import OPTIMIZER
from algoperf.errors import UserError
from algoperf.run_folder import state_kinds

STEPS = 10  # with a learning rate that warms up
LONGEST = 6  # axis of a stand-in
SPREAD = 0.02  # of a stand-in's first values; gradients are about 1
# How far a value may be from the other one, by how far it has moved: products of matrices are
# added up in another order, in float32, and what looks over all of them is off by tens of percent.
TOLERANCE = 0.01
ROUNDING = 1e-6

Make = Callable[[spec.Parameters], Any]
Divide = Callable[[torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What an optimizer made of stand-ins: their values by name, and the numbers of its groups."""

    values: Mapping[str, torch.Tensor]
    numbers: Sequence[Mapping[str, float]]
    groups: Sequence[Sequence[str]]  # the names of the parameters of each group


def check(make: Make, parameters: spec.Parameters, shard: str) -> str | None:
    """Compare what an optimizer makes of whole parameters and of divided ones.

    All processes must call it. The random generators are left as they were.

    Args:
        make: Returns what the submission's `torch_optimizer` makes of parameters.
        parameters: Those of the model.
        shard: What is divided, from `algoperf.backends.ranks`.

    Returns:
        A note, where the optimizer cannot be tried on small stand-ins; else None.

    Raises:
        UserError: It trains otherwise, or not at all, on what is divided.
    """
    before = state_kinds.generators()
    try:
        return _check(make, parameters, shard)
    finally:
        state_kinds.set_generators(before)


def _check(make: Make, parameters: spec.Parameters, shard: str) -> str | None:
    try:
        together = _train(make, parameters, set(), _same)
    except UserError:
        raise
    except Exception as error:
        if type(error).__name__ == "NoClosureError":
            raise needs_closure(shard, "the optimizer") from error
        return (
            f"--shard {shard}: the optimizer could not be tried on small parameters "
            f"({_first_line(error)}), so nobody has looked whether it trains the same"
        )
    hidden: set[str] = set()
    divide: Divide = _same
    if shard == OPTIMIZER:
        groups = together.groups or [list(parameters)]
        hidden = {name for names in groups for name in names[1::2]}
    else:
        divide = _dividing(next(filter(torch_shards.is_divided, parameters.tensors()), None))
    try:
        apart = _train(make, parameters, hidden, divide)
    except Exception as error:
        raise UserError(
            f"--shard {shard}: the optimizer does not train on what is divided "
            f"({_first_line(error)}); {_instead(shard)}"
        ) from error
    difference = _difference(together, apart, hidden, _initial(parameters))
    if difference is not None:
        raise UserError(
            f"--shard {shard}: the optimizer trains otherwise on what is divided ({difference}): "
            f"it needs {_needs(shard)}; {_instead(shard)}"
        )
    return None


def needs_closure(shard: str, kind: str) -> UserError:
    """Return the error that says of an optimizer that its step computes gradients."""
    return UserError(
        f"--shard {shard}: {kind} needs a closure, which computes gradients in the middle of its "
        "step, on all parameters: use --shard none"
    )


def _needs(shard: str) -> str:
    return "all parameters at once" if shard == OPTIMIZER else "whole ones (info.whole)"


def _instead(shard: str) -> str:
    return "use --shard none" if shard == OPTIMIZER else "use --shard optimizer, or none"


def _same(value: torch.Tensor) -> torch.Tensor:
    return value


def _dividing(example: Any) -> Divide:
    """Return what divides a stand-in as a model's parameters are divided."""

    def divide(value: torch.Tensor) -> torch.Tensor:
        return value if value.ndim == 0 else torch_shards.divided(value, example)

    return divide


def _shape(parameter: spec.Parameter) -> tuple[int, ...]:
    return tuple(min(size, LONGEST) for size in parameter.shape)


def _initial(parameters: spec.Parameters) -> dict[str, torch.Tensor]:
    return _drawn(parameters, 0, SPREAD)


def _drawn(parameters: spec.Parameters, seed: int, scale: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (scale * torch.randn(_shape(each), generator=generator)).to(
            each.tensor.device, each.tensor.dtype
        )
        for name, each in parameters.items()
    }


def _train(make: Make, parameters: spec.Parameters, hidden: set[str], divide: Divide) -> _Outcome:
    """Have an optimizer bring stand-ins, but for those that are hidden, nearer to a target."""
    torch.manual_seed(0)
    tensors = {
        name: nn.Parameter(divide(value), requires_grad=parameters[name].tensor.requires_grad)
        for name, value in _initial(parameters).items()
    }
    targets = {name: divide(value) for name, value in _drawn(parameters, 1, 1.0).items()}
    described = spec.Parameters(
        dataclasses.replace(each, shape=tuple(tensors[name].shape), tensor=tensors[name])
        for name, each in parameters.items()
    )
    state = torch_optimizers.state_of(make(described))
    optimizers = torch_optimizers.members(state["optimizer"])
    torch_shards.step_plainly(optimizers)
    for _ in range(STEPS):
        for name, tensor in tensors.items():
            is_seen = tensor.requires_grad and name not in hidden
            tensor.grad = tensor.detach() - targets[name] if is_seen else None
        for optimizer in optimizers:
            optimizer.step()
        for scheduler in torch_optimizers.members(state["scheduler"]):
            torch_optimizers.step_scheduler(scheduler, torch.tensor(1.0))
    names = {id(tensor): name for name, tensor in tensors.items()}
    groups = [group for each in optimizers for group in getattr(each, "param_groups", [])]
    return _Outcome(
        {name: torch_shards.whole(tensor.detach()) for name, tensor in tensors.items()},
        [_numbers(group) for group in groups],
        [[names.get(id(tensor), "") for tensor in group["params"]] for group in groups],
    )


def _numbers(group: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers that a group of parameters has beside them."""
    numbers = {}
    for name, value in group.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number or (isinstance(value, torch.Tensor) and value.numel() == 1):
            numbers[name] = float(torch_shards.whole(value))
    return numbers


def _difference(
    together: _Outcome, apart: _Outcome, hidden: set[str], initial: Mapping[str, torch.Tensor]
) -> str | None:
    """Return what differs most plainly; None where nothing does."""
    for name in together.values.keys() - hidden:
        one, other, start = together.values[name], apart.values[name], initial[name]
        moved = float((one - start).norm())
        allowed = TOLERANCE * moved + ROUNDING * float(start.norm())
        distance = float((other - one).norm())
        both_are_nan = math.isnan(distance) and math.isnan(moved)
        if not distance <= allowed and not both_are_nan:
            return f"{name} moves by {moved:.3g}, and ends {distance:.3g} away"
    for names, one_group, other_group in zip(
        together.groups, together.numbers, apart.numbers, strict=True
    ):
        if not set(names) - hidden:
            continue
        for key, number in one_group.items():
            other_number = other_group.get(key, number)
            if abs(other_number - number) > TOLERANCE * abs(number):
                return f"its {key} is {number:.3g}, and becomes {other_number:.3g}"
    return None


def _first_line(error: Exception) -> str:
    text = textwrap.shorten(str(error).strip().partition("\n")[0], 200, placeholder=" ...")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
