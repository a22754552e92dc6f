"""What the harness costs: a trial's training loop against a bare hand-written one, in one process.

    python tests/benchmarks/harness_overhead.py --workload ag_news --framework pytorch --blocks 40

Both loops train the same model from the same parameters, with the same optimizer, gradient clipping
and batches; the first block of each is not counted, and after it the two models are compared. Then
come pairs of blocks, one of each loop, in alternating order. A block of the harness is
`Trial.advance` with its clock running and all that ends a stretch: the drain and the scalars, and
with `--referee process` the handover of the parameters through shared memory, as in a trainer. The
bare loop blocks at its end, too. From the pairs: the median of the ratios and of the differences a
step, each with a bootstrapped 95 % interval. The exit code is 1 where the upper end is over the
workload's limit.

A pair's two blocks follow each other, so slow drifts of a shared machine cancel out; bursts make
outliers, which the median forgives. Use more blocks on a noisy machine, and `taskset -c N` to keep
it on one core.
"""

import argparse
import dataclasses
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from algoperf.data.loading import load_data

# (largest ratio, largest difference in microseconds a step), None where there is no limit
LIMITS = {"ag_news": (1.02, None), "digits": (None, 100.0)}
BLOCK_STEPS = {"ag_news": 10, "digits": 500}
Block = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Loop:
    """A block to time, and the parameters that it has reached, by neutral names."""

    block: Block
    values: Callable[[], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What both loops share."""

    definition: Any
    scale: Any
    data: Any
    reference: Any
    hyperparameters: Any
    info: Any
    seed: int
    steps: int

    @property
    def model_settings(self) -> dict[str, Any]:
        """The arguments of the model's `build`."""
        return {**self.scale.model, **self.data.model}

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Endless (inputs, targets) in the harness's order."""
        train = self.data.splits["train"]
        inputs, targets, size = train["inputs"], train["targets"], self.scale.batch_size
        left, epoch = np.empty(0, np.int64), 0
        while True:
            if len(left) < size:
                sequence = np.random.SeedSequence([self.seed, epoch])
                order = np.random.Generator(np.random.Philox(sequence)).permutation(len(targets))
                left, epoch = np.concatenate([left, order]), epoch + 1
            rows, left = left[:size], left[size:]
            yield inputs[rows], targets[rows]


def harness_loop(assembled: Any, steps: int) -> Loop:
    """The trial's own loop, with limits that make nothing due within a block."""
    from algoperf.trial.loop import Limits

    trial = assembled.trial
    trial.limits = Limits(budget_s=math.inf, eval_every_s=math.inf, eval_every_steps=steps)

    def block() -> None:
        with trial.ledger.submission.running(trial._finish_stretch):
            trial.advance()

    return Loop(block, lambda: trial._workload.to_neutral(trial.state.params))


def hand_over(assembled: Any) -> None:
    """Have the trial end its stretches as a trainer does whose referee is another process."""
    import multiprocessing
    from types import SimpleNamespace

    from algoperf.trial import handover, trainer

    trial, backend = assembled.trial, assembled.backend
    signature = backend.signature(trial.state.params, trial.state.model_state)
    context = multiprocessing.get_context("forkserver")
    far = trainer.FarReferee(multiprocessing.Pipe()[0])
    far.attend(
        backend=backend,
        view=SimpleNamespace(first=lambda params: params, first_state=lambda state: state),
        handover=handover.Handover(context, signature),
        ledger=trial.ledger,
        guard=assembled.guard,
        check=lambda: None,
    )
    trial.referee = far


def torch_loop(setting: Setting, bound: Any, initial: dict[str, np.ndarray]) -> Loop:
    """The bare loop in PyTorch."""
    import torch
    from torch.nn import functional

    from algoperf.backends.torch_backend import neutral_names
    from algoperf.workload import parameters

    model = setting.definition.build_model("torch", setting.model_settings)
    names = neutral_names(model)
    model.load_state_dict(
        {
            name: torch.tensor(parameters.to_torch(neutral, initial[neutral]))
            for name, neutral in names.items()
        }
    )
    model.train()
    tensors = {names[name]: tensor for name, tensor in model.named_parameters()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    optimizer, scheduler = setting.reference.torch_optimizer(
        params=parameters.describe(shapes, bound.is_output_params, tensors),
        hyperparameters=setting.hyperparameters,
        info=setting.info,
    )
    batches, clip, trained = (
        setting.batches(),
        setting.hyperparameters.grad_clip,
        list(model.parameters()),
    )

    def block() -> None:
        for _ in range(setting.steps):
            inputs, targets = next(batches)
            logits = model(torch.from_numpy(inputs), dropout_rate=setting.scale.dropout_rate)
            loss = functional.cross_entropy(logits, torch.from_numpy(targets).long())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, clip)
            optimizer.step()
            scheduler.step()

    def values() -> dict[str, np.ndarray]:
        return {
            name: parameters.from_torch(name, tensor.detach().numpy().copy())
            for name, tensor in tensors.items()
        }

    return Loop(block, values)


def jax_loop(setting: Setting, bound: Any, initial: dict[str, np.ndarray]) -> Loop:
    """The bare loop in JAX."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import traverse_util

    model = setting.definition.build_model("jax", setting.model_settings)
    optimizer = setting.reference.jax_optimizer(
        hyperparameters=setting.hyperparameters, info=setting.info
    )
    clip, rate = setting.hyperparameters.grad_clip, setting.scale.dropout_rate

    def update(params: Any, state: Any, batch: Any) -> tuple[Any, Any, Any]:
        def loss_of(params: Any) -> Any:
            logits = model.apply({"params": params}, batch[0], train=True, dropout_rate=rate)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

        loss, gradients = jax.value_and_grad(loss_of)(params)
        factor = jnp.minimum(1.0, clip / (optax.tree.norm(gradients) + 1e-6))
        gradients = jax.tree.map(lambda gradient: gradient * factor, gradients)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    step = jax.jit(update, donate_argnums=(0, 1))
    params = jax.device_put(traverse_util.unflatten_dict(initial, sep="/"))
    current = [params, jax.device_put(optimizer.init(params))]
    batches = setting.batches()

    def block() -> None:
        params, state = current
        for _ in range(setting.steps):
            params, state, _ = step(params, state, jax.device_put(next(batches)))
        current[:] = jax.block_until_ready((params, state))

    return Loop(
        block,
        lambda: {
            name: np.asarray(value)
            for name, value in traverse_util.flatten_dict(current[0], sep="/").items()
        },
    )


def bootstrap_interval(values: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """A 95 % percentile interval of the median."""
    rng = np.random.default_rng(0)
    medians = np.median(values[rng.integers(len(values), size=(draws, len(values)))], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(high)


def measure(
    harness: Loop, bare: Loop, blocks: int, between: Block
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each block of the two loops, interleaved, in alternating order."""
    times_s: dict[str, list[float]] = {"harness": [], "bare": []}
    both = [("harness", harness.block), ("bare", bare.block)]
    for index in range(blocks):
        for name, block in both if index % 2 else reversed(both):
            started_at_s = time.perf_counter()
            block()
            times_s[name].append(time.perf_counter() - started_at_s)
            between()
    return np.array(times_s["harness"]), np.array(times_s["bare"])


def build(arguments: argparse.Namespace, folder: str) -> tuple[Any, Setting]:
    """Return the assembled trial and what the bare loop shares with it."""
    from algoperf import spec
    from algoperf.submission import loading
    from algoperf.trial import assemble, clock, plan, seeds
    from algoperf.workload import catalogue

    path, _ = loading.locate(arguments.submission)
    definition = catalogue.find(arguments.workload)
    scale = definition.scales[arguments.scale]
    plan = plan.TrialPlan(
        workload=definition.name,
        scale=arguments.scale,
        data="builtin",
        source_kind="builtin",
        framework=arguments.framework,
        submission=str(path),
        out=folder,
        experiment="benchmark",
        study=0,
        trial=1,
        seed=0,
    )
    assembled = assemble.assemble(plan, clock.Ledger(), lambda *_, **__: None)
    bound = assembled.trial._workload
    reference = loading.load(loading.inspect(Path(path)), arguments.framework).module
    setting = Setting(
        definition,
        scale,
        load_data(definition, scale, plan.data),
        reference,
        spec.make_hyperparameters(reference.DEFAULTS),
        spec.TrainingInfo(bound.step_hint, bound.loss_type, bound.max_allowed_runtime_sec),
        seeds.trial_seed(0, 0, 1),
        arguments.steps or BLOCK_STEPS.get(definition.name, 10),
    )
    return assembled, setting


def compare(harness: Loop, bare: Loop) -> float:
    """The largest difference of a parameter between the loops, relative to the parameter's own
    norm.
    """
    ours, theirs = harness.values(), bare.values()
    return max(
        float(np.linalg.norm(ours[name] - value) / (np.linalg.norm(value) + 1e-3))
        for name, value in theirs.items()
    )


def report(
    arguments: argparse.Namespace, steps: int, harness_s: np.ndarray, bare_s: np.ndarray
) -> bool:
    """Print both figures with their intervals; return whether they are within the limits."""
    ratios, extra_us = harness_s / bare_s, (harness_s - bare_s) / steps * 1e6
    ratio_limit, extra_limit_us = LIMITS.get(arguments.workload, (None, None))
    within = True
    print(
        f"{arguments.workload} {arguments.framework} {arguments.submission}, referee "
        f"{arguments.referee}: {len(ratios)} pairs of blocks of {steps} steps, "
        f"bare {np.median(bare_s) / steps * 1e6:.0f} us a step, "
        f"{os.cpu_count()} cores, {len(os.sched_getaffinity(0))} used, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    for what, values, limit in (
        ("ratio", ratios, ratio_limit),
        ("us a step", extra_us, extra_limit_us),
    ):
        low, high = bootstrap_interval(values)
        verdict = "" if limit is None else f", limit {limit:g}: {'ok' if high <= limit else 'OVER'}"
        within &= limit is None or high <= limit
        digits = 4 if what == "ratio" else 1
        print(
            f"  {what}: {np.median(values):.{digits}f} "
            f"[{low:.{digits}f}, {high:.{digits}f}]{verdict}"
        )
    return within


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workload", default="ag_news")
    parser.add_argument("--scale", default="mini")
    parser.add_argument("--framework", choices=("jax", "pytorch"), required=True)
    parser.add_argument("--submission", default="adamw", help="a reference algorithm")
    parser.add_argument("--referee", choices=("process", "inline"), default="inline")
    parser.add_argument("--blocks", type=int, default=40, help="pairs of blocks, at least 20")
    parser.add_argument(
        "--steps", type=int, help="steps of a block; by default about half a second's"
    )
    return parser.parse_args()


def main() -> int:
    """Measure and report."""
    from algoperf.machine import hardware

    arguments = parse()
    os.environ.update(
        hardware.thread_environment()
    )  # as in a trial's process, before a framework loads
    with tempfile.TemporaryDirectory() as folder:
        assembled, setting = build(arguments, folder)
        trial = assembled.trial
        if arguments.referee == "process":
            hand_over(assembled)
        harness = harness_loop(assembled, setting.steps)
        initial = harness.values()
        make_bare = {"jax": jax_loop, "pytorch": torch_loop}[arguments.framework]
        bare = make_bare(setting, trial._workload, initial)
        trial.advance()  # step 1, after which a trial evaluates
        trial.limits = dataclasses.replace(trial.limits, eval_every_steps=setting.steps)
        harness.block()
        bare.block()
        difference = compare(harness, bare)
        if not difference < 1e-2:
            print(
                f"the two loops do not train the same: parameters differ by {difference:.2g}",
                file=sys.stderr,
            )
            return 2
        # What a trial writes at an evaluation, off its clock: forget the scalars of the block.
        take_scalars = lambda: trial._scalars.take(assembled.backend.fetch)  # noqa: E731
        harness_s, bare_s = measure(harness, bare, arguments.blocks, take_scalars)
    return 0 if report(arguments, setting.steps, harness_s, bare_s) else 1


if __name__ == "__main__":
    sys.exit(main())
