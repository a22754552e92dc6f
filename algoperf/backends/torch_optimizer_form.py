"""An optimizer-form submission of PyTorch, as the functions of the full form."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from algoperf import errors, spec
from algoperf.backends import (
    shared,
    torch_batch_norm,
    torch_offload,
    torch_optimizers,
    torch_shard_check,
    torch_shards,
)
from algoperf.backends.computation import Computation
from algoperf.backends.ranks import ALONE, OPTIMIZER, Ranks
from algoperf.backends.torch_devices import TorchRanks


class _Gradients:
    """The gradients of one step, computed once, or as often as an optimizer's closure is called.

    Each time the same rows are passed with the same dropout, so that a line search sees one
    function. Batch norm's running statistics take them in the first time only.

    Attributes:
        first: The loss, the gradients' norm if it was asked for, and the model state of the first
            pass; None before.
    """

    def __init__(
        self,
        compute: Callable[[bool], tuple[torch.Tensor, torch.Tensor | None, Any]],
        repeats: bool,
    ) -> None:
        self.first: tuple[torch.Tensor, torch.Tensor | None, Any] | None = None
        self._compute = compute
        self._random = None
        self._devices: list[int] = []
        if repeats:
            self._devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
            self._random = (
                torch.get_rng_state(),
                [torch.cuda.get_rng_state(device) for device in self._devices],
            )

    def __call__(self) -> torch.Tensor:
        """Compute them at the parameters as they are now; return the loss."""
        with torch.enable_grad():
            if self.first is None:
                self.first = self._compute(True)
                return self.first[0]
            assert self._random is not None
            with torch.random.fork_rng(self._devices):
                torch.set_rng_state(self._random[0])
                for device, state in zip(self._devices, self._random[1], strict=True):
                    torch.cuda.set_rng_state(state, device)
                return self._compute(False)[0]


class OptimizerForm:
    """An optimizer-form submission in the functions of the full form."""

    def __init__(
        self,
        functions: shared.OptimizerFunctions,
        settings: shared.StepSettings,
        computation: Computation,
        ranks: Ranks = ALONE,
    ) -> None:
        self._functions = functions
        self._settings = settings
        self._computation = computation
        self._ranks = ranks
        self.notes: list[str] = []
        # Where the state is in the host's memory between steps.
        self._host_states: torch_offload.HostStates | None = None
        # Where the processes divide the optimizer's state, whose it is.
        self._owned: torch_shards.Owned | None = None

    def init_optimizer_state(
        self, workload: Any, model_params: nn.Module, hyperparameters: Any
    ) -> dict[str, Any]:
        """Make the optimizers and their schedulers, and what scales the loss, if it is."""
        parameters = workload.parameters
        state = torch_optimizers.state_of(self._functions.make(parameters, hyperparameters))
        optimizers = torch_optimizers.members(state["optimizer"])
        torch_shards.step_plainly(optimizers)
        without = torch_optimizers.unassigned(optimizers, parameters)
        if without:
            self.notes = [
                f"torch_optimizer gives no optimizer {shared.some(without, len(parameters))}, "
                "which will not train"
            ]
        # Whether `step` gets a closure; None until the first step shows it.
        self._takes_closure: bool | None = None
        needing = [each for each in optimizers if torch_optimizers.needs_closure(each)]
        self._starts_with_gradients = not needing
        if needing:
            self._check_closure(needing[0], optimizers)
            self._takes_closure = True
        self._trained = [value for value in model_params.parameters() if value.requires_grad]
        if self._ranks.shard is not None:
            self._divide(parameters, hyperparameters, optimizers)
        if self._computation.offload:
            self._host_states = torch_offload.HostStates(
                optimizers, self._trained, self._trained[0].device
            )
            self._host_states.put_away()
        if self._computation.scales_loss:
            for each in optimizers:
                if not hasattr(each, "param_groups"):
                    raise errors.UserError(
                        f"{type(each).__name__} has no param_groups, whose gradients "
                        "--precision fp16 scales back: use bf16 or float32"
                    )
            state["scaler"] = torch.amp.GradScaler(self._trained[0].device.type)
        return state

    def indices_of_others(self, optimizer: Any) -> frozenset[int]:
        """Return the places, in an optimizer's `state_dict`, of the states that other processes
        have.
        """
        if self._owned is None:
            return frozenset()
        return self._owned.indices_of_others(optimizer)

    def _states_on_device(self) -> contextlib.AbstractContextManager[None]:
        """Have the optimizers' state on the device while in the block."""
        return (
            contextlib.nullcontext() if self._host_states is None else self._host_states.on_device()
        )

    def _divide(
        self, parameters: spec.Parameters, hyperparameters: Any, optimizers: Sequence[Any]
    ) -> None:
        """Check that the optimizers can do with a part of what they see, and give them theirs."""
        assert self._ranks.shard is not None
        note = torch_shard_check.check(
            lambda given: self._functions.make(given, hyperparameters),
            parameters,
            self._ranks.shard,
        )
        self.notes += [] if note is None else [note]
        if self._ranks.shard == OPTIMIZER:
            ranks = self._ranks
            self._owned = torch_shards.Owned(self._trained, ranks.rank, ranks.count)
            self._owned.drop_states(optimizers)

    def _check_closure(self, optimizer: Any, optimizers: Sequence[Any]) -> None:
        kind = type(optimizer).__name__
        if self._ranks.shard is not None:
            raise torch_shard_check.needs_closure(self._ranks.shard, kind)
        if len(optimizers) > 1:
            raise errors.UserError(
                f"torch_optimizer returned {len(optimizers)} optimizers, and {kind} needs a "
                "closure: return it as the only optimizer"
            )
        if self._computation.scales_loss:
            raise errors.UserError(
                f"{kind} needs a closure, which --precision fp16 cannot scale the loss of: use "
                "bf16 or float32"
            )

    def _backward(
        self,
        workload: Any,
        params: nn.Module,
        model_state: Any,
        batch: Any,
        rng: Any,
        scaler: Any,
        update_batch_norm: bool = True,
    ) -> tuple[torch.Tensor, Any]:
        """Add up the gradients of the batch; return (its mean loss, new model state)."""
        parts = self._computation.micro_batches(batch)
        ranks = self._ranks
        whole = shared.whole_of(workload, batch, len(parts) * ranks.count, self._summed)
        total: Any = None
        for number, part in enumerate(parts, start=1):
            # The gradients of all parts are added up here, then once over the processes.
            waits = isinstance(params, DistributedDataParallel) and number < len(parts)
            together: Any = params
            with together.no_sync() if waits else contextlib.nullcontext():
                loss, model_state = shared.training_loss(
                    *(workload, params, part, model_state, rng, self._settings, whole),
                    update_batch_norm,
                )
                # What arrives is the mean over the processes, of shares that are to be added up.
                share = loss if ranks.count == 1 else loss * ranks.count
                (share if scaler is None else scaler.scale(share)).backward()
            total = loss.detach() if total is None else total + loss.detach()
        return self._summed(total), model_state

    def _summed(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes of what each has, without a gradient."""
        return self._ranks.summed(value) if isinstance(self._ranks, TorchRanks) else value

    def _drop_gradients(self, optimizer: Any) -> None:
        """Drop all gradients, also those of parameters that no optimizer holds."""
        optimizer.zero_grad()
        for value in self._trained:
            value.grad = None

    def _clip(self, wanted: bool) -> torch.Tensor | None:
        """Clip the gradients; return their norm before, if it is wanted or needed."""
        if self._settings.grad_clip is None and not wanted:
            return None
        gradients = [value.grad for value in self._trained if value.grad is not None]
        norm = torch_shards.whole(nn.utils.get_total_norm(gradients))
        if self._settings.grad_clip is not None:
            torch._foreach_mul_(
                [torch_shards.part(gradient) for gradient in gradients],
                shared.clip_factor(norm, self._settings.grad_clip, _minimum),
            )
        return norm

    def update_params(
        self,
        workload: Any,
        current_param_container: nn.Module,
        model_state: Any,
        batch: Any,
        optimizer_state: dict[str, Any],
        global_step: int,
        rng: Any,
    ) -> spec.UpdateReturn:
        """One step; its loss and gradient norm stay on the device until a drain."""
        optimizers = torch_optimizers.members(optimizer_state["optimizer"])
        optimizer = optimizers[0] if len(optimizers) == 1 else torch_optimizers.Several(optimizers)
        scaler = optimizer_state.get("scaler")
        kept = torch_batch_norm.Kept(current_param_container) if scaler is not None else None

        def compute(is_first: bool) -> tuple[torch.Tensor, torch.Tensor | None, Any]:
            self._drop_gradients(optimizer)
            loss, state = self._backward(
                workload, current_param_container, model_state, batch, rng, scaler, is_first
            )
            if scaler is not None:
                scaler.unscale_(optimizer)
            return loss, self._clip(is_first and self._functions.wants(global_step)), state

        gradients = _Gradients(compute, repeats=self._takes_closure is not False)
        if self._starts_with_gradients:
            gradients()
        rate = torch_optimizers.learning_rate(optimizers)
        if self._owned is not None:
            self._owned.hide()
        with self._states_on_device():
            is_updated = self._step(optimizer, scaler, gradients)
        if self._owned is not None:
            self._owned.spread()
        loss, norm = None, None
        if gradients.first is not None:
            loss, norm, model_state = gradients.first
        if norm is not None:
            scalars = {"loss": loss, "gradient_norm": norm, **rate}
            self._functions.record(workload, scalars, global_step)
        if is_updated:
            for scheduler in torch_optimizers.members(optimizer_state["scheduler"]):
                torch_optimizers.step_scheduler(scheduler, loss)
        if kept is not None and not is_updated:
            kept.put_back()  # a step that is left out leaves the running statistics, too
        return optimizer_state, current_param_container, model_state

    def _step(self, optimizer: Any, scaler: Any, gradients: _Gradients) -> bool:
        """Update the parameters, unless a scaled gradient was not finite; return whether."""
        if self._takes_closure:
            optimizer.step(gradients)
            return True
        try:
            is_updated = _plain_step(optimizer, scaler)
        except Exception as error:
            # By this name pytorch_optimizer's SAM and others say, before they change anything, that
            # they want a closure beside the gradients that are there.
            if self._takes_closure is False or type(error).__name__ != "NoClosureError":
                raise
            several = isinstance(optimizer, torch_optimizers.Several)
            self._check_closure(optimizer, optimizer.optimizers if several else [optimizer])
            self._takes_closure = True
            optimizer.step(gradients)
            return True
        self._takes_closure = False
        return is_updated

    def eval_params(self, params: nn.Module, optimizer_state: dict[str, Any]) -> nn.Module:
        """Return the module to evaluate.

        It gets the running statistics of the one that trains: in JAX these are no parameters, so
        that evaluation uses the current ones.
        """
        with self._states_on_device():
            module: nn.Module = self._functions.eval_params(params, optimizer_state["optimizer"])
        if isinstance(module, nn.Module):  # what it is else, is said where it is evaluated
            torch_batch_norm.follow(params, module)
            if self._owned is not None:
                self._spread(module)
        return module

    def _spread(self, module: nn.Module) -> None:
        """Give all processes what each owner's state has made of its parameters in a module."""
        assert self._owned is not None
        tensors = [value for value in module.parameters() if value.requires_grad]
        if len(tensors) != len(self._trained):
            raise errors.UserError(
                f"eval_params returned a module with {len(tensors)} parameters that train, "
                f"expected the model's {len(self._trained)}"
            )
        self._owned.spread(tensors)


def _plain_step(optimizer: Any, scaler: torch.amp.GradScaler | None) -> bool:
    if scaler is None:
        optimizer.step()
        return True
    before = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale() >= before


def _minimum(tensor: torch.Tensor, limit: float) -> torch.Tensor:
    return tensor.clamp(max=limit)
