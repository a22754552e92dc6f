"""What a trial took: figures worked out by hand, and the count of another call of the system."""

import collections
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest

from algoperf.machine import hardware, nvml, processor_time, resources
from algoperf.trial import assemble

BURN = "import time\nwhile time.process_time() < 0.3: pass"


class FakeNVML:
    """The part of pynvml that is used: millijoules by the handle of a GPU."""

    class NVMLError(Exception):
        pass

    def __init__(self, *millijoules, fails=""):
        self.millijoules = dict(enumerate(millijoules))
        self.fails = fails

    def _call(self, name):
        if name in self.fails:
            raise self.NVMLError("Not Supported")

    def nvmlInit(self):  # noqa: N802
        self._call("init")

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.millijoules)

    def nvmlDeviceGetHandleByIndex(self, number):  # noqa: N802
        return number

    def nvmlDeviceGetHandleByUUID(self, name):  # noqa: N802
        return {"GPU-a": 0, "GPU-b": 1}[name]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        self._call("energy")
        return self.millijoules[handle]


@pytest.fixture
def install(monkeypatch):
    """Puts a fake in pynvml's place; None: it is not installed."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def put(fake):
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return put


def meter(monkeypatch, cpu_s, peak_bytes, device_bytes=None, energy=None):
    """A meter over figures that the test sets: `now.cpu_s`, `now.peak_bytes`."""
    now = SimpleNamespace(cpu_s=cpu_s, peak_bytes=peak_bytes, device_bytes=device_bytes)
    monkeypatch.setattr(processor_time, "total_s", lambda: now.cpu_s)
    monkeypatch.setattr(hardware, "peak_process_memory_bytes", lambda: now.peak_bytes)
    now.busy_s, now.at_s = None, 0.0
    clocks = {"busy_s": lambda: now.busy_s, "now_s": lambda: now.at_s}
    return resources.Meter(lambda: now.device_bytes, energy, **clocks), now


def test_the_figures_of_one_process(monkeypatch, install):
    fake = install(FakeNVML(1_000_000, 500_000))
    counts, now = meter(monkeypatch, 3.0, 100, 7, nvml.EnergyCounter())
    fake.millijoules = {0: 1_250_000, 1: 506_000}  # 250 + 6 joules on
    now.cpu_s = 12.0
    report = counts.report(wall_s=8.0)
    assert report["sources"].pop("device_energy_j") == nvml.ENERGY
    assert report.pop("sources") == {
        "peak_process_bytes": resources.PROCESS_MEMORY,
        "cpu_s": resources.CPU,
        "mean_cores": resources.CORES,
        "peak_device_bytes": resources.DEVICE_MEMORY,
        "other_cpu_s": resources.NO_OTHERS,
        "other_cores": resources.OTHER_CORES,
    }
    assert report == {
        "peak_process_bytes": 100,
        "cpu_s": 12.0,
        "mean_cores": 1.5,
        "peak_device_bytes": 7,
        "device_energy_j": 256.0,
        "other_cpu_s": None,
        "other_cores": None,
        "cores": hardware.thread_count(),
    }


def test_processes_of_a_trial_add_up_and_peaks_do_not(monkeypatch, install):
    fake = install(FakeNVML(2_000))
    counts, now = meter(monkeypatch, 1.0, 300, 40, nvml.EnergyCounter())
    counts.go_on(
        {"peak_process_bytes": 500, "cpu_s": 20.0, "peak_device_bytes": 30, "device_energy_j": 9.0}
    )
    fake.millijoules[0], now.cpu_s = 5_500, 4.0
    expected = {"peak_process_bytes": 500, "cpu_s": 24.0, "peak_device_bytes": 40}
    uncounted = {"other_cpu_s": None, "other_counted_s": None}
    assert counts.totals() == {**expected, "device_energy_j": 12.5, **uncounted}
    assert counts.report(wall_s=48.0)["mean_cores"] == 0.5


def test_what_an_earlier_process_did_not_count_is_not_made_up(monkeypatch):
    counts, _ = meter(monkeypatch, 4.0, 300)
    counts.go_on({"peak_process_bytes": 200})
    report = counts.report(wall_s=10.0)
    assert (report["cpu_s"], report["mean_cores"], report["peak_process_bytes"]) == (
        None,
        None,
        300,
    )
    assert report["sources"]["cpu_s"] == resources.EARLIER


def test_the_work_of_others_is_told_apart_from_the_trials(monkeypatch):
    """Two cores for 10 s: 14 s of work, 5 of them the trial's, leave 9 s, 0.9 of a core."""
    counts, now = meter(monkeypatch, 3.0, 100)
    now.busy_s = 100.0
    counts = resources.Meter(busy_s=lambda: now.busy_s, now_s=lambda: now.at_s)
    now.busy_s, now.cpu_s, now.at_s = 114.0, 8.0, 10.0
    report = counts.report(wall_s=12.0)
    assert (report["other_cpu_s"], report["other_cores"]) == (9.0, 0.9)
    assert report["sources"]["other_cpu_s"] == resources.OTHERS
    assert resources.busy_text({**report, "cores": 2}).startswith(
        "busy machine: other processes used 0.9 of its 2 cores"
    )
    assert resources.busy_text({**report, "cores": 64}) == ""  # a small part of a large machine
    assert resources.busy_text({"cpu_s": 1.0}) == ""  # an older result


