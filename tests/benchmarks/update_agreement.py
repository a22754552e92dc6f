"""Print how far the frameworks' updates differ, for each reference algorithm that serves both.

Twenty updates from fixed gradients (in the full form: of a loss that those gradients fix), float32
on the CPU; the norm of the difference over the norm of PyTorch's update, all parameters together.
1e-4 is the bound. Run from the repository's root:

    python tests/benchmarks/update_agreement.py [algorithm ...]

The tests of the reference algorithms take their runs from here, too.
"""

import importlib
import inspect
import math
import sys

import numpy as np

import reference_algorithms
from algoperf import spec
from algoperf.workload import parameters

STEPS = 20
BOUND = 1e-4
INFO = spec.TrainingInfo(step_hint=24, loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY, budget_s=60.0)
SHAPES = {  # in JAX's layout: a wide, a square and a tall matrix among what is none
    "embed/embedding": (7, 5),
    "block/dense/kernel": (5, 9),
    "block/dense/bias": (9,),
    "block/norm/scale": (9,),
    "block/square/kernel": (9, 9),
    "block/out/kernel": (9, 6),
    "head/kernel": (6, 2),
    "head/bias": (2,),
}
SQUARE = {**SHAPES, "block/dense/kernel": (5, 5), "block/out/kernel": (6, 6)}
# Large, so that twenty updates show what each does with them. The warm-up of 20 % and the steps
# after it let them see the rise, the fall and (linear) the flat end.
POINT = {"learning_rate": 0.03, "warmup_factor": 0.2, "weight_decay": 0.3}
LINEAR = {"decay_steps_factor": 0.6, "end_factor": 0.05}
# Prodigy's default first estimate moves weights near 1 by less than float32 can hold, so that its
# growth would be that of rounding errors.
# SAM's second pass shows where its first step is long, on a loss whose curvature is uneven, and
# DiLoCo's outer momentum after several outer steps.
OWN = {
    "diloco": {"inner_steps": 5},
    "prodigy": {"learning_rate": 1.0, "first_estimate": 1e-3},
    "sam": {"rho": 1.0},
}
REASONS = {
    "soap": "the first gradient's factors have no full rank, where a matrix is not square: their "
    "null space has no basis of its own, and each framework's is another"
}


class JaxRun:
    """An algorithm at work on arrays by name, in JAX."""

    def __init__(self, module, point, initial):
        import jax
        import optax

        self.module = module
        self.named = described(initial)
        self.transformation = make(module.jax_optimizer, self.named, point)
        self.weights = self.named.tree(lambda p: jax.numpy.array(initial[p.name]))
        self.state = self.transformation.init(self.weights)

        def update(weights, state, gradient):
            updates, state = self.transformation.update(gradient, state, weights)
            return optax.apply_updates(weights, updates), state

        self._update = jax.jit(update, donate_argnums=(0, 1))  # as the backend donates

    def step(self, gradient):
        """One update from gradients by name."""
        tree = self.named.tree(lambda p: gradient[p.name])
        self.weights, self.state = self._update(self.weights, self.state, tree)

    def values(self, weights=None):
        """The parameters by name, or others of their structure."""
        final = {}
        for name in self.named:
            node = self.weights if weights is None else weights
            for key in name.split("/"):
                node = node[key]
            final[name] = np.asarray(node)
        return final

    def evaluated(self):
        """The parameters that an evaluation measures, by name."""
        return self.values(self.module.eval_params(self.weights, self.state))

    def saved(self):
        """The state's arrays."""
        import jax

        return [np.array(leaf) for leaf in jax.tree.leaves((self.weights, self.state))]

    def restore(self, arrays):
        """Go on from what `saved` returned."""
        import jax

        structure = jax.tree.structure((self.weights, self.state))
        self.weights, self.state = jax.tree.unflatten(structure, map(jax.numpy.array, arrays))


class TorchRun:
    """An algorithm at work on arrays by name in JAX's layout, in PyTorch."""

    def __init__(self, module, point, initial):
        import torch

        self.module = module
        self.model = torch.nn.ParameterList(self._tensor(name, initial[name]) for name in initial)
        self.tensors = dict(zip(initial, self.model, strict=True))
        named = described(initial, self.tensors)
        self.optimizer, self.scheduler = make(module.torch_optimizer, named, point)

    @staticmethod
    def _tensor(name, value):
        import torch

        return torch.tensor(parameters.to_torch(name, value))  # its own memory

    def step(self, gradient):
        """One update from gradients by name."""
        for name, tensor in self.tensors.items():
            tensor.grad = self._tensor(name, gradient[name])
        self.optimizer.step()
        self.scheduler.step()

    def values(self, model=None):
        """The parameters by name, or those of a copy of the model."""
        pairs = zip(self.tensors, self.model if model is None else model, strict=True)
        return {
            name: parameters.from_torch(name, tensor.detach().numpy().copy())
            for name, tensor in pairs
        }

    def evaluated(self):
        """The parameters that an evaluation measures, by name."""
        return self.values(self.module.eval_params(self.model, self.optimizer))

    def saved(self):
        """The parts' state dicts, through a file's bytes."""
        import io

        import torch

        file = io.BytesIO()
        parts = (self.model, self.optimizer, self.scheduler)
        torch.save([part.state_dict() for part in parts], file)
        return file.getvalue()

    def restore(self, content):
        """Go on from what `saved` returned."""
        import io

        import torch

        states = torch.load(io.BytesIO(content), weights_only=True)
        for part, state in zip((self.model, self.optimizer, self.scheduler), states, strict=True):
            part.load_state_dict(state)


