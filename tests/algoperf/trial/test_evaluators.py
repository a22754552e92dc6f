"""Evaluation divided among devices: the metrics of one device, and what ends with whom.

600 rows in batches of 250 on two devices: the first has two batches, of which one is not full, the
second has one. Of training there is one row, so that the second has none.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from algoperf.data import batches
from algoperf.data.loading import load_data
from algoperf.machine import hardware, memory, stopping
from algoperf.run_folder import run_log
from algoperf.trial import assemble, evaluators, handover, outputs, refereed, seeds
from algoperf.trial.bench import Bench
from algoperf.trial.clock import Ledger
from algoperf.trial.evaluate import Evaluator
from algoperf.trial.far_trainer import TrainerDiedError
from algoperf.trial.plan import PROCESS, TrialPlan
from algoperf.workload import catalogue

ROOT = Path(__file__).resolve().parents[3]
SPIRALS = ROOT / "docs" / "examples" / "spirals"
DEVICES = 2
# It trains nothing, so that what a trial evaluates are the parameters that it began with.
STILL = """
DEFAULTS = {"learning_rate": 0.0}


def torch_optimizer(params, hyperparameters, info):
    import torch

    return torch.optim.SGD(params.tensors(), lr=hyperparameters.learning_rate)


def jax_optimizer(hyperparameters, info):
    import optax

    return optax.sgd(hyperparameters.learning_rate)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the submission and the workload 'spirals', of other batch sizes."""
    folder = tmp_path_factory.mktemp("evaluators")
    (folder / "still.py").write_text(STILL)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SPIRALS, folder / "spirals", ignore=ignored)
    facts = folder / "spirals" / "__init__.py"
    text = facts.read_text().replace("eval_batch_size=600", "eval_batch_size=250")
    facts.write_text(text.replace("eval_train_rows=600", "eval_train_rows=1"))
    return folder


def plan_of(folder, framework="pytorch", workload="spirals", **changes):
    definition = catalogue.find(str(folder / workload) if workload == "spirals" else workload)
    settings = {
        "workload": definition.name,
        "workload_folder": definition.reference,
        "workload_hash": None if definition.outside is None else definition.outside.source_hash,
        "scale": "mini",
        "data": "builtin",
        "source_kind": "builtin",
        "framework": framework,
        "submission": str(folder / "still.py"),
        "out": str(folder / "runs"),
        "experiment": "test",
        "study": 0,
        "trial": 1,
        "seed": 1,
        "referee": PROCESS,
        "max_steps": 4,
        "eval_every_steps": 2,
        "until": "end",
        "devices": DEVICES,
    }
    return TrialPlan(**{**settings, **changes})


def on_one_device(plan):
    """Return an evaluator of one device, and the parameters that a trial begins with."""
    subject = assemble.look_up(plan)
    backend = assemble.load_instruments(plan, subject, trains=False).backend
    bound = assemble.bind(plan, subject, backend)
    evaluator = Evaluator(backend, bound.workload, subject.definition, bound.data, subject.scale)
    seed = seeds.trial_seed(plan.seed, plan.study, plan.trial)
    start = bound.workload.init_model_fn(backend.random_state(seeds.pair(seed, seeds.INIT)))
    return evaluator, start


SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def plan(folder):
    return plan_of(folder)


@pytest.fixture(scope="module")
def one(plan):
    return on_one_device(plan)


@pytest.fixture(scope="module")
def bench(plan):
    """A referee's bench in this process, with an evaluator in another one."""
    bench = Bench(plan)
    yield bench
    bench.close()


@pytest.fixture
def ready(bench, plan, one):
    """The bench, with the initial parameters half as large again handed over; and these."""
    bench.start_evaluators()
    own = bench.initialise(seeds.trial_seed(plan.seed, 0, 1))
    bench.warm_up(*own)
    backend = bench.instruments.backend
    shared = handover.Handover(bench.context, bench.signature)
    backend.write(*one[1], shared.parameters())
    for value in shared.parameters().values():
        value.view(np.float32)[...] *= 1.5
    bench.spread(shared)
    return bench, backend.read(*own, shared.parameters())


def assert_as_one(bench, own, one):
    """The same bits as one device has for the same parameters."""
    evaluator = one[0]
    for split in SPLITS:
        expected = evaluator(split, *own)
        assert bench.evaluator(split, *own) == expected
        assert expected["num_examples"] == (1 if split == "train" else 600)
    assert bench.evaluator.probe(*own) == evaluator.probe(*own)


def test_two_processes_evaluate_as_one(ready, one, monkeypatch):
    bench, own = ready
    backend = type(bench.instruments.backend)
    counted, predict = [], backend.predict
    monkeypatch.setattr(
        backend, "predict", lambda *arguments: counted.append(0) or predict(*arguments)
    )
    assert one[0]("test", *own) != one[0]("test", *one[1])  # they are not the initial ones
    counted.clear()
    bench.evaluator("validation", *own)
    assert len(counted) == 2  # of three
    assert_as_one(bench, own, one)


