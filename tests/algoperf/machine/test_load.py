"""What others' work adds to a clock: sums worked out by hand, and real waits and stops."""

import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from algoperf.machine import load, processor_time

ZERO = dict.fromkeys([name for name in load.SOURCES if name != "clock_s"], 0.0)


@pytest.fixture
def counting():
    """A load over counts that the test sets in `now`, and a stretch of the clock."""
    now = SimpleNamespace(clock_s=0.0, counts=dict(ZERO))
    clock_load = load.Load(lambda: dict(now.counts))

    def stretch(clock_s, **counts):
        with clock_load.timed(lambda: now.clock_s):
            now.clock_s += clock_s
            for name, value in counts.items():
                now.counts[name] = None if value is None else now.counts[name] + value

    return clock_load, stretch, now


def test_only_what_happens_while_the_clock_runs_is_counted(counting):
    clock_load, stretch, now = counting
    stretch(2.0, waited_s=0.5, other_cpu_s=3.0, cpu_s=1.5)
    now.counts["waited_s"] += 40.0  # an evaluation
    stretch(1.0, waited_s=0.25, cpu_s=0.5, involuntary_switches=7.0)
    report = clock_load.report()
    assert (report["clock_s"], report["waited_s"], report["cpu_s"]) == (3.0, 0.75, 2.0)
    assert (report["other_cpu_s"], report["involuntary_switches"]) == (3.0, 7.0)
    assert (report["lost_s"], report["lost_share"]) == (0.75, 0.25)
    assert load.is_contended(report) is True


def test_each_evaluation_ends_a_segment_and_a_later_process_goes_on(counting):
    clock_load, stretch, _ = counting
    stretch(1.0, waited_s=0.5)
    clock_load.close(10)
    stretch(2.0, waited_s=1.0)  # a checkpoint interrupts this one
    again = load.Load(dict)
    again.go_on(clock_load.totals())
    with again.timed(lambda: 0.0):
        pass
    again.close(30)
    segments = [
        (each["step"], each["clock_s"], each["waited_s"]) for each in again.report()["segments"]
    ]
    assert segments[0] == (10, 1.0, 0.5)
    assert segments[1][:2] == (30, 2.0)
    whole = clock_load.report()
    assert [each["step"] for each in whole["segments"]] == [10, None]
    assert (whole["clock_s"], whole["waited_s"]) == (3.0, 1.5)
    again.go_on({})  # what an older version left
    assert again.report()["clock_s"] == 2.0 + 1.0


@pytest.mark.parametrize(
    ("counts", "lost_s", "share", "contended"),
    [
        # Its own threads waited for one another: nobody else used a core.
        ({"waited_s": 5.0, "other_cpu_s": 0.2}, 0.2, 0.02, False),
        # Others worked on a core that it did not want.
        ({"waited_s": 0.1, "other_cpu_s": 9.0}, 0.1, 0.01, False),
        ({"waited_s": 0.6, "other_cpu_s": 9.0}, 0.6, 0.06, True),
        # Eight threads on eight cores, 80 s of work: 2 s more are 2.5 % more.
        ({"waited_s": 2.0, "other_cpu_s": 9.0, "cpu_s": 80.0}, 2.0, 0.025, False),
        ({"stopped_s": 4.0}, 4.0, 0.4, True),
        ({"waited_s": 0.3, "other_cpu_s": 9.0, "stopped_s": 0.3}, 0.6, 0.06, True),
        ({"other_cpu_s": -0.02, "waited_s": 0.1}, 0.0, 0.0, False),  # ticks
        ({"waited_s": None, "other_cpu_s": 9.0}, None, None, None),
        ({"waited_s": None, "stopped_s": 4.0}, 4.0, 0.4, True),
        ({"stopped_s": None}, 0.0, 0.0, False),
    ],
)
def test_what_is_lost_to_others(counting, counts, lost_s, share, contended):
    clock_load, stretch, _ = counting
    stretch(10.0, **counts)
    report = clock_load.report()
    assert report["lost_s"] == pytest.approx(lost_s)
    assert report["lost_share"] == pytest.approx(share)
    assert load.is_contended(report) is contended


def test_ticks_of_a_very_short_clock_do_not_count(counting):
    clock_load, stretch, _ = counting
    stretch(0.2, waited_s=0.04, other_cpu_s=0.04)
    assert load.is_contended(clock_load.report()) is False
    stretch(0.1, waited_s=0.04, other_cpu_s=0.04)
    assert load.is_contended(clock_load.report()) is True


def test_no_step_means_that_nothing_is_known(counting):
    clock_load, _, _ = counting
    report = clock_load.report()
    assert load.is_contended(report) is None
    assert load.text({"load": report}) == ""


