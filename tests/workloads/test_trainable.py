"""What a submission sees of a technique, in both frameworks, and what it does not change."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch

import reference_algorithms
from algoperf import spec
from algoperf.backends.generation import GenerationSettings
from algoperf.run_folder import run_log, state
from algoperf.submission import loading
from algoperf.submission.older.jax_device_axis import DeviceAxis
from algoperf.submission.older.workload import OlderWorkload
from algoperf.trial import adapt
from algoperf.trial.loop import State

FRAMEWORKS = ("jax", "pytorch")
TYPES = spec.ParameterType
LORA = {
    "block_0/attention/qkv/lora_a/kernel": TYPES.WEIGHT,
    "block_0/attention/qkv/lora_b/kernel": TYPES.WEIGHT,
}
HEAD = {"head/kernel": TYPES.WEIGHT}
OF_ADAPTED = {
    f"{layer}/adapter_{place}/{leaf}": TYPES.BIAS if leaf == "bias" else TYPES.WEIGHT
    for layer in ("attention/attention_out", "down")
    for place in ("down", "up")
    for leaf in ("kernel", "bias")
}
OF_NORMS = {
    f"{norm}/{leaf}": TYPES.LAYER_NORM_BIAS if leaf == "bias" else TYPES.LAYER_NORM_SCALE
    for norm in ("norm_1", "norm_2")
    for leaf in ("scale", "bias")
}
FINAL_NORM = {
    "final_norm/scale": TYPES.LAYER_NORM_SCALE,
    "final_norm/bias": TYPES.LAYER_NORM_BIAS,
}
SEEN = {
    "lora": LORA | HEAD,
    "prompt": {"token/prompt/embedding": TYPES.EMBEDDING} | HEAD,
    "adapters": {f"block_0/{name}": each for name, each in (OF_ADAPTED | OF_NORMS).items()}
    | FINAL_NORM
    | HEAD,
    "head": HEAD,
}
TECHNIQUES = [
    *(("ag_news", each) for each in (*SEEN, "frozen_embeddings")),
    *(("xsum", each) for each in ("lora", "adapters", "frozen_embeddings", "frozen_encoder")),
]
SETTINGS = GenerationSettings(max_new_tokens=6, beams=1, length_penalty=1.0)


class Run:
    """A reference algorithm at work on a workload, from a seed."""

    def __init__(self, model: Any, algorithm: str = "adamw") -> None:
        path = Path(reference_algorithms.__file__).with_name(f"{algorithm}.py")
        self.model, backend = model, model.backend
        loaded = loading.load(loading.inspect(path), backend.name)
        point = spec.make_hyperparameters(dict(loaded.module.DEFAULTS or {}))
        self._functions = adapt.submission_functions(loaded, backend, model.bound, point)
        backend.seed((0, 0))
        self._common = {"workload": model.bound, "hyperparameters": point}
        self._common["rng"] = backend.random_state((3, 4))
        params, model_state = model.bound.init_model_fn(backend.random_state((1, 2)))
        self.state = State(params, model_state)
        self.state.optimizer_state = self._functions.init_optimizer_state(
            model_params=params, model_state=model_state, **self._common
        )

    def steps(self, count: int) -> "Run":
        now = self.state
        for _ in range(count):
            now.optimizer_state, now.params, now.model_state = self._functions.update_params(
                current_param_container=now.params,
                model_state=now.model_state,
                batch=self.model.backend.place(self.model.rows),
                optimizer_state=now.optimizer_state,
                global_step=now.step,
                **self._common,
            )
            now.step += 1
        return self

    def trained(self) -> dict[str, np.ndarray]:
        """By PyTorch's or the paths' names."""
        if self.model.backend.name == "pytorch":
            return {name: each.numpy(force=True).copy() for name, each in self._named("parameters")}
        return self.model.bound.to_neutral(self.state.params)

    def frozen(self) -> dict[str, np.ndarray]:
        if self.model.backend.name == "pytorch":
            return {name: each.numpy().copy() for name, each in self._named("buffers")}
        return self.model.bound.to_neutral(self.state.model_state["frozen"])

    def _named(self, what: str) -> Any:
        return getattr(self.state.params, f"named_{what}")()


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("technique", SEEN)
def test_what_a_submission_sees(framework, technique, make_tiny) -> None:
    bound = make_tiny(framework, "ag_news", technique).bound
    assert {name: each.type for name, each in bound.parameters.items()} == SEEN[technique]
    params, _ = bound.init_model_fn(np.array([0, 1], np.uint32))
    numbers = jax.tree.map(lambda leaf: leaf.size, params) if framework == "jax" else None
    if framework == "jax":
        shapes = bound.param_shapes
        assert jax.tree.structure(params) == jax.tree.structure(shapes)
        assert jax.tree.structure(bound.model_params_types) == jax.tree.structure(shapes)
        count = sum(jax.tree.leaves(numbers))
    else:
        named = dict(params.named_parameters())
        assert list(named) == list(bound.param_shapes) == list(bound.model_params_types)
        assert len(named) == len(SEEN[technique])
        count = sum(each.numel() for each in named.values())
    total = sum(np.prod(shape) for shape in bound.shapes.values())
    assert bound.frozen_count == total - count > 0


@pytest.mark.parametrize(
    ("framework", "name", "technique"),
    [
        *(("pytorch", *each) for each in TECHNIQUES),
        *(("jax", "ag_news", each) for each in ("lora", "prompt")),
        ("jax", "xsum", "frozen_encoder"),
        *(
            pytest.param("jax", *each, marks=pytest.mark.exhaustive)
            for each in (("ag_news", "adapters"), ("xsum", "lora"))
        ),
    ],
)
def test_frozen_parameters_are_bit_equal_after_training(
    framework, name, technique, make_tiny
) -> None:
    run = Run(make_tiny(framework, name, technique))
    before, frozen = run.trained(), run.frozen()
    run.steps(3)
    assert sum(value.size for value in frozen.values()) == run.model.bound.frozen_count
    for key, value in run.frozen().items():
        np.testing.assert_array_equal(value, frozen[key], err_msg=key)
    # The bias of attention's keys is without effect, and its gradient rounding.
    moved = {key: (value != before[key]).any() for key, value in run.trained().items()}
    assert all(each for key, each in moved.items() if not key.replace(".", "/").endswith("bias"))
    assert not run.model.bound.changed_frozen(run.state.params, run.state.model_state)


@pytest.mark.parametrize("technique", ["lora", "adapters"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_model_starts_as_it_was(framework, technique, make_tiny) -> None:
    found = []
    for each in (technique, None):
        model = make_tiny(framework, "ag_news", each)
        fresh = model.bound.init_model_fn(model.backend.random_state((1, 2)))
        found.append(logits(model, *fresh))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_pretrained_values_are_the_frozen_ones(framework, make_tiny, make_values) -> None:
    model = make_tiny(framework, "ag_news", "prompt")
    own = {name: shape for name, shape in model.bound.shapes.items() if "prompt" not in name}
    model.bound.pretrained = make_values(own)
    run = Run(model)
    frozen = run.frozen()
    assert len(frozen) == len(own) - 1
    key = "position/embedding" if framework == "jax" else "position.weight"
    np.testing.assert_array_equal(frozen[key], model.bound.pretrained["position/embedding"])
    prompt = model.bound.to_neutral(run.state.params)["token/prompt/embedding"]
    rows = {row.tobytes() for row in model.bound.pretrained["token/embedding"]}
    assert {row.tobytes() for row in prompt} <= rows


def test_a_frozen_value_that_changes_shows(make_tiny) -> None:
    of_torch = Run(make_tiny("pytorch", "ag_news", "lora"))
    with torch.no_grad():
        of_torch.state.params.block_0.up.weight[0, 0] += 1e-6
    assert of_torch.model.bound.changed_frozen(of_torch.state.params, None)
    of_jax = Run(make_tiny("jax", "ag_news", "lora"))
    now = of_jax.state
    changed = jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].add(1e-6), now.model_state)
    assert of_jax.model.bound.changed_frozen(now.params, changed)
    assert not of_jax.model.bound.changed_frozen(now.params, now.model_state)
    # Fresh parameters of another seed are a submission's own affair.
    of_jax.model.bound.init_model_fn(np.array([9, 9], np.uint32))
    assert not of_jax.model.bound.changed_frozen(now.params, now.model_state)


def test_the_older_contract_averages_the_model_state_over_devices(make_tiny) -> None:
    bound, axis = make_tiny("jax", "ag_news", "lora").bound, DeviceAxis()
    older = OlderWorkload(bound, None, axis)
    params, model_state = older.init_model_fn(np.array([0, 1], np.uint32))
    mean = jax.pmap(lambda tree: jax.lax.pmean(tree, "devices"), "devices")(model_state)
    assert not bound.changed_frozen(axis.first(params), axis.first(mean))


@pytest.mark.parametrize(
    ("framework", "name", "technique"),
    [("jax", "ag_news", "prompt"), ("pytorch", "ag_news", "prompt"), ("pytorch", "xsum", "lora")],
)
def test_a_trial_goes_on_bit_for_bit(framework, name, technique, make_tiny) -> None:
    whole = Run(make_tiny(framework, name, technique)).steps(2)
    arrays, structure = state.to_arrays(whole.state.trees())
    whole.steps(2)
    again = Run(make_tiny(framework, name, technique))
    structure = json.loads(json.dumps(structure))
    again.state = State(**state.restore(arrays, structure, again.state.trees()), step=2)
    again.steps(2)
    for before, after in ((whole.trained(), again.trained()), (whole.frozen(), again.frozen())):
        assert list(before) == list(after)
        for key, value in before.items():
            np.testing.assert_array_equal(after[key], value, err_msg=key)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_lora_folded_into_the_model_is_the_same_function(framework, make_tiny, make_values) -> None:
    tuned = make_tiny(framework, "ag_news", "lora rank=4")
    usual = make_tiny(framework, "ag_news", None)
    params, model_state = state_of(tuned, make_values(tuned.bound.shapes))
    before = logits(tuned, params, model_state)
    folded = tuned.bound.folded(params, model_state)
    assert set(folded) == set(usual.bound.shapes)
    after = logits(usual, usual.bound.from_neutral(folded), None)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def state_of(model: Any, values: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """Parameters and model state of these values."""
    if model.backend.name == "pytorch":
        return model.bound.from_neutral(values), None
    params, frozen = model.bound.split(values)
    return params, {"frozen": frozen}


def logits(model: Any, params: Any, model_state: Any) -> np.ndarray:
    batch, mode = model.backend.place(model.rows), spec.ForwardPassMode.EVAL

    def forward(params: Any, model_state: Any, batch: Any) -> Any:
        return model.bound.model_fn(params, batch, model_state, mode, None, False)[0]

    # Compiled at once, and not one operation after another.
    call = jax.jit(forward) if model.backend.name == "jax" else forward
    return model.backend.fetch(call(params, model_state, batch))


def test_what_is_added_acts_in_generation(make_tiny, make_values) -> None:
    written = {}
    for technique in ("lora rank=4 alpha=64 targets=query,value,up", None):
        for framework in FRAMEWORKS:
            model = make_tiny(framework, "xsum", technique)
            params, model_state = state_of(model, make_values(model.bound.shapes))
            source_BS = model.rows["inputs"]
            written[technique, framework] = model.backend.generate(
                model.bound, params, model_state, source_BS, SETTINGS
            )
        assert written[technique, "jax"] == written[technique, "pytorch"]
    texts = {str(written[technique, "jax"]) for technique, _ in written}
    assert len(texts) == 2


ALGORITHMS = sorted(
    path.stem
    for path in Path(reference_algorithms.__file__).parent.glob("*.py")
    if path.stem not in ("__init__", "schedules")
)


LEFT = ("head", "prompt", "lora")  # the output layer; that and embeddings, or thin matrices


@pytest.mark.parametrize(
    ("framework", "algorithm", "techniques"),
    [
        *(("pytorch", each, LEFT) for each in ALGORITHMS),
        ("jax", "muon", ("head", "lora")),
        *(
            pytest.param("jax", each, LEFT, marks=pytest.mark.exhaustive)
            for each in ("muon", "soap", "shampoo")
        ),
    ],
)
def test_optimizers_train_what_is_left(framework, algorithm, techniques, make_tiny) -> None:
    for technique in techniques:
        run = Run(make_tiny(framework, "ag_news", technique), algorithm)
        before = run.trained()
        run.steps(2)
        for key, value in run.trained().items():
            assert np.isfinite(value).all(), (technique, key)
            assert (value != before[key]).any(), (technique, key)


CHANGES = """
import torch
from algoperf import spec

