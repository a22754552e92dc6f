"""The criteo1tb workload: its clicks, its hashed categories, and its model's parameters."""

import collections
import dataclasses
import hashlib
import math

import jax
import numpy as np
import pytest
from flax import linen as nn
from torch.nn import functional

from algoperf import backends, spec
from algoperf.experiments.check import parity
from algoperf.workload import SPLITS, Data, catalogue
from workloads.criteo1tb import generator
from workloads.parts import clicks
from workloads.parts.dropout_jax import Dropout

NAME = "criteo1tb"
TRAIN = spec.ForwardPassMode.TRAIN
DEFINITION = catalogue.find(NAME)
ROWS = 4096  # of a table that stands for the full one, of 4,194,304
# Of the reference's own flax models with such a table.
BASE = {
    "1": 1, "13x512": 1, "128": 1, "256": 2, "256x1": 1, "256x128": 1, "506x1024": 1, "512": 2,
    "512x256": 2, "1024": 2, "1024x512": 1, "1024x1024": 1, "4096x128": 1,
}  # fmt: skip
NORMED = {**BASE, "128": 5, "256": 6, "512": 6, "1024": 6}
RESIDUAL = {"1": 1, "256x1": 1, "256": 7, "13x256": 1, "256x256": 5, "3584x256": 1, "4096x128": 1}
REFERENCE = {
    "criteo1tb": (2_920_833, BASE),
    "criteo1tb_layernorm": (2_928_513, NORMED),
    "criteo1tb_resnet": (1_774_849, RESIDUAL),
    "criteo1tb_embed_init": (2_920_833, BASE),
}


def turned(shape):
    """A dense kernel of flax's as PyTorch has it."""
    inputs, _, width = shape.partition("x")
    return shape if not width or inputs == "4096" else f"{width}x{inputs}"


@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("framework", ["pytorch", "jax"])
def test_the_full_model_has_the_reference_s_parameters(name, framework):
    definition = catalogue.find(name)
    scale = definition.scales["full"]
    assert (scale.model["rows"], scale.model["width"]) == (4_194_304, 128)
    assert scale.data["rows"] == scale.model["rows"]
    scale = dataclasses.replace(scale, model={**scale.model, "rows": ROWS})
    rows = {"inputs": np.zeros((2, 39), np.int32), "targets": np.zeros(2, np.float32)}
    data = Data(dict.fromkeys(SPLITS, rows))
    bound = backends.load(framework).workload(definition, scale, "folder", data)
    shapes = [parameter.shape for parameter in bound.parameters.values()]
    count, expected = REFERENCE[name]
    if framework == "pytorch":
        expected = {turned(shape): tensors for shape, tensors in expected.items()}
    assert sum(map(math.prod, shapes)) == count
    assert collections.Counter("x".join(map(str, shape)) for shape in shapes) == expected
    kinds = collections.Counter(parameter.type.name for parameter in bound.parameters.values())
    norms = {"LAYER_NORM_SCALE": 8, "LAYER_NORM_BIAS": 8} if name.endswith("layernorm") else {}
    assert kinds == {"EMBEDDING": 1, "WEIGHT": 8, "BIAS": 8, **norms}


def test_the_whole_table_makes_539_million_parameters():
    assert REFERENCE[NAME][0] + (4_194_304 - ROWS) * 128 == 539_267_457


def test_the_facts_are_algoperf_s():
    full = DEFINITION.scales["full"]
    target = full.targets["folder"]
    assert (target.validation, target.test) == (0.123735, 0.126041)
    assert not DEFINITION.higher_is_better
    assert (full.step_hint, full.budget_s, full.batch_size) == (10_666, 7_703, 262_144)
    published = {
        "layernorm": (0.123757, 0.126152),
        "resnet": (0.12415, 0.12648),
        "embed_init": (0.129657, 0.131967),
    }
    for name, expected in published.items():
        varied = catalogue.find(f"{NAME}_{name}").scales["full"].targets["folder"]
        assert (varied.validation, varied.test) == expected


@pytest.mark.parametrize(("name", "largest"), [(NAME, 1 / 128), (f"{NAME}_embed_init", 1.0)])
def test_the_table_starts_around_half_of_its_largest_value(load_mini, name, largest):
    """With the mean and the deviation of a uniform draw from 0 on."""
    definition = catalogue.find(name)
    scale = definition.scales["mini"]
    bound = backends.load("pytorch").workload(definition, scale, "builtin", load_mini(NAME))
    params, _ = bound.init_model_fn((0, 1))
    table = params.table.weight.detach().numpy()
    assert table.mean() == pytest.approx(largest / 2, rel=1e-2)
    assert table.std() == pytest.approx(largest / math.sqrt(12), rel=1e-2)
    assert abs(params.bottom.dense_0.weight.mean().item()) < 0.02


# Rows


@pytest.fixture(scope="module")
def drawn():
    return generator.generate("validation", 0)


def test_built_in_clicks_are_the_same_everywhere(drawn):
    digest = hashlib.sha256()
    for name in ("labels", "counts", "categories"):
        digest.update(np.ascontiguousarray(drawn.columns[name]).tobytes())
    assert digest.hexdigest() == DIGEST


DIGEST = "214911659b72590190152e58e8f1726e511e911b88d60c6d01fcde9029cea9ee"


def test_clicks_are_drawn_by_their_probability(drawn):
    probability_N, labels_N = drawn.probability_N, drawn.columns["labels"]
    assert ((probability_N > 0.02) & (probability_N < 0.98)).all()
    for part in np.array_split(np.argsort(probability_N), 10):
        share = labels_N[part].mean()
        assert share == pytest.approx(probability_N[part].mean(), abs=0.04)


