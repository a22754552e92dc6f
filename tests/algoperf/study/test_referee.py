"""Who judges a trial: a referee that stays for a study, or none in a folder that had none."""

import json
from pathlib import Path

import pytest

from algoperf.cli import commands
from algoperf.run_folder import run_log
from algoperf.study import study

SUBMISSION = """
import os

DEFAULTS = {"learning_rate": 0.1, "decay": 0}
SEARCH_SPACE = {"learning_rate": {"feasible_points": [0.1, 0.2]}, "decay": {"feasible_points": [0]}}


def torch_optimizer(params, hyperparameters):
    import torch
    assert hyperparameters.decay == 0
    with open(os.environ["SEEN"], "a") as file:
        print(os.getppid(), os.getpid(), os.environ.get("PYTHONPATH", "-"), file=file)
    return torch.optim.SGD(params.tensors(), lr=hyperparameters.learning_rate)
"""
WORDS = ("--workload", "digits", "--framework", "pytorch", "--max-steps", "3")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Two trials of one study, and one that was begun inline, with what each process was."""
    folder = tmp_path_factory.mktemp("referee")
    (folder / "mine.py").write_text(SUBMISSION)
    seen = folder / "seen"

    def run(out, *words):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SEEN", str(seen))
            patch.setenv("PYTHONPATH", str(folder))
            given = ("--submission", str(folder / "mine.py"), "--out", str(folder / out))
            return commands.main(["run", *WORDS, *given, *words])

    assert run("two", "--tuning-ruleset", "external", "--trials", "2") == 0
    assert run("old", "--referee", "inline") == 0
    lines = [line.split() for line in seen.read_text().splitlines()]
    return folder, run, lines


def folder_of(folder, out, trial=1):
    return folder / f"{out}/mini-builtin/mine/study_0/digits_pytorch/trial_{trial}"


def test_a_referee_stays_and_each_trial_has_a_process_of_its_own(ran):
    """The fork server is the parent of both trainers; inline, the trial's process is the starter's
    own child, so it was started by another one.
    """
    folder, _, lines = ran
    (first, second, inline) = lines
    assert first[0] == second[0] != inline[0]
    assert len({first[1], second[1], inline[1]}) == 3
    assert {line[2] for line in lines} == {str(folder)}  # as the user has it


def test_where_the_referee_is_is_recorded_and_pools_apart(ran):
    folder, _, _ = ran
    two, old = (run_log.read_flags(folder_of(folder, out)) for out in ("two", "old"))
    assert two["referee"] == two["pool"]["referee"] == "process"
    assert "referee" not in old
    assert "referee" not in old["pool"]
    results = [run_log.read_result(folder_of(folder, out)) for out in ("two", "old")]
    assert [result["status"] for result in results] == ["complete", "complete"]
    assert [result["flags"] for result in results] == [[], []]


def test_the_same_point_gives_the_same_numbers_in_both(ran):
    folder, _, _ = ran
    two, old = (run_log.read_result(folder_of(folder, out)) for out in ("two", "old"))
    hparams = [
        json.loads((folder_of(folder, out) / run_log.HYPERPARAMETERS).read_text())
        for out in ("two", "old")
    ]
    if hparams[0] != hparams[1]:
        two = run_log.read_result(folder_of(folder, "two", 2))
    assert two["seed"] == old["seed"] or hparams[0] != hparams[1]
    if two["seed"] == old["seed"]:
        assert two["final"] == old["final"]
        assert two["parameters_crc32"] == old["parameters_crc32"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imagenet_vit", "fastmri"])
def test_rows_that_training_changes_or_decodes_are_the_same_in_both(name, tmp_path):
    """The images of one are in shared memory and changed at random; the other's k-space is read
    and undersampled by the trainer.
    """
    results = []
    for referee in ("process", "inline"):
        words = ["run", "--workload", name, "--framework", "pytorch", "--submission", "adamw"]
        words += ["--max-steps", "3", "--referee", referee, "--out", str(tmp_path / referee)]
        assert commands.main(words) == 0
        (result,) = (tmp_path / referee).glob("**/result.json")
        results.append(json.loads(result.read_text()))
    two, one = results
    assert (two["status"], two["steps"], two["flags"]) == ("complete", 3, [])
    assert two["parameters_crc32"] == one["parameters_crc32"]
    assert two["final"] == one["final"]


def test_a_folder_that_was_begun_inline_goes_on_inline(ran, capsys):
    folder, run, _ = ran
    (folder_of(folder, "old") / run_log.RESULT).unlink()
    assert run("old") == 0
    flags = run_log.read_flags(folder_of(folder, "old"))
    assert "referee" not in flags
    assert run("old", "--referee", "process") == 2
    assert "referee" in capsys.readouterr().err


def test_what_a_folder_has_decides_where_nobody_says(tmp_path):
    from algoperf.trial.plan import TrialPlan

    plan = TrialPlan(
        *("digits", "mini", "builtin", "builtin", "jax", "x.py", str(tmp_path), "e"),
        study=0, trial=1, seed=0, name="x",
    )  # fmt: skip
    assert study.usual_referee(plan) == "process"
    for name, expected in (("study_1", {"referee": "process"}), ("study_0", {"seed": 0})):
        folder = Path(tmp_path) / f"e/x/{name}/digits_jax/trial_1"
        folder.mkdir(parents=True)
        (folder / "flags_0.json").write_text(json.dumps(expected))
        usual = study.usual_referee(plan)
        assert usual == ("process" if name == "study_1" else "inline")