def init_optimizer_state(workload, model_params):
    assert [name for name, _ in model_params.named_parameters()] == ["head.weight"]
    return torch.optim.SGD(model_params.parameters(), lr=0.1)

def update_params(workload, current_param_container, model_state, batch, optimizer_state, rng):
    optimizer_state.zero_grad()
    logits, _ = workload.model_fn(
        current_param_container, batch, model_state, spec.ForwardPassMode.TRAIN, rng, True)
    workload.loss_fn(batch["targets"], logits)["summed"].backward()
    optimizer_state.step()
    with torch.no_grad():
        current_param_container.final_norm.weight += 0.1
    return optimizer_state, current_param_container, model_state
"""


@pytest.mark.slow
def test_a_run_says_what_trains_and_what_changed(tmp_path) -> None:
    """A submission that changes a frozen parameter is flagged."""
    (tmp_path / "changes.py").write_text(CHANGES)
    words = ["--workload", "ag_news_head", "--submission", "changes.py", "--out", "runs"]
    words += ["--framework", "pytorch", "--max-steps", "1", "--eval-every-steps", "1"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "algoperf", "run", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "what does not train stays at its random first values; give --pretrained" in done.stderr
    folder = tmp_path / "runs/mini-builtin/changes/study_0/ag_news_head_pytorch/trial_1"
    result = run_log.read_result(folder)
    assert result["flags"] == ["frozen parameters were changed"]
    assert result["parameters"] == {
        "total": 929_792,
        "trainable": 512,
        "trainable_share": 512 / 929_792,
    }
