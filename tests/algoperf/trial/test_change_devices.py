"""Trials that go on with another number of devices: they train what one device trains."""

import csv
import dataclasses
import json
import os
import sys

import numpy as np
import pytest
import several_devices

from algoperf.errors import UserError
from algoperf.study import run_plan, status
from algoperf.study.request import RunRequest

STEPS = several_devices.STEPS
MODES = ("none", "optimizer", "parameters")


def with_modes(workloads, modes=MODES):
    return [f'{name}+shard="{mode}"' for name in workloads for mode in modes]


def trained(tmp_path, framework, stretches, names, submissions=("nesterov",), refused=()):
    """Return the arrays of a trial that has trained in stretches, each of so many devices until a
    step: the losses and rows of all steps, and the last parameters.
    """
    tmp_path.mkdir(exist_ok=True)
    first, losses, rows = 0, {}, {}
    for devices, last in stretches:
        steps = f"{first}:{last}"
        arrays = several_devices.trained_in(tmp_path, framework, devices, names, submissions, steps)
        assert {key for key, each in arrays.items() if "refused" in each} <= set(refused)
        arrays = {key: each for key, each in arrays.items() if key not in refused}
        for key, each in arrays.items():
            losses.setdefault(key, []).extend(each.pop("losses"))
            rows.setdefault(key, []).extend(each.pop("rows"))
        first = last
    return {key: {"losses": np.array(losses[key]), **each} for key, each in arrays.items()}, rows


def tell(framework, key, stretches, one, several):
    """Print how far losses and parameters are apart, for whoever runs the test by hand."""
    losses = np.max(np.abs(several["losses"] / one["losses"] - 1))
    apart = several_devices.apart(one, several)
    sys.stdout.write(f"{framework} {key} {stretches}: {losses:.1e}, {apart:.1e}\n")


def assert_as_on_one_device(tmp_path, framework, stretches, workloads, modes):
    one, rows_of_one = trained(tmp_path / "one", framework, [(1, STEPS)], workloads)
    several, rows = trained(
        tmp_path / "several", framework, stretches, with_modes(workloads, modes)
    )
    for key, arrays in several.items():
        name = key.partition("+")[0]
        assert len(arrays["losses"]) == STEPS
        assert rows[key] == rows_of_one[name]
        assert len(set(rows[key])) > STEPS / 2
        several_devices.assert_alike(one[name], arrays, 1e-5)
        tell(framework, key, stretches, one[name], arrays)


CHAIN = [(1, 6), (2, 13), (1, STEPS)]


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_from_one_device_to_two_and_back_is_what_one_trains(framework, tmp_path):
    assert_as_on_one_device(tmp_path, framework, CHAIN, ["digits"], MODES)


