"""An optimizer-form submission of JAX, as the functions of the full form."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from algoperf import spec
from algoperf.backends import shared


class OptimizerForm:
    """An optimizer-form submission in the functions of the full form: one jitted step for the whole
    run.
    """

    def __init__(self, functions: shared.OptimizerFunctions, settings: shared.StepSettings) -> None:
        self._functions = functions
        self._settings = settings

    def init_optimizer_state(self, workload: Any, model_params: Any, hyperparameters: Any) -> Any:
        """Make the gradient transformation and return its state."""
        transformation = self._functions.make(workload.parameters, hyperparameters)
        if not isinstance(transformation, optax.GradientTransformation):
            raise spec.UserError(
                f"jax_optimizer returned {type(transformation).__name__}, "
                "not an optax.GradientTransformation"
            )
        self._transformation = optax.with_extra_args_support(transformation)
        self._step = jax.jit(functools.partial(self._update, workload), donate_argnums=(0, 1, 2))
        # Placed as the parameters are, else the first step would be compiled once more for its own
        # output.
        return jax.device_put(self._transformation.init(model_params), workload.sharding)

    def _update(
        self,
        workload: Any,
        params: Any,
        model_state: Any,
        optimizer_state: Any,
        batch: Any,
        rng: Any,
    ) -> tuple[Any, Any, Any, dict[str, Any]]:
        def loss_of(params: Any) -> tuple[Any, Any]:
            return shared.training_loss(workload, params, batch, model_state, rng, self._settings)

        (loss, model_state), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        norm = optax.tree.norm(gradients)
        if self._settings.grad_clip is not None:
            factor = shared.clip_factor(norm, self._settings.grad_clip, jnp.minimum)
            gradients = jax.tree.map(lambda gradient: gradient * factor, gradients)
        updates, optimizer_state = self._transformation.update(
            gradients,
            optimizer_state,
            params,
            value=loss,
            grad=gradients,
            value_fn=lambda params: loss_of(params)[0],
        )
        params = optax.apply_updates(params, updates)
        return params, model_state, optimizer_state, {"loss": loss, "gradient_norm": norm}

    def update_params(
        self,
        workload: Any,
        current_param_container: Any,
        model_state: Any,
        batch: Any,
        optimizer_state: Any,
        global_step: int,
        rng: Any,
    ) -> spec.UpdateReturn:
        """One step; its loss and gradient norm stay on the device until a drain."""
        params, model_state, optimizer_state, scalars = self._step(
            current_param_container, model_state, optimizer_state, batch, rng
        )
        self._functions.record(workload, scalars, global_step)
        return optimizer_state, params, model_state

    def eval_params(self, params: Any, optimizer_state: Any) -> Any:
        """The parameters to evaluate."""
        return self._functions.eval_params(params, optimizer_state)
