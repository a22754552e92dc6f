"""Memory that the two processes of a trial share: what one writes, the other reads, and no more."""

import multiprocessing

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from algoperf.backends import jax_backend, torch_backend
from algoperf.backends.computation import USUAL
from algoperf.trial import handover
from algoperf.workload.rows import ArrayRows

CONTEXT = multiprocessing.get_context("forkserver")


def test_arrays_begin_where_both_libraries_take_them_without_a_copy():
    signature = {"a": ((3,), "float32"), "b": ((), "torch.bfloat16"), "c": ((2, 5), "int64")}
    layout, size = handover.lay_out(signature, 8)
    starts = {name: (part.start, part.size) for name, part in layout.items()}
    assert starts == {"a": (64, 12), "b": (128, 2), "c": (192, 80)}
    assert size == 272
    block = handover.Block(CONTEXT, layout, size)
    assert all(each.ctypes.data % 64 == 0 for each in block.bytes_of().values())


def test_rows_are_shared_as_they_are_and_cannot_be_written():
    rows = ArrayRows({"inputs": np.arange(12).reshape(4, 3), "targets": np.array([1.5, 2, 3, 4])})
    shared = handover.SharedRows(CONTEXT, rows).rows()
    assert shared.fingerprint == rows.fingerprint
    with pytest.raises(ValueError, match="read-only"):
        shared["inputs"][0, 0] = 1


def model():
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    layers[1].running_mean += torch.arange(4)
    layers[0].bias.data = layers[0].bias.data.to(torch.bfloat16)
    return layers


def test_a_module_comes_across_bit_for_bit_without_a_copy():
    backend = torch_backend.make(compile_model=False, computation=USUAL)
    sent, received = model(), model()
    with torch.no_grad():
        for value in sent.parameters():
            value += 1
        sent[1].running_var *= 3
    shared = handover.Handover(CONTEXT, backend.signature(received))
    backend.write(sent, None, shared.parameters())
    module, state = backend.read(received, None, shared.parameters())
    assert module is received
    assert state is None
    values = zip(module.state_dict().values(), sent.state_dict().values(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in values)
    first = shared.parameters()["0.weight"].ctypes.data
    assert module[0].weight.data_ptr() == first
    assert module[0].bias.dtype is torch.bfloat16


def test_jax_trees_come_across_bit_for_bit_and_keep_what_is_frozen():
    backend = jax_backend.make(compile_model=False, computation=USUAL)
    params = {"a": {"kernel": jnp.arange(6.0).reshape(2, 3)}, "b": jnp.float32(2)}
    frozen = {"c": jnp.ones(2)}
    state = {"batch_stats": {"n": {"mean": jnp.arange(3.0)}}, jax_backend.FROZEN: frozen}
    own = {"a": {"kernel": jnp.zeros((2, 3))}, "b": jnp.float32(0)}
    own_state = {"batch_stats": {"n": {"mean": jnp.zeros(3)}}, jax_backend.FROZEN: frozen}
    shared = handover.Handover(CONTEXT, backend.signature(own, own_state))
    backend.write(params, state, shared.parameters())
    received, received_state = backend.read(own, own_state, shared.parameters())
    assert backend.checksum(received, received_state) == backend.checksum(params, state)
    assert received_state[jax_backend.FROZEN] is frozen
    assert float(own["a"]["kernel"].sum()) == 0.0


def test_the_step_is_shared_too():
    shared = handover.Handover(CONTEXT, {"w": ((2,), "float32")})
    shared.counters[0] = 7
    shared.parameters()["w"][:] = 255
    assert shared.counters.tolist() == [7]