class Bowl:
    """A workload whose loss is g . w + sum(w^4) / 12, for the g that a batch brings."""

    step_hint, loss_type = INFO.step_hint, INFO.loss_type
    max_allowed_runtime_sec = INFO.budget_s
    metrics_logger = None

    def __init__(self, leaves):
        self._leaves = leaves

    def model_fn(self, params, batch, state, *_):
        """The parameters themselves."""
        return self._leaves(params), state

    def mean_loss(self, targets, logits, mask):
        """A scalar."""
        pairs = zip(self._leaves(targets), logits, strict=True)
        return sum((g * w + w**4 / 12).sum() for g, w in pairs)


class FullForm:
    """What both frameworks' runs of the full form do: the gradients come from the bowl's loss."""

    def start(self, leaves, params, point):
        """Make the state."""
        self.workload, self.point = Bowl(leaves), spec.make_hyperparameters(point)
        self.count, self.state = (
            0,
            self.module.init_optimizer_state(self.workload, params, self.point),
        )

    def update(self, params, targets):
        """Return the parameters after one update."""
        batch, rng = {"targets": targets}, None
        self.state, params, _ = self.module.update_params(
            self.workload, params, 0, self.point, batch, self.state, self.count, rng
        )
        self.count += 1
        return params


class JaxFullForm(FullForm, JaxRun):
    """A full-form algorithm at work on arrays by name, in JAX."""

    def __init__(self, module, point, initial):
        import jax

        self.module, self.named = module, described(initial)
        self.weights = self.named.tree(lambda p: jax.numpy.array(initial[p.name]))
        self.start(jax.tree.leaves, self.weights, point)

    def step(self, gradient):
        """One update from the bowl that gradients by name give."""
        self.weights = self.update(self.weights, self.named.tree(lambda p: gradient[p.name]))


class TorchFullForm(FullForm, TorchRun):
    """A full-form algorithm at work on arrays by name in JAX's layout, in PyTorch."""

    def __init__(self, module, point, initial):
        import torch

        self.module = module
        self.model = torch.nn.ParameterList(self._tensor(name, initial[name]) for name in initial)
        self.tensors = dict(zip(initial, self.model, strict=True))
        self.start(list, self.model, point)

    def step(self, gradient):
        """One update from the bowl that gradients by name give."""
        self.update(self.model, [self._tensor(name, gradient[name]) for name in self.tensors])


RUNS = {"jax": JaxRun, "pytorch": TorchRun}
FULL_FORM_RUNS = {"jax": JaxFullForm, "pytorch": TorchFullForm}


def load(name):
    """The module of a reference algorithm."""
    return importlib.import_module(f"reference_algorithms.{name}")


def runs_of(name):
    """The class of an algorithm's runs in each framework."""
    return RUNS if hasattr(load(name), "jax_optimizer") else FULL_FORM_RUNS


def final_values(name, initial, gradients):
    """The parameters after all steps, by name, in JAX and in PyTorch."""
    final = []
    for run_of in runs_of(name).values():
        run = run_of(load(name), point_of(name), initial)
        for gradient in gradients:
            run.step(gradient)
        final.append(run.values())
    return final


def point_of(name):
    """The algorithm's defaults with a rate and a decay that show in twenty updates."""
    shown = {**POINT, **LINEAR, **OWN.get(name, {})}
    return {key: shown.get(key, value) for key, value in load(name).DEFAULTS.items()}


def described(values, tensors=None):
    """The parameters as a submission sees them; PyTorch's where `tensors` are given."""
    shapes = {name: tuple((tensors or values)[name].shape) for name in values}
    return parameters.describe(shapes, lambda name: name.startswith("head/"), tensors)


def make(function, named, point):
    """Call a submission's function with those of the arguments that it names."""
    given = {"params": named, "hyperparameters": spec.make_hyperparameters(point), "info": INFO}
    names = inspect.signature(function).parameters
    return function(**{name: value for name, value in given.items() if name in names})


def initial_and_gradients(shapes, seed=7):
    """Return (parameters, gradients of each step) by name, float32 in JAX's layout."""
    rng = np.random.default_rng(seed)

    def draw(mean):
        return {
            name: rng.normal(mean, 1.0, shape).astype(np.float32) for name, shape in shapes.items()
        }

    return draw(0.0), [draw(0.3) for _ in range(STEPS)]


def difference(ours, others, initial):
    """Norm of the difference over the norm of the others' update, all parameters together."""

    def squares(left, right):
        return sum(np.sum((left[key].astype(np.float64) - right[key]) ** 2) for key in initial)

    return math.sqrt(squares(ours, others) / squares(others, initial))


def agreement(name, shapes):
    """The relative difference of an algorithm's updates between the frameworks."""
    initial, gradients = initial_and_gradients(shapes)
    return difference(*final_values(name, initial, gradients), initial)


def main():
    """Print the table."""
    print("| algorithm | relative difference | with square matrices | |\n|---|---|---|---|")
    for name in sys.argv[1:] or reference_algorithms.names():
        value, square = agreement(name, SHAPES), agreement(name, SQUARE)
        verdict = REASONS.get(name, "over the bound") if value >= BOUND else ""
        print(f"| {name} | {value:.1e} | {square:.1e} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()
