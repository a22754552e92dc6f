"""`--shard` and `--processes` in JAX: what each device holds, and that several train what one
device trains, in one process or in several.
"""

import csv
import dataclasses
import functools
import json
import re
import subprocess
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import several_devices

import reference_algorithms
from algoperf.backends.meeting import Meeting
from algoperf.data import batches
from algoperf.data.loading import load_data
from algoperf.errors import UserError
from algoperf.run_folder import run_log
from algoperf.study import run_plan
from algoperf.study.request import RunRequest
from algoperf.workload import catalogue

HERE, TESTS = Path(__file__).parent, Path(__file__).parents[2]
PMAP = str(TESTS / "published" / "v05_jax" / "submission.py")
SHARDED = ("optimizer", "parameters")


def answer(script, *words):
    """Return the JSON that a script prints last."""
    return answers([[script, *words]])


def answers(commands):
    """Return the JSON that the first of several processes prints last."""
    children = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    said = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0] * len(children), said
    return json.loads(said[0][0].splitlines()[-1])


# Where arrays lie: by hand. The largest axis that divides is split, of equals the first. The ten
# classes of digits divide by two devices, and not by four; statistics are whole.
WHOLE = {
    "hidden_0/kernel": [64, 128],
    "hidden_0/bias": [128],
    "hidden_1/kernel": [128, 128],
    "hidden_1/bias": [128],
    "head/kernel": [128, 10],
    "head/bias": [10],
}
HALVES = {
    "hidden_0/kernel": [64, 64],
    "hidden_0/bias": [64],
    "hidden_1/kernel": [64, 128],
    "hidden_1/bias": [64],
    "head/kernel": [64, 10],
    "head/bias": [5],
}
QUARTERS = {
    "hidden_0/kernel": [64, 32],
    "hidden_0/bias": [32],
    "hidden_1/kernel": [32, 128],
    "hidden_1/bias": [32],
    "head/kernel": [32, 10],
    "head/bias": [10],
}
CONV_HALVES = {
    "first/kernel": [3, 3, 3, 4],
    "first_batch_norm/scale": [4],
    "first_batch_norm/bias": [4],
    "block_0/conv/kernel": [3, 3, 4, 8],
    "block_0/batch_norm/scale": [4],
    "block_0/batch_norm/bias": [4],
    "head/kernel": [4, 4],
    "head/bias": [2],
}
CONV_QUARTERS = {
    "first/kernel": [3, 3, 3, 2],
    "first_batch_norm/scale": [2],
    "first_batch_norm/bias": [2],
    "block_0/conv/kernel": [3, 3, 2, 8],
    "block_0/batch_norm/scale": [2],
    "block_0/batch_norm/bias": [2],
    "head/kernel": [2, 4],
    "head/bias": [1],
}
CONV_STATISTICS = {
    f"batch_stats/{name}/{kind}": [8]
    for name in ("first_batch_norm", "block_0/batch_norm")
    for kind in ("mean", "var")
}
CONV_NORM = str(TESTS / "workloads" / "conv_norm")


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """What is trained, and the parts that each device has of it.

    `moments` are those of what has the parameters' shapes in the state, `six` of a matrix (6, 3),
    `free` of one (6, 4). The devices are those of so many `processes`.
    """

    words: tuple[str, ...]
    params: dict[str, list[int]]
    moments: dict[str, list[int]]
    statistics: dict[str, list[int]]
    six: list[int]
    free: list[int]
    processes: int = 1


