"""The parity gate: in JAX and in PyTorch every workload, at every scale, trains the same function
the same way.

Each case is a workload and a scale, found by discovery, a named variant at mini, or (exhaustive)
one of ten drawn variants of each workload; `conftest.small_data` gives it rows without a download.
"""

import dataclasses
import importlib
import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch

import reference_algorithms
from algoperf import backends, spec
from algoperf.backends import shared, torch_backend
from algoperf.data.batches import TrainingQueue
from algoperf.experiments.held_out import draw
from algoperf.submission import loading
from algoperf.trial import adapt
from algoperf.workload import axes, catalogue, parameters, registry

STEPS = 20
FULL_STEPS = 8  # of a second or more each; and of models whose blocks another case trains
TECHNIQUES = ("ag_news_lora", "ag_news_prompt", "ag_news_adapters", "xsum_lora")
DRAWN = 10  # of each workload
SAME_BLOCKS = {"lm": "ag_news", "mlm": "xsum"}  # whose cases test what these have of theirs
SEED = (7, 2**32 - 1)
ADAMW = Path(reference_algorithms.__file__).with_name("adamw.py")


def cases():
    """Every workload and scale; large ones are slow, or by hand where another has their model."""
    seen = set()
    for name in registry.names():
        definition = catalogue.find(name)
        for scale_name, scale in definition.scales.items():
            build = importlib.import_module(f"{definition.package}.model_jax").build
            model = build, str(sorted(scale.model.items()))
            is_seen = model in seen or name in SAME_BLOCKS
            marks = [pytest.mark.exhaustive] if is_seen else [pytest.mark.slow]
            seen.add(model)
            yield pytest.param(
                (definition, scale_name),
                id=f"{name}-{scale_name}",
                marks=() if scale_name == "mini" else marks,
            )


def variant_cases():
    """Every named variant at mini, and some that are drawn.

    Of techniques those that together have every kind of addition, and one of an encoder-decoder;
    the others are by hand.
    """
    for name in registry.variant_names():
        definition = catalogue.find(name)
        is_technique = "trainable" in definition.changes
        is_by_hand = definition.base in SAME_BLOCKS or (is_technique and name not in TECHNIQUES)
        marks = [pytest.mark.exhaustive] if is_by_hand else []
        yield pytest.param((definition, "mini"), id=f"{name}-mini", marks=marks)
    for name, attempt in itertools.product(registry.names(), range(DRAWN)):
        base = catalogue.find(name)
        changes = draw.draw(name, base.scales["mini"], 0, attempt, 1, 3)
        drawn = axes.vary(base, draw.name_of(name, 0, attempt), changes, {})
        told = "-".join(f"{axis}-{value}" for axis, value in changes.items())
        yield pytest.param((drawn, "mini"), id=f"{drawn.name}-{told}", marks=pytest.mark.exhaustive)


CASES = [*cases(), *variant_cases()]


@dataclasses.dataclass(frozen=True)
class Side:
    """One framework's half of a pair."""

    backend: Any
    workload: Any


@dataclasses.dataclass(frozen=True)
class Pair:
    jax: Side
    torch: Side
    batches: list[dict[str, np.ndarray]]
    values: dict[str, np.ndarray]  # those that are frozen as well
    is_variant: bool

    @property
    def trains_little(self) -> bool:
        """Less than a tenth of the model: that takes a higher learning rate."""
        return sum(each.size for each in self.trained.values()) < 0.1 * sum(
            each.size for each in self.values.values()
        )

    @property
    def trained(self) -> dict[str, np.ndarray]:
        names = self.jax.workload.parameters
        return {name: value for name, value in self.values.items() if name in names}


@pytest.fixture(scope="module", params=CASES)
def pair(request, load_small, make_values) -> Pair:
    definition, scale_name = request.param
    scale = definition.scales[scale_name]
    data = load_small(definition, scale_name)
    sides = []
    for framework in ("jax", "pytorch"):
        backend = backends.load(framework)
        sides.append(Side(backend, backend.workload(definition, scale, "builtin", data)))
    queue = TrainingQueue(data.splits["train"], 4 if scale_name == "mini" else 2, seed=0)
    shapes = sides[0].workload.shapes
    is_short = scale_name != "mini" or (definition.base or definition.name) in SAME_BLOCKS
    steps = FULL_STEPS if is_short else STEPS
    batches, values = [next(queue) for _ in range(steps)], make_values(shapes)
    return Pair(*sides, batches, values, is_variant=definition.base is not None)


