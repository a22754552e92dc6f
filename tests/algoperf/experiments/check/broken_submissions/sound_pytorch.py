"""A sound submission in the full form, in PyTorch; `test_check.py` breaks it in one place."""

import torch

from algoperf import spec

SEARCH_SPACE = {
    "learning_rate": {"min": 0.01, "max": 0.1, "scaling": "log"},
    "beta1": {"feasible_points": [0.9]},
}
CALLS = []


def get_batch_size(workload_name):
    return {"digits": 64}[workload_name]


def init_optimizer_state(workload, model_params, hyperparameters):
    optimizer = torch.optim.SGD(
        model_params.parameters(), lr=hyperparameters.learning_rate, momentum=hyperparameters.beta1
    )
    return {"optimizer": optimizer}


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
    params = current_param_container
    optimizer_state["optimizer"].zero_grad()
    logits, _ = workload.model_fn(
        params, batch, None, spec.ForwardPassMode.TRAIN, rng, update_batch_norm=True
    )
    loss = workload.loss_fn(batch["targets"], logits)
    (scale * loss["summed"] / loss["n_valid_examples"]).backward()
    optimizer_state["optimizer"].step()
    return optimizer_state, params, model_state


def prepare_for_eval(optimizer_state, current_param_container, model_state):
    params = current_param_container
    return optimizer_state, params, model_state
