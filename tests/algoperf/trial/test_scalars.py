"""Logged values are those of the step that logs them, and run no code when they are read."""

import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from algoperf import backends
from algoperf.trial.scalars import ScalarBuffer


def test_what_changes_later_is_logged_as_it_was():
    buffer = ScalarBuffer()
    rate, array = torch.tensor(0.5), np.array([4.0])
    parameter = torch.nn.Parameter(torch.ones(()))
    buffer.append_scalar_metrics({"rate": rate, "array": array, "parameter": parameter}, 1)
    rate.mul_(0.5)
    array[:] = 0
    with torch.no_grad():
        parameter.fill_(7)
    buffer.append_scalar_metrics({"rate": rate, "low": torch.tensor(1.5).bfloat16()}, np.int64(2))
    assert buffer.take(backends.load("pytorch").fetch) == [
        (1, {"rate": 0.5, "array": 4.0, "parameter": 1.0}),
        (2, {"rate": 0.25, "low": 1.5}),
    ]


def test_what_is_donated_later_is_logged():
    buffer = ScalarBuffer()
    rate = jnp.float32(0.5)
    logged = {"rate": rate, "low": jnp.ones((1,), jnp.bfloat16), "half": fractions.Fraction(1, 2)}
    buffer.append_scalar_metrics(logged, 3)
    jax.jit(lambda value: value / 2, donate_argnums=0)(rate)
    assert rate.is_deleted()
    assert buffer.take(backends.load("jax").fetch) == [(3, {"rate": 0.5, "low": 1.0, "half": 0.5})]


def test_a_tensor_is_not_fetched_as_it_is_logged(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "__float__", pytest.fail)
    monkeypatch.setattr(torch.Tensor, "item", pytest.fail)
    ScalarBuffer().append_scalar_metrics({"rate": torch.tensor(0.5, requires_grad=True)}, 1)


class Late:
    def __float__(self):
        raise AssertionError("it was read")


class Own(torch.Tensor):
    pass


class Rows(np.ndarray):
    pass


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Late(), "'x' is a Late; expected a number, or a NumPy, JAX or PyTorch array of one value"),
        (torch.ones(()).as_subclass(Own), "'x' is a Own"),
        (np.ones(1).view(Rows), "'x' is a Rows"),
        (np.array([Late()], object), "'x' is a ndarray"),
        (torch.tensor(1j), "'x' is a Tensor"),
        ("0.5", "'x' is a str"),
        (None, "'x' is a NoneType"),
        (torch.ones(3), "'x' has 3 values; expected one"),
        (np.ones((0, 2)), "'x' has 0 values"),
    ],
)
def test_what_else_is_logged_is_refused_at_once(value, says):
    with pytest.raises(TypeError, match=says):
        ScalarBuffer().append_scalar_metrics({"x": value}, 1)


def test_a_value_that_jit_traces_is_refused():
    buffer = ScalarBuffer()
    with pytest.raises(TypeError, match=r"'x' is a .*Tracer"):
        jax.jit(lambda value: buffer.append_scalar_metrics({"x": value}, 1))(1.0)


class Shown(float):
    """A number whose later reading would run code."""

    def __float__(self):
        return 2.0


def test_numbers_of_another_type_are_read_at_once():
    buffer = ScalarBuffer()
    buffer.append_scalar_metrics({"x": Shown(1.0), "y": np.float16(0.5), "z": True}, 1)
    Shown.__float__ = pytest.fail
    rows = buffer.take(lambda tree: tree)
    assert rows == [(1, {"x": 2.0, "y": 0.5, "z": 1.0})]
    assert {type(value) for value in rows[0][1].values()} == {float}


def test_what_nobody_else_holds_is_not_copied_but_looked_at():
    """A copy of each would cost a step of a small workload in JAX 20 microseconds."""
    buffer, loss, rate = ScalarBuffer(), np.array(1.0), np.array(0.5)
    buffer.append_scalar_metrics({"loss": loss, "learning_rate": rate}, 3, own=["loss"])
    loss[...], rate[...] = 2.0, 9.0
    assert buffer.take(lambda values: values) == [(3, {"loss": 2.0, "learning_rate": 0.5})]
    with pytest.raises(TypeError, match="the logged 'loss' is a str"):
        buffer.append_scalar_metrics({"loss": "low"}, 4, own=["loss"])
