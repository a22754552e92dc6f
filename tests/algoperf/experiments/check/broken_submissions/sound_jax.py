"""A sound submission in the full form, in JAX; `test_check.py` breaks it in one place at a time."""

import functools

import jax
import optax

from algoperf import spec

SEARCH_SPACE = {
    "learning_rate": {"min": 0.01, "max": 0.1, "scaling": "log"},
    "beta1": {"feasible_points": [0.9]},
}
CALLS = []


def get_batch_size(workload_name):
    return {"digits": 64}[workload_name]


def init_optimizer_state(workload, model_params, hyperparameters):
    optimizer = optax.sgd(hyperparameters.learning_rate, momentum=hyperparameters.beta1)
    return optimizer.init(model_params), optimizer.update


@functools.partial(jax.jit, static_argnums=(0, 1))
def train_step(workload, update, params, state, batch, rng, scale):
    def mean_loss(params):
        logits, _ = workload.model_fn(
            params, batch, None, spec.ForwardPassMode.TRAIN, rng, update_batch_norm=True
        )
        loss = workload.loss_fn(batch["targets"], logits)
        return scale * loss["summed"] / loss["n_valid_examples"]

    updates, state = update(jax.grad(mean_loss)(params), state, params)
    return state, optax.apply_updates(params, updates)


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
    CALLS.append(global_step)
    scale = 1.0
    state, update = optimizer_state
    params = current_param_container
    state, params = train_step(workload, update, params, state, batch, rng, scale)
    optimizer_state = (state, update)
    return optimizer_state, params, model_state


def prepare_for_eval(optimizer_state, current_param_container, model_state):
    params = current_param_container
    return optimizer_state, params, model_state
