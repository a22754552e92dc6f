"""The LibriSpeech workloads: published sizes, built-in speech, layers, padding, rows of files."""

import collections
import dataclasses
import functools
import hashlib
import math
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import linen as nn
from torch.nn import functional

from algoperf import backends, spec
from algoperf.backends.torch_backend import neutral_names
from algoperf.data.batches import Buckets, TrainingQueue
from algoperf.data.tokenizers import PAD_ID
from algoperf.errors import UserError
from algoperf.experiments.check import parity
from algoperf.experiments.check.gates import perturbed
from algoperf.trial.evaluate import Evaluator
from algoperf.workload import SPLITS, ArrayRows, Data, catalogue, parameters
from workloads.librispeech_deepspeech.model_torch import Bidirectional
from workloads.parts import log_mel, speech, spoken_words
from workloads.parts.dropout_jax import Dropout
from workloads.parts.log_mel import FrontEnd
from workloads.parts.speech_jax import MaskedBatchNorm as MaskedBatchNormJax
from workloads.parts.speech_jax import Strided, log_mel_features
from workloads.parts.speech_torch import LogMel, MaskedBatchNorm

TRAIN, EVAL = spec.ForwardPassMode.TRAIN, spec.ForwardPassMode.EVAL
NAMES = ("librispeech_conformer", "librispeech_deepspeech")
FRAMEWORKS = ("pytorch", "jax")
# Of the reference's own models in PyTorch, its fused queries, keys and values taken apart as its
# JAX models have them, and its LSTM layers with one bias of two, as there.
CONFORMER = {
    "64": 4, "512": 77 + 12, "512x1x3x3": 1, "512x1x5": 4, "512x512": 16 + 12, "512x512x3x3": 1,
    "512x2048": 8, "512x10240": 1, "1024": 1, "1024x512": 1, "2048": 8, "2048x512": 8,
}  # fmt: skip
DEEPSPEECH = {
    "512": 26, "512x1x3x3": 1, "512x512": 3, "512x512x3x3": 1, "512x10240": 1, "1024": 13,
    "1024x256": 12, "1024x512": 13,
}  # fmt: skip
PUBLISHED = {
    "librispeech_conformer": (32_321_792, CONFORMER),
    "librispeech_conformer_attention_temperature": (32_321_792, CONFORMER),
    "librispeech_conformer_layernorm": (32_317_696, {**CONFORMER, "512": 81}),
    "librispeech_conformer_gelu": (32_321_792, CONFORMER),
    "librispeech_deepspeech": (18_381_312, DEEPSPEECH),
    "librispeech_deepspeech_tanh": (18_381_312, DEEPSPEECH),
    "librispeech_deepspeech_no_resnet": (18_381_312, DEEPSPEECH),
    "librispeech_deepspeech_norm_and_spec_aug": (18_380_288, {**DEEPSPEECH, "512": 24}),
}
TYPES = {
    "librispeech_conformer": {
        "ATTENTION_BIAS": 16, "ATTENTION_K": 4, "ATTENTION_OUT": 4, "ATTENTION_Q": 4,
        "ATTENTION_V": 4, "BATCH_NORM_BIAS": 4, "BATCH_NORM_SCALE": 4, "BIAS": 32,
        "CONV_WEIGHT": 18, "LAYER_NORM_BIAS": 21, "LAYER_NORM_SCALE": 21, "WEIGHT": 22,
    },
    "librispeech_deepspeech": {
        "BATCH_NORM_BIAS": 9, "BATCH_NORM_SCALE": 9, "BIAS": 19, "CONV_WEIGHT": 2,
        "LAYER_NORM_BIAS": 1, "LAYER_NORM_SCALE": 1, "WEIGHT": 29,
    },
}  # fmt: skip


def torch_shapes(definition, settings):
    """Names by path and PyTorch's shapes; nothing is computed."""
    with torch.device("meta"):
        model = definition.build_model("torch", settings)
    names = neutral_names(model)
    return {names[name]: tuple(value.shape) for name, value in model.named_parameters()}


