"""What each device holds of a large model and its optimizer's state in JAX under `--shard`.

    python tests/benchmarks/jax_shard_memory.py [--devices N] [--steps N] [--shapes]

The language model of `handover_cost`, of GPT-2 small's size, and AdamW's state of it: for each kind
of `--shard`, in a process of its own on N devices of the processor, the bytes that each device
holds of the parameters and of the state, between steps; the process's peak of resident memory,
which is that of all devices, with what a step needs besides; and the seconds of a step of 8 rows of
64 tokens (median, after the first). With `--shapes` nothing is computed: the bytes are those of the
shapes that arrays would have. The last line is JSON, for tests.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
from handover_cost import language_model

ROWS, TOKENS, VOCABULARY = 8, 64, 50257


def main() -> None:
    """Measure each kind and print a line."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--shapes", action="store_true")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # One kind, in this process.
    given = parser.parse_args()
    if given.only:
        print(json.dumps(measure(given.only, given.devices, given.steps, given.shapes)))
        return
    from algoperf.backends.ranks import SHARDS

    measured = {}
    for shard in SHARDS:
        child = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--only", shard],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        measured[shard] = values = json.loads(child.stdout)
        held = " and ".join(
            f"{max(values[name]):,} bytes of {name.replace('_', ' ')}"
            for name in ("parameters", "optimizer_state")
        )
        cost = "" if given.shapes else f"; peak {values['peak_mib']} MiB, {values['step_s']:.2f} s"
        print(f"{shard}: each of {given.devices} devices holds {held}{cost}")
    print(json.dumps(measured))


def measure(shard: str, devices: int, steps: int, only_shapes: bool) -> dict[str, Any]:
    """Return the bytes on each device, by what they are of, and what steps cost."""
    import jax
    import optax

    from algoperf import backends
    from algoperf.backends.jax_layout import Layout
    from algoperf.backends.shared import OptimizerFunctions, StepSettings

    kind = None if shard == "none" else shard
    backend, bound = language_model("jax", backends.join("jax", 0, devices, "", kind))
    adamw = optax.adamw(1e-4)
    if only_shapes:
        shapes = {
            name: jax.ShapeDtypeStruct(each, np.float32) for name, each in bound.shapes.items()
        }
        state = jax.eval_shape(adamw.init, shapes)
        layout = Layout(kind)
        return {
            "parameters": [planned_bytes(shapes, layout.of_params(shapes))],
            "optimizer_state": [planned_bytes(state, layout.of_state(state))],
        }
    functions = OptimizerFunctions(lambda *_: adamw, lambda params, _: params, lambda _: None, 1)
    form = backend.optimizer_form(functions, StepSettings())
    params, model_state = bound.init_model_fn(backend.random_state((0, 0)))
    state = form.init_optimizer_state(bound, params, None, model_state)
    generator = np.random.default_rng(0)
    tokens_NT = generator.integers(0, VOCABULARY, (ROWS, TOKENS), dtype=np.int32)
    batch = backend.place({"inputs": tokens_NT, "targets": tokens_NT})
    seconds = []
    for step in range(steps + 1):
        began_s = time.perf_counter()
        state, params, model_state = form.update_params(
            bound, params, model_state, batch, state, step, backend.random_state((0, step))
        )
        backend.drain(params, state)
        seconds.append(time.perf_counter() - began_s)
    return {
        "parameters": held_bytes(params),
        "optimizer_state": held_bytes(state),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "first_step_s": seconds[0],
        "step_s": statistics.median(seconds[1:]),
    }


def held_bytes(tree: Any) -> list[int]:
    """Return the bytes of a tree's arrays on each local device."""
    import jax

    held = dict.fromkeys(jax.local_devices(), 0)
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    return list(held.values())


def planned_bytes(tree: Any, shardings: Any) -> int:
    """Return the bytes that one device would hold of arrays of these shapes."""
    import jax

    pairs = zip(
        jax.tree.leaves(tree), jax.tree.leaves(jax.tree.broadcast(shardings, tree)), strict=True
    )
    return sum(
        int(np.prod(sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf, sharding in pairs
    )


if __name__ == "__main__":
    main()
