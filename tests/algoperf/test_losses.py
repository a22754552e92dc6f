"""The losses of both backends against hand-worked values and outside implementations."""

import functools
import itertools
import math

import jax
import numpy as np
import optax
import pytest
import torch
from scipy import special
from sklearn import metrics

from algoperf import losses
from algoperf.backends import jax_backend, torch_backend
from algoperf.losses import reduce_masked
from algoperf.spec import LossType

RNG = np.random.default_rng(11)
LOGITS_BC = RNG.normal(0, 2, (6, 4)).astype(np.float32)
CLASSES_B = np.array([0, 3, 1, 1, 2, 0], np.int32)
BINARY_BC = (RNG.random((6, 4)) < 0.4).astype(np.float32)
VALUES_BHW, OUTPUTS_BHW = RNG.normal(size=(2, 5, 3, 2)).astype(np.float32)
BACKENDS = {
    name: functools.partial(losses.per_example, ops=backend.OPS)
    for name, backend in (("jax", jax_backend), ("torch", torch_backend))
}
# Compiled at once, and not one operation after another.
CALLS = {**BACKENDS, "jax": jax.jit(BACKENDS["jax"], static_argnums=(0, 3))}


def in_framework(framework, array):
    if isinstance(array, tuple):
        return tuple(in_framework(framework, part) for part in array)
    return jax.numpy.asarray(array) if framework == "jax" else torch.from_numpy(array.copy())


def loss(framework, loss_type, labels, logits, smoothing=0.0):
    labels, logits = (in_framework(framework, array) for array in (labels, logits))
    return np.asarray(CALLS[framework](loss_type, labels, logits, smoothing), np.float64)


@pytest.fixture(params=sorted(BACKENDS))
def framework(request):
    return request.param


def test_softmax_by_hand(framework):
    """Logits log 1, log 2, log 5: probabilities 1/8, 2/8, 5/8."""
    logits = np.log([[1, 2, 5], [1, 2, 5]]).astype(np.float32)
    labels = np.array([2, 0], np.int32)
    plain = loss(framework, LossType.SOFTMAX_CROSS_ENTROPY, labels, logits)
    np.testing.assert_allclose(plain, [math.log(8 / 5), math.log(8)], rtol=1e-6)
    smoothed = loss(framework, LossType.SOFTMAX_CROSS_ENTROPY, labels, logits, 0.3)
    by_hand = 0.8 * math.log(8 / 5) + 0.1 * math.log(8 / 2) + 0.1 * math.log(8)
    assert smoothed[0] == pytest.approx(by_hand, rel=1e-6)  # 0.7 + 0.3 / 3 on the true class


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_softmax_of_distributions_is_the_mean_over_classes(framework, smoothing):
    """Mixed labels: each class's loss by its share; a share of 1 is the class itself. A batch of as
    many rows as classes is none.
    """
    shares_BC = np.array([[1, 0, 0, 0], [0.25, 0, 0.75, 0], [0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1]])
    logits = LOGITS_BC[:4]
    by_class = [
        loss(framework, LossType.SOFTMAX_CROSS_ENTROPY, np.full(4, c, np.int32), logits, smoothing)
        for c in range(4)
    ]
    mixed = loss(
        framework,
        LossType.SOFTMAX_CROSS_ENTROPY,
        shares_BC.astype(np.float32),
        logits,
        smoothing,
    )
    np.testing.assert_allclose(mixed, (shares_BC * np.stack(by_class, -1)).sum(-1), rtol=1e-5)
    weights = np.arange(4, dtype=np.float32)
    reduced = reduce_masked(in_framework(framework, mixed), in_framework(framework, weights))
    assert float(reduced["summed"]) == pytest.approx(float(mixed @ weights), rel=1e-5)


def test_softmax_against_outside(framework):
    ours = loss(framework, LossType.SOFTMAX_CROSS_ENTROPY, CLASSES_B, LOGITS_BC)
    probabilities = special.softmax(LOGITS_BC.astype(np.float64), -1)
    theirs = metrics.log_loss(CLASSES_B, probabilities, labels=range(4), normalize=False)
    assert ours.sum() == pytest.approx(theirs, rel=1e-6)
    smoothed = loss(framework, LossType.SOFTMAX_CROSS_ENTROPY, CLASSES_B, LOGITS_BC, 0.1)
    reference = torch.nn.functional.cross_entropy(
        torch.from_numpy(LOGITS_BC),
        torch.from_numpy(CLASSES_B).long(),
        reduction="none",
        label_smoothing=0.1,
    )
    np.testing.assert_allclose(smoothed, reference.numpy(), rtol=1e-5)