def jax_shapes(definition, settings):
    model = definition.build_model("jax", settings)
    inputs = (
        jax.ShapeDtypeStruct((1, 3200), np.int16),
        jax.ShapeDtypeStruct((1,), np.int32),
        jax.ShapeDtypeStruct((1, 12, 2), np.int16),
    )

    def init(*inputs):
        return model.init(jax.random.PRNGKey(0), inputs, train=False, dropout_rate=0.0)

    flat = jax.tree_util.tree_flatten_with_path(jax.eval_shape(init, *inputs)["params"])[0]
    return {"/".join(key.key for key in path): leaf.shape for path, leaf in flat}


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_scale_has_the_published_parameters_in_both_frameworks(name):
    definition = catalogue.find(name)
    count, expected = PUBLISHED[name]
    settings = {**definition.scales["full"].model, "rate": 16_000, "frequency_masks": 2}
    shapes = torch_shapes(definition, settings)
    assert sum(map(math.prod, shapes.values())) == count
    listed = collections.Counter("x".join(map(str, shape)) for shape in shapes.values())
    assert listed == expected
    in_jax = {path: parameters.jax_shape(path, shape) for path, shape in shapes.items()}
    assert jax_shapes(definition, settings) == in_jax
    if name in TYPES:
        kinds = [parameters.parameter_type(path, shape).name for path, shape in shapes.items()]
        assert collections.Counter(kinds) == TYPES[name]


def test_the_facts_are_algoperf_s():
    expected = {
        "librispeech_conformer": (0.085884, 0.052981, 76_000, 58_015),
        "librispeech_deepspeech": (0.119936, 0.074143, 38_400, 44_405),
        "librispeech_conformer_attention_temperature": (0.109977, 0.068065, 76_000, 58_015),
        "librispeech_conformer_layernorm": (0.09731, 0.05996, 76_000, 58_015),
        "librispeech_conformer_gelu": (0.094114, 0.056629, 76_000, 58_015),
        "librispeech_deepspeech_tanh": (0.150883, 0.098613, 38_400, 44_405),
        "librispeech_deepspeech_no_resnet": (0.131564, 0.079297, 38_400, 44_405),
        "librispeech_deepspeech_norm_and_spec_aug": (0.14342, 0.090976, 38_400, 44_405),
    }
    for name, facts in expected.items():
        full = catalogue.find(name).scales["full"]
        target = full.targets["folder"]
        assert (target.validation, target.test, full.step_hint, full.budget_s) == facts
    varied = catalogue.find("librispeech_deepspeech_norm_and_spec_aug").scales["full"]
    assert (varied.data["frequency_masks"], varied.data["time_masks"]) == (4, 15)


def test_the_published_targets_on_the_plain_scale():
    """dev-clean and dev-other have 105,350 words in 5,567 utterances, test-clean 52,576 in 2,620;
    the published measure counts two words more in each.
    """
    plain = speech.published(0.085884, 0.052981)["folder"].provenance
    expected = [
        0.085884 * (105_350 + 2 * 5_567) / 105_350,
        0.052981 * (52_576 + 2 * 2_620) / 52_576,
    ]
    assert [round(value, 4) for value in expected] == [0.0950, 0.0583]
    assert "WER 0.0950 (dev-clean and dev-other) and 0.0583 (test-clean)" in plain


# Built-in speech


def test_built_in_speech_is_the_same_everywhere():
    spoken = spoken_words.generate("test", 0)
    digest = hashlib.sha256(spoken.samples_NS.tobytes()).hexdigest()
    assert digest == DIGEST
    assert spoken.samples_NS.shape == (256, spoken_words.BLOCKS * spoken_words.BLOCK)
    for row, length in enumerate(spoken.lengths_N):
        assert spoken.samples_NS[row, length - 40 :].any()
        assert not spoken.samples_NS[row, length:].any()
    words = {word for text in spoken.transcripts for word in text.split()}
    assert words == set(spoken_words.lexicon())
    assert len(words) == spoken_words.WORDS


DIGEST = "c16d758401eff6e9b3e1a0da5e3f78697e00a6f36a3c7e0730abd5c9e87bde02"


