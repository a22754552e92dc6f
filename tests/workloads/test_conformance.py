"""What a submission may rely on, for every workload in each framework."""

import dataclasses
import importlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from algoperf import backends, spec, workload
from algoperf.workload import catalogue, metric, registry

TRAIN, EVAL = spec.ForwardPassMode.TRAIN, spec.ForwardPassMode.EVAL


def cases() -> Iterator[Any]:
    """Every workload in each framework; in JAX, which compiles, by hand where an earlier one has
    the model.
    """
    seen = set()
    for name in registry.names():
        definition = catalogue.find(name)
        build = importlib.import_module(f"{definition.package}.model_jax").build
        model = build, str(sorted(definition.scales["mini"].model.items()))
        for framework in backends.FRAMEWORKS:
            is_by_hand = framework == "jax" and model in seen
            marks = [pytest.mark.exhaustive] if is_by_hand else []
            yield pytest.param((name, framework), id=f"{name}-{framework}", marks=marks)
        seen.add(model)


@dataclasses.dataclass(frozen=True)
class Unit:
    definition: workload.WorkloadDefinition
    scale: workload.Scale
    backend: Any
    bound: Any
    rows: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    compiled: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def forward(self, mode: spec.ForwardPassMode, number: int = 0, **rate: float) -> np.ndarray:
        """Logits of `rows` under `values`; `number` seeds the dropout."""
        self.backend.seed((5, number))
        params, batch = self.bound.from_neutral(self.values), self.backend.place(self.rows)
        rng = self.backend.random_state((5, number))
        key = (mode, self.bound.dropout_rate, *rate.values())

        def call(params: Any, batch: Any, rng: Any) -> Any:
            logits, state = self.bound.model_fn(params, batch, None, mode, rng, False, **rate)
            assert state is None
            return logits

        if self.backend.name == "jax":
            call = self.compiled.setdefault(key, jax.jit(call))
        return self.backend.fetch(call(params, batch, rng))


@pytest.fixture(scope="module", params=cases())
def unit(request, load_small, make_values) -> Unit:
    name, framework = request.param
    definition = catalogue.find(name)
    data = load_small(definition, "mini")
    backend = backends.load(framework)
    bound = backend.workload(definition, definition.scales["mini"], "builtin", data)
    values = make_values(
        {key: value.shape for key, value in bound.to_neutral(fresh(bound, backend)).items()}
    )
    rows = {key: array[:4] for key, array in data.splits["train"].items()}
    return Unit(definition, definition.scales["mini"], backend, bound, rows, values)


def fresh(bound: Any, backend: Any, number: int = 0) -> Any:
    params, _ = bound.init_model_fn(backend.random_state((5, number)))
    return params


def leaves(tree: Any, is_leaf: type) -> dict[str, Any]:
    """The leaves of nested dicts by their paths; a path's parts are joined by '/'."""
    if isinstance(tree, is_leaf):
        return {"": tree}
    assert isinstance(tree, dict), tree
    found = {}
    for key, child in tree.items():
        for path, leaf in leaves(child, is_leaf).items():
            found[f"{key}/{path}".rstrip("/")] = leaf
    return found


def parameter_shapes(unit: Unit) -> dict[str, tuple[int, ...]]:
    """Read off the parameters themselves, as the submission gets them."""
    params = fresh(unit.bound, unit.backend)
    if unit.backend.name == "pytorch":
        return {name: tuple(value.shape) for name, value in params.named_parameters()}
    return {name: value.shape for name, value in leaves(params, jax.Array).items()}


