"""A sound submission in the optimizer form; `test_check.py` breaks it in one place at a time."""

DEFAULTS = {"learning_rate": 0.03, "beta1": 0.9}
SEARCH_SPACE = [{"learning_rate": 0.03}, {"learning_rate": 0.1}]


def jax_optimizer(hyperparameters):
    import optax

    optimizer = optax.sgd(hyperparameters.learning_rate, momentum=hyperparameters.beta1)
    return optimizer  # noqa: RET504


def torch_optimizer(params, hyperparameters):
    import torch

    optimizer = torch.optim.SGD(
        params.tensors(), lr=hyperparameters.learning_rate, momentum=hyperparameters.beta1
    )
    return optimizer  # noqa: RET504


def eval_params(params):
    return params