def test_rows_are_utterances_with_their_labels(load_mini):
    data = load_mini(NAMES[0])
    spoken = spoken_words.generate("validation", 0)
    rows = data.splits["validation"]
    np.testing.assert_array_equal(rows["inputs"], spoken.samples_NS)
    np.testing.assert_array_equal(rows["lengths"], spoken.lengths_N)
    labels = [row[row != 0].tolist() for row in rows["targets"]]
    assert {row[-1] for row in labels} == {speech.END_ID}
    assert data.decode(labels) == spoken.transcripts
    assert not rows["masks"].any()
    assert data.model == {"rate": 8000, "frequency_masks": 2}
    assert set(data.notes["infeasible"].values()) == {0}
    assert data.notes.get("remarks") is None


def test_training_s_masks_are_drawn_by_seed_epoch_and_row(load_mini):
    """They do not depend on the batches that rows come in."""
    data = load_mini(NAMES[0])
    few = ArrayRows(data.splits["train"].take(np.arange(12)))

    def masks(seed, size, number):
        queue = TrainingQueue(few, size, seed, augmentation=data.augmentation)
        drawn = [next(queue) for _ in range(number)]
        return (np.concatenate([batch[key] for batch in drawn]) for key in ("masks", "inputs"))

    first, inputs = masks(3, 12, 2)
    np.testing.assert_array_equal(first, next(masks(3, 4, 6)))
    order = [np.argsort([row.tobytes() for row in part]) for part in (inputs[:12], inputs[12:])]
    own, again = first[:12][order[0]], first[12:][order[1]]  # of the same rows in two epochs
    assert (own != again).any((1, 2)).all()
    others, inputs = masks(4, 12, 1)
    others = others[np.argsort([row.tobytes() for row in inputs])]
    assert (own != others).any((1, 2)).all()
    assert first.max() > 0


# Layers

SMALL = {
    "librispeech_conformer": {"width": 8, "layers": 1, "heads": 2, "feed_forward": 16},
    "librispeech_deepspeech": {"width": 8, "layers": 2},
}
LENGTHS = (800, 4321, 11_000)  # from 0.1 s at 8 kHz
LONGEST = (1600, 123_457, 320_000)  # from 0.1 s to the longest at 16 kHz, 20 s


def utterances(size, lengths=LENGTHS):
    """Noise, also beyond each utterance's end; what lies before it does not depend on `size`."""
    generators = [np.random.default_rng(row) for row in range(len(lengths))]
    samples = np.stack([each.integers(-8000, 8000, size, np.int16) for each in generators])
    labels = np.array([[5], [7], [9]], np.int32)[: len(lengths)]
    masks = np.tile(np.array([[1, 3], [0, 0], [2, 3], [0, 0]], np.int16), (len(lengths), 1, 1))
    return {
        "inputs": samples,
        "lengths": np.array(lengths, np.int32),
        "targets": labels,
        "masks": masks,
    }


@functools.cache
def bound(framework, name, rate=8000):
    """A small model with perturbed parameters."""
    definition = catalogue.find(name)
    scale = definition.scales["mini"]
    scale = dataclasses.replace(scale, model={**scale.model, **SMALL[name]})
    model = {"rate": rate, "frequency_masks": 2}
    data = Data(dict.fromkeys(SPLITS, utterances(11_000)), model=model)
    backend = backends.load(framework)
    workload = backend.workload(definition, scale, "builtin", data)
    return backend, workload, perturbed({**workload.shapes, **workload.statistic_shapes})


