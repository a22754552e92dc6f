"""Trains a few steps as one of several processes, and saves what it got: run by test_devices.py.

    python train_together.py FRAMEWORK RANK DEVICES PROCESSES SHARD MEETING OUT STEPS SUBMISSIONS \
        WORKLOAD...

SHARD is what the devices divide, or 'none'. SUBMISSIONS are joined by commas; a WORKLOAD may be
followed by settings of the trial's plan, as lm+accumulate=2. OUT gets, for each of them and each
workload, a file SUBMISSION-WORKLOAD.npz of the last parameters and running statistics by name, in
JAX's layout, of what would be evaluated after 'evaluated/', where that is something else, and of
'losses', the training loss of each step; written by rank 0. Where the submission cannot train so,
it has 'refused', why, and nothing else. The learning rate is 0.03 of the submission's, at which no
workload makes rounding much larger within the steps.
"""

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import numpy as np

from algoperf import backends, spec
from algoperf.data import batches
from algoperf.data.tokenizers import PAD_ID
from algoperf.submission import loading
from algoperf.trial import adapt, assemble, seeds
from algoperf.trial.plan import TrialPlan
from algoperf.trial.scalars import ScalarBuffer

RATE = 0.03


def train(plan, ranks, steps):
    """Return the arrays of one workload."""
    subject = assemble.look_up(plan)
    instruments = assemble.load_instruments(plan, subject, ranks=ranks)
    backend = instruments.backend
    bound = assemble.bind(plan, subject, backend)
    outline = assemble.outline_of(plan)
    loaded = loading.load(outline, plan.framework)
    submitted = assemble.submit(plan, loaded, subject)
    hyperparameters = None
    if submitted.point is not None:
        point = {**submitted.point, "dropout_rate": 0.0}
        if "learning_rate" in point:
            point["learning_rate"] *= RATE
        hyperparameters = spec.make_hyperparameters(point)
    train_rows = bound.data.splits["train"]
    queue = batches.TrainingQueue(
        train_rows,
        submitted.batch_size,
        7,
        backend.place,
        buckets=batches.make_buckets(train_rows, subject.scale.buckets, PAD_ID),
        augmentation=bound.data.augmentation,
        shard=(ranks.rank, ranks.count),
        is_packed=False,
    )
    functions = adapt.submission_functions(loaded, backend, bound.workload, hyperparameters)
    workload = bound.workload
    buffer = workload.metrics_logger = ScalarBuffer()
    state = backend.random_state(seeds.pair(1, seeds.INIT))
    params, model_state = workload.init_model_fn(state)
    backend.seed((1, 2))
    common = {"workload": workload, "hyperparameters": hyperparameters}
    optimizer_state = functions.init_optimizer_state(
        **common, model_params=params, model_state=model_state, rng=backend.random_state((3, 4))
    )
    for step in range(steps):
        optimizer_state, params, model_state = functions.update_params(
            **common,
            current_param_container=params,
            model_state=model_state,
            batch=next(queue),
            optimizer_state=optimizer_state,
            global_step=step,
            rng=backend.random_state((5, step)),
        )
        backend.drain(params)  # JAX's devices of a processor stall on many queued steps.
    losses = [row["loss"] for _, row in buffer.take(backend.fetch)]
    evaluated = {}
    if functions.eval_params is not None:
        other = functions.eval_params(params=params, optimizer_state=optimizer_state)
        named = workload.to_neutral(other)
        evaluated = {f"evaluated/{name}": value for name, value in named.items()}
    trained = workload.state_to_neutral(params, model_state)
    return {"losses": np.array(losses), **trained, **evaluated}


def main(framework, rank, devices, processes, shard, meeting, out, steps, submissions, *names):
    shard = None if shard == "none" else shard
    ranks = backends.join(framework, int(rank), int(devices), meeting, shard, int(processes))
    adapt.RECORD_EVERY_STEPS = 1
    for submission, name in itertools.product(submissions.split(","), names):
        path, _ = loading.locate(submission)
        workload, *settings = name.split("+")
        plan = TrialPlan(
            *(
                workload,
                "mini",
                "builtin",
                "builtin",
                framework,
                str(path),
                out,
                "together",
                0,
                1,
                0,
            ),
            devices=int(devices),
            shard=shard,
        )
        pairs = [setting.split("=") for setting in settings]
        plan = dataclasses.replace(plan, **{key: json.loads(value) for key, value in pairs})
        try:
            arrays = train(plan, ranks, int(steps))
        except spec.UserError as error:
            arrays = {"refused": np.array(str(error))}
        if ranks.rank == 0:
            np.savez(Path(out) / f"{Path(submission).stem}-{name}.npz", **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