def test_the_work_of_others_adds_up_over_the_processes_of_a_trial(monkeypatch):
    counts, now = meter(monkeypatch, 0.0, 100)
    now.busy_s = 0.0
    counts = resources.Meter(busy_s=lambda: now.busy_s, now_s=lambda: now.at_s)
    counts.go_on({**counts.totals(), "other_cpu_s": 4.0, "other_counted_s": 10.0})
    now.busy_s, now.cpu_s, now.at_s = 3.0, 1.0, 10.0
    report = counts.report(wall_s=20.0)
    assert (report["other_cpu_s"], report["other_cores"]) == (6.0, 0.3)
    assert "other_counted_s" not in report
    counts.go_on({"cpu_s": 1.0})  # an earlier process of an older version
    assert counts.report(wall_s=20.0)["other_cores"] is None
    assert counts.report(wall_s=20.0)["sources"]["other_cpu_s"] == resources.EARLIER


def test_the_ticks_of_an_idle_machine_are_not_below_zero(monkeypatch):
    counts, now = meter(monkeypatch, 1.0, 100)
    now.busy_s = 50.0
    counts = resources.Meter(busy_s=lambda: now.busy_s, now_s=lambda: now.at_s)
    now.busy_s, now.cpu_s, now.at_s = 50.99, 2.0, 1.0
    assert counts.report(wall_s=1.0)["other_cpu_s"] == 0.0


def test_the_cores_of_this_process_alone_are_counted(monkeypatch):
    """Of four cores it may use 1 and 3: 10 + 2 + 1 and 20 + 4 + 2 s; a guest's are in 'user'."""
    fields = collections.namedtuple("fields", "user system steal idle iowait guest")
    cores = [fields(900, 0, 0, 0, 0, 0), fields(10, 2, 1, 50, 5, 7)]
    cores += [fields(900, 0, 0, 0, 0, 0), fields(20, 4, 2, 50, 5, 7)]
    monkeypatch.setattr(processor_time.psutil, "cpu_times", lambda percpu: cores)
    monkeypatch.setattr(processor_time.os, "sched_getaffinity", lambda process: {1, 3})
    assert processor_time.busy_s() == 39.0
    monkeypatch.setattr(processor_time.os, "sched_getaffinity", lambda process: {4})
    assert processor_time.busy_s() is None