def forward(framework, name, rows, mode, rate=0.0, samples_a_second=8000):
    """(logits, paddings, loss of each utterance, running statistics) of a pass."""
    backend, workload, values = bound(framework, name, samples_a_second)
    params, state = workload.state_from_neutral(values)
    placed = backend.place(rows)
    rng = backend.random_state((0, 0))
    backend.seed((0, 0))

    def call(params, state, placed, rng):
        outputs, after = workload.model_fn(params, placed, state, mode, rng, True, rate)
        return outputs, workload.per_example_loss(placed["targets"], outputs, 0.0), after

    outputs, loss, after = (jax.jit(call) if framework == "jax" else call)(
        params, state, placed, rng
    )
    statistics = {
        key: value
        for key, value in workload.state_to_neutral(params, after).items()
        if key in workload.statistic_shapes
    }
    return (*backend.fetch(outputs), backend.fetch(loss), statistics)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("samples_a_second", "lengths", "longer"),
    [
        pytest.param(8000, LENGTHS, 12_345, id="mini"),
        pytest.param(16_000, LONGEST, 330_001, id="20 s", marks=pytest.mark.slow),
    ],
)
def test_nothing_depends_on_padding(framework, name, samples_a_second, lengths, longer):
    run = functools.partial(forward, framework, name, samples_a_second=samples_a_second)
    hop = samples_a_second // 100
    frames = [math.ceil(math.ceil(math.ceil(each / hop) / 2) / 2) for each in lengths]
    for mode in (EVAL, TRAIN):
        short, long = (run(utterances(size, lengths), mode) for size in (lengths[-1], longer))
        for outputs in (short, long):
            assert (1 - outputs[1]).sum(1).tolist() == frames
            assert np.isfinite(outputs[0]).all()
        for row, count in enumerate(frames):
            own = [outputs[0][row, :count] for outputs in (short, long)]
            np.testing.assert_allclose(*own, atol=1e-4)
        np.testing.assert_allclose(short[2], long[2], rtol=1e-5)
        for key, value in short[3].items():
            np.testing.assert_allclose(value, long[3][key], rtol=1e-5, atol=1e-7)
    plain = run(utterances(lengths[-1], lengths), EVAL)
    alone = run(utterances(lengths[1], lengths[:2]), EVAL)
    own = [outputs[0][1, : frames[1]] for outputs in (plain, alone)]
    np.testing.assert_allclose(*own, atol=1e-4)


