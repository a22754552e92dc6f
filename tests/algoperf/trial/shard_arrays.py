"""Trains a few steps on several devices of JAX, and says where its arrays lie: run by
test_jax_shards.py.

    python shard_arrays.py DEVICES SHARD WORKLOAD PRECISION ACCUMULATE [PROCESSES RANK MEETING]

The optimizer's state has what states have: moments, a count, an average that starts as the very
arrays that train and is what is evaluated, and matrices that have no parameter's shape. The answer
is JSON. 'parts': by when ('start', 'end', 'resumed', and what was 'read' and 'settled'), of what,
and name, the shapes of the parts that devices have of an array. 'compiled': how often the step was,
before and after the trial was saved. 'sums': checksums of the parameters of a trial that went on,
and of one that was saved and restored between; of what is evaluated, and of what was read from that
when it was handed over. 'batch': the checksum of the first batch's inputs. 'losses': the training
loss of each step, in the order in which they were made. 'finite': whether parameters are, before
and after one is not. 'marker': the loop's, and what it is a copy of. 'pmap': what a submission that
runs under it is refused with.
"""

import json
import sys
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from algoperf import backends, jax_sharding_utils
from algoperf.backends import jax_backend, shared
from algoperf.backends.computation import Computation
from algoperf.data import batches
from algoperf.data.loading import load_data
from algoperf.errors import UserError
from algoperf.run_folder import state as saved_state
from algoperf.submission.older.jax_device_axis import DeviceAxis
from algoperf.trial.scalars import ScalarBuffer
from algoperf.workload import catalogue

STEPS, MORE = 3, 2


def averaging():
    adam = optax.adam(1e-3)

    def init(params):
        factors = {"six": jnp.eye(6, 3), "odd": jnp.ones((3, 5))}
        return {"adam": adam.init(params), "average": params, "factors": factors}

    def update(gradients, state, params):
        updates, kept = adam.update(gradients, state["adam"], params)
        new = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, state["average"], new)
        factors = jax.tree.map(lambda factor: 0.5 * factor, state["factors"])
        return updates, {"adam": kept, "average": average, "factors": factors}

    return optax.GradientTransformation(init, update)


class Training:
    """The model, the rows and the step."""

    def __init__(self, backend, name):
        self.backend = backend
        definition = catalogue.find(name)
        scale = definition.scales["mini"]
        data = load_data(definition, scale, "builtin")
        self.workload = backend.workload(definition, scale, "builtin", data)
        self.workload.metrics_logger = ScalarBuffer()
        rows = data.splits["train"]
        queue = batches.TrainingQueue(
            *(rows, scale.batch_size, 7, backend.place),
            augmentation=data.augmentation,
            shard=(backend.ranks.rank, backend.ranks.count),
        )
        self.batches = [next(queue) for _ in range(STEPS + MORE)]
        functions = shared.OptimizerFunctions(
            lambda *_: averaging(), lambda _, state: state["average"], lambda _: None, 1
        )
        self.form = backend.optimizer_form(functions, shared.StepSettings())

    def begin(self):
        params, model_state = self.workload.init_model_fn(self.backend.random_state((1, 2)))
        state = self.form.init_optimizer_state(self.workload, params, None, model_state)
        return {"params": params, "model_state": model_state, "state": state}

    def train(self, trial, first, last):
        params, model_state, state = trial["params"], trial["model_state"], trial["state"]
        for step in range(first, last):
            state, params, model_state = self.form.update_params(
                *(self.workload, params, model_state, self.batches[step], state, step),
                self.backend.random_state((5, step)),
            )
            self.backend.drain(params)  # JAX's devices of a processor stall on many queued steps.
        return {"params": params, "model_state": model_state, "state": state}


def parts(**trees):
    def shapes(leaf):
        assert len(leaf.addressable_shards) == jax.local_device_count()
        return sorted({tuple(each.data.shape) for each in leaf.addressable_shards})

    return {
        name: {
            jax.tree_util.keystr(path, simple=True, separator="/"): shapes(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        for name, tree in trees.items()
    }


def handed_over(backend, params, model_state, like):
    """Return (parameters, model state) as they are read where they were written."""
    signature = backend.signature(params, model_state)
    into = {
        name: np.zeros(shape, kind).reshape(-1).view(np.uint8)
        for name, (shape, kind) in signature.items()
    }
    backend.write(params, model_state, into)
    return backend.read(like, model_state, into)


def with_nan(params):
    """The last value of the first parameter is none."""
    leaves, structure = jax.tree.flatten(params)
    broken = np.array(jax_backend.whole(leaves[0]))
    broken.reshape(-1)[-1] = np.nan
    leaves[0] = jax_sharding_utils.place(broken, leaves[0].sharding)
    return jax.tree.unflatten(structure, leaves)


def refused(params):
    try:
        DeviceAxis().add(params)
    except UserError as error:
        return str(error)
    return None


def main(devices, shard, name, precision, accumulate, processes="1", rank="0", meeting=""):
    ranks = backends.join("jax", int(rank), int(devices), meeting, shard, int(processes))
    computation = Computation(precision, int(accumulate))
    backend = backends.load("jax", computation=computation, ranks=ranks)
    training = Training(backend, name)
    form = training.form
    where, sums, compiled = {}, {}, []
    trial = training.begin()
    where["start"] = parts(**trial)
    trial = training.train(trial, 0, STEPS)
    where["end"] = parts(**trial)
    compiled.append(form._step._cache_size())
    arrays, structure = saved_state.to_arrays(trial)
    resumed = saved_state.restore(arrays, structure, saved_state.outline(training.begin()))
    where["resumed"] = parts(**resumed)
    for kind, each in (("went_on", trial), ("resumed", resumed)):
        trial = training.train(each, STEPS, STEPS + MORE)
        sums[kind] = backend.checksum(trial["params"], trial["model_state"])
    compiled.append(form._step._cache_size())
    params, model_state = trial["params"], trial["model_state"]
    evaluated = form.eval_params(params, trial["state"])
    sums["evaluated"] = backend.checksum(evaluated, model_state)
    read = handed_over(backend, evaluated, model_state, like=params)
    sums["read"] = backend.checksum(*read)
    where["read"] = parts(params=read[0], model_state=read[1])
    where["settled"] = parts(state=backend.settle({"m": jnp.zeros((6, 4)), "n": jnp.zeros(())}))
    smallest = min(jax.tree.leaves(params), key=lambda leaf: leaf.size)
    answer = {
        "parts": where,
        "compiled": compiled,
        "sums": sums,
        "losses": [
            float(row["loss"]) for _, row in training.workload.metrics_logger.take(backend.fetch)
        ],
        "batch": zlib.crc32(jax_backend.whole(training.batches[0]["inputs"]).tobytes()),
        "finite": [backend.is_finite(params), backend.is_finite(with_nan(params))],
        "pmap": refused(params),
        "marker": [backend.marker(params).item(), jax_backend.whole(smallest).flat[0].item()],
    }
    if ranks.rank == 0:
        sys.stdout.write("\n" + json.dumps(answer))
    sys.stdout.flush()
    ranks.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