def test_without_a_device_nothing_is_said_of_one(monkeypatch):
    counts, _ = meter(monkeypatch, 4.0, 300)
    report = counts.report(wall_s=0.0)
    assert report["mean_cores"] is None
    for name in ("peak_device_bytes", "device_energy_j"):
        assert report[name] is None
        assert report["sources"][name] == resources.NO_DEVICE


@pytest.mark.parametrize(
    ("fake", "reason"),
    [
        (None, "nvidia-ml-py is not installed"),
        (FakeNVML(1, fails="init"), "NVML says 'Not Supported'"),
        (FakeNVML(1, fails="energy"), "NVML says 'Not Supported'"),
        (FakeNVML(), "no GPU is visible"),
    ],
)
def test_energy_that_is_not_counted_says_why(install, fake, reason):
    install(fake)
    counter = nvml.EnergyCounter()
    assert counter.joules() is None
    assert counter.source == f"not counted: {reason}"


def test_energy_that_ends_being_counted_says_why(monkeypatch, install):
    fake = install(FakeNVML(1_000))
    counts, _ = meter(monkeypatch, 4.0, 300, 1, nvml.EnergyCounter())
    fake.fails = "energy"
    report = counts.report(wall_s=1.0)
    assert report["device_energy_j"] is None
    assert report["sources"]["device_energy_j"] == "not counted: NVML says 'Not Supported'"


@pytest.mark.parametrize(
    ("visible", "joules"),
    [(None, 0.111), ("1", 0.01), ("2,0", 0.101), ("GPU-b", 0.01), ("1,7,0", 0.01), ("", None)],
)
def test_only_gpus_that_the_process_may_use_are_counted(install, monkeypatch, visible, joules):
    install(FakeNVML(1, 10, 100))
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert nvml.EnergyCounter().joules() == joules


@pytest.mark.parametrize(("free_bytes", "counts"), [(None, False), (8 * 10**9, True)])
def test_only_a_run_on_a_device_looks_for_its_counter(monkeypatch, free_bytes, counts):
    made = []
    counter = SimpleNamespace(joules=lambda: 2.0, source="a fake")
    monkeypatch.setattr(assemble, "EnergyCounter", lambda: made.append(1) or counter)
    backend = SimpleNamespace(
        free_device_memory_bytes=lambda: free_bytes, peak_device_memory_bytes=lambda: 5
    )
    totals = assemble._meter(backend).totals()
    assert len(made) == counts
    assert totals["device_energy_j"] == (0.0 if counts else None)
    assert totals["peak_device_bytes"] == 5


def spent_s():
    """By another of the system's counts, in seconds of user and system time."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, whose))


def test_processor_time_is_that_of_the_process_and_of_its_children():
    before_s, waited_s, system_s = (
        processor_time.total_s(),
        processor_time.waited_for_s(),
        spent_s(),
    )
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert processor_time.waited_for_s() - waited_s >= 0.3 - 0.02  # its ticks
    assert processor_time.total_s() - before_s == pytest.approx(spent_s() - system_s, abs=0.1)


def test_a_child_that_runs_counts_as_well():
    code = f"{BURN}\nprint(flush=True)\ninput()"
    before_s = processor_time.total_s()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
        child.stdout.readline()
        assert processor_time.total_s() - before_s >= 0.3 - 0.02
        child.communicate(b"\n")


def test_a_trial_that_left_no_result():
    report = resources.without_result(2.5)
    assert report["cpu_s"] == 2.5
    assert report["sources"]["cpu_s"] == resources.LAST
    assert report["cores"] == hardware.thread_count()
    others = set(report) - {"cpu_s", "cores", "sources"}
    assert others == {
        *("peak_process_bytes", "peak_device_bytes", "device_energy_j", "mean_cores"),
        *("other_cpu_s", "other_cores"),
    }
    assert all(report[name] is None for name in others)
    assert all(report["sources"][name] == resources.ENDED for name in others)
