"""Record dense curves: what each row of the validation split said, every few steps.

    python tests/benchmarks/dense_curves.py --workload ag_news --framework jax pytorch \
        --seeds 1 2 3 --out dense

Each trial of nadamw is evaluated every `--far` steps, every `--near` steps from where its metric is
most of the way to the target, and ends a while after it first met it. A file a trial holds arrays:
'step' (K,), 'value' (K, N), the metric of each row alone (of perplexities the logarithm), 'weight'
(N,), how much a row counts; and in seconds of processor time, which a busy machine hardly changes,
'first_step_s', 'step_s' (the median), 'whole_s', an evaluation of training and validation rows, and
'probe_s', one of a single batch of validation rows. What was recorded is skipped, so a killed
command goes on. `crossing_error.py` replays them.
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algoperf import api, spec
from algoperf.backends.generation import GenerationSettings
from algoperf.data import batches
from algoperf.data.rows import first
from algoperf.submission import loading
from algoperf.trial import adapt, evaluate_text, seeds
from algoperf.trial.evaluate import evaluate
from algoperf.trial.own_loop import LoadedWorkload
from algoperf.workload.crossing import share_of_way
from algoperf.workload.metric import Batch

NEAR = 0.9  # The share of the way to the target from which on evaluations come densely.
Floats = NDArray[np.float64]


def main() -> None:
    """Record what is not yet there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", required=True)
    parser.add_argument("--framework", nargs="+", default=["jax", "pytorch"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--far", type=int, default=10, help="steps between early evaluations")
    parser.add_argument("--near", type=int, default=1, help="steps between late ones")
    parser.add_argument("--beyond", type=float, default=0.08, help="how long it goes on, of steps")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for framework in arguments.framework:
            path = arguments.out / f"{arguments.workload}_{framework}_{seed}.npz"
            if path.exists():
                continue
            started_s = time.perf_counter()
            arrays = record(arguments, framework, seed)
            unfinished = path.with_suffix(".part")
            with unfinished.open("wb") as file:
                np.savez_compressed(file, **arrays)
            unfinished.rename(path)
            minutes = (time.perf_counter() - started_s) / 60
            print(f"{path.name}: {len(arrays['step'])} points, {minutes:.1f} min", flush=True)


def record(arguments: argparse.Namespace, framework: str, seed: int) -> dict[str, Any]:
    """Train once; return the arrays of the file."""
    own = api.load_workload(arguments.workload, framework, seed=seed)
    target = own.scale.targets["builtin"].validation
    higher = own.definition.higher_is_better
    steps, values, steps_s, costs_s = [], [], [], {}
    start, end, every = math.nan, own.scale.step_hint * 2, arguments.far
    for step, step_s, params, model_state in trained(own, framework):
        steps_s.append(step_s)
        if step == 3:
            costs_s = evaluation_costs(own, params, model_state)
        if step == 1 or step % every == 0:
            value_N, weight_N = of_rows(own, params, model_state)
            steps.append(step)
            values.append(value_N)
            value = whole(own, value_N, weight_N)
            start = value if step == 1 else start
            way = share_of_way(start, target, value, higher_is_better=higher)
            every = arguments.near if NEAR <= way < math.inf else every
            if (value >= target) if higher else (value <= target):
                end = min(end, math.ceil(step * (1 + arguments.beyond)))
        if step >= end:
            break
    return {
        "step": np.array(steps),
        "value": np.array(values, np.float32),
        "weight": weight_N,
        "first_step_s": steps_s[0],
        "step_s": np.median(steps_s[5:]),
        **costs_s,
    }


def evaluation_costs(own: LoadedWorkload, params: Any, model_state: Any) -> dict[str, float]:
    """Return the seconds of a whole evaluation and of a probe, after one that compiles."""

    def whole_evaluation() -> None:
        own.evaluate("train", params, model_state)
        own.evaluate("validation", params, model_state)

    def probe() -> None:
        rows = own.data.splits["validation"]
        size = min(own.scale.eval_batch_size, len(rows))
        if own.definition.generates_text:
            _of_texts(own, params, model_state, len(rows), size, 1)
        else:
            few = first(rows, size)
            evaluate(own._backend, own.workload, own.definition, few, size, params, model_state)

    seconds = {"whole_s": whole_evaluation, "probe_s": probe}
    found = {}
    for name, function in seconds.items():
        taken_s = []
        for _ in range(4):
            started_s = time.process_time()
            function()
            taken_s.append(time.process_time() - started_s)
        found[name] = float(np.median(taken_s[1:]))
    return found


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


def of_rows(own: LoadedWorkload, params: Any, model_state: Any) -> tuple[Floats, Floats]:
    """Return the target metric of each row that an evaluation looks at, and the rows' weights."""
    rows, backend, metric = (
        own.data.splits["validation"],
        own._backend,
        own.definition.target_metric,
    )
    count = batches.row_count(rows)
    size = min(own.scale.eval_batch_size, count)
    if own.definition.generates_text:
        return _of_texts(own, params, model_state, count, size)
    start, values, weights = own.definition.accumulators[metric], [], []
    for batch in batches.once(rows, size):
        losses, predictions = backend.fetch(
            backend.predict(own.workload, params, model_state, backend.place(batch))
        )
        weight = np.broadcast_to(
            batch["weights"]
            .astype(np.float64)
            .reshape(*batch["weights"].shape, *[1] * (losses.ndim - batch["weights"].ndim)),
            losses.shape,
        )
        for row in range(min(size, count - len(values))):
            one = slice(row, row + 1)
            measured = start(1)
            targets = batch["targets"][one]
            measured.add(Batch(losses[one], predictions[one], targets, weight[one]))
            values.append(_straight(own, measured.finish()))
            weights.append(float(weight[one].sum()))
    return np.array(values), np.array(weights)


def _of_texts(
    own: LoadedWorkload,
    params: Any,
    model_state: Any,
    count: int,
    size: int,
    most_batches: int | None = None,
) -> tuple[Floats, Floats]:
    generation, text = own.scale.generation, own.data.text
    assert generation is not None
    assert text is not None
    evaluator = own._evaluator
    most = generation.eval_rows if most_batches is None else size * most_batches
    written = evaluate_text.write(
        own._backend,
        own.workload,
        params,
        model_state,
        split="validation",
        rows=evaluate_text.subset(count, most),
        arrays=own.data.splits["validation"],
        buckets=evaluator._buckets["validation"],
        batch_size=size,
        text=text,
        metrics=own.definition.accumulators,
        settings=GenerationSettings(generation.max_new_tokens, 1, generation.length_penalty),
    )
    values = written.scores[own.definition.target_metric]
    return values, np.ones(len(values))


def _straight(own: LoadedWorkload, value: float) -> float:
    return value if own.definition.higher_is_better else math.log(value)


def whole(own: LoadedWorkload, value_N: Floats, weight_N: Floats) -> float:
    """Return the metric of all these rows together."""
    mean = float((value_N * weight_N).sum() / weight_N.sum())
    return mean if own.definition.higher_is_better else math.exp(mean)


if __name__ == "__main__":
    main()
