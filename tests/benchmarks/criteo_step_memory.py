"""Take steps of the full criteo1tb model, and print the most memory that they took.

    python tests/benchmarks/criteo_step_memory.py FRAMEWORK [--batch-size 256] [--algorithm adamw]
    python tests/benchmarks/criteo_step_memory.py FRAMEWORK --save FOLDER
    python tests/benchmarks/criteo_step_memory.py FRAMEWORK --resume FOLDER

The rows are random, the table is the whole one of 4,194,304 x 128, and the update is a reference
algorithm's. 'start' is what the process takes once the parameters are there. With --save, a
checkpoint of 6.5 GB is written before the last step, and with --resume, which makes that step
alone, it is read: the checksum of the parameters, which both print, has to be the same.
"""

import argparse
import dataclasses
import resource
import time
import zlib
from pathlib import Path

import numpy as np

import reference_algorithms
from algoperf import backends, spec
from algoperf.run_folder import state as saved_state
from algoperf.run_folder.checkpoint import Checkpoints
from algoperf.submission import loading
from algoperf.trial import adapt
from algoperf.workload import SPLITS, Data, catalogue


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("framework", choices=["jax", "pytorch"])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--algorithm", default="adamw")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rows", type=int, help="of a smaller table than the whole one")
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    parser.add_argument("--resume", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    definition = catalogue.find("criteo1tb")
    scale = definition.scales["full"]
    table = arguments.rows or scale.model["rows"]
    scale = dataclasses.replace(scale, model={**scale.model, "rows": table})
    rng = np.random.default_rng(0)
    counts = rng.integers(-1, 1000, (arguments.batch_size, 13))
    categories = rng.integers(0, table, (arguments.batch_size, 26))
    rows = {
        "inputs": np.concatenate([counts, categories], axis=1).astype(np.int32),
        "targets": rng.integers(0, 2, arguments.batch_size).astype(np.float32),
    }
    backend = backends.load(arguments.framework)
    bound = backend.workload(definition, scale, "folder", Data(dict.fromkeys(SPLITS, rows)))
    outline = loading.inspect(reference_algorithms.path(arguments.algorithm))
    loaded = loading.load(outline, arguments.framework)
    hyperparameters = spec.make_hyperparameters(loaded.module.DEFAULTS)
    functions = adapt.submission_functions(loaded, backend, bound, hyperparameters)
    print(f"libraries     {peak_gib():6.2f} GiB")
    params, model_state = bound.init_model_fn(backend.random_state((0, 1)))
    print(f"start         {peak_gib():6.2f} GiB")
    common = {
        "workload": bound, "hyperparameters": hyperparameters, "rng": backend.random_state((0, 2))
    }  # fmt: skip
    state = functions.init_optimizer_state(model_params=params, model_state=model_state, **common)
    backend.drain(params, state)
    print(f"optimizer     {peak_gib():6.2f} GiB")
    last, folder = arguments.steps - 1, arguments.save or arguments.resume
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    for step in range(last if arguments.resume else 0, arguments.steps):
        started_s = time.perf_counter()
        if folder and step == last:
            tree = {"params": params, "model_state": model_state, "optimizer_state": state}
            if arguments.resume:
                tree = saved_state.outline(tree)
                del params, model_state, state
                arrays, document = next(Checkpoints(folder).read())
                tree = saved_state.restore(arrays, document["structure"], tree)
                params, model_state, state = tree.values()
            else:
                arrays, structure = saved_state.to_arrays(tree, copy=False)
                Checkpoints(folder).write(step, arrays, {"structure": structure})
            del arrays, tree
            what = "restored" if arguments.resume else "saved"
            print(f"{what:13} {peak_gib():6.2f} GiB, {time.perf_counter() - started_s:.1f} s")
            started_s = time.perf_counter()
        state, params, model_state = functions.update_params(
            current_param_container=params,
            model_state=model_state,
            batch=backend.place(rows),
            optimizer_state=state,
            global_step=step,
            **common,
        )
        backend.drain(params, state)
        print(f"step {step}        {peak_gib():6.2f} GiB, {time.perf_counter() - started_s:.1f} s")
    checksum = 0
    for _, array in sorted(saved_state.to_arrays(params, copy=False)[0].items()):
        checksum = zlib.crc32(np.ascontiguousarray(array).data.cast("B"), checksum)
    print(f"checksum of the parameters {checksum:08x}")


if __name__ == "__main__":
    main()