@pytest.mark.parametrize("channels", [3, 256])
def test_the_strided_convolution_is_pytorch_s(channels):
    """Few channels, and as many as make it a product with windows in JAX; with its gradients."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((2, 7, 4, channels)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, channels, 2)).astype(np.float32)
    bias = rng.standard_normal(2).astype(np.float32)
    in_torch = [torch.from_numpy(each).requires_grad_() for each in (hidden, kernel, bias)]
    channels_first = functional.pad(in_torch[0].permute(0, 3, 1, 2), (0, 1, 1, 1))
    weight = in_torch[1].permute(3, 2, 0, 1)
    expected = functional.conv2d(channels_first, weight, in_torch[2], stride=2)
    expected.square().sum().backward()

    def total(hidden, kernel, bias):
        values = {"params": {"kernel": kernel, "bias": bias}}
        outputs = Strided(2).apply(values, hidden, (1, 1))
        return (outputs**2).sum(), outputs

    given = hidden, kernel, bias
    gradients, outputs = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(*given)
    expected = expected.detach().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
    for gradient, theirs in zip(gradients, in_torch, strict=True):
        np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-4, atol=1e-2)


def test_batch_norm_is_pytorch_s_of_the_frames_that_count():
    rng = np.random.default_rng(0)
    hidden = (3 + 2 * rng.standard_normal((3, 7, 5))).astype(np.float32)
    mask = (np.arange(7) < np.array([[7], [3], [1]])).astype(np.float32)
    scale, bias, mean, var = rng.uniform(0.5, 1.5, (4, 5)).astype(np.float32)
    for train in (True, False):
        running = [torch.from_numpy(each.copy()) for each in (mean, var)]
        expected = np.zeros_like(hidden)
        expected[mask > 0] = functional.batch_norm(
            torch.from_numpy(hidden[mask > 0]),
            *running,
            torch.from_numpy(1 + scale),
            torch.from_numpy(bias),
            train,
            0.25,
            1e-3,
        ).numpy()
        ours = MaskedBatchNorm(5, 0.25, 1e-3).train(train)
        state = {"weight": scale, "bias": bias, "running_mean": mean, "running_var": var}
        copied = {name: torch.from_numpy(value.copy()) for name, value in state.items()}
        ours.load_state_dict(copied, strict=False)
        result = ours(torch.from_numpy(hidden), torch.from_numpy(mask))
        np.testing.assert_allclose(result.detach().numpy(), expected, atol=1e-5)
        in_jax, after = MaskedBatchNormJax(0.25, 1e-3).apply(
            {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": mean, "var": var}},
            hidden,
            mask,
            not train,
            mutable=["batch_stats"],
        )
        np.testing.assert_allclose(in_jax, expected, atol=1e-5)
        statistics = after["batch_stats"]
        for theirs, in_torch, named in zip(
            running, (ours.running_mean, ours.running_var), ("mean", "var"), strict=True
        ):
            np.testing.assert_allclose(in_torch.numpy(), theirs.numpy(), rtol=1e-5)
            np.testing.assert_allclose(statistics[named], theirs.numpy(), rtol=1e-5)


def test_the_lstm_is_pytorch_s_with_one_bias():
    torch.manual_seed(0)
    theirs, ours = torch.nn.LSTM(6, 3, bidirectional=True, batch_first=True), Bidirectional(6)
    with torch.no_grad():
        for name, suffix in (("forward", ""), ("backward", "_reverse")):
            given, recurrent = (
                ours.get_submodule(f"{name}_{part}") for part in ("input", "recurrent")
            )
            given.weight.copy_(theirs.get_parameter(f"weight_ih_l0{suffix}"))
            recurrent.weight.copy_(theirs.get_parameter(f"weight_hh_l0{suffix}"))
            biases = [theirs.get_parameter(f"bias_{kind}_l0{suffix}") for kind in ("ih", "hh")]
            given.bias.copy_(sum(biases))
    hidden, frames = torch.randn(3, 5, 6), [5, 2, 4]
    result = ours(hidden, torch.tensor(frames))
    for row, count in enumerate(frames):
        expected, _ = theirs(hidden[row : row + 1, :count])
        torch.testing.assert_close(result[row, :count], expected[0])
        assert not result[row, count:].any()


DROPOUTS = {"librispeech_conformer": 1 + 6, "librispeech_deepspeech": 1 + 1}


@pytest.mark.parametrize("name", NAMES)
def test_in_pytorch_the_rate_reaches_every_layer(name, monkeypatch):
    seen, dropout = [], functional.dropout

    def recorded(values, p, training):
        seen.append((p, training))
        return dropout(values, p, training)

    monkeypatch.setattr(functional, "dropout", recorded)
    forward("pytorch", name, utterances(11_000), TRAIN, rate=0.5)
    assert seen == [(0.5, True)] * DROPOUTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_in_jax_the_rate_reaches_every_layer(name):
    backend, workload, values = bound("jax", name)
    params, state = workload.state_from_neutral(values)
    seen = []

    def intercept(call, arguments, keywords, context):
        if isinstance(context.module, Dropout):
            seen.append((context.module.rate, context.module.train, context.module.whole))
        return call(*arguments, **keywords)

    def call(params, state, placed, rng):
        return workload.model_fn(params, placed, state, TRAIN, rng, False, 0.5)[0]

    with nn.intercept_methods(intercept):
        placed = backend.place(utterances(11_000))
        jax.eval_shape(call, params, state, placed, backend.random_state((0, 0)))
    assert seen == [(0.5, True, ())] * DROPOUTS[name]


# Evaluation


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_evaluation_is_over_labels_and_words(framework, load_mini):
    """Whatever the batch size, and so the padding of the last batch."""
    name = NAMES[1]
    data = load_mini(name)
    rows = data.splits["validation"].take(np.arange(7))
    few = dataclasses.replace(data, splits=dict.fromkeys(SPLITS, ArrayRows(rows)))
    backend, workload, values = bound(framework, name)
    params, state = workload.state_from_neutral(values)
    definition = catalogue.find(name)
    found = []
    for size in (3, 7):
        scale = dataclasses.replace(definition.scales["mini"], eval_batch_size=size)
        evaluator = Evaluator(backend, workload, definition, few, scale)
        found.append(evaluator("validation", params, state))
        transcripts = list(evaluator.written.rows())
    losses, frames = backend.fetch(backend.predict(workload, params, state, backend.place(rows)))
    count = (rows["targets"] != 0).sum()
    for values_of_size in found:
        assert values_of_size["loss"] == pytest.approx(losses.sum() / count, rel=1e-5)
        assert values_of_size["num_examples"] == 7
    assert found[0]["wer"] == found[1]["wer"]
    assert [row["reference"] for row in transcripts] == data.decode(
        [row[row != 0].tolist() for row in rows["targets"]]
    )
    assert frames.shape == (7, 36)


# Rows of files


@pytest.fixture
def digits(tmp_path):
    """A folder of Free Spoken Digit's layout, and what is in it."""
    soundfile = pytest.importorskip("soundfile")
    rng = np.random.default_rng(0)
    written = {}
    for digit in range(3):
        for take in (0, 5, 8, 9):
            name = f"{digit}_ann_{take}.wav"
            written[name] = rng.integers(-9000, 9000, 2000 + 100 * take).astype(np.int16)
            soundfile.write(tmp_path / name, written[name], 8000)
    return tmp_path, written


