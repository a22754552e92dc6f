"""What `torch_optimizer` returned: PyTorch optimizers and schedulers, which train as one."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from algoperf import errors, spec
from algoperf.backends import shared

ALLOWED = (
    "a torch.optim.Optimizer, or a tuple or list of optimizers (with step and zero_grad) and "
    "schedulers (with step)"
)
METRICS = ("metrics", "metric", "loss")  # what a scheduler may call the value that it needs


class Several:
    """Optimizers that are stepped one after the other, as one."""

    def __init__(self, optimizers: Sequence[Any]) -> None:
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all of them."""
        return [group for each in self.optimizers for group in each.param_groups]

    def zero_grad(self) -> None:
        """Have each of them drop its gradients."""
        for each in self.optimizers:
            each.zero_grad()

    def step(self) -> None:
        """Have each of them update its parameters."""
        for each in self.optimizers:
            each.step()


def members(part: Any) -> list[Any]:
    """Return the optimizers or schedulers that a state holds, as one, as a list or as None."""
    return part if isinstance(part, list) else [] if part is None else [part]


def state_of(returned: Any) -> dict[str, Any]:
    """Return what was returned as a state: an 'optimizer' and a 'scheduler'.

    Each is one object, or a list where there are several; without a scheduler it is None.

    Raises:
        UserError: Something else was returned, or something twice.
    """
    optimizers: list[Any] = []
    schedulers: list[Any] = []
    for each in _flat(returned):
        steps, zeroes = (callable(getattr(each, name, None)) for name in ("step", "zero_grad"))
        if isinstance(each, type) or not steps:
            kind = f"the class {each.__name__}" if isinstance(each, type) else type(each).__name__
            inside = f", and {kind} among it" if isinstance(returned, tuple | list) else ""
            raise errors.UserError(
                f"torch_optimizer returned {shared.described(returned)}{inside}, not {ALLOWED}"
            )
        known = optimizers if zeroes else schedulers
        if any(each is other for other in known):
            raise errors.UserError(
                f"torch_optimizer returned the same {type(each).__name__} twice, which would step "
                "twice"
            )
        known.append(each)
    if not optimizers:
        raise errors.UserError(
            f"torch_optimizer returned {shared.described(returned)}, with no optimizer among it; "
            f"expected {ALLOWED}"
        )
    for scheduler in schedulers:
        _check_scheduler(scheduler)
    return {
        "optimizer": optimizers if len(optimizers) > 1 else optimizers[0],
        "scheduler": schedulers if len(schedulers) > 1 else next(iter(schedulers), None),
    }


def _flat(returned: Any) -> Iterator[Any]:
    """Yield what is in tuples and lists; None stands for no scheduler."""
    if type(returned) not in (tuple, list):
        yield returned
        return
    for each in returned:
        if each is not None:
            yield from _flat(each)


def unassigned(optimizers: Sequence[Any], parameters: spec.Parameters) -> list[str]:
    """Return the names of the parameters that no optimizer holds.

    Returns:
        The names; none where an optimizer does not say what it holds (it has no `param_groups`).

    Raises:
        UserError: Two of the optimizers hold the same parameter.
    """
    if not all(hasattr(each, "param_groups") for each in optimizers):
        return []
    holders: dict[int, str] = {}
    names = {id(parameter.tensor): name for name, parameter in parameters.items()}
    for each in optimizers:
        kind = type(each).__name__
        for tensor in (value for group in each.param_groups for value in group["params"]):
            if id(tensor) in holders:
                name = names.get(id(tensor), "a tensor that is no parameter of the model")
                raise errors.UserError(
                    f"torch_optimizer gives {name} to two optimizers, {holders[id(tensor)]} and "
                    f"{kind}; choose by params.tensors(lambda p: ...)"
                )
        holders |= {id(value): kind for group in each.param_groups for value in group["params"]}
    return [name for identity, name in names.items() if identity not in holders]


def needs_closure(optimizer: Any) -> bool:
    """Return whether an optimizer's `step` cannot be called without a closure."""
    return bool(_required(optimizer))


def step_scheduler(scheduler: Any, loss: torch.Tensor | None) -> None:
    """Step a scheduler; one that steps by a value, as ReduceLROnPlateau, gets the training loss."""
    if _required(scheduler):
        scheduler.step(loss)
    else:
        scheduler.step()


def _check_scheduler(scheduler: Any) -> None:
    required = _required(scheduler)
    if len(required) > 1 or any(name not in METRICS for name in required):
        raise errors.UserError(
            f"torch_optimizer returned the scheduler {type(scheduler).__name__}, whose step needs "
            f"{', '.join(required)}; it may need nothing, or metrics (the step's training loss)"
        )


def _required(stepper: Any) -> tuple[str, ...]:
    """Return the names of the arguments that `step` cannot do without.

    A scheduler replaces its optimizer's `step` by a function that hides them, so the class is asked
    where it has one.
    """
    own: Callable[..., Any] | None = getattr(type(stepper), "step", None)
    return _required_names(own or stepper.step, is_of_class=own is not None)


@functools.lru_cache(maxsize=64)  # It is asked in each step, and a signature takes 30 us.
def _required_names(step: Callable[..., Any], is_of_class: bool) -> tuple[str, ...]:
    try:
        parameters = list(inspect.signature(step).parameters.values())
    except (TypeError, ValueError):  # written in C
        return ()
    positional = [
        each
        for each in parameters[1 if is_of_class else 0 :]
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    return tuple(each.name for each in positional if each.default is each.empty)


def learning_rate(optimizers: Sequence[Any]) -> Mapping[str, Any]:
    """Return the first optimizer's learning rate for the log, where it says one."""
    groups = getattr(optimizers[0], "param_groups", None) or [{}]
    return {"learning_rate": groups[0]["lr"]} if "lr" in groups[0] else {}
