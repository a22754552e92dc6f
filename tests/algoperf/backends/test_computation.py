"""Precision, micro-batches and checkpointed activations: the same training, otherwise computed."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from algoperf import backends, errors, jax_sharding_utils, spec
from algoperf.backends import jax_computation, shared
from algoperf.backends.computation import Computation
from algoperf.backends.generation import GenerationSettings
from algoperf.backends.shared import OptimizerFunctions, StepSettings
from algoperf.cli import commands
from algoperf.data.loading import load_data
from algoperf.data.tokenizers import PAD_ID
from algoperf.trial.plan import TrialPlan
from algoperf.trial.scalars import ScalarBuffer
from algoperf.workload import Data, catalogue

FRAMEWORKS = ("jax", "pytorch")
ROWS, LENGTH, VOCABULARY = 8, 12, 40


def rows(classes):
    """Rows of tokens with a class or tokens to predict, the last three of which do not count."""
    generator = np.random.default_rng(0)
    inputs = generator.integers(4, VOCABULARY, (ROWS, LENGTH), dtype=np.int32)
    inputs[2, 5:] = PAD_ID
    targets = generator.integers(0, 4, ROWS, dtype=np.int32)
    if not classes:
        targets = generator.integers(4, VOCABULARY, (ROWS, 8), dtype=np.int32)
        targets[2, 3:] = PAD_ID
    weights = (targets != PAD_ID).astype(np.float32) if not classes else np.ones(ROWS, np.float32)
    weights[5:] = 0.0
    return {"inputs": inputs, "targets": targets, "weights": weights}


def tiny(name="ag_news", given=None, **model):
    """A workload with a tiny model, and a batch."""
    definition = catalogue.find(name)
    scale = definition.scales["mini"]
    changed = {**scale.model, "positions": 16, "width": 16, "heads": 2, **model}
    known = {"vocab_size": VOCABULARY}
    if name == "ag_news":
        changed["layers"] = 1
        known["pad_id"] = PAD_ID
    given = rows(True) if given is None else given
    data = Data({"train": given, "validation": given, "test": given}, model=known)
    return definition, dataclasses.replace(scale, model=changed), data


def tiny_summaries(**changes):
    """One whose model has an encoder and a decoder, and whose loss is a mean over tokens."""
    layers = {"encoder_layers": 1, "decoder_layers": 1, "feed_forward": 32}
    return tiny("xsum", {**rows(False), **changes}, **layers)


def descent(framework, params, hyperparameters):
    if framework == "jax":
        return optax.sgd(0.5)
    optimizer = torch.optim.SGD(params.tensors(), 0.5)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


class Trained:
    """What some steps of gradient descent on the same batch leave."""

    def __init__(self, framework, computation, *, steps=1, dropout_rate=0.0, made=tiny):
        definition, scale, data = made()
        self.backend = backends.load(framework, computation=computation)
        self.workload = self.backend.workload(definition, scale, "builtin", data)
        self.workload.metrics_logger = self.buffer = ScalarBuffer()
        functions = OptimizerFunctions(
            functools.partial(descent, framework), lambda params, _: params, lambda _: 0.5, 1
        )
        settings = StepSettings(dropout_rate=dropout_rate)
        self.form = self.backend.optimizer_form(functions, settings)
        params, model_state = self.workload.init_model_fn(self.backend.random_state((1, 2)))
        self.backend.seed((1, 2))
        self.before = self.values_of(params)
        self.batch = self.backend.place(data.splits["train"])
        self.params, self.model_state, self.count = params, model_state, 0
        self.state = self.form.init_optimizer_state(self.workload, params, None)
        self.scalars = []
        for _ in range(steps):
            self.step()
        self.after = self.values_of(self.params)

    def step(self):
        self.state, self.params, self.model_state = self.form.update_params(
            self.workload,
            self.params,
            self.model_state,
            self.batch,
            self.state,
            self.count,
            self.backend.random_state((3, self.count)),
        )
        self.count += 1
        self.scalars += [values for _, values in self.buffer.take(self.backend.fetch)]

    def step_at(self, scale, updates):
        """One step more, at that loss scale; return (its update, the scale after it)."""
        before = self.values_of(self.params)
        if isinstance(self.state, dict):
            kept = self.state["scaler"].state_dict() | {"scale": scale, "_growth_tracker": updates}
            self.state["scaler"].load_state_dict(kept)
        else:
            kept = jax_computation.LossScale(jnp.float32(scale), jnp.int32(updates))
            self.state = self.state[0], jax_sharding_utils.replicate(kept)
        self.step()
        after = self.values_of(self.params)
        update = np.concatenate([(after[name] - before[name]).ravel() for name in before])
        if isinstance(self.state, dict):
            return update, self.state["scaler"].get_scale()
        return update, float(self.state[1].scale)

    def values_of(self, params):
        return {name: np.array(value) for name, value in self.workload.to_neutral(params).items()}

    def update(self):
        """What the steps changed, all parameters in one row."""
        return np.concatenate(
            [(self.after[n] - self.before[n]).ravel() for n in sorted(self.before)]
        )

    def logits(self, train=False):
        mode = spec.ForwardPassMode.TRAIN if train else spec.ForwardPassMode.EVAL
        rng = self.backend.random_state((5, 6))

        def forward(params):
            return self.workload.model_fn(params, self.batch, None, mode, rng, False, 0.0)[0]

        is_jax = self.backend.name == "jax"
        return (jax.jit(forward) if is_jax else forward)(self.params)


trained = functools.cache(Trained)


def usual(framework):
    return trained(framework, Computation())


def relative(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    return request.param


@pytest.mark.parametrize(
    "computation",
    [
        Computation(accumulate=8),  # of whose parts three are padding alone
        Computation(accumulate=2, checkpoint_activations=True),
    ],
    ids=str,
)
def test_the_update_is_the_same(framework, computation):
    found, expected = Trained(framework, computation), usual(framework)
    assert relative(found.update(), expected.update()) < 1e-5
    for name in ("loss", "gradient_norm"):
        assert found.scalars[0][name] == pytest.approx(expected.scalars[0][name], rel=1e-5)


def tiny_technique(technique):
    definition, scale, data = tiny(layers=2)
    return definition, dataclasses.replace(scale, trainable=technique), data


# Each by one object, so that `trained` knows it again.
TINY_TECHNIQUES = {
    technique: functools.partial(tiny_technique, technique)
    for technique in ("lora", "prompt tokens=2", "adapters bottleneck=4")
}


@pytest.mark.parametrize("technique", TINY_TECHNIQUES)
@pytest.mark.parametrize(
    "computation", [Computation(accumulate=2), Computation(checkpoint_activations=True)], ids=str
)
def test_the_update_of_what_a_technique_adds_is_the_same(framework, computation, technique):
    made = TINY_TECHNIQUES[technique]
    plain, other = (
        trained(framework, each, steps=2, made=made) for each in (Computation(), computation)
    )
    assert plain.update().any()
    np.testing.assert_allclose(other.update(), plain.update(), atol=1e-6)


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 3e-2), ("fp16", 5e-3)])
def test_lower_precision_is_near_float32_and_not_it(framework, precision, limit):
    found = trained(framework, Computation(precision))
    assert 1e-5 < relative(found.update(), usual(framework).update()) < limit
    assert {str(value.dtype) for value in found.after.values()} == {"float32"}
    assert str(found.logits().dtype).endswith("float32")
    loss, _ = found.backend.fetch(
        found.backend.predict(found.workload, found.params, None, found.batch)
    )
    assert loss.dtype == np.float32


@pytest.mark.parametrize("weights", [None, [1, 1, 0, 0, 2, 0, 1, 1]])
def test_micro_batches_of_tokens(weights):
    """Rows have as many tokens that count as they will, or one weight for all of theirs."""
    given = {} if weights is None else {"weights": np.array(weights, np.float32)}
    made = functools.partial(tiny_summaries, **given)
    computations = Computation(accumulate=4, checkpoint_activations=True), Computation()
    found, expected = (Trained("pytorch", each, made=made) for each in computations)
    assert relative(found.update(), expected.update()) < 1e-5


def test_evaluation_and_generation_are_of_the_precision(framework):
    """Logits are numbers that bfloat16 has."""
    found = Trained(framework, Computation("bf16"), steps=0, made=tiny_summaries)
    logits = found.backend.fetch({"logits": found.logits()})["logits"]
    np.testing.assert_array_equal(logits, np.asarray(jnp.asarray(logits, jnp.bfloat16), np.float32))
    sources = found.backend.fetch(found.batch)["inputs"]
    settings = GenerationSettings(4, 2, 1.0)
    written = found.backend.generate(found.workload, found.params, None, sources, settings)
    assert len(written) == ROWS


def test_both_frameworks_lower_alike():
    """Their bfloat16 differs no more from each other's than either's from float32."""
    one, other = (trained(name, Computation("bf16")).update() for name in FRAMEWORKS)
    assert relative(one, other) < 3e-2


def test_a_step_whose_gradients_overflow_is_left_out_and_halves_the_scale(framework):
    found = trained(framework, Computation("fp16"))
    update, scale = found.step_at(2.0**40, 7)
    assert not update.any()
    assert scale == 2.0**39
    assert np.isfinite(found.scalars[-1]["loss"])
    assert not np.isfinite(found.scalars[-1]["gradient_norm"])


def test_the_scale_is_doubled_after_2000_updates(framework):
    found = trained(framework, Computation("fp16"))
    update, scale = found.step_at(1024.0, 1998)
    assert update.any()
    assert scale == 1024.0
    assert found.step_at(1024.0, 1999)[1] == 2048.0


def test_jax_scales_as_torchs_scaler_does():
    """Whatever overflows when, and with a shorter interval, as GradScaler itself counts."""
    finite = [True, False, True, True, True, True, False, False, True, True, True]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=2)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 0.1)
    theirs, ours, kept = [], [], jax_computation.first_loss_scale()
    for is_finite in finite:
        weight.grad = torch.tensor([1.0 if is_finite else np.inf])
        scaler.scale(torch.zeros(1))  # makes its scale
        scaler.step(optimizer)
        scaler.update()
        theirs.append(scaler.get_scale())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax_computation, "GROWTH_STEPS", 2)
        for is_finite in finite:
            kept = kept.next(jnp.array(is_finite))
            ours.append(float(kept.scale))
    assert ours == theirs


def test_a_float32_state_is_as_it_was(framework):
    """Older checkpoints go on: nothing is added where nothing is scaled."""
    state = usual(framework).state
    if framework == "pytorch":
        assert list(state) == ["optimizer", "scheduler"]
    else:
        assert jax.tree.structure(state) == jax.tree.structure(optax.sgd(0.5).init({}))


def test_jax_computes_each_block_anew():
    """A `checkpoint` for each block; without the option none, nor in evaluation."""

    def count(computation, train, made):
        found = Trained("jax", computation, steps=0, made=made)
        jaxpr = jax.make_jaxpr(lambda params: loss(found, params, train))(found.params)
        return sum(equation.primitive.name in ("checkpoint", "remat2") for equation in jaxpr.eqns)

    def loss(found, params, train):
        mode = spec.ForwardPassMode.TRAIN if train else spec.ForwardPassMode.EVAL
        key = found.backend.random_state((1, 1))
        return found.workload.model_fn(params, found.batch, None, mode, key, False)[0].sum()

    anew = Computation(checkpoint_activations=True)
    assert count(anew, True, functools.partial(tiny, layers=1)) == 1
    assert count(anew, True, tiny_summaries) == 2
    assert count(anew, False, tiny) == count(Computation(), True, tiny) == 0


def test_pytorch_keeps_only_the_input_of_a_block():
    def kept(computation):
        found, tensors = Trained("pytorch", computation, steps=0), []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: tensors.append(tensor.numel()) or tensor, lambda tensor: tensor
        )
        with hooks:
            found.logits(train=True)
        return sum(tensors)

    assert kept(Computation(checkpoint_activations=True)) < 0.6 * kept(Computation())


def test_dropout_is_the_same_in_the_block_that_is_computed_anew(framework):
    """PyTorch draws what it drew without the option, JAX from streams of its own; in both the
    loss's gradient is that of the loss: a small step down it lowers it by what it says.
    """
    anew = Computation(checkpoint_activations=True)
    found = Trained(framework, anew, steps=int(framework == "pytorch"), dropout_rate=0.3)
    if framework == "pytorch":
        without = Trained(framework, Computation(), dropout_rate=0.3)
        np.testing.assert_array_equal(found.update(), without.update())
        return
    step = functools.partial(
        shared.training_loss,
        batch=found.batch,
        model_state=None,
        rng=found.backend.random_state((9, 9)),
        settings=StepSettings(dropout_rate=0.3),
    )
    both = jax.jit(jax.value_and_grad(lambda params: step(found.workload, params)[0]))
    _, gradient = both(found.params)
    norm = float(optax.tree.norm(gradient))
    moved, back = (
        jax.tree.map(lambda p, g, by=by: p + by * g / norm, found.params, gradient)
        for by in (-1e-3, 1e-3)
    )
    assert float(both(back)[0] - both(moved)[0]) == pytest.approx(2e-3 * norm, rel=2e-2)


def digits_without_blocks():
    definition = catalogue.find("digits")
    scale = definition.scales["mini"]
    return definition, scale, load_data(definition, scale, "builtin")


def test_a_model_without_blocks_has_nothing_to_checkpoint(framework):
    with pytest.raises(errors.UserError, match=r"--checkpoint-activations works on .* has none"):
        Trained(
            framework, Computation(checkpoint_activations=True), steps=0, made=digits_without_blocks
        )


FULL_FORM = "def init_optimizer_state(): ...\ndef update_params(): ...\nimport torch\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "fp16"], "--precision fp16 needs loss scaling"),
        (["--accumulate", "2"], "--accumulate cuts the batch in the library's own step"),
        (["--precision", "half"], "invalid choice: 'half'"),
        (["--accumulate", "0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path, capsys, words, message):
    (tmp_path / "mine.py").write_text(FULL_FORM)
    command = ["run", "--workload", "digits", "--submission", str(tmp_path / "mine.py"), *words]
    with pytest.raises(SystemExit) as left:
        raise SystemExit(commands.main([*command, "--out", str(tmp_path / "runs")]))
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_micro_batches_are_of_one_size():
    with pytest.raises(errors.UserError, match="--accumulate 3 does not divide the batch size 64"):
        Computation(accumulate=3).check_batch_size(64)
    Computation(accumulate=4).check_batch_size(64)


def plan(**changes):
    given = {"workload": "digits", "scale": "mini", "data": "builtin", "source_kind": "builtin"}
    given |= {"framework": "jax", "submission": "s.py", "out": "o", "experiment": "e"}
    return TrialPlan(**given, **{"study": 0, "trial": 1, "seed": 0, **changes})


def test_what_was_asked_for_is_recorded_and_nothing_else():
    settings = plan().settings()
    assert settings["precision"] == "float32"
    assert not {"accumulate", "checkpoint_activations"} & set(settings)
    asked = plan(precision="bf16", accumulate=4, checkpoint_activations=True)
    assert {**settings, "accumulate": 4, "checkpoint_activations": True} == {
        **asked.settings(),
        "precision": "float32",
    }
    again = TrialPlan.from_json(asked.to_json())
    assert again.computation == Computation("bf16", 4, True)


def test_a_run_of_another_precision_has_a_folder_and_a_pool_of_its_own(tmp_path, capsys):
    command = ["run", "--workload", "digits", "--submission", "adamw", "--framework", "pytorch"]
    command += ["--max-steps", "2", "--out", str(tmp_path)]
    assert commands.main(command) == 0
    assert commands.main([*command, "--precision", "bf16"]) == 0
    path = "adamw/study_0/digits_pytorch/trial_1/flags_0.json"
    flags = [
        json.loads((tmp_path / name / path).read_text())
        for name in ("mini-builtin", "mini-builtin-bf16")
    ]
    assert [each["precision"] for each in flags] == ["float32", "bf16"]
    assert [each["pool"]["precision"] for each in flags] == ["float32", "bf16"]
    assert {
        name for name in flags[0]["pool"] if flags[0]["pool"][name] != flags[1]["pool"][name]
    } == {"precision"}
    capsys.readouterr()
    again = [*command, "--precision", "bf16", "--experiment", "mini-builtin"]
    assert commands.main(again) == 2
    assert "precision" in capsys.readouterr().err
