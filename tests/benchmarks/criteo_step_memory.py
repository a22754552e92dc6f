"""Take a step of the full criteo1tb model, and print the most memory that it took.

    python tests/benchmarks/criteo_step_memory.py FRAMEWORK [--batch-size 256] [--algorithm adamw]

The rows are random, the table is the whole one of 4,194,304 x 128, and the update is a reference
algorithm's. 'start' is what the process takes once the parameters are there.
"""

import argparse
import resource
import time

import numpy as np

import reference_algorithms
from algoperf import backends, spec
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
    arguments = parser.parse_args()
    definition = catalogue.find("criteo1tb")
    scale = definition.scales["full"]
    rng = np.random.default_rng(0)
    counts = rng.integers(-1, 1000, (arguments.batch_size, 13))
    categories = rng.integers(0, scale.model["rows"], (arguments.batch_size, 26))
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
    for step in range(arguments.steps):
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


if __name__ == "__main__":
    main()
