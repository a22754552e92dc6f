"""Fakes of what a trial runs on: a clock that moves when told, an asynchronous device, a log."""

import dataclasses
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from algoperf import spec
from algoperf.clock import Ledger
from algoperf.goal import Goal, Limits
from algoperf.trial import Trial
from algoperf.trial_parts import Functions


class FakeClock:
    """Seconds that pass only by `sleep`."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds

    def sleep_until(self, time_s):
        self.now_s = max(self.now_s, time_s)


class FakeDevice:
    """Works off what is queued, one piece after another; queueing takes no time, waiting does."""

    def __init__(self, clock):
        self.clock = clock
        self.ends_s = [0.0]

    def queue(self, seconds):
        self.ends_s.append(max(self.clock(), self.ends_s[-1]) + seconds)

    def unfinished(self):
        return sum(end_s > self.clock() for end_s in self.ends_s)


class FakeBackend:
    """The part of `Backend` that a trial uses. A marker is when the device gets there."""

    name = "fake"

    def __init__(self, device):
        self.device = device
        self.fetches = []  # how much was unfinished at each
        self.seeds = []

    def random_state(self, pair):
        return pair

    def seed(self, pair):
        self.seeds.append(pair)

    def drain(self, *trees):
        self.device.clock.sleep_until(self.device.ends_s[-1])

    def marker(self, params):
        return self.device.ends_s[-1]

    def wait(self, marker):
        self.device.clock.sleep_until(marker)

    def is_finite(self, params):
        return all(np.isfinite(value).all() for value in params.values())

    def fetch(self, tree):
        self.fetches.append(self.device.unfinished())
        return tree

    def signature(self, params):
        return {name: (value.shape, str(value.dtype)) for name, value in params.items()}


class FakeLog:
    """Keeps what it is given; every call takes `call_s`."""

    def __init__(self, clock, call_s):
        self.clock, self.call_s = clock, call_s
        self.scalar_rows, self.rows = [], []

    def scalars(self, rows):
        self.clock.sleep(self.call_s)
        self.scalar_rows += rows

    def evaluation(self, times, metrics):
        self.clock.sleep(self.call_s)
        self.rows.append((times, metrics))


@dataclasses.dataclass
class Rig:
    """A trial on fakes. The parameter `w` counts steps; a step takes the device `step_s`."""

    clock: FakeClock
    device: FakeDevice
    backend: FakeBackend
    log: FakeLog
    workload: SimpleNamespace
    calls: dict
    trial: Trial | None = None

    @property
    def evaluated(self):
        """(step, clock) of every evaluation."""
        return [(step, elapsed_s) for step, elapsed_s, _ in self.trial.evaluations]


def default_metrics(split, steps):
    return {"loss": 1.0, "accuracy": steps / 100}


@pytest.fixture
def make_rig():
    """A function that returns a `Rig`; its arguments replace one part at a time.

    `metrics(split, w)` are the values of an evaluation, `loss(step)` is a step's training loss.
    """

    def make(
        *,
        step_s=1.0,
        metrics=default_metrics,
        loss=lambda step: 1.0,
        evaluation_s=0.5,
        log_s=0.25,
        goal=None,
        limits=None,
        seed=3,
        **functions,
    ):
        clock = FakeClock()
        device = FakeDevice(clock)
        backend = FakeBackend(device)
        calls = {"splits": [], "evaluated": [], "unfinished": [], "updates": [], "batches": []}

        def init_model_fn(rng):
            calls["init_rng"] = rng
            return {"w": np.zeros((), np.float32)}, None

        def init_optimizer_state(**arguments):
            calls["init_optimizer_state"] = arguments
            return {"momentum": 0}

        def data_selection(*, input_queue, **arguments):
            calls["unfinished"].append(device.unfinished())
            return next(input_queue)

        def update_params(**arguments):
            calls["updates"].append(arguments)
            device.queue(step_s)
            step = arguments["global_step"]
            workload.metrics_logger.append_scalar_metrics({"loss": loss(step)}, step)
            params = {"w": arguments["current_param_container"]["w"] + np.float32(1)}
            return arguments["optimizer_state"], params, arguments["model_state"]

        def evaluate(split, params, model_state):
            backend.drain()  # an evaluation's results come after whatever was queued before
            clock.sleep(evaluation_s)
            calls["splits"].append(split)
            calls["evaluated"].append(float(params["w"]))
            return metrics(split, float(params["w"]))

        workload = SimpleNamespace(
            metrics_logger=None,
            loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY,
            model_params_types={"w": spec.ParameterType.WEIGHT},
            init_model_fn=init_model_fn,
        )
        log = FakeLog(clock, log_s)
        rig = Rig(clock, device, backend, log, workload, calls)
        queue = (calls["batches"].append(number) or {"number": number} for number in range(10**6))
        defaults = {
            "init_optimizer_state": init_optimizer_state,
            "update_params": update_params,
            "data_selection": data_selection,
        }
        rig.trial = Trial(
            backend=backend,
            workload=workload,
            functions=Functions(**{**defaults, **functions}),
            queue=SimpleQueue(queue, clock),
            evaluate=evaluate,
            goal=goal or Goal("accuracy", True, 0.9),
            limits=limits or Limits(budget_s=30.0, eval_every_s=10.0),
            ledger=Ledger(clock),
            log=log,
            seed=seed,
            hyperparameters="point",
        )
        return rig

    return make


class SimpleQueue:
    """Numbered batches; each takes the host 1/1024 of a second, which adds up without rounding."""

    def __init__(self, batches, clock):
        self.batches, self.clock = batches, clock
        self.wait_s = 0.0
        self.cost_s = 0.0

    def __iter__(self):
        return self

    def __next__(self):
        self.clock.sleep(self.cost_s)
        self.wait_s += self.cost_s
        return next(self.batches)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def loading_taken_back(monkeypatch):
    """What loading a submission leaves in the interpreter is taken back."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]
