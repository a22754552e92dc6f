"""Variants, named and of a suite, are run by their names, and their runs say what they are."""

import json
import subprocess
import sys

import pytest

SUITE = {
    "format": 1,
    "variants": {
        "digits_held_out": {
            "base": "digits",
            "changes": {"activation": "tanh", "train_fraction": 0.25},
            "targets": {"mini": {"builtin": {"validation": 0.5, "provenance": "a test"}}},
        }
    },
}
ASKS = """
from reference_algorithms import adamw
from reference_algorithms.adamw import DEFAULTS, torch_optimizer


def get_batch_size(workload_name):
    return {"digits": 32}[workload_name]
"""


def run(tmp_path, *words):
    (tmp_path / "asks.py").write_text(ASKS)
    command = [sys.executable, "-P", "-m", "algoperf", "run", "--framework", "pytorch"]
    command += ["--submission", str(tmp_path / "asks.py"), "--out", str(tmp_path / "runs")]
    command += ["--max-steps", "40", "--eval-every-steps", "20", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)


def the_only(tmp_path, name):
    (path,) = (tmp_path / "runs").glob(f"*/*/study_0/*/trial_1/{name}")
    return json.loads(path.read_text())


@pytest.mark.slow
def test_a_variant_of_a_suite(tmp_path):
    (tmp_path / "suite.json").write_text(json.dumps(SUITE))
    words = "--workload", "digits_held_out", "--suite", "suite.json"
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert (
        "get_batch_size does not know digits_held_out (KeyError); its 32 for digits" in done.stderr
    )
    flags = the_only(tmp_path, "flags_0.json")
    assert (flags["workload"], flags["base_workload"]) == ("digits_held_out", "digits")
    assert flags["changes"] == {"activation": "tanh", "train_fraction": 0.25}
    assert (flags["budget_s"], flags["step_hint"], flags["batch_size"]) == (15.0, 600, 32)
    assert flags["target"]["validation"] == 0.5
    meta = the_only(tmp_path, "meta_data_0.json")
    assert meta["data"]["rows"] == {"train": 250, "validation": 500, "test": 297}
    assert the_only(tmp_path, "result.json")["status"] == "reached"
    (tmp_path / "suite.json").rename(tmp_path / "elsewhere.json")
    again = run(tmp_path, "--workload", "digits_held_out", "--suite", "elsewhere.json")
    assert "done before" in again.stderr
    drawn = SUITE["variants"]["digits_held_out"]
    lower = {"mini": {"builtin": {"validation": 0.4, "provenance": "another test"}}}
    (tmp_path / "lower.json").write_text(
        json.dumps({"format": 1, "variants": {"digits_held_out": {**drawn, "targets": lower}}})
    )
    other = run(tmp_path, "--workload", "digits_held_out", "--suite", "lower.json")
    assert other.returncode == 2
    assert "another configuration (target.validation: 0.5, now 0.4)" in other.stderr
    drawn["changes"]["activation"] = "silu"
    (tmp_path / "other.json").write_text(json.dumps(SUITE))
    other = run(tmp_path, "--workload", "digits_held_out", "--suite", "other.json")
    assert other.returncode == 2
    assert "changes" in other.stderr


@pytest.mark.slow
def test_a_named_variant(tmp_path):
    done = run(tmp_path, "--workload", "digits_layer_norm")
    assert done.returncode == 0, done.stderr
    flags = the_only(tmp_path, "flags_0.json")
    assert (flags["base_workload"], flags["changes"]) == ("digits", {"norm": "layer"})


def test_a_suite_that_is_not_there(tmp_path):
    done = run(tmp_path, "--workload", "digits_held_out", "--suite", "none.json")
    assert done.returncode == 2
    assert done.stderr == "algoperf: none.json: cannot be read (No such file or directory)\n"
