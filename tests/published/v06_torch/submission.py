"""In the style of version 0.6, PyTorch: losses reduced over the processes, relative imports, an
evaluation batch size that the rules forbid, requirements, and parameters swapped for an average at
evaluations.
"""

import torch
import torch.distributed as dist
import torch.distributed.nn as dist_nn

from algoperf import spec
from algoperf.pytorch_utils import pytorch_setup

from .swap import Average

USE_PYTORCH_DDP, RANK, DEVICE, N_GPUS = pytorch_setup()


def get_batch_size(workload_name):
    return {"digits": 32}[workload_name]


def get_eval_batch_size(workload_name):
    return 7


def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
    optimizer = torch.optim.NAdam(
        model_params.parameters(),
        lr=hyperparameters.learning_rate,
        betas=(1.0 - hyperparameters.one_minus_beta1, hyperparameters.beta2),
        weight_decay=hyperparameters.weight_decay,
        decoupled_weight_decay=True,
    )
    return {"optimizer": optimizer, "average": Average(model_params)}


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
    train_state=None,
):
    assert set(current_params_types.values()) <= set(spec.ParameterType)
    assert train_state["is_time_remaining"]
    model = current_param_container
    optimizer_state["average"].swap_back(model)
    model.train()
    optimizer_state["optimizer"].zero_grad()
    logits, new_model_state = workload.model_fn(
        params=model,
        augmented_and_preprocessed_input_batch=batch,
        model_state=model_state,
        mode=spec.ForwardPassMode.TRAIN,
        rng=rng,
        update_batch_norm=True,
        dropout_rate=hyperparameters.dropout_rate,
    )
    losses = workload.loss_fn(batch["targets"], logits, mask_batch=batch.get("weights"))
    count = dist_nn.all_reduce(losses["n_valid_examples"])
    dist.all_reduce(losses["summed"].detach().clone(), op=dist.ReduceOp.AVG)
    loss = losses["summed"] * dist.get_world_size() / count
    loss.backward()
    optimizer_state["optimizer"].step()
    optimizer_state["average"].update(model)
    if global_step % 10 == 0 and workload.metrics_logger is not None:
        workload.metrics_logger.append_scalar_metrics({"loss": loss.item()}, global_step)
    return optimizer_state, model, new_model_state


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
    optimizer_state["average"].swap_in(current_param_container)
    return optimizer_state, current_param_container, model_state


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
    batch = next(input_queue)
    assert batch["inputs"].shape[0] == batch["targets"].shape[0]
    return batch
