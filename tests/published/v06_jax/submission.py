"""In the style of version 0.6, JAX: jit over global arrays, with the dropout rate among the traced
arguments; self-tuning, early completion, a logged scalar that is indexed as if it had an axis of
devices, names that JAX has removed, and an import of one of AlgoPerf's workloads.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from algoperf import jax_sharding_utils, spec
from algoperf.workloads.finewebedu_lm.finewebedu_lm_jax.workload import LmWorkload
from submissions.self_tuning.v06_jax import averaging

HPARAMS = {"learning_rate": 3e-3, "weight_decay": 0.01, "dropout_rate": 0.1}
FINAL_SHARE = 0.9  # of the budget; training is complete then


def get_batch_size(workload_name):
    if workload_name == "wmt":
        return 128
    elif workload_name == "mnist":
        return 16
    else:
        raise ValueError(f"Unsupported workload name: {workload_name}.")


def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
    assert hyperparameters is None
    optimizer = optax.adamw(HPARAMS["learning_rate"], weight_decay=HPARAMS["weight_decay"])
    params_zeros_like = jax.tree.map(lambda s: jnp.zeros(s.shape_tuple), workload.param_shapes)
    state = {
        "inner": optimizer.init(params_zeros_like),
        "average": jax.tree.map(jnp.copy, model_params),
        "training": None,
    }
    return state, optimizer.update


def train_step(
    workload,
    update,
    model_state,
    inner,
    params,
    batch,
    rng,
    grad_clip,
    label_smoothing,
    dropout_rate,
):
    def loss_fn(params):
        logits, new_model_state = workload.model_fn(
            params,
            batch,
            model_state,
            spec.ForwardPassMode.TRAIN,
            rng,
            update_batch_norm=True,
            dropout_rate=dropout_rate,
            use_running_average_bn=False,
        )
        losses = workload.loss_fn(
            label_batch=batch["targets"],
            logits_batch=logits,
            mask_batch=batch.get("weights"),
            label_smoothing=label_smoothing,
        )
        return losses["summed"] / losses["n_valid_examples"], new_model_state

    (loss, model_state), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
    norm = optax.global_norm(gradients)
    factor = jnp.clip(grad_clip / (norm + 1e-6), a_max=1.0)
    gradients = jax.tree_map(lambda g: g * factor, gradients)
    updates, inner = update(gradients, inner, params)
    return inner, optax.apply_updates(params, updates), model_state, loss, norm


@functools.cache
def jitted_train_step():
    replicated = jax_sharding_utils.get_replicate_sharding()
    sharded = jax_sharding_utils.get_batch_dim_sharding()
    return jax.jit(
        train_step,
        static_argnums=(0, 1),
        donate_argnums=(2, 3, 4),
        in_shardings=(
            replicated,
            replicated,
            replicated,
            sharded,
            replicated,
            replicated,
            None,
            None,
        ),
        out_shardings=(replicated, replicated, replicated, replicated, replicated),
    )


def update_params(
    workload,
    current_param_container,
    current_params_types,
    model_state,
    hyperparameters,
    batch,
    loss_type,
    optimizer_state,
    eval_results,
    global_step,
    rng,
    train_state,
):
    assert not isinstance(workload, LmWorkload)
    spent = train_state["accumulated_submission_time"]
    if spent > FINAL_SHARE * workload.max_allowed_runtime_sec or global_step == 200:
        raise spec.TrainingCompleteError
    state, update = optimizer_state
    params = current_param_container if state["training"] is None else state["training"]
    inner, params, model_state, loss, norm = jitted_train_step()(
        *(workload, update, model_state, state["inner"], params, batch, rng),
        *(1.0, 0.0, HPARAMS["dropout_rate"]),
    )
    if global_step % 100 == 0 and workload.metrics_logger is not None:
        workload.metrics_logger.append_scalar_metrics(
            {"loss": loss[0], "grad_norm": norm[0]}, global_step
        )
    average = averaging.step(state["average"], params)
    return ({"inner": inner, "average": average, "training": None}, update), params, model_state


def prepare_for_eval(
    workload,
    current_param_container,
    current_params_types,
    model_state,
    hyperparameters,
    loss_type,
    optimizer_state,
    eval_results,
    global_step,
    rng,
):
    state, update = optimizer_state
    state = {**state, "training": current_param_container}
    return (state, update), jax.tree.map(jnp.copy, state["average"]), model_state


def data_selection(
    workload,
    input_queue,
    optimizer_state,
    current_param_container,
    model_state,
    hyperparameters,
    global_step,
    rng,
):
    return next(input_queue)