def test_few_categories_are_most_of_the_rows_and_seasons_move_them(drawn):
    names = drawn.columns["categories"][25]
    _, counts = np.unique(names, return_counts=True)
    counts = np.sort(counts)[::-1]
    assert counts[: len(counts) // 4].sum() > 0.45 * len(names)
    train = generator.generate("train", 0).columns["categories"][7]
    spring, autumn = train[:20_000], train[60_000:80_000]
    frequent = [
        {name for name, _ in collections.Counter(part.tolist()).most_common(10)}
        for part in (spring, autumn)
    ]
    assert len(frequent[0] & frequent[1]) < 8


# splitmix64's finaliser of some numbers, by Python's own integers.
def finalised(number):
    mask = 2**64 - 1
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & mask
    number = (number ^ number >> 27) * 0x94D049BB133111EB & mask
    return number ^ number >> 31


def test_a_category_s_row_is_its_hash_with_the_column_s_salt():
    """64-bit numbers that floats cannot tell apart have rows of their own."""
    numbers = [0, 1, 2**24 + 1, 2**53, 2**53 + 1, 2**64 - 1, 2**64 - 2]
    categories_CN = np.tile(np.array(numbers, np.uint64), (26, 1))
    for rows in (2**22, 1000):
        found = clicks.table_rows(categories_CN, rows)
        assert found.dtype == np.int32
        for column in range(26):
            salt = finalised(column + 1)
            assert found[column].tolist() == [finalised(each ^ salt) % rows for each in numbers]
    assert len(np.unique(clicks.table_rows(categories_CN, 2**22))) > 26 * len(numbers) - 3
    other = clicks.table_rows(categories_CN, 2**22, seed=1)
    assert (other != clicks.table_rows(categories_CN, 2**22)).mean() > 0.99


def test_rows_are_counts_and_table_rows(drawn):
    rows = clicks.rows_of(
        {
            key: each[..., :5] if key == "categories" else each[:5]
            for key, each in drawn.columns.items()
        },
        2**14,
    )
    np.testing.assert_array_equal(rows["inputs"][:, :13], drawn.columns["counts"][:5])
    expected = clicks.table_rows(drawn.columns["categories"][:, :5], 2**14).T
    np.testing.assert_array_equal(rows["inputs"][:, 13:], expected)
    np.testing.assert_array_equal(rows["targets"], drawn.columns["labels"][:5])


# Models


def by_hand(inputs, values, width):
    """The base model in NumPy: perceptrons, and the products of all pairs."""

    def dense(name, hidden):
        return hidden @ values[f"{name}/kernel"] + values[f"{name}/bias"]

    counted = np.log1p(np.maximum(inputs[:, :13], 0))
    for layer in range(3):
        counted = np.maximum(dense(f"bottom/dense_{layer}", counted), 0)
    vectors = np.concatenate([counted[:, None], values["table/embedding"][inputs[:, 13:]]], 1)
    pairs = [
        (vectors[:, one] * vectors[:, other]).sum(1)
        for one in range(27)
        for other in range(one, 27)
    ]
    hidden = np.concatenate([counted, np.stack(pairs, 1)], 1)
    assert hidden.shape[1] == width + 378
    for layer in range(3):
        hidden = np.maximum(dense(f"top/dense_{layer}", hidden), 0)
    return dense("head", hidden)[:, 0]


@pytest.mark.parametrize("framework", ["pytorch", "jax"])
def test_the_model_is_what_the_paper_says(load_small, make_values, framework):
    data, scale = load_small(DEFINITION, "mini"), DEFINITION.scales["mini"]
    backend = backends.load(framework)
    bound = backend.workload(DEFINITION, scale, "builtin", data)
    values = make_values(bound.shapes)
    batch = data.splits["train"].take(np.arange(6))
    params, state = bound.state_from_neutral(values)
    _, logits = backend.fetch(backend.predict(bound, params, state, backend.place(batch)))
    wide = {name: value.astype(np.float64) for name, value in values.items()}
    expected = by_hand(batch["inputs"], wide, 16)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", [NAME, f"{NAME}_resnet", f"{NAME}_layernorm"])
def test_in_training_mode_the_frameworks_agree(load_small, name):
    definition = catalogue.find(name)
    data = load_small(definition, "mini")
    pair = parity.bind(definition, definition.scales["mini"], "builtin", data, 1, 8)
    parity.same_logits(pair, TRAIN)


def test_the_rate_reaches_the_last_hidden_layer(load_small, monkeypatch):
    data, scale = load_small(DEFINITION, "mini"), DEFINITION.scales["mini"]
    rows = data.splits["train"].take(np.arange(2))
    seen, dropout = [], functional.dropout

    def recorded(values, rate, training):
        seen.append((rate, training, values.shape))
        return dropout(values, rate, training)

    monkeypatch.setattr(functional, "dropout", recorded)
    backend = backends.load("pytorch")
    bound = backend.workload(DEFINITION, scale, "builtin", data)
    params, _ = bound.init_model_fn((0, 1))
    bound.model_fn(params, backend.place(rows), None, TRAIN, (0, 2), False, 0.5)
    assert seen == [(0.5, True, (2, 32))]

    backend = backends.load("jax")
    bound = backend.workload(DEFINITION, scale, "builtin", data)
    seen.clear()

    def intercept(call, arguments, keywords, context):
        if isinstance(context.module, Dropout):
            seen.append((context.module.rate, context.module.train, arguments[0].shape))
        return call(*arguments, **keywords)

    params, _ = bound.init_model_fn(backend.random_state((0, 1)))
    with nn.intercept_methods(intercept):
        jax.eval_shape(
            lambda: bound.model_fn(
                params, backend.place(rows), None, TRAIN, backend.random_state((0, 2)), False, 0.5
            )[0]
        )
    assert seen == [(0.5, True, (2, 32))]