def test_the_facts_of_the_definition(unit: Unit) -> None:
    definition, scale, bound = unit.definition, unit.scale, unit.bound
    assert isinstance(bound, spec.Workload)
    assert bound.name == definition.name
    assert bound.loss_type is definition.loss_type
    assert bound.step_hint == scale.step_hint > 0
    assert (
        bound.max_allowed_runtime_sec
        == scale.budget_s
        > bound.eval_period_time_sec
        == scale.eval_every_s
        > 0
    )
    assert bound.target_metric_name == definition.target_metric
    target = scale.targets.get("builtin")
    assert bound.validation_target_value == (target and target.validation)
    assert bound.num_train_examples > 0
    assert bound.dropout_rate == scale.dropout_rate
    assert bound.metrics_logger is None
    assert definition.target_metric in definition.metrics
    assert set(definition.metrics) <= set(metric.shared(definition.generates_text))
    assert definition.generates_text == (scale.generation is not None)
    for other in definition.scales.values():
        if other.generation is not None:  # the model has no positions beyond
            positions = other.model["positions"]
            assert other.generation.max_new_tokens <= positions
            assert max(max(lengths) for lengths in other.buckets) <= positions
    assert "mini" in definition.scales
    assert definition.scales["mini"].default_source == "builtin"
    assert all(scale.default_source in definition.sources for scale in definition.scales.values())


def test_shapes_and_types_have_the_parameters_structure(unit: Unit) -> None:
    expected = parameter_shapes(unit)
    shapes = leaves(unit.bound.param_shapes, spec.ShapeTuple)
    assert {name: leaf.shape_tuple for name, leaf in shapes.items()} == expected
    types = leaves(unit.bound.model_params_types, spec.ParameterType)
    assert list(types) == list(shapes)
    assert len(set(types.values())) > 1


def test_the_output_layer_is_a_part(unit: Unit) -> None:
    names = parameter_shapes(unit)
    selected = [name for name in names if unit.bound.is_output_params(name)]
    assert 0 < len(selected) < len(names)
    assert [parameter.is_output for parameter in unit.bound.parameters.values()].count(True) == len(
        selected
    )


def test_evaluation_is_deterministic(unit: Unit) -> None:
    first, second = unit.forward(EVAL, 1), unit.forward(EVAL, 2)
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert len(first) == len(unit.rows["targets"])
    if unit.definition.loss_type is spec.LossType.SOFTMAX_CROSS_ENTROPY:
        assert first.shape[:-1] == unit.rows["targets"].shape
        assert unit.rows["targets"].max() < first.shape[-1]


def test_dropout_acts_in_training_alone(unit: Unit) -> None:
    plain = unit.forward(EVAL)
    np.testing.assert_array_equal(unit.forward(EVAL, dropout_rate=0.5), plain)
    dropped = unit.forward(TRAIN, 1, dropout_rate=0.5)
    assert np.abs(dropped - plain).max() > 1e-2 * np.abs(plain).max()
    np.testing.assert_array_equal(unit.forward(TRAIN, 1, dropout_rate=0.5), dropped)
    assert (unit.forward(TRAIN, 2, dropout_rate=0.5) != dropped).any()
    np.testing.assert_allclose(
        unit.forward(TRAIN, 1, dropout_rate=0.0), plain, rtol=1e-4, atol=1e-5
    )


def test_in_jax_the_rate_may_be_traced(unit: Unit) -> None:
    """As an argument of a jitted step is; and AlgoPerf's keyword for batch norm is taken."""
    if unit.backend.name != "jax":
        return
    params, batch = unit.bound.from_neutral(unit.values), unit.backend.place(unit.rows)
    rng = unit.backend.random_state((5, 1))

    @jax.jit
    def traced(rate: Any) -> Any:
        return unit.bound.model_fn(
            params, batch, None, TRAIN, rng, True, rate, use_running_average_bn=False
        )[0]

    for rate in (0.5, 0.0):
        fixed = unit.forward(TRAIN, 1, dropout_rate=rate)
        np.testing.assert_allclose(traced(rate), fixed, rtol=1e-4, atol=1e-5)


def test_the_default_dropout_is_the_scale_s(unit: Unit, monkeypatch) -> None:
    monkeypatch.setattr(unit.bound, "dropout_rate", 0.5)
    default = unit.forward(TRAIN, 1)
    monkeypatch.undo()
    np.testing.assert_array_equal(default, unit.forward(TRAIN, 1, dropout_rate=0.5))


