"""The environment that a trial's process gets."""

import pytest

from algoperf.errors import UserError
from algoperf.machine import hardware, own_code

NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")


@pytest.mark.parametrize(
    ("given", "threads"),
    [
        ({}, "3"),
        ({"OMP_NUM_THREADS": "1"}, "1"),  # MKL's own, were it 3, would win in PyTorch
        ({"MKL_NUM_THREADS": "2"}, "2"),
        ({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "2"}, "1"),
        ({"OMP_NUM_THREADS": ""}, "3"),
    ],
)
def test_threads_that_a_user_pins_in_one_library_are_those_of_all(monkeypatch, given, threads):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(hardware, "thread_count", lambda: 3)
    assert hardware.thread_environment() == dict.fromkeys(NAMES, threads)


def test_threads_that_are_asked_for_win(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert hardware.thread_environment(4) == dict.fromkeys(NAMES, "4")


@pytest.fixture
def cores(monkeypatch):
    """Three cores, 0 to 2, of which 1 is the least busy; what the process may use."""
    allowed = [{0, 1, 2}]
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda process: allowed[-1])
    monkeypatch.setattr(
        hardware.os, "sched_setaffinity", lambda process, given: allowed.append(set(given))
    )
    monkeypatch.setattr(hardware.psutil, "cpu_percent", lambda seconds, percpu: [90.0, 10.0, 50.0])
    return allowed


def test_the_least_busy_cores_are_taken_and_given_back(cores):
    with hardware.limited_to(2):
        assert (cores[-1], hardware.thread_count()) == ({1, 2}, 2)
    assert cores[-1] == {0, 1, 2}
    with pytest.raises(KeyError), hardware.limited_to(1):
        raise KeyError
    assert cores[-1] == {0, 1, 2}
    count = len(cores)
    with hardware.limited_to(None):
        assert len(cores) == count


def test_more_threads_than_cores(cores, monkeypatch):
    with pytest.raises(UserError, match="--threads 4: this process may use only 3 cores"):
        hardware.check_threads(4)
    monkeypatch.delattr(hardware.os, "sched_setaffinity")
    with pytest.raises(UserError, match="gives a process no cores of its own"):
        hardware.check_threads(1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "10000"}),
        ({"GOMP_SPINCOUNT": ""}, {"GOMP_SPINCOUNT": "10000"}),
        ({"GOMP_SPINCOUNT": "7"}, {}),
        ({"OMP_WAIT_POLICY": "active"}, {}),
    ],
)
def test_threads_spin_as_long_as_the_user_says_or_not_for_long(monkeypatch, given, expected):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert hardware.waiting_environment() == expected


@pytest.mark.parametrize("before", [None, "/a"])
def test_a_process_finds_the_library_that_is_on_this_ones_path_alone(monkeypatch, before):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONPATH", before)
    with own_code.importable():
        parts = hardware.os.environ["PYTHONPATH"].split(hardware.os.pathsep)
        assert parts == [*filter(None, [before]), str(own_code.PACKAGE.parent)]
    assert hardware.os.environ.get("PYTHONPATH") == before
