"""An optimizer-form submission of PyTorch, as the functions of the full form."""

from typing import Any

import torch
from torch import nn

from algoperf import errors, spec
from algoperf.backends import shared, torch_batch_norm
from algoperf.backends.computation import Computation


class OptimizerForm:
    """An optimizer-form submission in the functions of the full form."""

    def __init__(
        self,
        functions: shared.OptimizerFunctions,
        settings: shared.StepSettings,
        computation: Computation,
    ) -> None:
        self._functions = functions
        self._settings = settings
        self._computation = computation

    def init_optimizer_state(
        self, workload: Any, model_params: nn.Module, hyperparameters: Any
    ) -> dict[str, Any]:
        """Make the optimizer and its scheduler (or None), and what scales the loss, if it is."""
        returned = self._functions.make(workload.parameters, hyperparameters)
        optimizer, scheduler = returned if isinstance(returned, tuple) else (returned, None)
        if not callable(getattr(optimizer, "step", None)):
            raise errors.UserError(
                f"torch_optimizer returned {type(returned).__name__}, "
                "not a torch.optim.Optimizer or (optimizer, scheduler)"
            )
        self._trained = [value for value in model_params.parameters() if value.requires_grad]
        state = {"optimizer": optimizer, "scheduler": scheduler}
        if self._computation.scales_loss:
            state["scaler"] = torch.amp.GradScaler(self._trained[0].device.type)
        return state

    def _backward(
        self, workload: Any, params: nn.Module, model_state: Any, batch: Any, rng: Any, scaler: Any
    ) -> tuple[torch.Tensor, Any]:
        """Add up the gradients of the batch; return (its mean loss, new model state)."""
        parts = self._computation.micro_batches(batch)
        whole = shared.Whole(len(parts), shared.weight_sum(batch))
        total: Any = None
        for part in parts:
            loss, model_state = shared.training_loss(
                workload, params, part, model_state, rng, self._settings, whole
            )
            (loss if scaler is None else scaler.scale(loss)).backward()
            total = loss.detach() if total is None else total + loss.detach()
        return total, model_state

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
        optimizer, scheduler = optimizer_state["optimizer"], optimizer_state["scheduler"]
        scaler = optimizer_state.get("scaler")
        optimizer.zero_grad(set_to_none=True)
        kept = torch_batch_norm.Kept(current_param_container) if scaler is not None else None
        loss, model_state = self._backward(
            workload, current_param_container, model_state, batch, rng, scaler
        )
        if scaler is not None:
            scaler.unscale_(optimizer)
        if self._settings.grad_clip is not None or self._functions.wants(global_step):
            gradients = [value.grad for value in self._trained if value.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
            if self._settings.grad_clip is not None:
                torch._foreach_mul_(
                    gradients, shared.clip_factor(norm, self._settings.grad_clip, _minimum)
                )
            scalars = {
                "loss": loss,
                "gradient_norm": norm,
                "learning_rate": optimizer.param_groups[0]["lr"],
            }
            self._functions.record(workload, scalars, global_step)
        is_updated = _step(optimizer, scaler)
        if scheduler is not None and is_updated:
            scheduler.step()
        if kept is not None and not is_updated:
            kept.put_back()  # a step that is left out leaves the running statistics, too
        return optimizer_state, current_param_container, model_state

    def eval_params(self, params: nn.Module, optimizer_state: dict[str, Any]) -> nn.Module:
        """Return the module to evaluate.

        It gets the running statistics of the one that trains: in JAX these are no parameters, so
        that evaluation uses the current ones.
        """
        module: nn.Module = self._functions.eval_params(params, optimizer_state["optimizer"])
        if isinstance(module, nn.Module):  # what it is else, is said where it is evaluated
            torch_batch_norm.follow(params, module)
        return module


def _step(optimizer: Any, scaler: torch.amp.GradScaler | None) -> bool:
    """Update the parameters, unless a scaled gradient was not finite; return whether."""
    if scaler is None:
        optimizer.step()
        return True
    before = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale() >= before


def _minimum(tensor: torch.Tensor, limit: float) -> torch.Tensor:
    return tensor.clamp(max=limit)
