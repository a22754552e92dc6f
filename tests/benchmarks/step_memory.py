"""Print the peak memory of one training step in PyTorch on the CPU, as micro-batches and with
activations computed anew.

    python tests/benchmarks/step_memory.py [--rows N] [--layers N] [--accumulate N] [--checkpoint]

One configuration a process, since a peak does not go down. The model is ag_news' at mini with more
layers; its rows are random tokens. 'before' is the peak before the step; the last number is a
checksum of the parameters after it, the same for all to float tolerance.
"""

import argparse
import dataclasses
import resource

import numpy as np
import torch

from algoperf import backends, workload
from algoperf.backends.computation import Computation
from algoperf.backends.shared import OptimizerFunctions, StepSettings
from algoperf.workload import catalogue

VOCABULARY, CLASSES = 4096, 4
SEED = (1, 2)


def peak_mib() -> int:
    """The most memory that this process has held, in MiB (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Make one step and print a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--checkpoint", action="store_true")
    given = parser.parse_args()
    definition = catalogue.find("ag_news")
    scale = definition.scales["mini"]
    scale = dataclasses.replace(scale, model={**scale.model, "layers": given.layers})
    generator = np.random.default_rng(0)
    rows = {
        "inputs": generator.integers(1, VOCABULARY, (given.rows, 64), dtype=np.int32),
        "targets": generator.integers(0, CLASSES, given.rows, dtype=np.int32),
    }
    known = {"vocab_size": VOCABULARY, "pad_id": 0}
    data = workload.Data(dict.fromkeys(workload.SPLITS, rows), model=known)
    computation = Computation("float32", given.accumulate, given.checkpoint)
    backend = backends.load("pytorch", computation=computation)
    bound = backend.workload(definition, scale, "builtin", data)
    functions = OptimizerFunctions(
        lambda params, _: torch.optim.SGD(params.tensors(), 0.1),
        lambda params, _: params,
        lambda _: 0.1,
        1,
    )
    form = backend.optimizer_form(functions, StepSettings())
    params, model_state = bound.init_model_fn(SEED)
    state = form.init_optimizer_state(bound, params, None)
    before = peak_mib()
    batch = backend.place(rows)
    form.update_params(bound, params, model_state, batch, state, 0, SEED)
    total = sum(float(value.sum()) for value in bound.to_neutral(params).values())
    print(f"{computation}: before {before} MiB, after {peak_mib()} MiB, checksum {total:.4f}")


if __name__ == "__main__":
    main()
