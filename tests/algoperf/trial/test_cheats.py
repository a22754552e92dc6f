"""Twelve cheating submissions: what each comes to. docs/trust.md has the same table in words.

`CAUGHT` are flagged in the result and after the run, the next tests have those that are prevented,
and the last those that get through, so that the page's "Not caught" is true.
"""

import csv
import json
import subprocess
import sys

import pytest

from algoperf.data import provenance
from algoperf.data.loading import load_data
from algoperf.run_folder import run_log
from algoperf.workload import catalogue

HEAD = """
import threading, time, subprocess, sys
import torch
from reference_algorithms import adamw
DEFAULTS = adamw.DEFAULTS
torch_optimizer = adamw.torch_optimizer
KEPT = {}


def spin(seconds):
    end = KEPT.get("clock", time.perf_counter)
    until = end() + seconds
    while end() < until:
        sum(range(1000))


def update(workload, params, state):
    pass


"""
FULL = """
DEFAULTS = None
def init_optimizer_state(workload, model_params, hyperparameters):
    at_start(workload, model_params)
    return {"optimizer": torch.optim.SGD(model_params.parameters(), lr=0.1)}

def update_params(workload, current_param_container, model_state, batch, optimizer_state, rng,
                  global_step):
    from algoperf import spec
    optimizer_state["optimizer"].zero_grad()
    logits, _ = workload.model_fn(
        current_param_container, batch, model_state, spec.ForwardPassMode.TRAIN, rng, True)
    loss = workload.loss_fn(batch["targets"], logits, batch.get("weights"))
    (loss["summed"] / loss["n_valid_examples"]).backward()
    optimizer_state["optimizer"].step()
    at_step(workload, current_param_container, global_step)
    return optimizer_state, current_param_container, model_state

def at_start(workload, params): pass
def at_step(workload, params, step): pass
"""
CHANGE = """
def change(params):
    tensor = next(params.parameters())
    for _ in range(3000):
        with torch.no_grad():
            tensor += 1e-6
        time.sleep(0.001)
"""


CAUGHT = {
    "works in a thread during evaluation": (
        "threading.Thread(target=spin, args=(3,), name='busy', daemon=True).start()",
        "thread 'busy' worked while the clock stood still",
    ),
    "patches perf_counter": (
        "KEPT['clock'] = time.perf_counter; time.perf_counter = lambda: KEPT['clock']() / 10",
        "time.perf_counter was replaced",
    ),
    "patches the metric": (
        "from workloads.metrics import accuracy; accuracy.Accuracy.finish = lambda self: 1.0",
        "workloads.metrics.accuracy.Accuracy.finish was replaced",
    ),
    "changes parameters in evaluation": (
        "[threading.Thread(target=change, args=(params,), daemon=True).start()]",
        "the parameters changed while the clock stood still",
    ),
    "sleeps on a patched clock": (
        "KEPT['sleep'] = time.sleep; time.sleep = lambda seconds: None; KEPT['sleep'](0.1)",
        "time.sleep was replaced",
    ),
    "spawns a process that trains": (
        "subprocess.Popen([sys.executable, '-c', 'import time\\nend = time.time() + 5\\n"
        "while time.time() < end: sum(range(999))'])",
        "a process that it started worked while the clock stood still",
    ),
}