def test_a_process_keeps_no_parameters_but_those_that_are_shared(bench, plan):
    shared = handover.Handover(bench.context, bench.signature)
    block = shared.counters.ctypes.data, sum(each.nbytes for each in shared.parameters().values())
    work = evaluators._Work(plan, evaluators.Given(1, DEVICES, shared))
    assert list(work.do("begin", 1)) == []
    model, _ = work._own
    assert sum(each.nbytes for each in model.parameters()) == block[1]
    for each in model.parameters():
        assert block[0] < each.data_ptr() < block[0] + 2 * block[1]


def test_where_memory_is_short_the_first_device_evaluates_alone(plan, one, monkeypatch):
    """The model's numbers are trained in two processes, each with four copies and three of a
    checkpoint, and an evaluation takes 1,000 bytes on each of two devices.
    """
    evaluator, start = one
    count = sum(each.numel() for each in start[0].parameters())
    needed = 2 * 7 * 4 * count + 2 * 1000
    monkeypatch.setattr(hardware, "peak_process_memory_bytes", lambda: 51_000)
    monkeypatch.setattr(hardware, "process_memory_bytes", lambda: 50_000)
    seed = seeds.trial_seed(plan.seed, 0, 1)
    with contextlib.closing(Bench(plan)) as bench:
        for available, is_short in ((needed, False), (needed - 1, True)):
            monkeypatch.setattr(memory, "available_bytes", lambda available=available: available)
            bench.start_evaluators()
            own = bench.initialise(seed)
            bench._is_warm = False
            assert (bench.warm_up(*own) is not None) == is_short
            assert bench.evaluators == (0 if is_short else 1)
        assert bench._processes is None
        monkeypatch.setattr(evaluators.Processes, "ask", lambda *_: pytest.fail("it is asked"))
        for split in SPLITS:
            assert bench.evaluator(split, *own) == evaluator(split, *start)


def test_an_evaluation_that_was_left_does_no_harm(ready, one):
    bench, own = ready
    asked = bench._processes.ask(outputs.Question("test"), *own)
    assert len(asked) == 1
    assert_as_one(bench, own, one)


def test_an_error_of_a_process_has_its_cause_and_traceback(ready, one):
    bench, own = ready
    (answers,) = bench._processes.ask(outputs.Question("nothing"), *own)
    with pytest.raises(evaluators.EvaluationError, match="KeyError: 'nothing'") as error:
        next(answers)
    assert "in answer" in error.value.error["traceback"]
    assert_as_one(bench, own, one)


def evaluator_of(bench):
    return psutil.Process(bench._processes._each[0]._process.pid)


def judged(bench, plan, report=lambda *_, **__: None):
    ledger = Ledger(started_at_s=time.perf_counter())
    return refereed.run(bench, plan, ledger, report, stopping.Stops())


def test_a_trial_goes_on_after_the_death_of_an_evaluator(bench, folder):
    """What was measured before is kept, and each row is that of one device at that step."""
    moves = folder / "moves.py"
    moves.write_text(STILL.replace('"learning_rate": 0.0', '"learning_rate": 0.1'))
    plan, seen = plan_of(folder, submission=str(moves)), []
    arguments = (bench.bound.workload, bench.subject.definition, bench.bound.data)
    alone = Evaluator(bench.instruments.backend, *arguments, bench.subject.scale)

    def look(event, metrics=None, **values):
        if event == "evaluation":
            model = bench.bound.workload._container  # as it was handed over
            expected = alone("validation", model, None)
            assert {name: metrics[f"validation/{name}"] for name in expected} == expected
            seen.append(metrics)
            if len(seen) == 2:
                evaluator_of(bench).kill()

    with pytest.raises(TrainerDiedError) as error:
        judged(bench, plan, look)
    death = error.value.error
    assert death["cause"].startswith("the evaluator of device 1 was ended by SIGKILL")
    assert death["outside"] is True
    (trial,) = folder.glob("runs/*/moves/study_0/*/trial_1")
    assert [row["global_step"] for row in run_log.evaluations(trial)] == [1, 2]
    ended = judged(bench, plan, look)
    assert (ended["status"], ended["steps"], ended["flags"]) == ("complete", 4, [])
    rows = run_log.evaluations(trial)
    assert [row["global_step"] for row in rows] == [1, 2, 4]
    losses = [row["validation/loss"] for row in rows]
    assert losses == [metrics["validation/loss"] for metrics in seen]
    assert len(set(losses)) == 3


def assert_rows(rows, one, tolerance):
    """Each row has the metrics of the parameters that a trial begins with, of one device."""
    evaluator, start = one
    for row in rows:
        for split in SPLITS:
            if row.get(f"{split}/loss") is None:
                continue
            for name, value in evaluator(split, *start, whole=split == "test").items():
                assert row[f"{split}/{name}"] == pytest.approx(value, rel=tolerance, abs=0)


