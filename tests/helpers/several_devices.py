"""Trains a few steps on several devices, each process one of `train_together.py`, and compares what
they got with what one device got.
"""

import copy
import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from algoperf import backends

CHILD = Path(__file__).with_name("train_together.py")
STEPS = 20


def train_together(
    tmp_path,
    framework,
    devices,
    names,
    submissions=("nesterov",),
    steps=STEPS,
    shard="none",
    processes=1,
):
    """Return the arrays of each submission and workload as so many devices have trained it; of
    one submission by the workload alone. JAX's devices are those of so many processes.
    """
    out = tmp_path / f"{framework}_{devices}_{processes}_{shard}"
    out.mkdir(parents=True)
    arrays = trained_in(out, framework, devices, names, submissions, steps, shard, processes)
    return {key.removeprefix("nesterov-"): value for key, value in arrays.items()}


def trained_in(out, framework, devices, names, submissions, steps, shard="none", processes=1):
    """Return the arrays of each submission and workload, trained in a folder that may have what the
    trial goes on from.
    """
    with tempfile.TemporaryDirectory() as short:  # A socket's path has at most 107 bytes.
        words = [str(devices), str(processes), shard, str(Path(short) / "meeting"), str(out)]
        words += [str(steps), ",".join(submissions), *names]
        children = [
            subprocess.Popen(
                [sys.executable, str(CHILD), framework, str(rank), *words],
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(backends.world_size(framework, devices, processes))
        ]
        errors = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0] * len(children), errors
    arrays = {file.stem: dict(np.load(file)) for file in out.glob("*.npz")}
    assert len(arrays) == len(submissions) * len(names)
    return arrays


@functools.cache
def _of_one_device(framework, names, submissions):
    with tempfile.TemporaryDirectory() as folder:
        return train_together(Path(folder), framework, 1, names, submissions)


def of_one_device(framework, names, submissions=("nesterov",)):
    """Return what one device trains, copies of it; trained once for all tests that ask alike."""
    return copy.deepcopy(_of_one_device(framework, names, submissions))


def apart(one, other):
    """Return how far all arrays together are from the others, by their size."""
    difference = sum(np.sum((other[name] - one[name]) ** 2) for name in one)
    return np.sqrt(difference / sum(np.sum(one[name] ** 2) for name in one))


def assert_alike(one, several, tolerance):
    """The losses agree to `tolerance`, and so do all parameters together, by their size.

    Nesterov momentum trains them: what Adam divides by makes rounding as large as a step where a
    gradient is next to nothing.
    """
    assert one.keys() == several.keys()
    np.testing.assert_allclose(several["losses"], one["losses"], rtol=tolerance)
    assert apart(one, several) <= tolerance


def run(tmp_path, submission, *words, environment=None):
    """Run a trial of digits on two devices of PyTorch, as a user does; words go at the end."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "algoperf", "run", "--workload", "digits", "--submission"),
            *(str(submission), "--framework", "pytorch", "--eval-every-steps", "5"),
            *("--until", "end", "--devices", "2", "--out", str(tmp_path / "runs"), *words),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