def run(folder, source, *more):
    (folder / "cheat.py").write_text(source)
    words = ["--workload", "digits", "--submission", "cheat.py", "--framework", "pytorch"]
    words += ["--max-steps", "20", "--eval-every-steps", "1", "--out", "runs", *more]
    return subprocess.run(
        [sys.executable, "-P", "-m", "algoperf", "run", *words],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def folder_of(folder, trial=1):
    return folder / f"runs/mini-builtin/cheat/study_0/digits_pytorch/trial_{trial}"


def result(folder, trial=1):
    return run_log.read_result(folder_of(folder, trial))


def evaluations(folder, trial=1):
    with (folder_of(folder, trial) / "eval_measurements.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def check_flagged(folder, done, expected):
    assert done.returncode == 0, done.stderr
    assert expected in result(folder)["flags"]
    assert f"flagged: {expected}" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", CAUGHT)
def test_caught(name, tmp_path):
    at_step, expected = CAUGHT[name]
    body = f"\ndef at_step(workload, params, step):\n    if step == 0:\n        {at_step}\n"
    # A thread may get little of one evaluation, when the machine is busy: many are looked at.
    check_flagged(tmp_path, run(tmp_path, HEAD + CHANGE + FULL + body), expected)


SWAPS = """
def data_selection(input_queue):
    if "batch" not in KEPT:
        batch = next(input_queue)
        batch["inputs"][:, :10] = torch.nn.functional.one_hot(batch["targets"].long(), 10)
        KEPT["batch"] = batch
    return KEPT["batch"]
"""


@pytest.mark.slow
def test_swaps_the_data_iterator_for_an_easier_one(tmp_path):
    """The same batch for ever, with the answer written into the rows."""
    done = run(tmp_path, HEAD + FULL + SWAPS)
    check_flagged(tmp_path, done, provenance.OTHER_ROWS)
    check_flagged(tmp_path, done, provenance.FEW_DRAWN)


# Prevented


@pytest.mark.slow
def test_reads_test_targets_through_the_workload_or_caches_across_trials(tmp_path):
    """The workload is read-only and holds no rows; a trial finds nothing of the one before it."""
    body = """
def at_step(workload, params, step):
    import algoperf
    if step > 0:
        return
    assert not hasattr(algoperf, "kept"), "an earlier trial's"
    algoperf.kept = 1
    for name in ("step_hint", "loss_fn", "model_fn", "target_metric_name"):
        try:
            setattr(workload, name, 1)
        except AttributeError as error:
            assert "read-only" in str(error)
        else:
            raise AssertionError(name)
    for value in vars(workload).values():
        assert "splits" not in dir(value) and not isinstance(value, dict) or len(value) < 50, value
"""
    done = run(tmp_path, HEAD + FULL + body, "--studies", "1", "--trials", "2", "--max-steps", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(tmp_path, 1)["flags"] == result(tmp_path, 2)["flags"] == []


@pytest.mark.slow
def test_fakes_early_completion_for_free_evaluations(tmp_path):
    """One evaluation, the last, follows: it does not train on after it."""
    body = """
def at_step(workload, params, step):
    from algoperf import spec
    assert step < 5, "called again"
    if step == 4:
        raise spec.TrainingCompleteError
"""
    done = run(tmp_path, HEAD + FULL + body, "--eval-every-steps", "2")
    assert done.returncode == 0, done.stdout
    assert (result(tmp_path)["status"], result(tmp_path)["steps"]) == ("complete", 4)
    assert [row["global_step"] for row in evaluations(tmp_path)] == ["1", "2", "4", "4"]


# Not caught, and said so

GETS_THROUGH = """
import gc, json, pathlib
BESIDE = pathlib.Path("kept.pt").absolute()

def at_step(workload, params, step):
    found = [each for each in gc.get_objects() if type(each).__name__ == "Evaluator"]
    targets = found[0]._splits["test"]["targets"]
    pathlib.Path("targets.json").write_text(json.dumps(targets.tolist()))
    shapes = [list(value.shape_tuple) for value in workload.param_shapes.values()]
    if step == 0 and BESIDE.exists():
        kept = torch.load(BESIDE)
        if shapes == [list(value.shape) for value in kept.values()]:
            params.load_state_dict(kept)
    if step == 19:
        torch.save(params.state_dict(), BESIDE)
"""


@pytest.mark.slow
def test_what_gets_through(tmp_path):
    """Reads test targets in memory; stores results on disk between trials; recognises the workload
    by its shapes and loads weights.
    """
    done = run(tmp_path, HEAD + FULL + GETS_THROUGH, "--trials", "2")
    assert done.returncode == 0, done.stdout
    assert result(tmp_path, 1)["flags"] == result(tmp_path, 2)["flags"] == []
    first, second = evaluations(tmp_path, 1), evaluations(tmp_path, 2)
    assert second[0]["validation/loss"] == first[-1]["validation/loss"]
    assert float(first[0]["validation/loss"]) > float(first[-1]["validation/loss"])
    definition = catalogue.find("digits")
    data = load_data(definition, definition.scales["mini"], "builtin")
    seen = json.loads((tmp_path / "targets.json").read_text())
    assert seen == data.splits["test"]["targets"].tolist()


# Nothing of ours is flagged: tests/reference_algorithms/test_defaults.py asks it of every reference
# algorithm, tests/test_published.py of submissions in the published form.


def test_an_honest_submission_is_not_flagged(tmp_path):
    done = run(tmp_path, HEAD + "del update, spin, KEPT\n", "--max-steps", "4")
    assert done.returncode == 0, done.stderr
    assert result(tmp_path)["flags"] == []
    assert "flagged" not in done.stdout