def load(folder, **changes):
    settings = {**catalogue.find(NAMES[0]).scales["mini"].data, **changes}
    return speech.load(str(folder), **settings)


def test_a_folder_s_rows_are_its_files(digits):
    folder, written = digits
    data = load(folder)
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        "train": 6, "validation": 3, "test": 3,
    }  # fmt: skip
    assert data.model["rate"] == 8000
    batch = data.splits["test"].take(np.array([2, 0]))
    for row, name in enumerate(("2_ann_0.wav", "0_ann_0.wav")):
        samples = written[name]
        assert batch["lengths"][row] == len(samples)
        np.testing.assert_array_equal(batch["inputs"][row, : len(samples)], samples)
        assert not batch["inputs"][row, len(samples) :].any()
    labels = [row[row != 0].tolist() for row in batch["targets"]]
    assert data.decode(labels) == ["TWO", "ZERO"]
    assert labels[0][-1] == speech.END_ID


def test_a_folder_s_batches_are_of_about_one_length(digits):
    """Cut to it, with masks of the epoch, and its share of padding."""
    folder, _ = digits
    data = load(folder)
    train = data.splits["train"]
    buckets = Buckets(train, ((2850, 20), (2900, 20)), PAD_ID)
    queue = TrainingQueue(train, 3, 0, buckets=buckets, augmentation=data.augmentation)
    widths = collections.Counter()
    for _ in range(4):
        batch = next(queue)
        widths[batch["inputs"].shape[1]] += 1
        assert set(batch["lengths"]) == {2800 if batch["inputs"].shape[1] == 2850 else 2900}
        assert batch["masks"].any()
    queue.close()
    assert widths == {2850: 2, 2900: 2}
    tokens, width = sum(map(len, ("ZERO", "ONE", "TWO"))) + 3, len("ZERO") + 1
    real, positions = 3 * (2800 + 2900) + 2 * tokens, 3 * (2850 + 2900) + 6 * width
    assert buckets.real_share == real / positions


def test_labels_that_the_frames_cannot_hold_are_counted(tmp_path):
    """Of 0.1 s there are 10 frames, and 3 after subsampling: enough for two labels that differ and
    the end, and not for two that are alike.
    """
    soundfile = pytest.importorskip("soundfile")
    lines = ["path\ttranscript\n"]
    for number, text in enumerate(("AB", "AA", "ABC")):
        soundfile.write(tmp_path / f"{number}.wav", np.ones(800, np.int16), 8000)
        lines.append(f"{number}.wav\t{text}\n")
    for split in SPLITS:
        (tmp_path / f"{split}.tsv").write_text("".join(lines))
    data = load(tmp_path)
    assert data.notes["infeasible"] == {"train": 2, "validation": 2, "test": 2}
    definition = catalogue.find(NAMES[0])
    assert "2 (train), 2 (validation), 2 (test); their loss" in definition.remarks(data)[0]


def test_a_split_whose_transcripts_all_have_too_many_tokens_is_named(digits, monkeypatch):
    monkeypatch.setattr(speech, "MOST_LABELS", len("ONE"))
    with pytest.raises(UserError, match=r"left of the train split \(6 x over 3 tokens\)"):
        load(digits[0])


