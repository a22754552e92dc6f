"""Trials that go on with another number of devices: they train what one device trains."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


def _module(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


on_devices = _module("test_devices")
STEPS = on_devices.STEPS
MODES = ("none", "optimizer", "parameters")


def with_modes(workloads, modes=MODES):
    return [f'{name}+shard="{mode}"' for name in workloads for mode in modes]


def trained(tmp_path, framework, stretches, names, submissions=("nesterov",)):
    """Return the arrays of a trial that has trained in stretches, each of so many devices until a
    step: the losses and rows of all steps, and the last parameters.
    """
    tmp_path.mkdir(exist_ok=True)
    first, losses, rows = 0, {}, {}
    for devices, last in stretches:
        steps = f"{first}:{last}"
        arrays = on_devices.trained_in(tmp_path, framework, devices, names, submissions, steps)
        for key, each in arrays.items():
            assert "refused" not in each, each["refused"]
            losses.setdefault(key, []).extend(each.pop("losses"))
            rows.setdefault(key, []).extend(each.pop("rows"))
        first = last
    return {key: {"losses": np.array(losses[key]), **each} for key, each in arrays.items()}, rows


def tell(framework, key, stretches, one, several):
    """Print how far losses and parameters are apart, for whoever runs the test by hand."""
    losses = np.max(np.abs(several["losses"] / one["losses"] - 1))
    apart = on_devices.apart(one, several)
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
        on_devices.assert_alike(one[name], arrays, 1e-5)
        tell(framework, key, stretches, one[name], arrays)


CHAIN = [(1, 6), (2, 13), (1, STEPS)]


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_from_one_device_to_two_and_back_is_what_one_trains(framework, tmp_path):
    assert_as_on_one_device(tmp_path, framework, CHAIN, ["digits"], MODES)


@pytest.mark.slow
def test_batch_norm_goes_on_with_another_number(tmp_path):
    """In one mode here; in all of them below."""
    assert_as_on_one_device(
        tmp_path, "pytorch", [(2, 10), (1, STEPS)], ["imagenet_resnet"], ["parameters"]
    )


CHANGES = ((2, 1), (1, 2), (2, 4), (4, 2))


@pytest.mark.exhaustive
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_any_number_goes_on_with_any_other(framework, change, tmp_path):
    before, after = change
    stretches = [(before, 10), (after, STEPS)]
    workloads = ["digits", "imagenet_resnet"]
    assert_as_on_one_device(tmp_path, framework, stretches, workloads, MODES)


ALGORITHMS = ("adamw", "muon", "normuon", "schedule_free_adamw", "scion", "shampoo", "soap")


@pytest.mark.exhaustive
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_states_of_other_forms_go_on(framework, tmp_path):
    """Matrices beside the parameters, averages, counts."""
    whole = ("digits",)
    stretches = [(1, 6), (2, 13), (4, STEPS)]
    for algorithm in ALGORITHMS:
        modes = MODES[:2] if (algorithm, framework) == ("soap", "pytorch") else MODES
        names = with_modes(["digits"], modes)
        submissions = (algorithm,)
        one, _ = trained(tmp_path / f"{algorithm}_one", framework, [(1, STEPS)], whole, submissions)
        several, _ = trained(tmp_path / algorithm, framework, stretches, names, submissions)
        for key, arrays in several.items():
            other = one[key.partition("+")[0]]
            np.testing.assert_allclose(arrays["losses"], other["losses"], rtol=1e-4, err_msg=key)
            # The eigenvectors that SOAP turns gradients by make more of rounding.
            most = 1e-3 if algorithm == "soap" else 1e-4
            assert on_devices.apart(other, arrays) <= most, key
            tell(framework, key, stretches, other, arrays)
