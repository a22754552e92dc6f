"""A template in the optimizer form: Adam with a falling learning rate, in both frameworks."""

DEFAULTS = {"learning_rate": 3e-3, "beta1": 0.9, "grad_clip": 1.0}


def schedule(hyperparameters, info):
    """Return the learning rate as a function of the step: it falls to a tenth of its peak."""
    peak, step_hint = hyperparameters.learning_rate, info.step_hint
    return lambda step: peak / (1 + 9 * step / step_hint)  # arithmetic alone serves both


def jax_optimizer(hyperparameters, info):
    """Return an optax.GradientTransformation."""
    import optax

    return optax.adam(schedule(hyperparameters, info), b1=hyperparameters.beta1)


def torch_optimizer(params, hyperparameters, info):
    """Return a torch.optim.Optimizer and its scheduler."""
    import torch

    optimizer = torch.optim.Adam(params.tensors(), lr=1.0, betas=(hyperparameters.beta1, 0.999))
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(hyperparameters, info))
    return optimizer, rate