def test_its_memory_is_closed_and_signals_do_not_end_it(ready, one):
    bench, own = ready
    process = evaluator_of(bench)
    for number in stopping.SIGNALS:
        process.send_signal(number)
    assert_as_one(bench, own, one)
    status = Path(f"/proc/{process.pid}/status").read_text()
    (ignored,) = re.findall(r"SigIgn:\s*(\w+)", status)
    assert all(int(ignored, 16) >> number - 1 & 1 for number in stopping.SIGNALS)


def test_memory_is_closed_before_anything_is_heard(monkeypatch):
    """Nothing that is secret is known before that, and what is printed is no event."""
    steps = []

    class Line:
        def send(self, words):
            steps.append(("send", words))

        def recv(self):
            steps.append("recv")
            raise EOFError

    for owner, name in (
        (evaluators.supervision, "refuse_to_be_read"),
        (evaluators.child, "die_with_referee"),
        (evaluators.child, "redirect_output"),
        (evaluators.child, "leave"),
        (evaluators.signal, "signal"),
    ):
        monkeypatch.setattr(owner, name, lambda *_, name=name: steps.append(name))
    evaluators.serve(Line(), evaluators.Given(1, 2, None))
    assert steps[0] == "refuse_to_be_read"
    assert steps.count("signal") == len(stopping.SIGNALS)
    done = [each for each in steps[1:] if each != "signal"]
    assert done == [
        "die_with_referee",
        "redirect_output",
        ("send", (outputs.END, None)),
        "recv",
        "leave",
    ]


CHILD = """
import os, signal, sys
from algoperf.trial.bench import Bench
from algoperf.trial.plan import TrialPlan

bench = Bench(TrialPlan.from_json(sys.argv[1]))
bench.start_evaluators()
bench.initialise(1)
bench._processes.wait()
print(bench._processes._each[0]._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_evaluator_outlives_its_referee(plan):
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, plan.to_json()],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(int(ended.stdout))
        assert process.status() == psutil.STATUS_ZOMBIE or process.wait(10) is not None


def run(folder, framework, workload):
    """Return the trial's rows of the command with two devices."""
    name = str(folder / workload) if workload == "spirals" else workload
    out = folder / f"runs_{workload}_{framework}"
    command = [
        *(sys.executable, "-m", "algoperf", "run", "--workload", name, "--seed", "1"),
        *("--submission", str(folder / "still.py"), "--framework", framework),
        *("--max-steps", "2", "--eval-every-steps", "1", "--until", "end"),
        *("--devices", str(DEVICES), "--out", str(out)),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    (trial,) = out.glob("*/*/study_0/*/trial_1")
    assert json.loads((trial / "result.json").read_text())["flags"] == []
    return run_log.evaluations(trial)


KINDS = [
    ("spirals", "jax", [pytest.mark.slow]),
    # A model that writes texts, in buckets of lengths, and packed graphs.
    *((name, framework, [pytest.mark.slow, pytest.mark.exhaustive])
      for name in ("xsum", "ogbg") for framework in ("jax", "pytorch")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("workload", "framework"),
    [pytest.param(*case, marks=marks) for *case, marks in KINDS],
)
def test_a_run_on_two_devices_has_the_metrics_of_one(folder, workload, framework):
    rows = run(folder, framework, workload)
    assert len(rows) == 2
    plan = plan_of(folder, framework, workload)
    assert_rows(rows, on_one_device(plan), 1e-6)


# What one device has of the batches.


@pytest.mark.parametrize("devices", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [1, 4, 10, 13])
def test_each_batch_is_one_devices(rows, devices):
    """Also those of fewer rows than devices, and in buckets."""
    lengths = 1 + np.arange(rows) % 3
    arrays = {
        "inputs": (np.arange(5) < lengths[:, None]).astype(np.int32)
        * (np.arange(rows)[:, None] + 1),
        "targets": np.arange(rows)[:, None] + np.zeros((1, 5), int),
    }
    for buckets in (None, batches.Buckets(arrays, [(1, 5), (3, 5)], 0)):
        whole = list(batches.once(arrays, 3, buckets))
        streams = [
            batches.once(arrays, 3, buckets, turn=(number, devices)) for number in range(devices)
        ]
        again = list(outputs.in_turn(streams))
        assert len(again) == len(whole)
        for batch, expected in zip(again, whole, strict=True):
            assert batch.keys() == expected.keys()
            for name, array in expected.items():
                np.testing.assert_array_equal(batch[name], array)


def test_a_device_out_of_turn_is_seen():
    streams = [iter([1]), iter([2, 4])]
    with pytest.raises(AssertionError, match="a batch whose turn has passed"):
        list(outputs.in_turn(streams))


def test_packed_rows_are_each_counted_once():
    definition = catalogue.find("ogbg")
    data = load_data(definition, definition.scales["mini"], "builtin")
    rows = data.splits["validation"]
    whole = list(batches.once(rows, 300))
    assert len(whole) == 7
    again = list(outputs.in_turn([batches.once(rows, 300, turn=(each, 2)) for each in range(2)]))
    for batch, expected in zip(again, whole, strict=True):
        for name, array in expected.items():
            np.testing.assert_array_equal(batch[name], array)
