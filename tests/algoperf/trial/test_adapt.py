"""A submission's functions as the training loop gets them."""

import jax
import jax.numpy as jnp
import numpy as np

from algoperf import backends, jax_sharding_utils
from algoperf.submission import loading
from algoperf.submission.older import jax_device_axis
from algoperf.trial import adapt

STATE = """
import jax.numpy as jnp

def init_optimizer_state(model_params):
    return {"m": jnp.zeros(3), "same": model_params["w"], "update": len}

def update_params():
    pass
"""

PMAPPED = """
import functools
import jax
import jax.numpy as jnp
from flax import jax_utils

TRACED = []

@functools.partial(jax.pmap, axis_name="batch")
def step(m, w):
    TRACED.append("m")
    return m + w, w

def init_optimizer_state():
    return {"m": jax_utils.replicate(jnp.zeros(3)), "count": 0}

def update_params(optimizer_state, current_param_container):
    m, w = step(optimizer_state["m"], current_param_container["w"])
    return {"m": m, "count": 0}, {"w": w}
"""


def test_the_state_lies_where_a_step_leaves_it(tmp_path, loading_taken_back):
    """Else a jitted step is compiled once for it and once more for its own output."""
    (path := tmp_path / "mine.py").write_text(STATE)
    backend = backends.load("jax")
    loaded = loading.load(loading.inspect(path), "jax")
    functions = adapt.submission_functions(loaded, backend, None, None)
    params = jax_sharding_utils.replicate({"w": jnp.ones(3)})
    state = functions.init_optimizer_state(model_params=params, rng=0)
    replicated = jax_sharding_utils.get_replicate_sharding()
    assert state["m"].committed
    assert state["m"].sharding == replicated
    np.testing.assert_array_equal(state["same"], params["w"])
    # A step may donate both.
    assert state["same"].unsafe_buffer_pointer() != params["w"].unsafe_buffer_pointer()
    assert state["update"] is len
    step = jax.jit(lambda m, w: m + w)
    for _ in range(3):
        state["m"] = step(state["m"], params["w"])
    assert step._cache_size() == 1


def test_a_step_under_pmap_is_compiled_once(tmp_path, loading_taken_back):
    (path := tmp_path / "mine.py").write_text(PMAPPED)
    backend = backends.load("jax")
    loaded = loading.load(loading.inspect(path), "jax")
    assert loaded.contract.device_axis
    functions = adapt.submission_functions(loaded, backend, None, None)
    state = functions.init_optimizer_state()
    params = jax_device_axis.DeviceAxis().add({"w": jnp.ones(3)})
    for _ in range(3):
        state, params = functions.update_params(
            optimizer_state=state, current_param_container=params
        )
    assert loaded.module.TRACED == ["m"]
    assert state["m"][0].tolist() == [3.0, 3.0, 3.0]
    assert state["count"] == 0


def test_a_state_that_is_no_tree_stays_as_it_is():
    state = {"m": jnp.zeros(3), 1: 2}
    assert backends.load("jax").settle(state) is state
