"""A template in the full form: AdamW in JAX, with the whole update step in the submission's hands.

The functions and their arguments are AlgoPerf's; each may leave out the arguments that it does not
use. The workload and the optimizer's update function go through jit as static arguments.
"""

import functools

import jax
import optax

from algoperf import spec

SEARCH_SPACE = {
    "learning_rate": {"min": 3e-4, "max": 1e-2, "scaling": "log"},
    "weight_decay": {"min": 1e-3, "max": 0.3, "scaling": "log"},
    "label_smoothing": {"feasible_points": [0.0, 0.1]},
}


def get_batch_size(workload_name):
    """Return the batch size over all devices; unknown workloads must get an answer, too."""
    return {"digits": 64, "ag_news": 32}.get(workload_name, 64)


def init_optimizer_state(workload, model_params, hyperparameters):
    """Return any object; here optax's state and the function that updates it. Not timed."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.05 * hyperparameters.learning_rate,
        peak_value=hyperparameters.learning_rate,
        warmup_steps=max(1, workload.step_hint // 20),
        decay_steps=workload.step_hint,
    )
    optimizer = optax.adamw(schedule, weight_decay=hyperparameters.weight_decay)
    return optimizer.init(model_params), optimizer.update


def data_selection(input_queue):
    """Return the next batch; the queue repeats the shuffled training split for ever. Timed."""
    return next(input_queue)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3, 4))
def train_step(workload, update, params, model_state, optimizer_state, batch, rng, smoothing):
    """One step on the device; nothing here waits for its result."""

    def mean_loss(params):
        logits, new_state = workload.model_fn(
            params, batch, model_state, spec.ForwardPassMode.TRAIN, rng, update_batch_norm=True
        )
        loss = workload.loss_fn(batch["targets"], logits, batch.get("weights"), smoothing)
        return loss["summed"] / loss["n_valid_examples"], new_state

    (loss, model_state), gradients = jax.value_and_grad(mean_loss, has_aux=True)(params)
    updates, optimizer_state = update(gradients, optimizer_state, params)
    params = optax.apply_updates(params, updates)
    scalars = {"loss": loss, "gradient_norm": optax.global_norm(gradients)}
    return params, model_state, optimizer_state, scalars


def update_params(
    workload,
    current_param_container,
    model_state,
    hyperparameters,
    batch,
    optimizer_state,
    global_step,
    rng,
):
    """Return the new optimizer state, parameters and model state. Timed."""
    state, update = optimizer_state
    params, model_state, state, scalars = train_step(
        workload,
        update,
        current_param_container,
        model_state,
        state,
        batch,
        rng,
        hyperparameters.label_smoothing,
    )
    if global_step % 50 == 0 and workload.metrics_logger is not None:
        workload.metrics_logger.append_scalar_metrics(scalars, global_step)
    return (state, update), params, model_state


def prepare_for_eval(current_param_container, optimizer_state, model_state):
    """Return what the next evaluation measures, in update_params' order; optional. Timed.

    Training goes on from what is returned. A method that averages its weights swaps them in here
    and back at its next update.
    """
    return optimizer_state, current_param_container, model_state
