"""An optimizer-form submission of PyTorch, as the functions of the full form."""

from typing import Any

import torch
from torch import nn

from algoperf import spec
from algoperf.backends import shared


class OptimizerForm:
    """An optimizer-form submission in the functions of the full form."""

    def __init__(self, functions: shared.OptimizerFunctions, settings: shared.StepSettings) -> None:
        self._functions = functions
        self._settings = settings

    def init_optimizer_state(
        self, workload: Any, model_params: nn.Module, hyperparameters: Any
    ) -> dict[str, Any]:
        """Make the optimizer and its scheduler (or None)."""
        made = self._functions.make(workload.parameters, hyperparameters)
        optimizer, scheduler = made if isinstance(made, tuple) else (made, None)
        if not callable(getattr(optimizer, "step", None)):
            raise spec.UserError(
                f"torch_optimizer returned {type(made).__name__}, "
                "not a torch.optim.Optimizer or (optimizer, scheduler)"
            )
        self._trained = [value for value in model_params.parameters() if value.requires_grad]
        return {"optimizer": optimizer, "scheduler": scheduler}

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
        optimizer.zero_grad(set_to_none=True)
        loss, model_state = shared.training_loss(
            workload, current_param_container, batch, model_state, rng, self._settings
        )
        loss.backward()
        if self._settings.grad_clip is not None or self._functions.wants(global_step):
            gradients = [value.grad for value in self._trained if value.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
            if self._settings.grad_clip is not None:
                torch._foreach_mul_(
                    gradients, shared.clip_factor(norm, self._settings.grad_clip, _minimum)
                )
            scalars = {
                "loss": loss.detach(),
                "gradient_norm": norm,
                "learning_rate": optimizer.param_groups[0]["lr"],
            }
            self._functions.record(workload, scalars, global_step)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        return optimizer_state, current_param_container, model_state

    def eval_params(self, params: nn.Module, optimizer_state: dict[str, Any]) -> nn.Module:
        """The module to evaluate."""
        module: nn.Module = self._functions.eval_params(params, optimizer_state["optimizer"])
        return module


def _minimum(tensor: torch.Tensor, limit: float) -> torch.Tensor:
    return tensor.clamp(max=limit)
