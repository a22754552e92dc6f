"""What a submission is seen to do that it should not; our own algorithms are not flagged."""

import subprocess
import sys
import threading
import time

import pytest

from algoperf import processor_time, run_log, trust

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
CHEATS = {
    "a thread that works during evaluation": (
        "threading.Thread(target=spin, args=(3,), name='busy', daemon=True).start()",
        "thread 'busy' worked while the clock stood still",
    ),
    "perf_counter patched": (
        "KEPT['clock'] = time.perf_counter; time.perf_counter = lambda: KEPT['clock']() / 10",
        "time.perf_counter was replaced",
    ),
    "sleep patched": ("time.sleep = lambda seconds: None", "time.sleep was replaced"),
    "the stopwatch patched": (
        "from algoperf import clock; clock.Stopwatch.elapsed_s = property(lambda self: 0.1)",
        "algoperf.clock.Stopwatch.elapsed_s was replaced",
    ),
    "the metric patched": (
        "from workloads import metrics; metrics.accuracy = lambda *arguments: 1.0",
        "workloads.metrics.accuracy was replaced",
    ),
    "evaluation patched": (
        "from algoperf import evaluate; KEPT['it'] = evaluate.evaluate; "
        "evaluate.evaluate = lambda *a: {**KEPT['it'](*a), 'accuracy': 1.0}",
        "algoperf.evaluate.evaluate was replaced",
    ),
    "parameters changed in evaluation": (
        "[threading.Thread(target=change, args=(params,), daemon=True).start()]",
        "the parameters changed while the clock stood still",
    ),
    "a process that trains": (
        "subprocess.Popen([sys.executable, '-c', 'import time\\nend = time.time() + 5\\n"
        "while time.time() < end: sum(range(999))'])",
        "a process that it started worked while the clock stood still",
    ),
}
CHANGE = """
def change(params):
    tensor = next(params.parameters())
    for _ in range(3000):
        with torch.no_grad():
            tensor += 1e-6
        time.sleep(0.001)
"""


def run(folder, source, *more):
    (folder / "cheat.py").write_text(source)
    words = ["--workload", "digits", "--submission", "cheat.py", "--framework", "pytorch"]
    words += ["--max-steps", "4", "--eval-every-steps", "1", "--out", "runs", *more]
    return subprocess.run(
        [sys.executable, "-P", "-m", "algoperf", "run", *words],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def result(folder, trial=1):
    return run_log.read_result(
        folder / f"runs/mini-builtin/cheat/study_0/digits_pytorch/trial_{trial}"
    )


def source(at_step):
    body = f"\ndef at_step(workload, params, step):\n    if step == 0:\n        {at_step}\n"
    return HEAD + CHANGE + FULL + body


@pytest.mark.slow
@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_is_flagged_and_shown(name, tmp_path):
    at_step, expected = CHEATS[name]
    # A thread may get little of one evaluation, when the machine is busy: many are looked at.
    done = run(tmp_path, source(at_step), "--max-steps", "20")
    assert done.returncode == 0, done.stderr
    assert expected in result(tmp_path)["flags"]
    assert f"flagged: {expected}" in done.stdout


@pytest.mark.slow
def test_what_is_prevented(tmp_path):
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
    done = run(tmp_path, HEAD + FULL + body, "--studies", "1", "--trials", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(tmp_path, 1)["flags"] == result(tmp_path, 2)["flags"] == []


def test_a_reference_algorithm_is_not_flagged(tmp_path):
    done = run(tmp_path, HEAD + "del update, spin, KEPT\n")
    assert done.returncode == 0, done.stderr
    assert result(tmp_path)["flags"] == []
    assert "flagged" not in done.stdout


# The guard by itself


def test_a_thread_of_ours_is_no_flag_and_one_that_sleeps_neither():
    guard = trust.Guard()
    stop = threading.Event()

    def work():
        while not stop.is_set():
            sum(range(1000))

    ours = threading.Thread(target=work, name="ours")
    processor_time.own_threads.add(ours)
    idle = threading.Thread(target=stop.wait, name="idle")
    for thread in (ours, idle):
        thread.start()
    try:
        with guard.untimed(lambda: None):
            time.sleep(0.2)
        assert guard.flags == []
        theirs = threading.Thread(target=work, name="theirs")
        theirs.start()
        with guard.untimed(lambda: None):
            time.sleep(0.5)
        assert guard.flags == ["thread 'theirs' worked while the clock stood still"]
    finally:
        stop.set()


def test_short_evaluations_count_together(monkeypatch):
    """4 ms in each of three is 12 ms, more than noise; but of 1.5 s it is too little to matter."""
    now_s, worked_s = [0.0], [0.0]
    for evaluation_s, is_flagged in ((0.006, True), (0.5, False)):
        guard = trust.Guard(monotonic=lambda: now_s[0])
        monkeypatch.setattr(guard, "_busy", lambda: {"thread 'theirs'": worked_s[0]})
        seen = []
        for _ in range(3):
            worked_s[0] += 1.0  # between evaluations it may
            with guard.untimed(lambda: None):
                now_s[0] += evaluation_s
                worked_s[0] += 0.004
            seen.append(bool(guard.flags))
        assert seen == [False, False, is_flagged]


def test_what_was_replaced_is_said_once(monkeypatch):
    from workloads import metrics

    guard = trust.Guard()
    monkeypatch.setattr(metrics, "accuracy", lambda *arguments: 1.0)
    guard.look()
    guard.look()
    assert guard.flags == ["workloads.metrics.accuracy was replaced"]
