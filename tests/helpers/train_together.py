"""Trains a few steps as one of several processes, and saves what it got: run by several_devices.py.

    python train_together.py FRAMEWORK RANK DEVICES PROCESSES SHARD MEETING OUT STEPS SUBMISSIONS \
        WORKLOAD...

SHARD is what the devices divide, or 'none'. STEPS is how many, or FIRST:LAST for those of a trial
that is saved after the last one in OUT, and goes on after the first one with what any number of
devices has saved there. SUBMISSIONS are joined by commas; a WORKLOAD may be followed by settings of
the trial's plan, as lm+accumulate=2 or lm+shard="optimizer". OUT gets, for each of them and each
workload, a file SUBMISSION-WORKLOAD.npz of the last parameters and running statistics by name, in
JAX's layout, of what would be evaluated after 'evaluated/', where that is something else, and of
'losses', the training loss of each step; written by rank 0. Where the submission cannot train so,
it has 'refused', why, and nothing else. Of a trial that is saved it has 'rows' as well, a checksum
of each step's batch. The learning rate is 0.03 of the submission's, at which no workload makes
rounding much larger within the steps.
"""

import dataclasses
import itertools
import json
import sys
import zlib
from pathlib import Path

import numpy as np

from algoperf import backends, spec
from algoperf.data import batches
from algoperf.data.tokenizers import PAD_ID
from algoperf.run_folder import state as saved_state
from algoperf.run_folder import state_kinds
from algoperf.run_folder.checkpoint import PROCESSES, Checkpoints
from algoperf.submission import loading
from algoperf.trial import adapt, assemble, preservation, regroup, seeds
from algoperf.trial.plan import TrialPlan
from algoperf.trial.scalars import ScalarBuffer

RATE = 0.03


class Log:
    """The log of a trial that writes no rows."""

    def holds(self, sizes):
        return True


def go_on(folder, ranks, plan, queue, functions, fresh):
    """Return the trees that were saved, as they are on these devices; put the queue there."""
    _, document = next(Checkpoints(folder).read(with_arrays=False))
    parts = preservation.find_parts(folder, Log(), document[PROCESSES])
    others = functions.indices_of_others
    saved = regroup.part_of(parts, ranks, plan.shard, fresh, others)
    queue.go_to(saved.document["position"]["queue"])
    return saved_state.restore(saved.arrays, saved.document["structure"], fresh)


def save(folder, ranks, queue, step, trees):
    folder.mkdir(exist_ok=True)
    arrays, structure = saved_state.to_arrays({**trees, "generators": state_kinds.generators()})
    position = {"step": step, "queue": queue.position()}
    document = {"format": preservation.FORMAT, "structure": structure, "position": position}
    document |= {PROCESSES: ranks.count, "files": {}}
    Checkpoints(folder, ranks.rank, ranks.count).write(step, arrays, document)
    ranks.wait()


def checksum(ranks, batch):
    """Return a checksum of all rows of a batch, in their order."""
    parts = ranks.gathered(np.asarray(batch["inputs"]).tobytes())
    return zlib.crc32(b"".join(parts))


def train(plan, ranks, steps, folder):
    """Return the arrays of one workload."""
    first, colon, last = steps.rpartition(":")
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
    rows = []
    if first not in ("", "0"):
        fresh = {"params": params, "model_state": model_state, "optimizer_state": optimizer_state}
        trees = go_on(folder, ranks, plan, queue, functions, {**fresh, "generators": {}})
        params, model_state, optimizer_state = (trees[name] for name in fresh)
    for step in range(int(first or 0), int(last)):
        batch = next(queue)
        rows += [checksum(ranks, batch)] if colon else []
        optimizer_state, params, model_state = functions.update_params(
            **common,
            current_param_container=params,
            model_state=model_state,
            batch=batch,
            optimizer_state=optimizer_state,
            global_step=step,
            rng=backend.random_state((5, step)),
        )
        backend.drain(params)  # JAX's devices of a processor stall on many queued steps.
    losses = [row["loss"] for _, row in buffer.take(backend.fetch)]
    if colon:
        trees = {"params": params, "model_state": model_state, "optimizer_state": optimizer_state}
        save(folder, ranks, queue, int(last), trees)
    evaluated = {"rows": np.array(rows)} if colon else {}
    if functions.eval_params is not None:
        other = functions.eval_params(params=params, optimizer_state=optimizer_state)
        named = workload.to_neutral(other)
        evaluated |= {f"evaluated/{name}": value for name, value in named.items()}
    trained = workload.state_to_neutral(params, model_state)
    return {"losses": np.array(losses), **trained, **evaluated}


def leave(ranks):
    """Leave the group, so that another one can be joined."""
    if ranks is not None and ranks.__class__.__name__ == "TorchRanks":
        sys.modules["torch"].distributed.destroy_process_group()


def main(framework, rank, devices, processes, shard, meeting, out, steps, submissions, *names):
    ranks, joined = None, []
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
            shard=None if shard == "none" else shard,
        )
        pairs = [setting.split("=") for setting in settings]
        plan = dataclasses.replace(plan, **{key: json.loads(value) for key, value in pairs})
        if not joined or joined[-1] != plan.shard:
            leave(ranks)
            joined.append(plan.shard)
            meeting_now = f"{meeting}_{len(joined)}"
            ranks = backends.join(
                framework, int(rank), int(devices), meeting_now, plan.shard, int(processes)
            )
        folder = Path(out) / f"{Path(submission).stem}-{name}"
        try:
            arrays = train(plan, ranks, steps, folder)
        except spec.UserError as error:
            arrays = {"refused": np.array(str(error))}
        if ranks.rank == 0:
            np.savez(folder.with_name(f"{folder.name}.npz"), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