USUAL = ("float32", "1")
CASES = {
    "optimizer": Case(("2", "optimizer", "digits", *USUAL), WHOLE, HALVES, {}, [3, 3], [3, 4]),
    "batch norm": Case(
        ("2", "parameters", CONV_NORM, *USUAL),
        CONV_HALVES,
        CONV_HALVES,
        CONV_STATISTICS,
        [3, 3],
        [3, 4],
    ),
    "micro-batches, scaled": Case(
        ("4", "parameters", "digits", "fp16", "2"), QUARTERS, QUARTERS, {}, [6, 3], [6, 1]
    ),
    "two processes": Case(
        ("4", "parameters", CONV_NORM, *USUAL),
        *(CONV_QUARTERS, CONV_QUARTERS, CONV_STATISTICS, [6, 3], [6, 1]),
        processes=2,
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def answered(case):
    return answer_of(case)


@functools.cache
def answer_of(case):
    with tempfile.TemporaryDirectory() as short:  # A socket's path has at most 107 bytes.
        command = [HERE / "shard_arrays.py", *case.words, case.processes]
        meeting = Path(short) / "meeting"
        return answers([[*command, rank, meeting] for rank in range(case.processes)])


def alike(shapes):
    """Of each array all devices have a part of the same shape."""
    return {name: [shape] for name, shape in shapes.items()}


def test_each_device_has_its_part_from_the_first_step_to_a_later_process(case, answered):
    for when in ("start", "end", "resumed"):
        lies = answered["parts"][when]
        assert lies["params"] == alike(case.params)
        assert lies["model_state"] == alike(case.statistics)
        # Beside a scaled loss the state is the first of two.
        state = {key.removeprefix("0/"): shapes for key, shapes in lies["state"].items()}
        for kept in ("adam/0/mu", "adam/0/nu", "average"):
            for name, shape in case.moments.items():
                assert state.pop(f"{kept}/{name}") == [shape]
        assert state.pop("factors/six") == [case.six]
        assert state.pop("factors/odd") == [[3, 5]]
        assert all(shapes == [[]] for shapes in state.values())
    for of in ("params", "model_state"):
        assert answered["parts"]["read"][of] == answered["parts"]["end"][of]


def test_the_devices_get_the_rows_that_one_would_get_in_their_order(case, answered):
    definition = catalogue.find(case.words[2])
    scale = definition.scales["mini"]
    data = load_data(definition, scale, "builtin")
    queue = batches.TrainingQueue(
        data.splits["train"], scale.batch_size, 7, dict, augmentation=data.augmentation
    )
    assert answered["batch"] == zlib.crc32(next(queue)["inputs"].tobytes())


def test_two_processes_train_what_one_trains_with_batch_norm():
    """The losses of the steps, three of them, and two more of each of the trials that went on."""
    one, two = (answer_of(CASES[name])["losses"] for name in ("batch norm", "two processes"))
    assert len(one) == 7
    np.testing.assert_allclose(two, one, rtol=1e-5)


def test_a_step_is_compiled_once(answered):
    """Also for what was saved and read again."""
    assert answered["compiled"] == [1, 1]


def test_a_saved_trial_goes_on_bit_for_bit(answered):
    assert answered["sums"]["went_on"] == answered["sums"]["resumed"]


def test_what_is_evaluated_is_handed_over_whole(answered):
    """The average, of which each device has a part under either kind."""
    sums = answered["sums"]
    assert sums["read"] == sums["evaluated"] != sums["resumed"]


def test_a_value_that_is_not_finite_is_seen_on_the_last_device(answered):
    assert answered["finite"] == [True, False]


def test_the_marker_is_a_value_of_the_smallest_parameter(answered):
    marker, smallest = answered["marker"]
    assert marker == smallest


def test_what_a_full_form_starts_with_is_laid_out(case, answered):
    """As the parameters are, where the submission has not said where it is to be."""
    assert answered["parts"]["settled"]["state"] == {"m": [case.free], "n": [[]]}


def test_parameters_are_not_divided_under_pmap(case, answered):
    message = "--shard parameters: this submission runs under jax.pmap, where each device has all"
    if case.words[1] == "parameters":
        assert answered["pmap"].startswith(message)
    else:
        assert answered["pmap"] is None


@pytest.fixture(scope="module")
def of_one_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return several_devices.train_together(folder, "jax", 1, ("digits",))["digits"]


@pytest.mark.parametrize("shard", SHARDED)
def test_two_devices_train_what_one_trains(shard, of_one_device, tmp_path):
    two = several_devices.train_together(tmp_path, "jax", 2, ("digits",), shard=shard)["digits"]
    assert len(two["losses"]) == several_devices.STEPS
    several_devices.assert_alike(of_one_device, two, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["none", *SHARDED])
def test_two_processes_train_what_one_device_trains(shard, of_one_device, tmp_path):
    two = several_devices.train_together(tmp_path, "jax", 2, ("digits",), shard=shard, processes=2)[
        "digits"
    ]
    assert len(two["losses"]) == several_devices.STEPS
    several_devices.assert_alike(of_one_device, two, 1e-5)


NAMES = ("digits", "imagenet_resnet", "xsum", "ogbg")  # Dense, batch norm, text, graphs.


@pytest.fixture(scope="module")
def each_on_one_device(tmp_path_factory):
    return several_devices.train_together(tmp_path_factory.mktemp("each"), "jax", 1, NAMES)


@pytest.mark.exhaustive
@pytest.mark.parametrize("devices", [2, 4])
@pytest.mark.parametrize("shard", SHARDED)
def test_devices_train_what_one_trains(shard, devices, each_on_one_device, tmp_path):
    several = several_devices.train_together(tmp_path, "jax", devices, NAMES, shard=shard)
    for name in NAMES:
        several_devices.assert_alike(each_on_one_device[name], several[name], 1e-5)


@pytest.mark.exhaustive
@pytest.mark.parametrize("devices", [2, 4])
@pytest.mark.parametrize("shard", ["none", *SHARDED])
def test_processes_train_what_one_device_trains(shard, devices, each_on_one_device, tmp_path):
    several = several_devices.train_together(
        tmp_path, "jax", devices, NAMES, shard=shard, processes=2
    )
    for name in NAMES:
        several_devices.assert_alike(each_on_one_device[name], several[name], 1e-5)


ALGORITHMS = [name for name in reference_algorithms.names() if name != "nesterov"]


@pytest.fixture(scope="module")
def algorithms_on_one_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("algorithms")
    return several_devices.train_together(folder, "jax", 1, ("digits",), ALGORITHMS)


@pytest.mark.exhaustive
@pytest.mark.parametrize("shard", SHARDED)
def test_every_reference_algorithm_trains_the_same(shard, algorithms_on_one_device, tmp_path):
    """Those that need whole matrices too. SAM is in the full form, whose state stays its own."""
    names = [name for name in ALGORITHMS if (name, shard) != ("sam", "optimizer")]
    two = several_devices.train_together(tmp_path, "jax", 2, ("digits",), names, shard=shard)
    for key, arrays in two.items():
        one = algorithms_on_one_device[key]
        np.testing.assert_allclose(arrays["losses"], one["losses"], rtol=1e-4, err_msg=key)
        # The eigenvectors that SOAP turns gradients by make more of rounding.
        assert several_devices.apart(one, arrays) <= (1e-3 if key == "soap-digits" else 1e-4), key


def test_of_a_large_model_each_device_holds_half():
    """GPT-2 small's parameters all divide by two, and AdamW keeps two numbers for each, and a count
    of four bytes; a number has four bytes.
    """
    numbers = 124_439_808
    held = answer(TESTS / "benchmarks" / "jax_shard_memory.py", "--shapes")
    assert held["none"] == {"parameters": [4 * numbers], "optimizer_state": [8 * numbers + 4]}
    assert held["optimizer"]["parameters"] == [4 * numbers]
    assert held["optimizer"]["optimizer_state"] == [4 * numbers + 4]
    assert held["parameters"] == {"parameters": [2 * numbers], "optimizer_state": [4 * numbers + 4]}


# Whole runs.

STOPS = """
import os
import signal

import jax
import optax

DEFAULTS = {"learning_rate": 1e-3}
MARK = MARK_PATH


def stop():
    if not os.path.exists(MARK):
        open(MARK, "w").close()
        signal.raise_signal(signal.SIGTERM)


def jax_optimizer(hyperparameters):
    return optax.adamw(hyperparameters.learning_rate)


def data_selection(input_queue, global_step):
    if global_step == 6 and jax.process_index() == jax.process_count() - 1:
        BODY
    return next(input_queue)
"""


def run(out, submission, *words):
    return subprocess.run(
        [
            *(sys.executable, "-m", "algoperf", "run", "--workload", "digits", "--submission"),
            *(str(submission), "--framework", "jax", "--devices", "2", "--max-steps", "12"),
            *("--eval-every-steps", "5", "--until", "end", "--out", str(out), *words),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def outcome(out):
    """Return a run's flags, its evaluations without times, and the checksum of its parameters."""
    (folder,) = out.glob("*/*/study_0/*/trial_1")
    rows = csv.DictReader((folder / "eval_measurements.csv").read_text().splitlines())
    evaluations = [
        {name: value for name, value in row.items() if "/" in name or name == "global_step"}
        for row in rows
    ]
    result = json.loads((folder / "result.json").read_text())
    return (
        json.loads((folder / "flags_0.json").read_text()),
        evaluations,
        result["parameters_crc32"],
    )


def submission_that(body, tmp_path):
    """Return a submission that does something at the seventh step, in the last process."""
    file = tmp_path / "stops.py"
    file.write_text(STOPS.replace("MARK_PATH", repr(str(tmp_path / "mark"))).replace("BODY", body))
    return file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shard", "processes"),
    [
        ("optimizer", 1),
        ("parameters", 1),
        pytest.param("none", 2, marks=pytest.mark.exhaustive),
        pytest.param("optimizer", 2, marks=pytest.mark.exhaustive),
        ("parameters", 2),
    ],
)
def test_an_interrupted_run_goes_on_bit_for_bit(shard, processes, tmp_path):
    submission, out = submission_that("stop()", tmp_path), tmp_path / "runs"
    words = ("--shard", shard, "--processes", str(processes))
    stopped = run(out, submission, *words)
    assert stopped.returncode == 75, stopped.stderr
    refused = run(out, submission)
    assert refused.returncode != 0
    changed = {"shard": shard != "none", "processes": processes > 1}
    assert all(name in refused.stderr for name, differs in changed.items() if differs)
    went_on = run(out, submission, *words)
    assert went_on.returncode == 0, went_on.stderr
    assert "goes on from step" in went_on.stdout + went_on.stderr
    whole = run(tmp_path / "whole", submission, *words)
    assert whole.returncode == 0, whole.stderr
    flags, evaluations, checksum = outcome(out)
    assert flags["devices"] == 2
    assert flags.get("shard", "none") == shard
    assert flags.get("processes", 1) == processes
    assert flags["pool"].get("processes", 1) == processes
    assert evaluations[-1]["global_step"] == "12"
    assert outcome(tmp_path / "whole")[1:] == (evaluations, checksum)


@pytest.mark.slow
def test_a_process_that_ends_ends_the_trial_by_its_own_cause(tmp_path):
    submission = submission_that("os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    run(tmp_path / "runs", submission, "--processes", "2")
    (file,) = (tmp_path / "runs").glob("*/*/study_0/*/trial_1/result.json")
    ended = json.loads(file.read_text())
    assert ended["status"] == "failed"
    assert ended["error"]["cause"].startswith("rank 1: the trial's process was ended by SIGKILL")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": None}, "--processes 2 divides devices among them: say how many, as by"),
        ({"devices": 3}, "--processes 2: --devices 3 does not divide by it, and each process has"),
        (
            {"framework": "pytorch", "devices": 4},
            "--processes 2: PyTorch has a process for each device, here 4; leave it out",
        ),
        ({"submission": PMAP}, "--processes: this submission runs under jax.pmap, which has the"),
        ({"submission": "sam", "shard": "optimizer"}, "--shard optimizer is done by the library's"),
        ({"processes": 0}, "processes is 0, expected a whole number of at least 1"),
    ],
)
def test_what_does_not_go_with_several_processes(changes, message, tmp_path):
    given = {"submission": "adamw", "framework": "jax", "devices": 2, "processes": 2, **changes}
    with pytest.raises(UserError, match=re.escape(message)):
        run_plan.make(RunRequest("digits", out=tmp_path, **given))


def test_processes_set_a_run_apart_where_they_were_chosen(tmp_path):
    """One process is the usual way in JAX, and so is one for each device in PyTorch."""

    def planned(framework, devices, processes):
        return run_plan.make(
            RunRequest(
                *("digits", "adamw"),
                framework=framework,
                devices=devices,
                processes=processes,
                out=tmp_path,
            )
        ).trial

    usual = [("jax", 2, None), ("jax", 2, 1), ("pytorch", 2, None), ("pytorch", 2, 2)]
    plans = [planned(*each) for each in usual]
    assert [plan.world_size for plan in plans] == [1, 1, 2, 2]
    assert not any("processes" in plan.settings() for plan in plans)
    plan = planned("jax", 4, 2)
    assert (plan.world_size, plan.settings()["processes"]) == (2, 2)
    assert "processes" in run_log.POOLED


def test_processes_agree_by_their_sockets():
    """Three of them, as threads; when one has left, whoever waits for it is told."""

    def asks(rank):
        meeting = Meeting(rank, 3, path)
        heard = [
            meeting.largest([2, 7, 5][rank]),
            meeting.largest([False, True, False][rank]),
            meeting.from_first({"step": 3} if rank == 0 else None),
            meeting.gathered(["first", "second", "third"][rank]),
        ]
        meeting.wait()
        if rank == 0:
            with pytest.raises(ConnectionError, match="closed by another process of the trial"):
                meeting.wait()
        return heard

    with tempfile.TemporaryDirectory() as short, ThreadPoolExecutor(3) as pool:
        path = str(Path(short) / "meeting")
        heard = list(pool.map(asks, range(3)))  # A meeting's lines are closed when it is dropped.
    assert heard == [[7, 1, {"step": 3}, ["first", "second", "third"]]] * 3


def test_the_state_of_a_full_form_is_not_divided(tmp_path):
    """By anybody but itself; its parameters are."""
    request = RunRequest("digits", "sam", framework="jax", devices=2, out=tmp_path)
    message = "--shard optimizer is done by the library's own step"
    with pytest.raises(UserError, match=message):
        run_plan.make(dataclasses.replace(request, shard="optimizer"))
    plan = run_plan.make(dataclasses.replace(request, shard="parameters"))
    assert plan.trial.shard == "parameters"


def test_several_devices_are_not_judged_inline(tmp_path):
    """Evaluation is on one device: few workloads have as many rows in each split as divide."""
    request = RunRequest("digits", "adamw", framework="jax", devices=2, out=tmp_path)
    with pytest.raises(UserError, match="--devices: what several train is judged in another"):
        run_plan.make(dataclasses.replace(request, referee="inline"))
    assert run_plan.make(request).trial.has_referee
    one = dataclasses.replace(request, referee="inline", devices=1)
    assert not run_plan.make(one).trial.has_referee
