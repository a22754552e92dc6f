"""In the style of version 0.5, JAX: an update under pmap, names that JAX has removed since, an
absolute import of its own old place, its settings in a dict, a table of batch sizes that raises.
"""

import functools
from typing import Any, Dict, List, Optional, Tuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from algorithmic_efficiency import spec
from flax import jax_utils
from jax import lax
from submissions.submissions_algorithms_v0_5.Team_1.external_tuning.v05_jax.schedule import warm_up

SETTINGS = {"eps": 1e-8, "clip": 1.0}
BATCH_SIZES = {"wmt": 128, "ogbg": 512}
_INVERSE = np.trapz(np.ones(3)) / 2.0  # 1.0, by a name that NumPy has removed


def get_batch_size(workload_name):
    if workload_name not in BATCH_SIZES:
        raise ValueError(f"Unsupported workload name: {workload_name}.")
    return BATCH_SIZES[workload_name]


def init_optimizer_state(
    workload: spec.Workload,
    model_params: spec.ParameterContainer,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    rng: spec.RandomState,
) -> spec.OptimizerState:
    del model_params, model_state, rng
    zeros = jax.tree_map(lambda s: jnp.zeros(s.shape_tuple), workload.param_shapes)
    rate = warm_up(hyperparameters.learning_rate, workload.step_hint)
    optimizer = optax.adam(rate, eps=SETTINGS["eps"] if not hasattr(SETTINGS, "eps") else 0.0)
    state = jax.device_put_replicated(optimizer.init(zeros), jax.local_devices())
    return state, optimizer.update


@functools.partial(
    jax.pmap,
    axis_name="batch",
    in_axes=(None, None, 0, 0, 0, 0, 0, None),
    static_broadcasted_argnums=(0, 1),
)
def pmapped_train_step(
    workload, update, model_state, optimizer_state, params, batch, rng: jax.random.KeyArray, clip
):
    def loss_fn(params):
        logits, new_model_state = workload.model_fn(
            params, batch, model_state, spec.ForwardPassMode.TRAIN, rng, update_batch_norm=True
        )
        losses = workload.loss_fn(batch["targets"], logits, batch.get("weights"))
        return losses["summed"], (losses["n_valid_examples"], new_model_state)

    (summed, (count, new_model_state)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
        params
    )
    summed, count, gradients = lax.psum((summed, count, gradients), axis_name="batch")
    gradients = jax.tree_map(lambda g: g / count, gradients)
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree_leaves(gradients)))
    factor = jnp.clip(clip / (norm + 1e-6), a_min=0.0, a_max=_INVERSE)
    gradients = jax.tree_map(lambda g: g * factor, gradients)
    updates, optimizer_state = update(gradients, optimizer_state, params)
    return (
        new_model_state,
        optimizer_state,
        optax.apply_updates(params, updates),
        summed / count,
        norm,
    )


def update_params(
    workload: spec.Workload,
    current_param_container: spec.ParameterContainer,
    current_params_types: spec.ParameterTypeTree,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: spec.Hyperparameters,
    batch: Dict[str, spec.Tensor],
    loss_type: spec.LossType,
    optimizer_state: spec.OptimizerState,
    eval_results: List[Tuple[int, float]],
    global_step: int,
    rng: spec.RandomState,
) -> spec.UpdateReturn:
    del current_params_types, loss_type, eval_results
    state, update = optimizer_state
    keys = jax.random.split(rng, jax.local_device_count())
    model_state, state, params, loss, norm = pmapped_train_step(
        workload, update, model_state, state, current_param_container, batch, keys, SETTINGS["clip"]
    )
    assert jax_utils.unreplicate(loss).ndim == 0
    if global_step % 10 == 0 and workload.metrics_logger is not None:
        workload.metrics_logger.append_scalar_metrics(
            {"loss": loss[0], "grad_norm": norm[0]}, global_step
        )
    return (state, update), params, model_state


def data_selection(
    workload: spec.Workload,
    input_queue: Any,
    optimizer_state: spec.OptimizerState,
    current_param_container: spec.ParameterContainer,
    model_state: spec.ModelAuxiliaryState,
    hyperparameters: Optional[spec.Hyperparameters],
    global_step: int,
    rng: spec.RandomState,
) -> Dict[str, spec.Tensor]:
    return next(input_queue)
