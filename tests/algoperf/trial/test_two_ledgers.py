"""The trainer's ledger and the referee's, on one fake clock: what each counts, and what a
difference is taken for.
"""

import contextlib
import dataclasses
import json
import os
import threading
from multiprocessing import Pipe
from types import SimpleNamespace

import numpy as np
import pytest

from algoperf.trial import messages, refereed
from algoperf.trial.clock import Ledger
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.loop import Functions, Trial
from algoperf.trial.referee import Referee
from algoperf.trial.trainer import FarReferee

STEP_S, BATCH_S, EVALUATION_S, LOG_S = 1.0, 0.125, 0.5, 0.25
SIGNATURE = {"w": ((), "float32")}


class Line:
    """The line to a trainer that is a thread."""

    def __init__(self, connection, shared):
        self.connection, self.process_id = connection, os.getpid()
        self.pause = SimpleNamespace(begin=lambda: None, end=lambda: None)
        self.handover = SimpleNamespace(parameters=lambda: shared, checksum=lambda: 0)
        self.has_closed = False
        self.paused = contextlib.nullcontext
        self.ranks = lambda: [self.process_id]

    def hear(self, *expected):
        message = messages.read(messages.parse(self.connection.recv_bytes()))
        assert message["kind"] in expected
        return message

    def answer(self, **values):
        self.connection.send_bytes(json.dumps(values).encode())


def with_memory(backend):
    """Have a fake backend copy its one parameter to shared memory and back."""

    def write(params, model_state, into):
        into["w"][0] = params["w"]

    backend.write = write
    backend.read = lambda params, model_state, bytes_of: ({"w": bytes_of["w"][0].copy()}, None)
    return backend


class Pair:
    """A trial of six steps in two threads, each with a ledger of its own.

    Args:
        rig: What it runs on.
        trainer_clock: The clock of the trainer's ledger.
    """

    def __init__(self, rig, trainer_clock):
        self.ledger, self.far_ledger = Ledger(rig.clock), Ledger(trainer_clock)
        shared = {"w": np.zeros(1, np.float32)}
        ours, theirs = Pipe()
        backend = with_memory(rig.backend)
        limits = Limits(budget_s=100.0, eval_every_s=100.0, max_steps=6, eval_every_steps=3)
        bench = SimpleNamespace(
            trials=0,
            signature=SIGNATURE,
            instruments=SimpleNamespace(backend=backend),
            have_rows_changed=lambda: False,
            spread=lambda shared: None,
        )
        plan = SimpleNamespace(checkpoints=False, shard=None)
        self.judged = judged = refereed._Run(
            bench, plan, self.ledger, lambda *_, **__: None, None, None
        )
        evaluate = lambda split, params, model_state: self.evaluate(rig, params)  # noqa: E731
        judged._trainer = Line(ours, shared)
        judged._own = {"w": np.zeros((), np.float32)}, None
        judged._initial = backend.checksum(*judged._own)
        judged._folder = SimpleNamespace(saved=None, flags={"target": {}}, log=rig.log)
        judged._folder.checkpoints = SimpleNamespace(newest_size=lambda: None)
        judged._folder.log.folder = "folder"
        judged._compare_rows = lambda: None  # there are no files
        judged._submitted = SimpleNamespace(point=None, point_source="")
        judged._gauges = SimpleNamespace()
        judged._load = SimpleNamespace(timed=lambda clock_s: contextlib.nullcontext(), report=dict)
        judged._referee = Referee(
            goal=Goal("accuracy", True, None),
            limits=limits,
            ledger=self.ledger,
            evaluate=evaluate,
            log=rig.log,
        )
        self.steps = []
        arguments = (rig, theirs, backend, shared, limits)
        thread = threading.Thread(target=self.train, args=arguments, daemon=True)
        thread.start()
        judged._train(judged._initialise())
        thread.join()
        judged._judge_the_whole()

    def evaluate(self, rig, params):
        rig.clock.sleep(EVALUATION_S)
        self.steps.append(float(params["w"]))
        return {"loss": 1.0, "accuracy": 0.5}

    def train(self, rig, connection, backend, shared, limits):
        far = FarReferee(connection)
        guard = SimpleNamespace(inspect=lambda: None, flags=[])
        handover = SimpleNamespace(parameters=lambda: shared, signature=SIGNATURE)
        view = SimpleNamespace(first=lambda params: params, first_state=lambda state: state)
        far.attend(
            backend=backend,
            view=view,
            handover=handover,
            ledger=self.far_ledger,
            guard=guard,
            check=lambda: None,
        )
        trial = Trial(
            backend=backend,
            workload=rig.workload,
            functions=Functions(
                init_optimizer_state=lambda **_: {},
                update_params=rig.trial._functions.update_params,
                data_selection=rig.trial._functions.data_selection,
            ),
            queue=rig.trial._queue,
            limits=limits,
            ledger=self.far_ledger,
            seed=3,
            referee=far,
        )
        trial.run()
        closing = {"checksum": None, "real_token_share": None, "peak_device_bytes": None}
        far.ask("closing", interrupted=False, flags=[], communication_s=[], **closing)

    @property
    def flags(self):
        """What was seen, but for how long the trainer took by this machine's own clock."""
        return [text for text in self.judged._seen if "clock differs" in text]


