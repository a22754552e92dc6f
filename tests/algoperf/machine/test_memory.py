"""Is there memory enough, and what ended a process: the kernel's files, made by hand."""

import resource
from types import SimpleNamespace

import psutil
import pytest

from algoperf import spec
from algoperf.machine import memory, supervision

GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that makes a root folder of files; the machine has 8 GB available."""
    available = SimpleNamespace(available=8 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)

    def make(groups, files):
        for path, text in {"proc/self/cgroup": groups, **files}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return tmp_path

    return make


V2 = "0::/user/run\n"
V1 = "4:memory:/docker/1\n3:cpu:/docker/1\n"


@pytest.mark.parametrize(
    ("groups", "files", "available"),
    [
        ("", {}, 8 * GB),
        (V2, {"sys/fs/cgroup/user/run/memory.max": "max"}, 8 * GB),
        (
            V2,  # the limit is of the group around it
            {
                "sys/fs/cgroup/user/run/memory.max": "max",
                "sys/fs/cgroup/user/run/memory.current": f"{GB}",
                "sys/fs/cgroup/user/memory.max": f"{4 * GB}",
                "sys/fs/cgroup/user/memory.current": f"{3 * GB}",
                "sys/fs/cgroup/user/memory.stat": f"anon 5\ninactive_file {GB // 2}\n",
            },
            1_500_000_000,
        ),
        (
            V1,  # seen from inside the container
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GB}",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{5 * GB // 2}",
            },
            0,
        ),
    ],
)
def test_what_is_available(machine, groups, files, available):
    assert memory.available_bytes(machine(groups, files)) == available


def test_a_limit_of_the_process_counts(machine, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (GB, GB))
    own = SimpleNamespace(memory_info=lambda: SimpleNamespace(vms=GB // 4))
    monkeypatch.setattr(psutil, "Process", lambda: own)
    assert memory.available_bytes(machine("", {})) == 750_000_000


@pytest.mark.parametrize(
    ("groups", "files", "kills"),
    [
        ("", {}, None),
        (V2, {"sys/fs/cgroup/user/run/memory.events": "oom 9\noom_kill 3\n"}, 3),
        (V1, {"sys/fs/cgroup/memory/docker/1/memory.oom_control": "oom_kill 2\n"}, 2),
        (V2, {"sys/fs/cgroup/memory.max": "max"}, None),
    ],
)
def test_the_kernel_s_count(machine, groups, files, kills):
    assert memory.oom_kills(machine(groups, files)) == kills


@pytest.mark.parametrize(
    ("oom_killed", "said"),
    [
        (True, "was ended by SIGKILL; the system ran out of memory (OOM kill)"),
        (False, "was ended by SIGKILL; not for want of memory, by the kernel's count"),
        (None, "was ended by SIGKILL; often the system's answer to memory that ran out"),
    ],
)
def test_a_kill_for_want_of_memory_is_told_from_others(oom_killed, said):
    found = supervision.cause_of_death(-9, oom_killed)
    assert found == {
        "cause": f"the trial's process {said}",
        "outside": True,
        "oom_kill": oom_killed,
    }


def test_the_need_is_counted(monkeypatch):
    shapes = {"a": {"b": spec.ShapeTuple((20, 30))}, "c": spec.ShapeTuple(())}
    assert memory.count(shapes) == 601
    monkeypatch.setattr(memory, "available_bytes", lambda: 28 * 10**9 - 1)
    found, warning = memory.check(10**9, checkpoints=True, free_device_bytes=None)
    assert found["needed_bytes"] == 28 * 10**9  # 4 bytes of each: 4 to train, 3 to copy
    assert found["available_bytes"] == 28 * 10**9 - 1
    assert warning == (
        "memory may not suffice: at least 28.00 GB for 1,000,000,000 parameters, 28.00 GB available"
    )
    found, warning = memory.check(10**9, checkpoints=False, free_device_bytes=None)
    assert (found["needed_bytes"], warning) == (16 * 10**9, None)


def test_a_device_that_evaluates_has_a_copy(monkeypatch):
    """Of two further devices: in the host's memory one each, with what is frozen; of accelerators
    one on each, and in the host's memory the one that theirs are copied from.
    """
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**12)
    settings = {"checkpoints": False, "frozen": 10**8, "has_referee": True, "evaluators": 2}
    found, _ = memory.check(10**9, free_device_bytes=None, **settings)
    assert found["needed_bytes"] == 29_200_000_000  # and 4 to hand over
    found, _ = memory.check(10**9, free_device_bytes=None, evaluators_share=True, **settings)
    assert found["needed_bytes"] == 25_200_000_000  # 4 less: they have one together
    found, _ = memory.check(10**9, free_device_bytes=10**12, **settings)
    assert found["needed_bytes"] == 8_000_000_000
    assert found["needed_device_bytes"] == 20_800_000_000  # 16 to train, .4 frozen, 4.4 to evaluate


def test_the_need_of_a_device(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 12 * 10**9)
    found, warning = memory.check(10**9, checkpoints=True, free_device_bytes=15 * 10**9)
    assert (found["needed_bytes"], found["needed_device_bytes"]) == (12 * 10**9, 16 * 10**9)
    assert warning == (
        "the device's memory may not suffice: at least 16.00 GB for 1,000,000,000 parameters, "
        "15.00 GB available"
    )


@pytest.mark.parametrize(
    ("shard", "training_gb", "checkpoint_gb"),
    [
        (None, 32, 24),  # two processes with 4 copies of 4 bytes, and 3 to save
        ("optimizer", 24, 16),  # parameter and gradient in both, one of two moments in each
        ("parameters", 16, 12),  # what one process would need
    ],
)
def test_what_processes_divide_is_needed_once(shard, training_gb, checkpoint_gb, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**12)
    both = {"free_device_bytes": None, "processes": 2, "shard": shard}
    needed = [
        memory.check(10**9, checkpoints=checkpoints, **both)[0]["needed_bytes"]
        for checkpoints in (False, True)
    ]
    assert needed == [training_gb * 10**9, (training_gb + checkpoint_gb) * 10**9]
    device, _ = memory.check(
        10**9, checkpoints=False, free_device_bytes=10**12, processes=2, shard=shard
    )
    assert device["needed_device_bytes"] == training_gb * 10**9 // 2