@pytest.mark.parametrize("rate", [11_025, 22_050, 44_100])
def test_a_rate_at_which_frames_are_not_whole_is_named(tmp_path, rate):
    soundfile = pytest.importorskip("soundfile")
    for take in (0, 5, 8):
        soundfile.write(tmp_path / f"1_ann_{take}.wav", np.ones(rate // 8, np.int16), rate)
    message = rf"1_ann_8.wav: a sampling rate of {rate} Hz.*8000, 12000, 16000, 24000, 32000 or 480"
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_characters():
    words = speech.Characters(["AB", "B A"], 6)
    assert words.encode("BA C") == [5, 4, 3, 1, 2]
    assert words.decode([[5, 4, 2], [1, 3, 9], []]) == ["BA", "⁇ ⁇", ""]
    with pytest.raises(UserError, match="3 different characters, and the vocabulary holds 2"):
        speech.Characters(["AB", "B A"], 5)


def test_unigrams():
    pytest.importorskip("sentencepiece")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(spoken_words.lexicon(), 5)).upper() for _ in range(200)]
    words, again = (speech.KINDS["unigrams"](texts, 60) for _ in range(2))
    labels = [words.encode(text) for text in texts]
    assert labels == [again.encode(text) for text in texts]
    assert words.decode(labels) == texts
    used = {token for row in labels for token in row}
    assert len(used) > 30
    assert max(used) < 60
    assert not used & {speech.BLANK_ID, speech.UNKNOWN_ID}
    assert {row[-1] for row in labels} == {speech.END_ID}
    assert words.decode([[999]]) == [" ⁇ "]


# Real samples

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "speech"
needs_samples = pytest.mark.skipif(not SHARED.is_dir(), reason="no samples of real speech here")


@pytest.fixture
def read_speech(tmp_path):
    """The read utterances that have transcripts, one of them LibriSpeech's, in its layout."""
    pytest.importorskip("soundfile")
    (original,) = SHARED.glob("librispeech/dev-clean/*/*/*.flac")
    (table,) = original.parent.glob("*.trans.txt")
    lines = (SHARED / "librivox" / "transcripts.txt").read_text().splitlines()
    paths = [SHARED / "librivox" / f"{line.split()[0]}.wav" for line in lines]
    header = "path\ttranscript\n"
    train = [f"{path}\t{line.partition(' ')[2]}\n" for path, line in zip(paths, lines, strict=True)]
    held_out = f"{original}\t{table.read_text().partition(' ')[2].strip()}\n"
    (tmp_path / "train.tsv").write_text(header + "".join(train))
    for split in SPLITS[1:]:
        (tmp_path / f"{split}.tsv").write_text(header + held_out)
    return tmp_path


@needs_samples
def test_features_of_read_speech(read_speech):
    data = load(read_speech, bins=80)
    assert data.model["rate"] == 16_000
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        "train": 4, "validation": 1, "test": 1,
    }  # fmt: skip
    front = FrontEnd(16_000, log_mel.LIBRISPEECH_MEAN, log_mel.LIBRISPEECH_STD)
    batch = data.splits["train"].take(np.arange(4))
    given = batch["inputs"], batch["lengths"], batch["masks"]
    in_torch, _ = LogMel(front, 2).eval()(tuple(map(torch.from_numpy, given)))
    in_jax, _ = jax.jit(lambda *inputs: log_mel_features(front, inputs))(*given)
    np.testing.assert_allclose(in_torch.numpy(), in_jax, rtol=0, atol=1e-5)
    for row, length in enumerate(batch["lengths"]):
        expected = log_mel.features(front, batch["inputs"][row, :length])
        for features in (in_torch.numpy(), np.asarray(in_jax)):
            np.testing.assert_allclose(features[row, : len(expected)], expected, rtol=0, atol=5e-6)


@needs_samples
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_of_spoken_digits_falls_alike(name):
    pytest.importorskip("soundfile")
    data = load(SHARED / "fsdd")
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        "train": 540, "validation": 60, "test": 120,
    }  # fmt: skip
    assert data.notes["held_out"] == ["validation"]
    definition = catalogue.find(name)
    scale = definition.scales["mini"]
    scale = dataclasses.replace(scale, model={**scale.model, **SMALL[name]})
    pair = parity.bind(definition, scale, "folder", data, steps=60, batch_size=16)
    losses = [parity._train(side, pair.batches, 2.0) for side in (pair.jax, pair.torch)]
    first, last = (
        np.mean([each[part] for each in losses], 1) for part in (slice(5), slice(-11, -1))
    )
    assert (last < 0.7 * first).all()
    assert last[0] == pytest.approx(last[1], rel=0.02)
