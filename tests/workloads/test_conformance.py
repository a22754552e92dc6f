"""What a submission may rely on, for every workload in each framework."""

import importlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from algoperf import backends, spec
from algoperf.experiments.check import gates, workload_gates
from algoperf.experiments.check.workload_gates import Unit
from algoperf.workload import catalogue, registry

EVAL = spec.ForwardPassMode.EVAL


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


@pytest.fixture(scope="module", params=cases())
def unit(request, load_small) -> Unit:
    name, framework = request.param
    definition = catalogue.find(name)
    data = load_small(definition, "mini")
    return workload_gates.bind(definition, definition.scales["mini"], "builtin", data, framework)


def leaves(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of JAX's arrays in nested dicts by their paths."""
    if isinstance(tree, jax.Array):
        return {"": tree.shape}
    assert isinstance(tree, dict), tree
    return {
        f"{key}/{path}".rstrip("/"): shape
        for key, child in tree.items()
        for path, shape in leaves(child).items()
    }


def parameter_shapes(unit: Unit) -> dict[str, tuple[int, ...]]:
    """Read off the parameters themselves, as the submission gets them."""
    params = unit.fresh()
    if unit.backend.name == "pytorch":
        return {name: tuple(value.shape) for name, value in params.named_parameters()}
    return leaves(params)


@pytest.mark.parametrize("name", registry.names())
def test_the_facts_of_the_definition(name: str, load_small, load_secret) -> None:
    definition = catalogue.find(name)
    data, scale = load_small(definition, "mini"), definition.scales["mini"]
    subject = workload_gates.Subject(
        definition, scale, data, lambda: data, "builtin", lambda: load_secret(name)
    )
    asked_nothing = []
    for key, gate in workload_gates.SHARED.items():
        if key == "validation seed" and name in ("lm", "samsum", "cnn_dailymail"):
            continue  # `test_validation_seed.py` asks more of them, where slow tests run.
        try:
            gate(subject)
        except gates.NotApplicableError:
            asked_nothing.append(key)
    assert asked_nothing == (["validation seed"] if name == "digits" else [])
    assert scale.default_source == "builtin"


def test_what_a_submission_reads_off_is_the_definition_s(unit: Unit) -> None:
    workload_gates.facts(unit)


def test_shapes_and_types_have_the_parameters_structure(unit: Unit) -> None:
    assert workload_gates.parameter_shapes(unit) == parameter_shapes(unit)
    workload_gates.parameters(unit)
    types = gates.leaves(unit.bound.model_params_types, spec.ParameterType)
    assert len(set(types.values())) > 1


def test_the_output_layer_is_a_part(unit: Unit) -> None:
    workload_gates.output_layer(unit)


def test_evaluation_is_deterministic(unit: Unit) -> None:
    workload_gates.evaluation(unit)
    workload_gates.logits(unit)


def test_dropout_acts_in_training_alone(unit: Unit) -> None:
    if getattr(unit.scale.model.get("style"), "drops", True):
        workload_gates.dropout(unit)
        return
    with pytest.raises(gates.NotApplicableError, match="the model has no dropout"):
        workload_gates.dropout(unit)


def test_in_jax_the_rate_may_be_traced(unit: Unit) -> None:
    """As an argument of a jitted step is; and AlgoPerf's keyword for batch norm is taken."""
    if unit.backend.name == "jax":
        workload_gates.traced_rate(unit)


def test_the_default_dropout_is_the_scale_s(unit: Unit) -> None:
    workload_gates.default_rate(unit)


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
    workload_gates.loss(unit)
    if unit.backend.name == "pytorch":  # AlgoPerf's have tensors, which submissions reduce
        placed = unit.backend.place(unit.rows)
        loss = unit.bound.loss_fn(placed["targets"], unit.placed(unit.outputs(EVAL)))
        is_ctc = unit.definition.loss_type is spec.LossType.CTC_LOSS
        labels = (unit.rows["targets"] != 0).sum() if is_ctc else loss["per_example"].numel()
        assert loss["n_valid_examples"].clone().item() == labels


def test_initial_parameters_follow_the_random_state(unit: Unit) -> None:
    workload_gates.initial_values(unit)


def test_pretrained_values_take_the_place_of_drawn_ones(unit: Unit, monkeypatch) -> None:
    drawn = unit.bound.to_neutral(unit.fresh())
    chosen = sorted(unit.values)[0]
    monkeypatch.setattr(unit.bound, "pretrained", {chosen: unit.values[chosen]})
    started = unit.bound.to_neutral(unit.fresh())
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