def weighted(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batch with weights that differ, one of them 0."""
    weights = np.linspace(0, 1, len(batch["targets"]), dtype=np.float32)
    if "weights" in batch:
        weights = batch["weights"] * weights[:, None]
    return {**batch, "weights": weights}


def test_parameters_agree_in_number_name_type_and_shape(pair: Pair) -> None:
    ours, theirs = pair.jax.workload.parameters, pair.torch.workload.parameters
    assert set(ours) == set(theirs)
    for name, parameter in ours.items():
        other = theirs[name]
        empty = np.empty(parameter.shape, np.uint8)
        assert parameters.to_torch(name, empty).shape == other.shape, name
        assert (parameter.type, parameter.is_output) == (other.type, other.is_output), name
        assert parameter.type in spec.ParameterType, name
    count = sum(np.prod(parameter.shape) for parameter in ours.values())
    assert count == sum(value.numel() for value in theirs.tensors())


def test_types_that_a_submission_sees_agree(pair: Pair) -> None:
    nested = pair.jax.workload.parameters.tree(lambda parameter: parameter.name)
    names = jax.tree.leaves(nested)
    ours = dict(zip(names, jax.tree.leaves(pair.jax.workload.model_params_types), strict=True))
    module = pair.torch.workload.from_neutral(pair.values)
    neutral = {id(tensor): name for name, tensor in tensors_of(pair.torch.workload).items()}
    theirs = {
        neutral[id(value)]: pair.torch.workload.model_params_types[name]
        for name, value in module.named_parameters()
    }
    assert ours == theirs


def tensors_of(bound: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.tensor for name, parameter in bound.parameters.items()}


def test_the_converter_carries_parameters_over_and_back_bit_for_bit(pair: Pair) -> None:
    in_jax, _ = pair.jax.workload.split(pair.values)
    in_torch = pair.torch.workload.from_neutral(pair.jax.workload.to_neutral(in_jax))
    back = pair.jax.workload.to_neutral(
        pair.jax.workload.from_neutral(pair.torch.workload.to_neutral(in_torch))
    )
    assert set(back) == set(pair.trained)
    for name, value in pair.trained.items():
        assert back[name].dtype == np.float32
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_neutral_parameters_are_a_copy(pair: Pair) -> None:
    module = pair.torch.workload.from_neutral(pair.values)
    neutral = pair.torch.workload.to_neutral(module)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.add_(1)
    for name, value in pair.trained.items():
        np.testing.assert_array_equal(neutral[name], value, err_msg=name)


def test_initial_parameters_of_a_seed_are_equal(pair: Pair) -> None:
    params, state = pair.jax.workload.init_model_fn(pair.jax.backend.random_state(SEED))
    frozen = (state or {}).pop("frozen", {})
    ours = pair.jax.workload.to_neutral({**params, **(state or {})})
    ours |= pair.jax.workload.to_neutral(frozen)
    module, _ = pair.torch.workload.init_model_fn(pair.torch.backend.random_state(SEED))
    names = torch_backend.neutral_names(module)
    theirs = {
        names[key]: parameters.from_torch(names[key], value.numpy(force=True))
        for key, value in module.state_dict().items()
    }
    assert set(ours) <= set(theirs)
    assert set(pair.values) <= set(ours)
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def test_logits_agree(pair: Pair) -> None:
    ours, theirs = (logits(side, pair.values, pair.batches[0]) for side in (pair.jax, pair.torch))
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(ours).max()
    assert (
        np.ptp(ours, axis=0).max() > 1e-2 * np.abs(ours).max()
    )  # rows differ, so rows are compared


def logits(side: Side, values: dict[str, np.ndarray], batch: dict[str, np.ndarray]) -> np.ndarray:
    def forward(params: Any, state: Any, batch: Any) -> Any:
        rng = side.backend.random_state((0, 0))
        mode = spec.ForwardPassMode.EVAL
        return side.workload.model_fn(params, batch, state, mode, rng, False)[0]

    call = jax.jit(forward) if side.backend.name == "jax" else forward
    return side.backend.fetch(call(*state_of(side, values), side.backend.place(batch)))


def state_of(side: Side, values: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """Parameters and model state of these values."""
    if side.backend.name == "pytorch":
        return side.workload.from_neutral(values), None
    params, frozen = side.workload.split(values)
    return params, {"frozen": frozen} if frozen else None


def test_loss_and_gradient_agree(pair: Pair) -> None:
    batch = weighted(pair.batches[0])
    smoothings = (0.0,) if pair.is_variant else (0.0, 0.1)  # the loss is the base's
    for label_smoothing, ours in zip(
        smoothings, jax_gradients(pair, batch, smoothings), strict=True
    ):
        settings = shared.StepSettings(label_smoothing=label_smoothing, dropout_rate=0.0)
        loss, gradients = ours
        other_loss, other_gradients = torch_gradients(pair, batch, settings)
        assert other_loss == pytest.approx(loss, rel=1e-4)
        assert set(gradients) == set(other_gradients)
        size = sum(np.square(value).sum() for value in gradients.values()) ** 0.5
        for name, value in gradients.items():
            difference = np.linalg.norm(value - other_gradients[name])
            # the second term is for what is 0 but for rounding, as the bias of attention's keys
            assert difference <= 1e-4 * np.linalg.norm(value) + 1e-6 * size, name


def jax_gradients(
    pair: Pair, batch: Any, smoothings: tuple[float, ...]
) -> list[tuple[float, dict[str, np.ndarray]]]:
    """(loss, gradient) at each label smoothing, all from one compilation."""
    side = pair.jax
    rng, placed = side.backend.random_state((0, 0)), side.backend.place(batch)
    params, state = state_of(side, pair.values)

    def loss_of(params: Any, label_smoothing: Any) -> Any:
        settings = shared.StepSettings(label_smoothing=label_smoothing, dropout_rate=0.0)
        return shared.training_loss(side.workload, params, placed, state, rng, settings)[0]

    # A smoothing that is not a number when the program is made is computed with at 0 as well, so
    # the branch of the loss without one is run where there is only that one: by the variants.
    static = 1 if len(smoothings) == 1 else ()
    both = jax.jit(jax.value_and_grad(loss_of), static_argnums=static)
    results = [both(params, label_smoothing) for label_smoothing in smoothings]
    return [(float(loss), side.workload.to_neutral(gradients)) for loss, gradients in results]


def torch_gradients(pair: Pair, batch: Any, settings: shared.StepSettings) -> tuple[float, Any]:
    side = pair.torch
    module = side.workload.from_neutral(pair.values)
    module.zero_grad()
    loss, _ = shared.training_loss(
        side.workload, module, side.backend.place(batch), None, None, settings
    )
    loss.backward()
    gradients = {
        name: parameters.from_torch(name, tensor.grad.cpu().numpy())
        for name, tensor in tensors_of(side.workload).items()
    }
    module.zero_grad()
    return loss.item(), gradients


def test_losses_stay_together_over_steps_of_adamw(pair: Pair) -> None:
    rate_factor = 10 if pair.trains_little else 1
    ours, theirs = (train(side, pair.batches, rate_factor) for side in (pair.jax, pair.torch))
    assert len(ours) == len(pair.batches) + 1
    np.testing.assert_allclose(theirs, ours, rtol=1e-3)
    assert abs(ours[-1] - ours[0]) > 0.01 * ours[0]  # it trains: the agreement says something


class Losses(list[float]):
    """A metrics logger that keeps the losses."""

    def append_scalar_metrics(self, metrics: dict[str, Any], global_step: int, **_: Any) -> None:
        self.append(float(metrics["loss"]))


def train(side: Side, batches: list[dict[str, np.ndarray]], rate_factor: float) -> list[float]:
    """The loss before each step of the reference algorithm, and after the last (on the first
    batch).
    """
    loaded = loading.load(loading.inspect(ADAMW), side.backend.name)
    point = {**loaded.module.DEFAULTS, "dropout_rate": 0.0}
    point["learning_rate"] *= rate_factor
    hyperparameters = spec.make_hyperparameters(point)
    functions = adapt.submission_functions(loaded, side.backend, side.workload, hyperparameters)
    params, model_state = side.workload.init_model_fn(side.backend.random_state((1, 2)))
    rng = side.backend.random_state((3, 4))
    common = {"workload": side.workload, "hyperparameters": hyperparameters, "rng": rng}
    state = functions.init_optimizer_state(model_params=params, model_state=model_state, **common)
    losses = Losses()
    side.workload.metrics_logger = losses
    # Scalars are logged at multiples of ten only; no optimizer reads the step, so each is called
    # step 0.
    for batch in [*batches, batches[0]]:
        state, params, model_state = functions.update_params(
            current_param_container=params,
            model_state=model_state,
            batch=side.backend.place(batch),
            optimizer_state=state,
            global_step=0,
            **common,
        )
    side.workload.metrics_logger = None
    return losses
