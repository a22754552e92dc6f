"""What the guard of a trial sees by itself; test_cheats.py has whole submissions."""

import operator
import subprocess
import sys
import threading
import time
import types

import pytest

from algoperf.machine import processor_time
from algoperf.trial import trust


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


def spin_for(cpu_s):
    while time.thread_time() < cpu_s:
        sum(range(1000))


def guard_without_time():
    """Of which any processor time above the noise is too much."""
    return trust.Guard(monotonic=lambda: 0.0)


def test_a_thread_that_ends_before_the_evaluation_does_is_seen():
    guard = guard_without_time()
    with guard.untimed(lambda: None):
        thread = threading.Thread(target=spin_for, args=(0.05,), name="short")
        thread.start()
        thread.join()
    assert guard.flags == ["thread 'short' worked while the clock stood still"]


def test_many_short_threads_count_together_and_those_before_do_not():
    guard = guard_without_time()

    def run_some(count):
        for _ in range(count):
            thread = threading.Thread(target=spin_for, args=(0.004,), name="one of many")
            thread.start()
            thread.join()

    run_some(20)
    with guard.untimed(lambda: None):
        pass
    assert guard.flags == []
    with guard.untimed(lambda: None):
        run_some(20)
    assert guard.flags == ["thread 'one of many' worked while the clock stood still"]


def test_a_thread_that_goes_on_from_before_counts_what_it_does_in_the_evaluation():
    guard, ready, go = guard_without_time(), threading.Event(), threading.Event()

    def work():
        spin_for(0.05)
        ready.set()
        go.wait()
        spin_for(0.08)  # in all

    thread = threading.Thread(target=work, name="long")
    thread.start()
    ready.wait()
    with guard.untimed(lambda: None):
        pass
    assert guard.flags == []
    with guard.untimed(lambda: None):
        go.set()
        thread.join()
    assert guard._worked_s["thread 'long'"] < 0.05  # not what it did before
    assert guard.flags == ["thread 'long' worked while the clock stood still"]


def test_a_process_that_ends_before_the_evaluation_does_is_seen():
    guard = guard_without_time()
    code = "import time\nwhile time.process_time() < 0.05: pass"
    with guard.untimed(lambda: None):
        subprocess.run([sys.executable, "-S", "-c", code], check=True)
    assert guard.flags == ["a process that it started worked while the clock stood still"]


def test_watching_twice_wraps_once():
    processor_time.watch()
    wrapped = threading.Thread._bootstrap_inner
    processor_time.watch()
    assert threading.Thread._bootstrap_inner is wrapped


REPLACED = (
    "time.sleep",
    "time.perf_counter",
    "threading.enumerate",
    "workloads.metrics.accuracy.Accuracy",
    "workloads.metrics.accuracy.Accuracy.add",
    "workloads.metrics.perplexity.perplexity",
    "algoperf.workload.metric.StreamedSum.finish",
    "algoperf.trial.clock.Stopwatch.elapsed_s",
    "algoperf.trial.evaluate.accumulate",
    "algoperf.data.batches.TrainingQueue.__next__",
)


@pytest.mark.parametrize("name", REPLACED)
def test_what_was_replaced_is_said_once(monkeypatch, name):
    from algoperf.trial import evaluate  # noqa: F401
    from algoperf.workload import catalogue

    for workload in ("digits", "lm"):
        catalogue.find(workload)
    guard = trust.Guard()
    parts = name.split(".")
    module = next(
        ".".join(parts[:count]) for count in (3, 2, 1) if ".".join(parts[:count]) in sys.modules
    )
    *path, last = name.removeprefix(f"{module}.").split(".")
    holder = operator.attrgetter(".".join(path))(sys.modules[module]) if path else None
    original = getattr(holder or sys.modules[module], last)

    def other(*arguments):
        return original(*arguments)

    monkeypatch.setattr(holder or sys.modules[module], last, other)
    guard.look()
    guard.look()
    monkeypatch.undo()
    assert guard.flags == [f"{name} was replaced"]


def test_a_workload_s_own_package_is_watched(monkeypatch):
    module = types.ModuleType("outside.metrics")
    exec("class Own:\n    def finish(self):\n        return 0.0\n", vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "outsider", types.ModuleType("outsider"))
    sys.modules["outsider"].helper = len
    guard = trust.Guard(packages=(*trust.PACKAGES, "outside"))
    module.Own.finish = lambda self: 1.0
    sys.modules["outsider"].helper = max
    guard.look()
    assert guard.flags == ["outside.metrics.Own.finish was replaced"]
