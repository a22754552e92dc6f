"""Record dense curves: the target metric of all validation rows, and of those that probes look at.

    python tests/benchmarks/dense_curves.py --workload ag_news --framework jax pytorch --seeds 1 2 3

Each trial of nadamw is evaluated every `--far` steps, every `--near` steps from where its metric is
most of the way to the target, and ends a while after it first met it. Each is a line of the file:
steps, the values of all rows and of the few, and in seconds of processor time, which a busy machine
hardly changes, the first step, the median of the others, an evaluation of training and validation
rows, and a probe. Trials that the file has are skipped, so a killed command goes on.
`crossing_error.py` replays them.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from algoperf import api, spec
from algoperf.submission import loading
from algoperf.trial import adapt, seeds
from algoperf.trial.own_loop import LoadedWorkload
from algoperf.workload.crossing import share_of_way

NEAR = 0.9  # The share of the way to the target from which on evaluations come densely.
TIMED = 3  # So many evaluations and probes are timed.


def main() -> None:
    """Record what is not yet there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", required=True)
    parser.add_argument("--framework", nargs="+", default=["jax", "pytorch"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--far", type=int, default=20, help="steps between early evaluations")
    parser.add_argument("--near", type=int, default=2, help="steps between late ones")
    parser.add_argument("--beyond", type=float, default=0.25, help="how long it goes on, of steps")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    arguments = parser.parse_args()
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    names = ("workload", "framework", "seed")
    there = {tuple(json.loads(line)[name] for name in names) for line in lines}
    for seed in arguments.seeds:
        for framework in arguments.framework:
            trial = (arguments.workload, framework, seed)
            if trial in there:
                continue
            curve = dict(zip(names, trial, strict=True)) | record(arguments, framework, seed)
            with arguments.out.open("a") as file:
                file.write(json.dumps(curve) + "\n")
            print(*trial, len(curve["step"]), "points", flush=True)


def record(arguments: argparse.Namespace, framework: str, seed: int) -> dict[str, Any]:
    """Train once; return what the line holds."""
    own = api.load_workload(arguments.workload, framework, seed=seed)
    target = own.scale.targets["builtin"].validation
    higher = own.definition.higher_is_better
    steps, whole, few, steps_s, costs_s = [], [], [], [], {}
    end, every = 2 * own.scale.step_hint, arguments.far
    for step, step_s, params, model_state in trained(own, framework):
        steps_s.append(step_s)
        if step == 3:
            costs_s = evaluation_costs(own, params, model_state)
        if step == 1 or step % every == 0:
            value = own.evaluate("validation", params, model_state)[own.definition.target_metric]
            steps.append(step)
            whole.append(_short(value))
            few.append(_short(own._evaluator.probe(params, model_state)))
            way = share_of_way(whole[0], target, value, higher_is_better=higher)
            every = arguments.near if NEAR <= way < math.inf else every
            if (value >= target) if higher else (value <= target):
                end = min(end, math.ceil(step * (1 + arguments.beyond)))
        if step >= end:
            break
    return {
        "first_step_s": _short(steps_s[0]),
        "step_s": _short(float(np.median(steps_s[5:]))),
        **costs_s,
        "step": steps,
        "whole": whole,
        "few": few,
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def evaluation_costs(own: LoadedWorkload, params: Any, model_state: Any) -> dict[str, float]:
    """Return the seconds of an evaluation and of a probe, after one of each that compiles."""

    def evaluate() -> None:
        own.evaluate("train", params, model_state)
        own.evaluate("validation", params, model_state)

    functions: dict[str, Callable[[], Any]] = {
        "whole_s": evaluate,
        "probe_s": lambda: own._evaluator.probe(params, model_state),
    }
    costs_s = {}
    for name, function in functions.items():
        function()
        taken_s = []
        for _ in range(TIMED):
            started_s = time.process_time()
            function()
            taken_s.append(time.process_time() - started_s)
        costs_s[name] = _short(float(np.median(taken_s)))
    return costs_s


def trained(own: LoadedWorkload, framework: str) -> Iterator[tuple[int, float, Any, Any]]:
    """Yield step, seconds, parameters and model state after each step of nadamw."""
    path, _ = loading.locate("nadamw")
    loaded = loading.load(loading.inspect(Path(path)), framework)
    hyperparameters = spec.make_hyperparameters(loaded.module.DEFAULTS)
    functions = adapt.submission_functions(loaded, own._backend, own.workload, hyperparameters)
    params, model_state = own.init()
    constant: dict[str, Any] = {"workload": own.workload, "hyperparameters": hyperparameters}
    state = functions.init_optimizer_state(
        **constant, model_params=params, model_state=model_state, rng=own._rng(seeds.OPTIMIZER)
    )
    for step in range(2 * own.scale.step_hint):
        started_s = time.process_time()
        arguments = {
            **constant,
            "loss_type": own.workload.loss_type,
            "current_params_types": own.workload.model_params_types,
            "current_param_container": params,
            "model_state": model_state,
            "optimizer_state": state,
            "global_step": step,
            "input_queue": own.batches,
            "eval_results": [],
            "train_state": {},
        }
        batch = functions.data_selection(**arguments, rng=own._rng(seeds.DATA_SELECTION, step))
        state, params, model_state = functions.update_params(
            **arguments, batch=batch, rng=own.rng(step)
        )
        own._backend.drain(params, model_state, state)
        yield step + 1, time.process_time() - started_s, params, model_state


if __name__ == "__main__":
    main()