def test_a_workload_is_itself_and_no_other(unit: Unit, load_small) -> None:
    data = load_small(unit.definition, "mini")
    twin = unit.backend.workload(unit.definition, unit.scale, "builtin", data)
    assert unit.bound == unit.bound
    assert unit.bound != twin
    assert {unit.bound: 1, twin: 2}[unit.bound] == 1


def test_a_workload_is_a_static_argument_of_jit(unit: Unit) -> None:
    traced = []

    def scaled(bound: Any, x: Any) -> Any:
        traced.append(bound)
        return x * bound.step_hint

    jitted = jax.jit(scaled, static_argnums=0)
    assert [float(jitted(unit.bound, 2.0)) for _ in range(2)] == [2.0 * unit.bound.step_hint] * 2
    assert traced == [unit.bound]


def test_the_loss_has_three_parts(unit: Unit) -> None:
    logits = unit.backend.place({"logits": unit.forward(EVAL)})["logits"]
    weights = np.array([1, 0, 1, 1], np.float32)
    placed = unit.backend.place({**unit.rows, "weights": weights})
    masked = unit.backend.fetch(unit.bound.loss_fn(placed["targets"], logits, placed["weights"]))
    plain = unit.backend.fetch(unit.bound.loss_fn(placed["targets"], logits))
    assert set(masked) == set(plain) == {"summed", "n_valid_examples", "per_example"}
    assert plain["per_example"].shape == unit.rows["targets"].shape
    per_label = plain["per_example"].size / len(weights)
    assert (plain["n_valid_examples"], masked["n_valid_examples"]) == (4 * per_label, 3 * per_label)
    shaped = weights.reshape(-1, *[1] * (plain["per_example"].ndim - 1))
    np.testing.assert_allclose(masked["per_example"], plain["per_example"] * shaped)
    assert masked["summed"] == pytest.approx((plain["per_example"] * shaped).sum(), rel=1e-5)
    assert masked["summed"] != plain["summed"]
    if unit.backend.name == "pytorch":  # AlgoPerf's have tensors, which submissions reduce
        count = unit.bound.loss_fn(placed["targets"], logits)["n_valid_examples"]
        assert count.clone().item() == 4 * per_label


def test_initial_parameters_follow_the_random_state(unit: Unit) -> None:
    first, again, other = (
        unit.bound.to_neutral(fresh(unit.bound, unit.backend, number)) for number in (1, 1, 2)
    )
    assert {name: value.dtype for name, value in first.items()} == dict.fromkeys(
        first, np.dtype(np.float32)
    )
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        drawn = name.endswith(("kernel", "embedding"))
        assert (value != other[name]).any() == drawn, name
        if drawn:
            settings = {**unit.scale.model, "vocab_size": 1}
            std = unit.definition.initial_std(name, value.shape, settings)
            assert value.std() == pytest.approx(std, rel=5 / value.size**0.5)


def test_pretrained_values_take_the_place_of_drawn_ones(unit: Unit, monkeypatch) -> None:
    drawn = unit.bound.to_neutral(fresh(unit.bound, unit.backend))
    chosen = sorted(unit.values)[0]
    monkeypatch.setattr(unit.bound, "pretrained", {chosen: unit.values[chosen]})
    started = unit.bound.to_neutral(fresh(unit.bound, unit.backend))
    np.testing.assert_array_equal(started.pop(chosen), unit.values[chosen])
    for name, value in started.items():
        np.testing.assert_array_equal(value, drawn[name])


def test_activations_of_the_output(unit: Unit) -> None:
    logits = unit.forward(EVAL)
    placed = unit.backend.place({"logits": logits})["logits"]
    found = unit.backend.fetch(unit.bound.output_activation_fn(placed))
    assert found.shape == logits.shape
    match unit.definition.loss_type:
        case spec.LossType.SOFTMAX_CROSS_ENTROPY:
            np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
            np.testing.assert_array_equal(found.argmax(-1), logits.argmax(-1))
        case spec.LossType.SIGMOID_CROSS_ENTROPY:
            np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-5)
        case _:
            np.testing.assert_array_equal(found, logits)