@pytest.fixture
def rig(make_rig):
    rig = make_rig(step_s=STEP_S, log_s=LOG_S)
    rig.trial._queue.cost_s = BATCH_S
    return rig


def test_they_agree_on_every_part(rig):
    """Six steps, evaluated after 1, 3 and 6: three stretches, each with its drain."""
    pair = Pair(rig, rig.clock)
    assert pair.steps == [1.0] * 2 + [3.0] * 2 + [6.0] * 3  # The last one on test as well.
    ours, theirs = pair.ledger.totals(), pair.far_ledger.totals()
    # The batch of a later step of a stretch is made while the device computes the one before.
    assert ours["submission_s"] == 3 * BATCH_S + 6 * STEP_S
    assert ours["evaluation_s"] == 7 * EVALUATION_S
    assert ours["logging_s"] == 6 * LOG_S  # The scalars and the row of each evaluation.
    for part in ("submission_s", "evaluation_s", "logging_s", "checkpoint_s"):
        assert theirs[part] == ours[part], part
    assert pair.judged._clock_difference_s == 0.0
    assert pair.flags == []


@pytest.mark.parametrize(("rate", "is_seen"), [(0.985, True), (0.995, False), (1.02, True)])
def test_a_trainer_whose_clock_goes_wrong(rig, rate, is_seen):
    """Over 1 % is a flag; the referee's clock is what is recorded."""
    pair = Pair(rig, lambda: rate * rig.clock())
    clock_s = 3 * BATCH_S + 6 * STEP_S
    assert pair.ledger.submission.elapsed_s == clock_s
    difference = f"{(1 - rate) * clock_s:+.3f}"
    text = f"the trainer's own clock differs by {difference} s from the referee's 6.375 s"
    assert pair.flags == ([text] if is_seen else [])


@pytest.mark.parametrize(
    ("off_s", "every", "lost_s", "is_seen"),
    [
        (2.0 + 0.05 * 6.375 + 3 * 0.05 + 0.01, 3, 0.0, True),
        (2.0 + 0.05 * 6.375 + 3 * 0.05 - 0.01, 3, 0.0, False),
        (2.0 + 0.05 * 6.375 + 0.01, None, 0.0, True),
        (2.0 + 0.05 * 6.375 - 0.01, None, 0.0, False),
        (99.0, None, 1.0, False),  # Whoever waits for a core is slow, at work and off the clock.
    ],
)
def test_work_while_the_clock_stands_still(rig, off_s, every, lost_s, is_seen):
    judged = Pair(rig, rig.clock).judged
    judged._seen.clear()
    judged._off_clock_s, judged._stretches = off_s, 3
    judged._referee.limits = dataclasses.replace(judged._referee.limits, eval_every_steps=every)
    judged._load.report = lambda: {"lost_s": lost_s, "lost_share": lost_s / 6.375}
    judged._judge_the_whole()
    text = f"the trainer worked {off_s:.1f} s while the clock stood still"
    assert judged._seen == ([text] if is_seen else [])
