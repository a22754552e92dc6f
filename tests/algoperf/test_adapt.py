"""A submission's functions as the training loop gets them."""

import jax
import jax.numpy as jnp

from algoperf import adapt, backends, jax_sharding_utils, submission

STATE = """
import jax.numpy as jnp

def init_optimizer_state(model_params):
    return {"m": jnp.zeros(3), "same": model_params["w"], "update": len}

def update_params():
    pass
"""


def test_the_state_lies_where_a_step_leaves_it(tmp_path, loading_taken_back):
    """Else a jitted step is compiled once for it and once more for its own output."""
    (path := tmp_path / "mine.py").write_text(STATE)
    backend = backends.load("jax")
    loaded = submission.load(submission.inspect(path), "jax")
    functions = adapt.submission_functions(loaded, backend, None, None)
    params = jax_sharding_utils.replicate({"w": jnp.ones(3)})
    state = functions.init_optimizer_state(model_params=params, rng=0)
    replicated = jax_sharding_utils.get_replicate_sharding()
    assert state["m"].committed
    assert state["m"].sharding == replicated
    assert state["same"] is params["w"]
    assert state["update"] is len
    step = jax.jit(lambda m, w: m + w)
    for _ in range(3):
        state["m"] = step(state["m"], params["w"])
    assert step._cache_size() == 1


def test_a_state_that_is_no_tree_stays_as_it_is():
    state = {"m": jnp.zeros(3), 1: 2}
    assert backends.load("jax").settle(state) is state
