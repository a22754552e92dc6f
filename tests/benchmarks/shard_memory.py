"""What a process holds of a large model, and the seconds of a step, by what is divided (`--shard`).

    python tests/benchmarks/shard_memory.py [--devices 2] [--steps 3] [--rows 2] [--tokens 64]

The model is lm's at full scale, GPT-2 small's size (124,439,808 numbers), trained by AdamW in
PyTorch on random tokens: by one process, and by several, which divide nothing, the optimizer's
state, or parameters. Counted are the bytes of the tensors that a process holds after a step, before
the next one drops the gradients. 'held' and 'peak' are what the process held after the last step,
and at most in the steps after the first one, without what it held before it had a model; measured
in a run of its own, in which freed memory goes back to the system at once (glibc keeps much of what
a processor's tensors were in), which takes time. Of several processes the one that holds most is
printed. The exit code is 1 where the optimizer's state takes more than `STATE` of one device's, or
what is counted with divided parameters more than `WHOLE` of it.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

STATE, WHOLE = 0.55, 0.62
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072"}  # glibc's first value, which else it raises
VOCABULARY = 50257
SEED = (1, 2)


def sizes_bytes() -> dict[str, int]:
    """Return what this process holds now, and at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Vm")}
    return {"now": 1024 * sizes["VmRSS"], "peak": 1024 * sizes["VmHWM"]}


def tensor_bytes(tensors: Iterable[Any]) -> int:
    """Return how many bytes this process has of these tensors."""
    from algoperf.backends import torch_shards

    parts = [torch_shards.part(each.detach()) for each in tensors]
    return sum(each.numel() * each.element_size() for each in parts)


def state_tensors(state: Any) -> list[Any]:
    """Return all tensors that an optimizer's states hold."""
    import torch

    return [
        each
        for values in state.values()
        for each in values.values()
        if isinstance(each, torch.Tensor)
    ]


def train(line: Connection, rank: int, devices: int, shard: str | None, given: Any) -> None:
    """Make some steps as one of the processes, and send what was measured."""
    import torch

    from algoperf import backends, spec, workload
    from algoperf.backends.shared import OptimizerFunctions, StepSettings
    from algoperf.workload import catalogue
    from reference_algorithms import adamw

    torch.set_num_threads(given.threads)
    ranks = backends.join("pytorch", rank, devices, given.meeting, shard)
    backend = backends.load("pytorch", ranks=ranks)
    definition = catalogue.find("lm")
    scale = definition.scales["full"]
    generator = np.random.default_rng(0)
    shape = (given.rows, given.tokens)
    rows = {
        "inputs": generator.integers(1, VOCABULARY, shape, dtype=np.int32),
        "targets": generator.integers(1, VOCABULARY, shape, dtype=np.int32),
    }
    model = {"vocab_size": VOCABULARY, "pad_id": VOCABULARY - 1}
    data = workload.Data(dict.fromkeys(workload.SPLITS, rows), model=model)
    before = sizes_bytes()["now"]
    bound: Any = backend.workload(definition, scale, "hub", data)
    hyperparameters = spec.make_hyperparameters(adamw.DEFAULTS)
    info = spec.TrainingInfo(bound.step_hint, bound.loss_type, 60.0, rank, devices, shard)
    functions = OptimizerFunctions(
        lambda params, point: adamw.torch_optimizer(params, point, info),
        lambda params, _: params,
        lambda _: None,
        1,
    )
    form = backend.optimizer_form(functions, StepSettings(grad_clip=1.0))
    params, model_state = bound.init_model_fn(SEED)
    state = form.init_optimizer_state(bound, params, hyperparameters)
    own = slice(rank * given.rows // devices, (rank + 1) * given.rows // devices)
    batch = backend.place({name: array[own] for name, array in rows.items()})
    times_s = []
    for step in range(given.steps + 1):
        began_s = time.perf_counter()
        form.update_params(bound, params, model_state, batch, state, step, SEED)
        backend.drain(params)
        times_s.append(time.perf_counter() - began_s)
        if step == 0:
            Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
    values = list(params.parameters())
    sizes = sizes_bytes()
    held = {
        "parameters": tensor_bytes(values),
        "gradients": tensor_bytes(each.grad for each in values if each.grad is not None),
        "state": tensor_bytes(state_tensors(state["optimizer"].state)),
        "held": sizes["now"] - before,
        "peak": sizes["peak"] - before,
        "step_s": statistics.median(times_s[1:]),
    }
    line.send(held)


def measure(devices: int, shard: str | None, given: Any) -> Mapping[str, float]:
    """Return what the process that holds most holds, of so many, and how long a step takes."""
    step_s = _run(devices, shard, given)["step_s"]
    os.environ |= GIVES_BACK
    held = _run(devices, shard, given)
    for name in GIVES_BACK:
        del os.environ[name]
    return {**held, "step_s": step_s}


def _run(devices: int, shard: str | None, given: Any) -> Mapping[str, float]:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        given.meeting = str(Path(folder) / "meeting")
        lines, processes = [], []
        for rank in range(devices):
            line, far = context.Pipe()
            process = context.Process(target=train, args=(far, rank, devices, shard, given))
            process.start()
            far.close()
            lines.append(line)
            processes.append(process)
        held = [line.recv() for line in lines]
        for process in processes:
            process.join()
    return {name: max(each[name] for each in held) for name in held[0]}


def main() -> int:
    """Print the table; return whether a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="steps beside the first one")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    given = parser.parse_args()
    cases: list[tuple[int, str | None]] = [(1, None)]
    cases += [(given.devices, shard) for shard in (None, "optimizer", "parameters")]
    measured = {case: measure(*case, given) for case in cases}
    one = measured[cases[0]]
    counted = ("parameters", "gradients", "state")
    print("MB a process    parameters  gradients  state  together    held    peak  step s")
    shares = {}
    for (devices, shard), held in measured.items():
        together = sum(held[name] for name in counted)
        of_one = sum(one[name] for name in counted)
        shares[devices, shard] = held["state"] / one["state"], together / of_one
        numbers = [held[name] / 1e6 for name in counted]
        print(
            f"{devices} {shard or 'none':<12} {numbers[0]:12.0f} {numbers[1]:10.0f} "
            f"{numbers[2]:6.0f} {together / 1e6:9.0f} {held['held'] / 1e6:7.0f} "
            f"{held['peak'] / 1e6:7.0f} {held['step_s']:7.2f}"
            f"   state {shares[devices, shard][0]:.3f}, together {together / of_one:.3f} of one's"
        )
    is_broken = (
        shares[given.devices, "optimizer"][0] > STATE
        or shares[given.devices, "parameters"][1] > WHOLE
    )
    return int(is_broken)


if __name__ == "__main__":
    sys.exit(main())
