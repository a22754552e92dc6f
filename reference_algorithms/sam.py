"""SAM: AdamW on the gradient at the worst point nearby, two passes a step.

Foret et al. 2021, "Sharpness-Aware Minimization for Efficiently Improving Generalization",
algorithm 1 with p = 2: the gradient is taken at w + rho g / |g|, over all parameters together.
Full form, since a step needs a second pass; one file for both frameworks.
"""

import functools
from typing import Any

from algoperf import spec
from reference_algorithms import adamw

DEFAULTS = {**adamw.DEFAULTS, "rho": 0.05}
SEARCH_SPACE = {
    **adamw.SEARCH_SPACE,
    "rho": {"feasible_points": [0.01, 0.02, 0.05, 0.1]},
}
RECORD_EVERY_STEPS = 10
TINY = 1e-12  # keeps a gradient of zeros from dividing by zero


def init_optimizer_state(
    workload: spec.Workload, model_params: Any, hyperparameters: spec.Hyperparameters
) -> Any:
    """PyTorch: the optimizer and its scheduler; JAX: optax's state and update function."""
    info = spec.TrainingInfo(
        workload.step_hint, workload.loss_type, workload.max_allowed_runtime_sec
    )
    if hasattr(model_params, "named_parameters"):
        parameters = spec.Parameters(
            spec.Parameter(name, spec.ParameterType.WEIGHT, tuple(tensor.shape), False, tensor)
            for name, tensor in model_params.named_parameters()
        )
        optimizer, scheduler = adamw.torch_optimizer(parameters, hyperparameters, info)
        return {"optimizer": optimizer, "scheduler": scheduler}
    import optax

    clip = optax.clip_by_global_norm(hyperparameters.grad_clip)
    transformation = optax.chain(clip, adamw.jax_optimizer(hyperparameters, info))
    return transformation.init(model_params), transformation.update


def update_params(
    workload: spec.Workload,
    current_param_container: Any,
    model_state: Any,
    hyperparameters: spec.Hyperparameters,
    batch: Any,
    optimizer_state: Any,
    global_step: int,
    rng: Any,
) -> Any:
    """Return the new optimizer state, parameters and model state."""
    params = current_param_container
    if isinstance(optimizer_state, dict):
        scalars, model_state = _torch_step(
            workload, params, model_state, hyperparameters, batch, optimizer_state, rng
        )
    else:
        state, update = optimizer_state
        params, model_state, state, scalars = _jax_step()(
            workload, update, params, model_state, state, batch, rng, hyperparameters.rho
        )
        optimizer_state = state, update
    if global_step % RECORD_EVERY_STEPS == 0 and workload.metrics_logger is not None:
        workload.metrics_logger.append_scalar_metrics(scalars, global_step)
    return optimizer_state, params, model_state


def _mean_loss(
    workload: spec.Workload, params: Any, batch: Any, model_state: Any, rng: Any, first: bool
) -> tuple[Any, Any]:
    """Return (loss, model state); batch statistics are those of the first pass."""
    train = spec.ForwardPassMode.TRAIN
    logits, model_state = workload.model_fn(params, batch, model_state, train, rng, first)
    return workload.mean_loss(batch["targets"], logits, batch.get("weights")), model_state


@functools.cache
def _jax_step() -> Any:
    import jax
    import optax

    def step(
        workload: Any, update: Any, params: Any, model_state: Any, state: Any, *rest: Any
    ) -> tuple[Any, Any, Any, dict[str, Any]]:
        batch, rng, rho = rest

        def loss_at(params: Any, first: bool) -> tuple[Any, Any]:
            return _mean_loss(workload, params, batch, model_state, rng, first)

        gradient = jax.value_and_grad(loss_at, has_aux=True)
        (loss, new_state), ascent = gradient(params, True)
        norm = optax.tree.norm(ascent)
        worst = optax.tree.add_scale(params, rho / (norm + TINY), ascent)
        _, descent = gradient(worst, False)
        updates, state = update(descent, state, params)
        scalars = {"loss": loss, "gradient_norm": norm}
        return optax.apply_updates(params, updates), new_state, state, scalars

    return jax.jit(step, static_argnums=(0, 1), donate_argnums=(2, 3, 4))


def _torch_step(
    workload: spec.Workload,
    module: Any,
    model_state: Any,
    hyperparameters: spec.Hyperparameters,
    batch: Any,
    optimizer_state: dict[str, Any],
    rng: Any,
) -> tuple[dict[str, Any], Any]:
    import torch

    optimizer, scheduler = optimizer_state["optimizer"], optimizer_state["scheduler"]
    optimizer.zero_grad(set_to_none=True)
    with torch.random.fork_rng():  # so that both passes draw the same dropout
        loss, model_state = _mean_loss(workload, module, batch, model_state, rng, True)
    loss.backward()
    tensors = [tensor for tensor in module.parameters() if tensor.grad is not None]
    gradients = [tensor.grad for tensor in tensors]
    norm = torch.nn.utils.get_total_norm(gradients)
    with torch.no_grad():
        before = [tensor.clone() for tensor in tensors]  # adding and taking away would round
        torch._foreach_mul_(gradients, hyperparameters.rho / (norm + TINY))
        torch._foreach_add_(tensors, gradients)
    optimizer.zero_grad(set_to_none=True)
    _mean_loss(workload, module, batch, model_state, rng, False)[0].backward()
    with torch.no_grad():
        torch._foreach_copy_(tensors, before)
    torch.nn.utils.clip_grad_norm_(tensors, hyperparameters.grad_clip)
    scalars = {
        "loss": loss.detach(),
        "gradient_norm": norm,
        "learning_rate": optimizer.param_groups[0]["lr"],
    }
    optimizer.step()
    scheduler.step()
    return scalars, model_state
