"""An optimizer-form submission of JAX, as the functions of the full form."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from algoperf import errors, spec
from algoperf.backends import shared
from algoperf.backends.computation import Computation
from algoperf.backends.jax_computation import (
    LossScale,
    all_finite,
    choose,
    first_loss_scale,
    unshared,
)
from algoperf.backends.jax_layout import Layout


class OptimizerForm:
    """An optimizer-form submission in the functions of the full form: one jitted step for the whole
    run.

    Its state is the transformation's, with a `LossScale` beside it where the loss is scaled.
    """

    def __init__(
        self,
        functions: shared.OptimizerFunctions,
        settings: shared.StepSettings,
        computation: Computation,
        layout: Layout,
    ) -> None:
        self._functions = functions
        self._settings = settings
        self._computation = computation
        self._layout = layout
        self.notes: list[str] = []

    def init_optimizer_state(
        self, workload: Any, model_params: Any, hyperparameters: Any, model_state: Any = None
    ) -> Any:
        """Make the gradient transformation and return its state."""
        transformation = self._functions.make(workload.parameters, hyperparameters)
        if not isinstance(transformation, optax.GradientTransformation):
            raise errors.UserError(
                f"jax_optimizer returned {shared.described(transformation)}, not an "
                "optax.GradientTransformation; several are one by optax.chain or optax.partition"
            )
        self._transformation = optax.with_extra_args_support(transformation)
        state = unshared(self._first_state(model_params), model_params, model_state)
        placed: Any = None
        if self._layout.shard is not None or self._layout.offload:
            # Else XLA chooses, and the next step would be compiled once more for its choice.
            trees = model_params, model_state, state
            placed = *jax.tree.map(lambda leaf: leaf.sharding, trees), None
        self._step = jax.jit(
            functools.partial(self._update, workload),
            donate_argnums=(0, 1, 2),
            out_shardings=placed,
        )
        return state

    def indices_of_others(self, optimizer: Any) -> frozenset[int]:
        """Return nothing: this process has the state of all parameters."""
        return frozenset()

    def _first_state(self, params: Any) -> Any:
        """Return what the transformation starts from, where a step will leave it: else the first
        step would be compiled once more for its own output.
        """

        def start(params: Any) -> Any:
            state = self._transformation.init(params)
            return (state, first_loss_scale()) if self._computation.scales_loss else state

        alone = jax.process_count() == 1
        if self._layout.shard is None and alone and not self._layout.offload:
            state = start(params)
            return jax.device_put(state, self._layout.of_state(state))
        # Compiled, no device has more of it than its part at any time.
        placed = self._layout.of_state(jax.eval_shape(start, params))
        return jax.jit(start, out_shardings=placed)(params)

    def _gradients(
        self, workload: Any, params: Any, model_state: Any, batch: Any, rng: Any, scale: Any
    ) -> tuple[Any, Any, Any]:
        """Return (mean loss, new model state, gradients of the loss times `scale`, if any)."""
        parts = self._computation.accumulate
        whole = shared.whole_of(workload, batch, parts)

        def differentiate(model_state: Any, batch: Any, rng: Any) -> tuple[Any, Any, Any]:
            def scaled(params: Any) -> tuple[Any, tuple[Any, Any]]:
                loss, state = shared.training_loss(
                    workload, params, batch, model_state, rng, self._settings, whole
                )
                return loss if scale is None else loss * scale, (loss, state)

            (_, (loss, state)), gradients = jax.value_and_grad(scaled, has_aux=True)(params)
            return loss, state, gradients

        if parts == 1:
            return differentiate(model_state, batch, rng)

        def add(carry: Any, part: Any) -> tuple[Any, None]:
            loss, model_state, gradients = carry
            number, batch = part
            more, model_state, new = differentiate(
                model_state, batch, jax.random.fold_in(rng, number)
            )
            return (loss + more, model_state, jax.tree.map(jnp.add, gradients, new)), None

        start = jnp.float32(0), model_state, jax.tree.map(jnp.zeros_like, params)
        return jax.lax.scan(add, start, (jnp.arange(parts), self._stacked(batch)))[0]

    def _value(self, workload: Any, model_state: Any, batch: Any, rng: Any, params: Any) -> Any:
        """Return the step's mean loss at other parameters: with the same rows and the same dropout.

        Of micro-batches, one at a time is in memory, also where it is differentiated.
        """
        parts = self._computation.accumulate
        whole = shared.whole_of(workload, batch, parts)

        def value(part: Any, rng: Any) -> Any:
            return shared.training_loss(
                workload, params, part, model_state, rng, self._settings, whole
            )[0]

        if parts == 1:
            return value(batch, rng)

        def add(total: Any, part: Any) -> tuple[Any, None]:
            number, rows = part
            return total + value(rows, jax.random.fold_in(rng, number)), None

        stacked = self._stacked(batch)
        return jax.lax.scan(jax.checkpoint(add), jnp.float32(0), (jnp.arange(parts), stacked))[0]

    def _stacked(self, batch: Any) -> Any:
        return jax.tree.map(lambda *rows: jnp.stack(rows), *self._computation.micro_batches(batch))

    def _update(
        self,
        workload: Any,
        params: Any,
        model_state: Any,
        optimizer_state: Any,
        batch: Any,
        rng: Any,
    ) -> tuple[Any, Any, Any, dict[str, Any]]:
        optimizer_state = self._on_device(optimizer_state)
        scale: LossScale | None = None
        if self._computation.scales_loss:
            optimizer_state, scale = optimizer_state
        loss, new_model_state, gradients = self._gradients(
            workload, params, model_state, batch, rng, scale and scale.scale
        )
        if scale is not None:
            gradients = jax.tree.map(lambda gradient: gradient / scale.scale, gradients)
        finite = all_finite(gradients)  # left out of what is compiled where nobody asks
        norm = optax.tree.norm(gradients)
        scalars = {"loss": loss, "gradient_norm": norm}
        if self._settings.grad_clip is not None:
            clip = shared.clip_factor(norm, self._settings.grad_clip, jnp.minimum)
            gradients = jax.tree.map(lambda gradient: gradient * clip, gradients)

        def value_fn(params: Any, obj_fn: Any = None, grad_fn: Any = None) -> Any:
            # Optax's line searches hand on to it whatever else they got, and count what it names.
            return self._value(workload, model_state, batch, rng, params)

        extra = {
            "value": loss,
            "grad": gradients,
            "value_fn": value_fn,
            "obj_fn": value_fn,  # its name in optax.contrib.sophia
            "grad_fn": lambda params, *_: jax.grad(value_fn)(params),  # of optax.contrib.sam
        }
        updates, new_state = self._transformation.update(
            gradients, optimizer_state, params, **_accepted(self._transformation.update, extra)
        )
        new_params = optax.apply_updates(params, updates)
        if scale is None:
            return new_params, new_model_state, new_state, scalars
        new = choose(
            finite,
            (new_params, new_model_state, new_state),
            (params, model_state, optimizer_state),
        )
        return new[0], new[1], (new[2], scale.next(finite)), scalars

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

    def _on_device(self, optimizer_state: Any) -> Any:
        """Return the state where a step computes with it."""
        if not self._layout.offload:
            return optimizer_state
        return jax.device_put(optimizer_state, self._layout.of_state_in_step(optimizer_state))

    def eval_params(self, params: Any, optimizer_state: Any) -> Any:
        """The parameters to evaluate."""
        optimizer_state = self._on_device(optimizer_state)
        if self._computation.scales_loss:
            optimizer_state, _ = optimizer_state
        return self._functions.eval_params(params, optimizer_state)


def _accepted(update: Callable[..., Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the extra arguments that an update takes: all where it takes any."""
    parameters = inspect.signature(update).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return {name: value for name, value in extra.items() if takes_any or name in parameters}