def test_softmax_of_tokens_and_of_huge_logits(framework):
    tokens = loss(
        framework,
        LossType.SOFTMAX_CROSS_ENTROPY,
        CLASSES_B.reshape(2, 3),
        LOGITS_BC.reshape(2, 3, 4),
    )
    rows = loss(framework, LossType.SOFTMAX_CROSS_ENTROPY, CLASSES_B, LOGITS_BC)
    np.testing.assert_allclose(tokens, rows.reshape(2, 3), rtol=1e-6)
    huge = np.array([[1e4, 0.0]], np.float32)
    for label, value in ((0, 0.0), (1, 1e4)):
        labels = np.array([label], np.int32)
        assert loss(framework, LossType.SOFTMAX_CROSS_ENTROPY, labels, huge)[0] == value


def test_sigmoid_by_hand(framework):
    """Logit log 3: probability 3/4. Smoothing 0.2 turns the labels 1 and 0 into 0.9 and 0.1."""
    logits = np.full((1, 2), math.log(3), np.float32)
    labels = np.array([[1.0, 0.0]], np.float32)
    plain = loss(framework, LossType.SIGMOID_CROSS_ENTROPY, labels, logits)
    np.testing.assert_allclose(plain, [[math.log(4 / 3), math.log(4)]], rtol=1e-6)
    smoothed = loss(framework, LossType.SIGMOID_CROSS_ENTROPY, labels, logits, 0.2)
    by_hand = [0.9 * math.log(4 / 3) + 0.1 * math.log(4), 0.1 * math.log(4 / 3) + 0.9 * math.log(4)]
    np.testing.assert_allclose(smoothed[0], by_hand, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sigmoid_against_outside(framework, smoothing):
    ours = loss(framework, LossType.SIGMOID_CROSS_ENTROPY, BINARY_BC, LOGITS_BC, smoothing)
    labels = BINARY_BC * (1 - smoothing) + smoothing * 0.5
    logits = LOGITS_BC.astype(np.float64)
    theirs = -labels * special.log_expit(logits) - (1 - labels) * special.log_expit(-logits)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    far = np.array([[1e4, -1e4]], np.float32)
    zeros = np.zeros((1, 2), np.float32)
    assert loss(framework, LossType.SIGMOID_CROSS_ENTROPY, zeros, far).tolist() == [[1e4, 0.0]]


@pytest.mark.parametrize(
    ("loss_type", "power"), [(LossType.MEAN_SQUARED_ERROR, 2), (LossType.MEAN_ABSOLUTE_ERROR, 1)]
)
def test_regression(framework, loss_type, power):
    by_hand = loss(
        framework,
        loss_type,
        np.array([[1.0, 2.0], [0.0, 0.0]], np.float32),
        np.array([[4.0, 1.0], [0.5, -0.5]], np.float32),
    )
    expected = {2: [(9 + 1) / 2, 0.25], 1: [(3 + 1) / 2, 0.5]}[power]
    np.testing.assert_allclose(by_hand, expected, rtol=1e-6)
    ours = loss(framework, loss_type, VALUES_BHW, OUTPUTS_BHW)
    theirs = [(abs(v - o) ** power).mean() for v, o in zip(VALUES_BHW, OUTPUTS_BHW, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def ctc_batch(lengths, label_lengths, frames, symbols):
    """Random logits and labels (1 and up), with paddings of the given lengths."""
    rng = np.random.default_rng(3)
    logits_BTV = rng.normal(size=(len(lengths), frames, symbols)).astype(np.float32)
    labels_BN = rng.integers(1, symbols, (len(lengths), max(label_lengths))).astype(np.int32)
    paddings = [
        (np.arange(size) >= np.array(used)[:, None]).astype(np.float32)
        for size, used in ((frames, lengths), (max(label_lengths), label_lengths))
    ]
    return (labels_BN, paddings[1]), (logits_BTV, paddings[0])


def collapse(path):
    """An alignment's labels: repeats merged, then blanks (0) dropped (Graves et al. 2006)."""
    return [symbol for symbol, _ in itertools.groupby(path) if symbol]


def test_ctc_against_every_alignment(framework):
    """Of up to 3^5 alignments, those that collapse to the labels, summed by brute force."""
    lengths, label_lengths = (5, 4, 2), (2, 2, 1)
    labels, logits = ctc_batch(lengths, label_lengths, 5, 3)
    labels[0][1] = [2, 2]  # a repeat, which needs a blank between
    ours = loss(framework, LossType.CTC_LOSS, labels, logits)
    for row, (frames, size) in enumerate(zip(lengths, label_lengths, strict=True)):
        probabilities = special.softmax(logits[0][row].astype(np.float64), -1)
        total = sum(
            math.prod(probabilities[t, symbol] for t, symbol in enumerate(path))
            for path in itertools.product(range(3), repeat=frames)
            if collapse(path) == labels[0][row, :size].tolist()
        )
        assert ours[row] == pytest.approx(-math.log(total), rel=1e-5)


def test_ctc_against_both_libraries(framework):
    lengths, label_lengths = (20, 17, 12), (6, 4, 1)
    labels, logits = ctc_batch(lengths, label_lengths, 20, 8)
    ours = loss(framework, LossType.CTC_LOSS, labels, logits)
    in_torch = torch.nn.functional.ctc_loss(
        torch.from_numpy(logits[0]).log_softmax(-1).transpose(0, 1),
        torch.from_numpy(labels[0]).long(),
        torch.tensor(lengths),
        torch.tensor(label_lengths),
        blank=0,
        reduction="none",
    )
    np.testing.assert_allclose(ours, in_torch.numpy(), rtol=1e-5)
    np.testing.assert_allclose(ours, jax.jit(optax.ctc_loss)(*logits, *labels), rtol=1e-5)


def test_ctc_of_labels_that_the_frames_cannot_hold_is_0(framework):
    """Labels need as many frames as they are, and a blank's between two that are alike."""
    labels_BN = np.array([[1, 1, 2], [1, 2, 3], [1, 1, 2], [2, 2, 0], [2, 0, 0]], np.int32)
    frames_B = np.array([3, 3, 4, 2, 1])
    feasible_B = np.array([False, True, True, False, True])
    (_, _), (logits_BTV, _) = ctc_batch((4,) * 5, (3,) * 5, 4, 5)
    paddings_BT = (np.arange(4) >= frames_B[:, None]).astype(np.float32)
    ours_B = loss(framework, LossType.CTC_LOSS, labels_BN, (logits_BTV, paddings_BT))
    np.testing.assert_array_equal(ours_B > 0, feasible_B)
    np.testing.assert_array_equal(ours_B[~feasible_B], 0)
    alone_B = loss(
        framework, LossType.CTC_LOSS, labels_BN[1:3], (logits_BTV[1:3], paddings_BT[1:3])
    )
    np.testing.assert_allclose(ours_B[1:3], alone_B, rtol=1e-6)
    if framework == "jax":

        def summed(logits_BTV):
            outputs = logits_BTV, paddings_BT
            return BACKENDS["jax"](LossType.CTC_LOSS, labels_BN, outputs, 0.0).sum()

        gradient_BTV = np.asarray(jax.jit(jax.grad(summed))(logits_BTV))
    else:
        leaf = torch.from_numpy(logits_BTV).requires_grad_()
        outputs = leaf, torch.from_numpy(paddings_BT)
        given = torch.from_numpy(labels_BN)
        BACKENDS["torch"](LossType.CTC_LOSS, given, outputs, 0.0).sum().backward()
        gradient_BTV = leaf.grad.numpy()
    np.testing.assert_array_equal((gradient_BTV != 0).any((1, 2)), feasible_B)
    assert np.isfinite(gradient_BTV).all()


def test_ctc_s_mean_is_over_labels_that_may_be_padded_with_0(framework):
    pair, outputs = ctc_batch((9, 8, 7), (3, 1, 2), 9, 5)
    alone_BN = (pair[0] * (1 - pair[1])).astype(np.int32)
    by_pair_B, losses_B = (
        loss(framework, LossType.CTC_LOSS, labels, outputs) for labels in (pair, alone_BN)
    )
    np.testing.assert_array_equal(by_pair_B, losses_B)
    weights_B = np.array([1, 0, 0.5], np.float32)
    for mask, expected in ((None, 6), (weights_B, 4), (np.zeros(3, np.float32), 1)):
        given = mask if mask is None else in_framework(framework, mask)
        for labels in (pair, alone_BN):
            placed = in_framework(framework, labels)
            reduced = reduce_masked(
                in_framework(framework, losses_B),
                given,
                losses.example_counts(LossType.CTC_LOSS, placed),
            )
            assert float(reduced["n_valid_examples"]) == expected
        kept_B = losses_B if mask is None else losses_B * mask
        assert float(reduced["summed"]) == pytest.approx(kept_B.sum(), rel=1e-6)


def test_smoothing_may_be_traced():
    """Published submissions hand label smoothing to jit as an ordinary argument."""
    for loss_type, labels in (
        (LossType.SOFTMAX_CROSS_ENTROPY, CLASSES_B),
        (LossType.SIGMOID_CROSS_ENTROPY, BINARY_BC),
    ):
        traced = jax.jit(lambda s, t=loss_type, y=labels: BACKENDS["jax"](t, y, LOGITS_BC, s))
        for smoothing in (0.0, 0.1):
            plain = loss("jax", loss_type, labels, LOGITS_BC, smoothing)
            np.testing.assert_allclose(traced(smoothing), plain, rtol=1e-5, atol=1e-6)


SAMPLES = {
    LossType.SOFTMAX_CROSS_ENTROPY: (CLASSES_B, LOGITS_BC, 0.1),
    LossType.SIGMOID_CROSS_ENTROPY: (BINARY_BC, LOGITS_BC, 0.1),
    LossType.MEAN_SQUARED_ERROR: (VALUES_BHW, OUTPUTS_BHW, 0.0),
    LossType.MEAN_ABSOLUTE_ERROR: (VALUES_BHW, OUTPUTS_BHW, 0.0),
    LossType.CTC_LOSS: (*ctc_batch((9, 7), (3, 2), 9, 5), 0.0),
}


@pytest.mark.parametrize("loss_type", LossType)
def test_gradients_agree(loss_type):
    labels, logits, smoothing = SAMPLES[loss_type]
    first = logits[0] if isinstance(logits, tuple) else logits

    def wrapped(first):
        return (first, in_framework("jax", logits[1])) if isinstance(logits, tuple) else first

    def summed(first):
        labels_in_jax = in_framework("jax", labels)
        return BACKENDS["jax"](loss_type, labels_in_jax, wrapped(first), smoothing).sum()

    in_jax = jax.jit(jax.grad(summed))(jax.numpy.asarray(first))
    leaf = torch.from_numpy(first.copy()).requires_grad_()
    given = (leaf, torch.from_numpy(logits[1])) if isinstance(logits, tuple) else leaf
    BACKENDS["torch"](loss_type, in_framework("torch", labels), given, smoothing).sum().backward()
    np.testing.assert_allclose(in_jax, leaf.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "summed", "n_valid", "masked"),
    [
        (None, 21.0, 6, [[1, 2], [3, 4], [5, 6]]),
        ([1, 0, 1], 14.0, 4, [[1, 2], [0, 0], [5, 6]]),  # a row's mask covers its two losses
        ([0.5, 2, 0], 15.5, 5, [[0.5, 1], [6, 8], [0, 0]]),
        ([[1, 0], [0, 1], [1, 1]], 16.0, 4, [[1, 0], [0, 4], [5, 6]]),
    ],
)
def test_reduce_masked(framework, mask, summed, n_valid, masked):
    per_example = in_framework(framework, np.array([[1, 2], [3, 4], [5, 6]], np.float32))
    mask = mask if mask is None else in_framework(framework, np.array(mask, np.float32))
    reduced = reduce_masked(per_example, mask)
    assert (float(reduced["summed"]), float(reduced["n_valid_examples"])) == (summed, n_valid)
    np.testing.assert_array_equal(np.asarray(reduced["per_example"]), masked)


@pytest.mark.parametrize("loss_type", LossType)
def test_masked_row_counts_nowhere(framework, loss_type):
    """The masked sum over all rows is the plain sum over the others."""
    labels, logits, smoothing = SAMPLES[loss_type]
    per_example = loss(framework, loss_type, labels, logits, smoothing)
    weights = np.ones(len(per_example))
    weights[1] = 0
    reduced = reduce_masked(per_example, weights)
    rest = np.delete(per_example, 1, axis=0)
    assert reduced["summed"] == pytest.approx(rest.sum())
    assert reduced["n_valid_examples"] == rest.size