def test_what_is_said_of_a_trial(counting):
    clock_load, stretch, _ = counting
    stretch(10.0, waited_s=2.0, other_cpu_s=5.0, stopped_s=3.0)
    assert load.text({"load": clock_load.report()}) == (
        "contended: its threads waited 2.0 s for cores that other processes used and it was "
        "stopped for 3.0 s, 50% of its clock of 10.0 s (docs/resources.md)"
    )
    busy = {"other_cores": 1.5, "cores": 2}
    older = load.text({"resources": busy})
    assert older.startswith("busy machine: other processes used 1.5 of its 2 cores")
    counted, stretch, _ = load.Load(lambda: dict(ZERO)), None, None
    with counted.timed(iter([0.0, 5.0]).__next__):
        pass
    assert load.text({"load": counted.report(), "resources": busy}) == ""  # it did not wait


def write_task(folder, name, run_ns, delay_ns):
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "schedstat").write_text(f"{run_ns} {delay_ns} 3\n")


def test_waiting_is_summed_over_threads_also_those_that_ended(tmp_path):
    waiting = load.WaitingTime(tmp_path)
    assert waiting.total_s() is None
    write_task(tmp_path, "7", 0, 0)  # as a kernel writes that does not count
    assert waiting.total_s() is None
    write_task(tmp_path, "7", 5, 2_000_000_000)
    write_task(tmp_path, "8", 5, 500_000_000)
    assert waiting.total_s() == 2.5
    (tmp_path / "8" / "schedstat").unlink()
    write_task(tmp_path, "9", 1, 250_000_000)
    assert waiting.total_s() == 2.75
    write_task(tmp_path, "9", 1, 100_000_000)  # another thread has the number now
    assert waiting.total_s() == 2.85
    assert processor_time.schedstat_ns(tmp_path / "9") == (1, 100_000_000)


@pytest.mark.parametrize(
    ("late_s", "switches", "delay_s", "expected"),
    [
        (4.0, 2, 0.0, 4.0),
        (4.0, 800, 0.0, 0.0),  # it waited for Python's lock
        (4.0, 2, 3.5, 0.5),  # and for a core
        (4.0, 2, 3.9, 0.0),
        (4.0, 2, 5.0, 0.0),
        (0.2, 2, 0.0, 0.0),
    ],
)
def test_a_late_beat_is_a_stop_only_where_nothing_else_explains_it(
    late_s, switches, delay_s, expected
):
    assert load.stopped_s(late_s, switches, delay_s) == expected


HOLDS_THE_LOCK = """
import ctypes, sys, time
from algoperf.machine import load

libc = ctypes.PyDLL(None)  # its calls keep Python's lock
with load.Gauges() as gauges:
    time.sleep(0.3)
    libc.usleep(900_000)
    held = gauges.read()["stopped_s"]
    print("ready", flush=True)
    sys.stdin.readline()
    now = gauges.read()
print(held, now["stopped_s"], now["waited_s"] is not None)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP") or sys.platform != "linux", reason="Linux")
def test_a_stopped_process_knows_for_how_long_and_pythons_lock_is_no_stop():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDS_THE_LOCK], **pipes) as child:
        assert child.stdout.readline() == "ready\n"
        os.kill(child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        stopped_at_s = time.perf_counter()
        time.sleep(1.2)
        os.kill(child.pid, signal.SIGCONT)
        least_s = time.perf_counter() - stopped_at_s
        held, stopped, has_waited = child.communicate("\n")[0].split()
    assert float(held) == 0.0
    assert least_s - load.PERIOD_S - 0.01 <= float(stopped)
    assert has_waited == "True"


def test_the_gauges_leave_no_thread_behind():
    before = set(threading.enumerate())
    gauges = load.Gauges()
    assert gauges.read()["stopped_s"] is None  # nobody watches yet
    with gauges:
        assert gauges.read()["stopped_s"] == 0.0
        (beat,) = set(threading.enumerate()) - before
        assert beat in processor_time.own_threads
    beat.join(5)
    assert not beat.is_alive()


def test_stops_of_another_process_count_while_its_clock_runs():
    """It is stopped for .6 s, while the clock runs and while it does not; seen by the tenth."""
    child = subprocess.Popen([sys.executable, "-c", "while True: sum(range(1000))"])
    gauges = load.GaugesOfAnother(child.pid)
    counted = {}
    try:
        with gauges:
            for clock_runs in (True, False):
                gauges.clock_runs = clock_runs
                before = gauges.read()["stopped_s"]
                child.send_signal(signal.SIGSTOP)
                time.sleep(0.6)
                counted[clock_runs] = gauges.read()["stopped_s"] - before
                child.send_signal(signal.SIGCONT)
            time.sleep(0.3)
            spent = gauges.read()
    finally:
        child.kill()
        child.wait()
    assert 0.3 <= counted[True] <= 0.9
    assert counted[False] == 0.0
    assert spent["cpu_s"] > 0
    assert spent["waited_s"] is None or spent["waited_s"] >= 0
    assert gauges.read()["cpu_s"] is None  # it has ended
