"""What a script or a notebook calls: the same results as the commands', as values and frames."""

import json
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

import algoperf
from algoperf.cli import commands
from algoperf.run_folder import run_log

LENGTH = {"framework": "pytorch", "max_steps": 30, "eval_every_steps": 10}


def torch_optimizer(params, hyperparameters):
    import torch

    return torch.optim.SGD(params.tensors(), lr=hyperparameters.rate)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of nadamw on digits: each process loads PyTorch, so one run serves several tests."""
    return algoperf.run("digits", "nadamw", out=tmp_path_factory.mktemp("api"), **LENGTH)


def test_the_package_gives_its_names_and_loads_nothing_for_them():
    code = "import sys, algoperf; print(*sys.modules); algoperf.run; print(*dir(algoperf))"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert not {"numpy", "jax", "torch", "algoperf.api"} & set(printed[0].split())
    assert {"run", "check", "compare", "score", "load_workload"} <= set(printed[1].split())
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        _ = algoperf.runs


def test_a_run_is_the_command_s(undisturbed, tmp_path, capsys):
    (trial,) = undisturbed
    assert trial.details == run_log.read_result(trial.folder)
    words = ["run", "--workload", "digits", "--submission", "nadamw", "--framework", "pytorch"]
    words += ["--max-steps", "30", "--eval-every-steps", "10", "--out", str(tmp_path / "command")]
    assert commands.main(words) == 0
    other = tmp_path / "command" / trial.folder.relative_to(undisturbed.folder)
    assert trial.details["parameters_crc32"] == run_log.read_result(other)["parameters_crc32"]
    assert trial.details["config_hash"] == run_log.read_result(other)["config_hash"]
    frame = undisturbed.frame()
    assert frame.loc[0, ["submission", "status", "steps"]].tolist() == ["nadamw", "complete", 30]
    curves = undisturbed.curves()
    assert curves["global_step"].tolist() == [1, 10, 20, 30]
    measured = [row["validation/accuracy"] for row in run_log.evaluations(other)]
    assert curves["validation/accuracy"].tolist() == measured
    capsys.readouterr()
    again = algoperf.run("digits", "nadamw", out=str(undisturbed.folder), **LENGTH)
    assert capsys.readouterr() == ("", "")
    pd.testing.assert_frame_equal(again.frame(), frame)  # it had ended: nothing is run twice


def test_functions_run_and_score_is_the_command_s(tmp_path, capsys):
    sgd = {"torch_optimizer": torch_optimizer, "DEFAULTS": {"rate": 0.1}}
    usual = {"framework": "pytorch", "eval_every_steps": 20, "out": tmp_path}
    (trial,) = algoperf.run("digits", sgd, name="my_sgd", **usual)
    assert trial.submission == "my_sgd"
    assert json.loads((trial.folder / "hparams.json").read_text()) == {"rate": 0.1}
    scored = algoperf.score(tmp_path, resamples=200)
    capsys.readouterr()
    assert commands.main(["score", str(tmp_path), "--json", "--resamples", "200"]) == 0
    (pool,) = json.loads(capsys.readouterr().out)["pools"]
    frame = scored.frame()
    for row, other in zip(frame.to_dict("records"), pool["submissions"], strict=True):
        for name, value in row.items():
            if name == "workloads":  # in JSON each of them
                assert value == len(other[name])
                continue
            assert value == other[name] or (pd.isna(value) and other[name] is None), name
    (study,) = pool["submissions"][0]["workloads"]["digits"]["studies"]
    assert scored.times()["outcome"].tolist() == [study["outcome"]]
    assert {path.name for path in scored.write(tmp_path / "scores")} >= {
        *("scores.csv", "time_to_target.csv", "report.html")
    }


def test_a_stopped_run_is_saved_and_goes_on_bit_for_bit(undisturbed, tmp_path):
    def stop(plan, event):
        if event["event"] == "evaluation" and event["step"] == 10:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="is saved, and the same call goes on with it"):
        algoperf.run("digits", "nadamw", out=tmp_path / "stopped", observe=stop, **LENGTH)
    (trial,) = algoperf.run("digits", "nadamw", out=tmp_path / "stopped", **LENGTH)
    (whole,) = undisturbed
    assert trial.evaluations()["preemption_count"].max() == 1
    for name in ("parameters_crc32", "final"):
        assert trial.details[name] == whole.details[name]


def test_a_comparison_is_the_command_s(tmp_path):
    asked = {"frameworks": ["jax", "pytorch"], "max_steps": 20, "eval_every_steps": 10}
    empty = algoperf.compare("digits", may_run=False, out=tmp_path, **asked)
    assert empty.notes[0] == "not run yet: jax trial 1, pytorch trial 1"
    assert empty.frame()["trials"].tolist() == [0, 0]
    found = algoperf.compare("digits", out=tmp_path, **asked)
    assert (found.failed, found.comparison.missing) == (0, [])
    frame = found.frame()
    assert frame["framework"].tolist() == ["jax", "pytorch"]
    assert frame["steps"].tolist() == [20, 20]
    words = ["compare", "digits", "--frameworks", "jax,pytorch", "--max-steps", "20"]
    words += ["--eval-every-steps", "10", "--out", str(tmp_path), "--no-run"]
    assert commands.main(words) == 0
    written = pd.read_csv(tmp_path / "compare.csv")
    assert written["metric"].tolist() == frame["metric"].tolist()


def test_a_check_is_the_command_s():
    found = algoperf.check("nadamw", framework="pytorch", workloads=["digits"])
    assert found.passed
    assert set(found.frame()["status"]) <= {"ok", "skipped"}
    assert "deterministic" in found.frame()["check"].tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: algoperf.run("digits", "nadamw", max_step=3), "unknown option 'max_step'; did"),
        (lambda: algoperf.run("digits", "nadamw", trials=0), "trials is 0, expected a whole"),
        (lambda: algoperf.run("digist", "nadamw"), "unknown workload 'digist'; did you mean"),
        (lambda: algoperf.score("runs", rule="x"), "unknown option 'rule'; did you mean rules?"),
        (lambda: algoperf.compare("digits", batch_sizes=[1]), "nothing to compare"),
        (lambda: algoperf.load_workload("digits", "torch"), "unknown framework 'torch'"),
        (lambda: algoperf.load_workload("digits", "jax", scale="ful"), "unknown scale of digits"),
        (lambda: algoperf.load_workload("digits", "jax", batch_size=0), "batch_size is 0, expe"),
    ],
)
def test_mistakes_get_one_line(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(algoperf.UserError) as raised:
        call()
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_loaded_workload_has_the_order_of_its_trial():
    import numpy as np

    loaded = algoperf.load_workload("digits", "pytorch", seed=1, trial=2)
    again = algoperf.load_workload("digits", "pytorch", seed=1, trial=2)
    other = algoperf.load_workload("digits", "pytorch", seed=1, trial=1)
    batches = [next(each.batches)["inputs"].numpy() for each in (loaded, again, other)]
    assert len(batches[0]) == loaded.batch_size == loaded.scale.batch_size
    np.testing.assert_array_equal(batches[0], batches[1])
    assert not np.array_equal(batches[0], batches[2])
    params, state = loaded.init()
    values = loaded.evaluate("validation", params, state)
    assert values.keys() == {"loss", "accuracy", "num_examples"}
    assert values["num_examples"] == len(loaded.data.splits["validation"]["targets"])
    with pytest.raises(algoperf.UserError, match="unknown split 'valid'; did you mean validation"):
        loaded.evaluate("valid", params, state)
