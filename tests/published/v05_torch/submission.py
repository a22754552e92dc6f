"""In the style of version 0.5, PyTorch: a package of its own beside it, points for ranges."""

import torch
import torch.distributed.nn as dist_nn
from absl import logging
from algorithmic_efficiency import random_utils as prng
from algorithmic_efficiency import spec
from algorithmic_efficiency.pytorch_utils import pytorch_setup
from optimizers.heavy_ball import HeavyBall
from torch.optim.lr_scheduler import LinearLR

USE_PYTORCH_DDP, RANK, DEVICE, N_GPUS = pytorch_setup()


def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng):
    del model_state
    prng.fold_in(prng.split(rng)[0], 3)
    optimizer = HeavyBall(
        model_params.parameters(),
        lr=hyperparameters.learning_rate,
        momentum=1 - hyperparameters.one_minus_beta1,
    )
    scheduler = LinearLR(optimizer, 0.1, 1.0, total_iters=max(1, workload.step_hint // 20))
    return {"optimizer": optimizer, "scheduler": scheduler}


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
):
    model = current_param_container
    model.train()
    optimizer_state["optimizer"].zero_grad()
    logits, model_state = workload.model_fn(
        params=model,
        augmented_and_preprocessed_input_batch=batch,
        model_state=model_state,
        mode=spec.ForwardPassMode.TRAIN,
        rng=rng,
        update_batch_norm=True,
    )
    smoothing = getattr(hyperparameters, "label_smoothing", 0.0)
    losses = workload.loss_fn(
        label_batch=batch["targets"],
        logits_batch=logits,
        mask_batch=batch.get("weights"),
        label_smoothing=smoothing,
    )
    summed, count = losses["summed"], losses["n_valid_examples"]
    if USE_PYTORCH_DDP:
        summed, count = dist_nn.all_reduce(summed), dist_nn.all_reduce(count)
    loss = summed / count
    loss.backward()
    with torch.no_grad():
        norms = [torch.norm(p.grad.detach(), 2) for p in model.parameters()]
        norm = torch.norm(torch.stack(norms), 2)
    if hasattr(hyperparameters, "grad_clip"):
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=hyperparameters.grad_clip)
    optimizer_state["optimizer"].step()
    optimizer_state["scheduler"].step()
    if global_step % 10 == 0 and workload.metrics_logger is not None:
        workload.metrics_logger.append_scalar_metrics(
            {"loss": loss.item(), "grad_norm": norm.item()}, global_step
        )
        logging.info("%d) loss = %0.3f", global_step, loss.item())
    return optimizer_state, current_param_container, model_state


def get_batch_size(workload_name):
    if workload_name == "criteo1tb":
        return 262_144
    raise ValueError(f"Unsupported workload name: {workload_name}.")


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
