"""What it costs that runs survive, in one run:

    python tests/benchmarks/survival_cost.py --framework pytorch

(a) A checkpoint of ag_news at its full scale (124 M parameters, random, with AdamW's state): the
time of `Preservation.save` without the trial's own work (arrays, file, checksum, flush to the disk,
rename), that of reading it back, and its size. (b) What a trial's loop calls at each step to watch
over it, over `--calls` steps: `Keeper.is_due` and `Keeper.after_step`. (c) A trial of digits from
start to result, its process included, against the same `algoperf.trial.assemble.run` in a process
that has everything imported.

Medians, with the least and the most. The exit code is 1 where the guard takes more than
`GUARD_LIMIT_US` a step. Use `--out` to choose the disk.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

GUARD_LIMIT_US = 50.0


def timed(run: Callable[[], Any]) -> float:
    """Seconds of wall time that `run` takes."""
    started_at_s = time.perf_counter()
    run()
    return time.perf_counter() - started_at_s


def show(name: str, values: list[float], unit: str) -> None:
    """Print the median, the least and the most."""
    spread = f"{min(values):.3g} to {max(values):.3g}"
    print(f"{name}: {statistics.median(values):.3g} {unit} ({spread}, {len(values)} times)")


def keeper(folder: Path, backend: Any) -> Any:
    """What saves a trial in this folder."""
    from algoperf.run_folder.checkpoint import Checkpoints
    from algoperf.trial import preservation

    log = SimpleNamespace(sizes=dict, folder=folder, holds=lambda _: True)
    checkpoints = Checkpoints(folder)
    said: Callable[[str], None] = lambda text: sys.exit(f"not saved: {text}")  # noqa: E731
    return preservation.Preservation(checkpoints, log, backend, 300.0, lambda: False, said)


def full_state(backend: Any) -> Any:
    """ag_news at scale full after `init_optimizer_state` of AdamW and a step without data."""
    import reference_algorithms
    from algoperf import spec, workload
    from algoperf.submission import loading
    from algoperf.trial import adapt
    from algoperf.trial.loop import State
    from algoperf.workload import Data, catalogue

    definition = catalogue.find("ag_news")
    scale = definition.scales["full"]
    rows = {"inputs": np.zeros((64, 128), np.int32), "targets": np.zeros(64, np.int32)}
    model = {"vocab_size": scale.data["vocab_size"], "pad_id": 0}
    data = Data(dict.fromkeys(workload.SPLITS, rows), model=model)
    bound = backend.workload(definition, scale, "hub", data)
    outline = loading.inspect(reference_algorithms.path("adamw"))
    loaded = loading.load(outline, backend.name)
    hyperparameters = spec.make_hyperparameters(loaded.module.DEFAULTS)
    functions = adapt.submission_functions(loaded, backend, bound, hyperparameters)
    params, model_state = bound.init_model_fn(backend.random_state((0, 0)))
    backend.seed((0, 0))
    state = State(params, model_state)
    common = {"workload": bound, "hyperparameters": hyperparameters, "rng": (0, 0)}
    state.optimizer_state = functions.init_optimizer_state(
        model_params=params, model_state=model_state, **common
    )
    batch = backend.place({name: values[:2] for name, values in rows.items()})
    state.optimizer_state, state.params, state.model_state = functions.update_params(
        current_param_container=params, model_state=model_state, batch=batch, global_step=0,
        optimizer_state=state.optimizer_state, loss_type=bound.loss_type, **common,
    )  # fmt: skip
    backend.drain(state.params, state.optimizer_state)
    return bound, state


def checkpoint_cost(backend: Any, out: Path, times: int) -> None:
    """Part (a)."""
    from algoperf.machine import memory
    from algoperf.run_folder import state
    from algoperf.run_folder.checkpoint import Checkpoints
    from algoperf.trial import preservation

    bound, kept = full_state(backend)
    trial = SimpleNamespace(state=kept, position=dict)
    print(f"(a) ag_news full, {memory.count(bound.param_shapes):,} parameters, {backend.name}")
    saves = keeper(out, backend)
    saves.save(trial)  # the first makes the folder
    show("    save", [timed(lambda: saves.save(trial)) for _ in range(times)], "s")
    tree = preservation._tree(kept)
    show("    of it: copies", [timed(lambda: state.to_arrays(tree)) for _ in range(times)], "s")
    checkpoints = Checkpoints(out)
    show("    read back", [timed(lambda: next(checkpoints.read())) for _ in range(times)], "s")
    (path,) = (out / "checkpoints").iterdir()  # always of the same step, and so of the same name
    print(f"    size: {path.stat().st_size:,} bytes, of which a run keeps two")
    checkpoints.clear()


def guard_cost(backend: Any, out: Path, calls: int) -> bool:
    """Part (b); return whether it is within its limit."""
    from algoperf.trial.clock import Ledger

    saves, ledger = keeper(out, backend), Ledger()

    def steps() -> None:
        for _ in range(calls):
            saves.is_due()
            saves.after_step(ledger)

    values = [timed(steps) / calls * 1e6 for _ in range(5)]
    show(f"(b) the guard of a step, over {calls} calls", values, "us")
    return statistics.median(values) <= GUARD_LIMIT_US


def isolation_cost(framework: str, out: Path, times: int, steps: int) -> None:
    """Part (c)."""
    import reference_algorithms
    from algoperf.study import study
    from algoperf.submission import loading
    from algoperf.trial import assemble, clock, result
    from algoperf.trial.plan import TrialPlan

    path = reference_algorithms.path("adamw")
    outline = loading.inspect(path)
    numbers = iter(range(1000))

    def plan() -> TrialPlan:
        return TrialPlan(
            workload="digits", scale="mini", data="builtin", source_kind="builtin",
            framework=framework, submission=str(path), out=str(out), study=0, trial=1, seed=0,
            experiment=f"run_{next(numbers)}", max_steps=steps, eval_every_steps=50,
        )  # fmt: skip

    def inside() -> None:
        assembled = assemble.assemble(plan(), clock.Ledger(), lambda *_, **__: None)
        assemble.run(assembled)
        assembled.log.result(result.of(assembled))
        assembled.checkpoints.clear()

    def in_its_process() -> None:
        study.run(plan(), outline, study.Slice(1, 1, 1), lambda *_: None)

    inside()  # imports, and JAX's first compilations
    within, apart = zip(
        *((timed(inside), timed(in_its_process)) for _ in range(times)), strict=True
    )
    print(f"(c) a trial of digits, {steps} steps, {framework}")
    show("    in this process", list(within), "s")
    show("    in a process of its own", list(apart), "s")
    show("    difference", [a - w for w, a in zip(within, apart, strict=True)], "s")
    show("    ratio", [a / w for w, a in zip(within, apart, strict=True)], "")


def parse() -> argparse.Namespace:
    """Read the command line."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    parser.add_argument("--framework", choices=("jax", "pytorch"), default="pytorch")
    parser.add_argument("--times", type=int, default=5, help="repetitions of (a) and (c)")
    parser.add_argument("--calls", type=int, default=10_000, help="steps of (b)")
    parser.add_argument("--steps", type=int, default=200, help="steps of the trial of (c)")
    parser.add_argument("--out", type=Path, help="a folder on the disk to measure")
    return parser.parse_args()


def main() -> int:
    """Measure and report."""
    from algoperf import backends
    from algoperf.machine import hardware

    arguments = parse()
    threads = {
        name: os.environ.get(name, value) for name, value in hardware.thread_environment().items()
    }
    os.environ.update(threads)
    backend = backends.load(arguments.framework)
    with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
        checkpoint_cost(backend, Path(folder), arguments.times)
        is_cheap = guard_cost(backend, Path(folder), arguments.calls)
        isolation_cost(arguments.framework, Path(folder), arguments.times, arguments.steps)
    return 0 if is_cheap else 1


if __name__ == "__main__":
    sys.exit(main())
