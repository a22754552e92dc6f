"""The environment that a trial's process gets."""

import pytest

from algoperf.machine import hardware

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
