"""Fakes of what a trial runs on: a clock that moves when told, an asynchronous device, a log."""

import collections
import dataclasses
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from algoperf import spec
from algoperf.cli import compare_command
from algoperf.cli.parser import parser as make_parser
from algoperf.experiments.compare import measures, plots, request
from algoperf.run_folder import run_log
from algoperf.trial.clock import Ledger
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.loop import Functions, Trial


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
    steps_together = 4

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

    def is_finite(self, params, model_state=None):
        return all(np.isfinite(value).all() for value in params.values())

    def checksum(self, params, model_state=None):
        return hash(tuple((name, value.tobytes()) for name, value in params.items()))

    def compiled_s(self):
        return 0.0

    def fetch(self, tree):
        self.fetches.append(self.device.unfinished())
        return tree

    def signature(self, params, model_state=None):
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

    `metrics(split, w)` are the values of an evaluation, `loss(step)` is a step's training loss,
    and `probe(w)` is the metric of a few rows.
    """

    def make(
        *,
        step_s=1.0,
        metrics=default_metrics,
        loss=lambda step: 1.0,
        evaluation_s=0.5,
        log_s=0.25,
        probe=None,
        goal=None,
        limits=None,
        seed=3,
        **functions,
    ):
        clock = FakeClock()
        device = FakeDevice(clock)
        backend = FakeBackend(device)
        calls = {"splits": [], "evaluated": [], "unfinished": [], "updates": [], "batches": []}
        calls["probed"] = []

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

        def probed(params, model_state):
            backend.drain()
            clock.sleep(0.125)
            calls["probed"].append(float(params["w"]))
            return probe(float(params["w"]))

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
            probe=None if probe is None else probed,
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

    def position(self):
        return None

    def go_to(self, position):
        pass


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def loading_taken_back(monkeypatch):
    """What loading a submission leaves in the interpreter is taken back; libraries stay, of which
    some, as PyTorch's compiler, cannot be loaded twice.
    """
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is None or "site-packages" not in file:
            del sys.modules[name]


# A trial that has ended, for comparisons. Stretches of 10 steps take 0.5, 1.0 and 0.3 s: the median
# step 0.05 s.
HARDWARE = {"cpu": "a processor", "threads": 4, "accelerators": [], "system": "Linux"}
CLOCK_S, STEPS = (2.0, 2.5, 3.5, 3.8), (1, 11, 21, 31)
REACHES = (0.1, 0.96, 0.975, 0.95)  # the target of digits, 0.97, at step 21 after 3.5 s


@pytest.fixture
def ended():
    """`ended(out, workload, framework, trial, accuracies, ...)` writes a trial folder."""
    return write_ended


@pytest.fixture
def undrawn(monkeypatch):
    """Comparisons are not drawn, which takes seconds."""
    monkeypatch.setattr(plots, "write", lambda *_: [])


@pytest.fixture
def parser():
    """The parser of the command line, which calls nothing."""
    return make_parser(collections.defaultdict(lambda: None))


@pytest.fixture
def asked(parser):
    """`asked(out, "--frameworks", "jax,pytorch")`: the request of `algoperf compare digits`."""

    def make(out, *words, lengths=("--max-steps", "31", "--eval-every-steps", "10")):
        given = ["compare", "digits", "--out", str(out), "--no-run", *lengths, *words]
        return request.make(compare_command.make_request(parser.parse_args(given)))

    return make


def write_ended(out, workload="digits", framework="jax", trial=1, values=REACHES, **told):
    """One trial folder; `told` goes into its result, but for `losses` (of training, every tenth
    step), `flags`, `later_s` (added to the clock), `metric`, `submission` and `experiment`.
    """
    experiment = told.pop("experiment", "mini-builtin")
    submission = told.pop("submission", "nadamw")
    folder = run_log.trial_folder(out, experiment, submission, 0, workload, framework, trial)
    folder.mkdir(parents=True)
    losses, later_s = told.pop("losses", (2.0, 1.0, 0.5)), told.pop("later_s", 0.0)
    metric = told.pop("metric", "accuracy")
    header = f"{measures.CLOCK},{measures.STEP},validation/{metric},validation/loss"
    lines = [
        f"{time_s + later_s},{step},{value},{1 - value}"
        for time_s, step, value in zip(CLOCK_S, STEPS, values, strict=True)
    ]
    (folder / run_log.EVALUATIONS).write_text("\n".join([header, *lines, ""]))
    lines = [f"{10 * place},{loss},{4 / 2**place}," for place, loss in enumerate(losses)]
    lines = ["global_step,loss,gradient_norm,learning_rate", *lines, ""]
    (folder / run_log.SCALARS).write_text("\n".join(lines))
    flags = {"hardware": HARDWARE, "data_fingerprint": "f1"} | told.pop("flags", {})
    run_log.write_json(folder / "flags_0.json", flags)
    final = {"validation/accuracy": values[-1], "validation/loss": 1 - values[-1]}
    result = {
        "status": "complete",
        "steps": 31,
        "final": final | {"test/accuracy": 0.9, "train/loss": 0.25},
        "ledger": {"wall_s": 10.0 + later_s, "submission_s": 3.8 + later_s, "first_step_s": 2.0},
        "samples_per_s": 500.0,
        "inference_s_per_example": 0.002,
        "resources": {"peak_process_bytes": 3 * 2**20, "peak_device_bytes": None, "cpu_s": 7.5},
        "flags": [],
        "error": None,
    }
    run_log.write_json(folder / run_log.RESULT, result | told)
    return folder
