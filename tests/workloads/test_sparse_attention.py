"""Sparse attention: that of a window, computed in blocks, equals full attention under a mask."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from algoperf import backends, spec
from algoperf.workload import axes, catalogue
from workloads.parts import transformer_jax, transformer_torch, window_jax, window_torch
from workloads.parts.window import Window

# Lengths that fill no block, whole ones, windows of one token and of odd sizes, and global tokens
# that lie inside the first windows.
CASES = [
    pytest.param(*case, id="length {} window {} global {}".format(*case))
    for case in (
        (37, 8, 0),
        (37, 8, 3),
        (48, 7, 2),
        (32, 16, 16),
        (19, 1, 1),
        (20, 3, 20),
        (150, 33, 60),
        (290, 144, 5),
    )
]
B, H, K = 2, 3, 8


def mask(length: int, size: int, global_tokens: int) -> np.ndarray:
    """True where a query sees a key, by the definition and pair by pair."""
    return np.array(
        [
            [key <= query and (key > query - size or key < global_tokens) for key in range(length)]
            for query in range(length)
        ]
    )


def drawn(length: int) -> list[np.ndarray]:
    rng = np.random.default_rng(length)
    return [rng.standard_normal((B, H, length, K), np.float32) for _ in range(3)]


def weights(length: int) -> np.ndarray:
    """What the outputs are weighted by, for gradients of all of them."""
    return np.random.default_rng(1).standard_normal((B, length, H * K), np.float32)


def values_and_gradients_jax(attend, length):
    def loss(parts):
        mixed = attend(*parts)
        return (mixed * weights(length)).sum(), mixed

    (_, mixed), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(drawn(length))
    return [mixed, *gradients]


def values_and_gradients_torch(attend, length):
    parts = [torch.tensor(part, requires_grad=True) for part in drawn(length)]
    mixed = attend(*parts)
    (mixed * torch.tensor(weights(length))).sum().backward()
    return [mixed.detach(), *(part.grad for part in parts)]


def assert_close(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()


@pytest.mark.parametrize(("length", "size", "global_tokens"), CASES)
def test_it_is_full_attention_under_a_mask_in_jax(length, size, global_tokens) -> None:
    sparse = functools.partial(
        window_jax.attend_causally, window=size, global_tokens=global_tokens, temperature=0.7
    )
    visible = jnp.asarray(mask(length, size, global_tokens))
    full = functools.partial(transformer_jax.attend, mask_BHQT=visible, temperature=0.7)
    assert_close(values_and_gradients_jax(sparse, length), values_and_gradients_jax(full, length))


@pytest.mark.parametrize("at_once", [False, True], ids=["blocks in turn", "blocks at once"])
@pytest.mark.parametrize(("length", "size", "global_tokens"), CASES)
def test_it_is_full_attention_under_a_mask_in_pytorch(
    length, size, global_tokens, at_once, monkeypatch
) -> None:
    if at_once:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    sparse = functools.partial(
        window_torch.attend_causally, window=size, global_tokens=global_tokens, temperature=0.7
    )
    visible = torch.tensor(mask(length, size, global_tokens))
    full = functools.partial(transformer_torch.attend, mask_BHQT=visible, temperature=0.7)
    assert_close(
        values_and_gradients_torch(sparse, length), values_and_gradients_torch(full, length)
    )


def test_a_window_of_all_positions_is_causal_attention() -> None:
    parts = drawn(12)
    for size in (None, 12, 13):
        assert Window(12, 12 if size is None else size).is_whole
        in_jax = window_jax.attend_causally(*map(jnp.asarray, parts), window=size)
        expected = transformer_jax.attend(*parts, transformer_jax.causal_mask(12))
        np.testing.assert_array_equal(np.asarray(in_jax), np.asarray(expected))
        in_torch = window_torch.attend_causally(*map(torch.tensor, parts), window=size)
        assert_close([in_torch], [expected])


def test_no_array_grows_with_the_square_of_the_length() -> None:
    """Of four times as many tokens, the largest array of forward and backward pass is four times as
    large, and its rows are a window and a half.
    """
    largest = []
    for length in (256, 1024):
        parts = [jax.ShapeDtypeStruct((1, 1, length, K), jnp.float32)] * 3
        attend = functools.partial(window_jax.attend_causally, window=32, global_tokens=4)
        program = jax.make_jaxpr(jax.grad(lambda *each, attend=attend: attend(*each).sum()))(*parts)
        sizes = [variable.aval.size for equation in inner(program) for variable in equation.outvars]
        largest.append(max(sizes))
    assert largest == [256 * (48 + 4), 1024 * (48 + 4)]


def inner(program):
    """The equations of a program and of those within it."""
    for equation in program.eqns:
        yield equation
        for value in equation.params.values():
            if hasattr(value, "eqns"):
                yield from inner(value)


@pytest.mark.parametrize(("length", "global_tokens"), [(64, 0), (256, 2)])
def test_large_scores_lose_no_weight_in_pytorch(length, global_tokens) -> None:
    """Powers are of what a query's own largest score leaves, near or global, so that none of those
    that it sees is infinite, nor all 0 for a larger one that it does not see.
    """
    q, k, v = (torch.tensor(part) for part in drawn(length))
    q *= 300
    k[:, :, 0] *= 1e4
    sparse = window_torch.attend_causally(q, k, v, window=8, global_tokens=global_tokens)
    exact = (part.double() for part in (q, k, v))
    full = transformer_torch.attend(*exact, torch.tensor(mask(length, 8, global_tokens)))
    assert_close([sparse], [full])


def test_no_scores_are_kept_in_pytorch() -> None:
    """What the backward pass keeps is as large as inputs and outputs, whatever the window."""
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    parts = [torch.tensor(part, requires_grad=True) for part in drawn(256)]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        window_torch.attend_causally(*parts, window=128, global_tokens=4)
    assert max(kept) == B * H * 256 * K
    assert sum(kept) == 4 * max(kept) + B * H * 256  # and a sum's logarithm of each query


def test_under_autocast_scores_are_float32_in_pytorch() -> None:
    parts = [torch.tensor(part).bfloat16() for part in drawn(100)]
    exact = window_torch.attend_causally(*(part.float() for part in parts), window=40)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = window_torch.attend_causally(*parts, window=40)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed, exact.bfloat16(), rtol=0, atol=0)


def test_dropout_drops_weights_in_pytorch_too() -> None:
    parts = [torch.tensor(part) for part in drawn(40)]
    torch.manual_seed(0)
    dropped = window_torch.attend_causally(*parts, window=8, dropout_rate=0.5)
    plain = window_torch.attend_causally(*parts, window=8)
    assert not torch.allclose(dropped, plain)


def test_the_axis_sets_the_window_in_tokens() -> None:
    for name, scale, expected in (
        ("finewebedu_lm_window", "mini", (32, 4)),
        ("finewebedu_lm_window", "full", (256, 4)),
        ("lm_window", "mini", (16, 4)),
    ):
        style = catalogue.find(name).scales[scale].model["style"]
        assert (style.attention_window, style.global_tokens) == expected
    mini = catalogue.find("finewebedu_lm").scales["mini"]
    assert axes.changed(mini, {"global_tokens": 4}) is None  # without a window
    assert axes.changed(catalogue.find("xsum").scales["mini"], {"attention_window": 0.5}) is None
    offered = axes.offered(mini)
    assert not {"attention_window", "global_tokens", "position_scale", "dropout"} & set(offered)


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_a_position_of_a_model_sees_its_window_and_the_first_tokens_alone(
    framework, load_small, make_values
) -> None:
    """Through the two blocks of the mini model a position reads two windows back, less what
    overlaps, and the global tokens with all that these see.
    """
    definition = catalogue.find("finewebedu_lm_window")
    scale, data = definition.scales["mini"], load_small(definition, "mini")
    backend = backends.load(framework)
    bound = backend.workload(definition, scale, "builtin", data)
    values = make_values(bound.shapes)
    params, state = bound.state_from_neutral(values)
    rows = {key: array[:1] for key, array in data.splits["train"].items()}

    def logits(inputs_BT: np.ndarray) -> np.ndarray:
        batch = backend.place({**rows, "inputs": inputs_BT})
        out, _ = bound.model_fn(params, batch, state, spec.ForwardPassMode.EVAL, None, False)
        return np.asarray(backend.fetch(out))[0, -1]

    last = rows["inputs"].shape[1] - 1
    reach = 2 * (32 - 1)
    plain = logits(rows["inputs"])
    for position, is_seen in ((last - reach, True), (last - reach - 1, False), (3, True)):
        changed = rows["inputs"].copy()
        changed[0, position] = (changed[0, position] + 1) % scale.data["vocab_size"]
        assert (np.abs(logits(changed) - plain).max() > 0) == is_seen, position