@pytest.mark.exhaustive
def test_batch_norm_goes_on_with_another_number(tmp_path):
    """In one mode here; in all of them below."""
    assert_as_on_one_device(
        tmp_path, "pytorch", [(2, 10), (1, STEPS)], ["imagenet_resnet"], ["parameters"]
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_from_two_devices_to_four_and_back_is_what_one_trains(framework, tmp_path):
    stretches = [(2, 6), (4, 13), (2, STEPS)]
    assert_as_on_one_device(tmp_path, framework, stretches, ["digits"], MODES)


@pytest.mark.exhaustive
@pytest.mark.parametrize("change", [(2, 1), (1, 2), (2, 4), (4, 2)])
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_batch_norm_goes_on_with_any_other_number_in_all_modes(framework, change, tmp_path):
    stretches = [(change[0], 10), (change[1], STEPS)]
    assert_as_on_one_device(tmp_path, framework, stretches, ["imagenet_resnet"], MODES)


ALGORITHMS = ("adamw", "muon", "normuon", "schedule_free_adamw", "scion", "shampoo", "soap")
REFUSED = {"pytorch": {'soap-digits+shard="parameters"'}, "jax": set()}


@pytest.mark.exhaustive
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_states_of_other_forms_go_on(framework, tmp_path):
    """Matrices beside the parameters, averages, counts."""
    stretches = [(1, 6), (2, 13), (4, STEPS)]
    one, _ = trained(tmp_path / "one", framework, [(1, STEPS)], ["digits"], ALGORITHMS)
    names = with_modes(["digits"])
    several, _ = trained(
        tmp_path / "several", framework, stretches, names, ALGORITHMS, REFUSED[framework]
    )
    assert len(several) == len(ALGORITHMS) * len(MODES) - len(REFUSED[framework])
    for key, arrays in several.items():
        other = one[key.partition("+")[0]]
        tell(framework, key, stretches, other, arrays)
        np.testing.assert_allclose(arrays["losses"], other["losses"], rtol=1e-4, err_msg=key)
        # The eigenvectors that SOAP turns gradients by make more of rounding.
        most = 1e-3 if key.startswith("soap") else 1e-4
        assert several_devices.apart(other, arrays) <= most, key


# Whole runs.

STOPS = """
import os
import signal

import torch

DEFAULTS = {"learning_rate": 1e-3, "dropout_rate": 0.0}


def torch_optimizer(params, hyperparameters, info):
    return torch.optim.AdamW(params.tensors(), lr=hyperparameters.learning_rate)


def data_selection(input_queue, global_step):
    if os.environ.get("STOPS_AT") == str(global_step):
        signal.raise_signal(signal.SIGTERM)
    return next(input_queue)
"""


def losses_of(folder):
    rows = csv.DictReader((folder / "eval_measurements.csv").read_text().splitlines())
    return [(row["global_step"], float(row["validation/loss"])) for row in rows]


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_if_it_is_let(tmp_path):
    submission = tmp_path / "stops.py"
    submission.write_text(STOPS)

    def run(*words, stops_at=""):
        environment = {**os.environ, "STOPS_AT": stops_at}
        words = ("--max-steps", "12", *words)
        return several_devices.run(tmp_path, submission, *words, environment=environment)

    words = ("--shard", "optimizer")
    stopped = run(*words, stops_at="6")
    assert stopped.returncode == 75, stopped.stderr
    (folder,) = (tmp_path / "runs").glob("*/*/study_0/*/trial_1")
    files = sorted(path.name for path in folder.iterdir())
    refused = run("--devices", "4")
    assert refused.returncode == 2
    assert "--change-devices" not in refused.stderr  # It differs in --shard as well.
    refused = run(*words, "--devices", "4")
    assert refused.returncode == 2
    assert "(devices: 2, now 4)" in refused.stderr
    assert "by --devices N --change-devices" in refused.stderr
    # No part of 64 rows is a third of them: nothing is left of the attempt.
    refused = run(*words, "--devices", "3", "--change-devices")
    assert refused.returncode == 2
    assert "does not divide over 3 devices" in refused.stderr
    assert sorted(path.name for path in folder.iterdir()) == files
    one = ("--devices", "1", "--change-devices")
    went_on = run(*words, *one)
    assert went_on.returncode == 0, went_on.stderr
    assert "goes on with 1 device (before: 2 devices)" in went_on.stderr
    history = [{"from_step": 0, "devices": 2}, {"from_step": 7, "devices": 1}]
    flags = json.loads((folder / "flags_1.json").read_text())
    result = json.loads((folder / "result.json").read_text())
    assert (flags["devices"], flags["shard"]) == (1, "optimizer")
    assert flags["devices_by_step"] == flags["pool"]["devices_by_step"] == history
    assert result["devices_by_step"] == history
    assert result["flags"] == []
    assert not list(folder.glob("checkpoints*"))
    (trial,) = status.read(tmp_path / "runs")
    assert trial.note == "on 2 devices, from step 7 on 1"
    skipped = run(*words)
    assert skipped.returncode == 0, skipped.stderr
    several = losses_of(folder)
    assert [step for step, _ in several] == ["1", "5", "10", "12"]
    folder.parents[3].rename(tmp_path / "before")
    whole = run("--devices", "1")
    assert whole.returncode == 0, whole.stderr
    for (step, loss), (other_step, other) in zip(several, losses_of(folder), strict=True):
        assert step == other_step
        np.testing.assert_allclose(loss, other, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": None}, "--change-devices: say on how many devices a trial goes on"),
        ({"referee": "inline"}, "--devices: what several train is judged in another process"),
        ({"compile": True, "devices": 1}, "--devices: --compile is for one device"),
        (
            {"framework": "jax", "tuning_ruleset": "population"},
            "--change-devices: the members of a population copy each other",
        ),
        (
            {"framework": "jax", "processes": 2},
            "--change-devices: parts of several processes of JAX are not divided anew",
        ),
    ],
)
def test_what_does_not_go_with_a_change(changes, message, tmp_path):
    given = {"framework": "pytorch", "devices": 2, "change_devices": True, **changes}
    with pytest.raises(UserError, match=message):
        run_plan.make(RunRequest("digits", "nadamw", out=tmp_path, **given))


def test_what_is_divided_may_be_on_one_device_where_it_may_change(tmp_path):
    request = RunRequest(
        "digits", "nadamw", framework="pytorch", out=tmp_path, shard="parameters", devices=1
    )
    with pytest.raises(UserError, match="--shard parameters divides it among devices"):
        run_plan.make(request)
    plan = run_plan.make(dataclasses.replace(request, change_devices=True)).trial
    assert (plan.devices, plan.shard, plan.world_size) == (1, "parameters", 1)
