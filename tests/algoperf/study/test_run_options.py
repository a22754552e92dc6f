"""Real trials: points that are told, runs that are run anew, names, threads and the best point."""

import json

import pytest

from algoperf.cli import commands
from algoperf.machine import hardware, load
from algoperf.run_folder import run_log
from algoperf.study import status

SOURCE = """
import os
from pathlib import Path

DEFAULTS = {"learning_rate": 0.5, "decay": 0.0}


def torch_optimizer(params, hyperparameters):
    import torch

    names = ("OMP_NUM_THREADS", "NPROC")
    seen = [*(os.environ[name] for name in names), str(len(os.sched_getaffinity(0)))]
    (Path(__file__).parent / "seen.txt").write_text(" ".join(seen))
    return torch.optim.SGD(
        params.tensors(), lr=hyperparameters.learning_rate, weight_decay=hyperparameters.decay
    )
"""
# The second point learns in three steps; the first does not.
SPACE = [{"learning_rate": 1e-9}, {"learning_rate": 0.05}]


class Study:
    """`algoperf run` of that file in one folder, with what was said."""

    def __init__(self, folder):
        self.folder = folder
        self.trials = folder / "runs/mini-builtin/variant-a/study_0/digits_pytorch"

    def __call__(self, *words, file="mine.py"):
        base = ["run", "--workload", "digits", "--submission", str(self.folder / file)]
        base += ["--framework", "pytorch", "--max-steps", "3", "--eval-every-steps", "1"]
        return commands.main([*base, "--out", str(self.folder / "runs"), *map(str, words)])


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A study of two listed points, under a name of its own and with one thread a trial."""
    folder = tmp_path_factory.mktemp("options")
    (folder / "mine.py").write_text(SOURCE)
    (folder / "space.json").write_text(json.dumps(SPACE))
    study = Study(folder)
    words = ("--search-space", folder / "space.json", "--name", "variant-a", "--threads", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")  # --threads counts, not this
        before = hardware.thread_count()
        assert study(*words, "--trials", 2, "--save-best", folder / "best.py") == 0
        assert hardware.thread_count() == before  # given back
    return study, words


def test_name_and_threads_are_recorded(first):
    study, _ = first
    flags = run_log.read_flags(study.trials / "trial_1")
    assert (flags["submission"], flags["hardware"]["threads"]) == ("variant-a", 1)
    assert (study.folder / "seen.txt").read_text() == "1 1 1"
    assert {trial.state for trial in status.read(study.folder)} == {"complete"}
    used = run_log.read_result(study.trials / "trial_1")["resources"]
    assert (used["cores"], used["other_cores"] >= 0) == (1, True)


def test_what_others_took_of_the_clock_is_in_the_result(first):
    study, _ = first
    result = run_log.read_result(study.trials / "trial_2")
    counted = result["load"]
    assert counted["clock_s"] == pytest.approx(result["ledger"]["submission_s"])
    assert [each["step"] for each in counted["segments"]] == [1, 2, 3]
    for name in ("clock_s", "cpu_s", "involuntary_switches"):
        assert sum(each[name] for each in counted["segments"]) == pytest.approx(counted[name])
    assert counted["stopped_s"] == 0.0
    # The system counts in ticks of 10 ms, of which three steps of a quick machine may take none.
    assert 0 <= counted["cpu_s"] <= result["resources"]["cpu_s"]
    assert result["contended"] is load.is_contended(counted)


def test_the_best_point_is_the_defaults_of_a_file_that_runs(first, capsys):
    """In the run of the copy, its DEFAULTS are told; they are the second point's."""
    study, _ = first
    assert study("--threads", 1, file="best.py") == 0
    assert "  its DEFAULTS: decay 0, learning_rate 0.05\n" in capsys.readouterr().err
    folder = study.folder / "runs/mini-builtin/best/study_0/digits_pytorch/trial_1"
    again, best = run_log.read_result(folder), run_log.read_result(study.trials / "trial_2")
    assert run_log.read_json(folder / run_log.HYPERPARAMETERS) == {
        "learning_rate": 0.05,
        "decay": 0,
    }
    assert again["status"] == best["status"] == "complete"


def test_overwritten_trials_are_kept_and_what_is_left_goes_on(first, capsys):
    """Other settings are refused; with --overwrite, the old files stand byte for byte aside."""
    study, words = first
    old = {path.name: path.read_bytes() for path in (study.trials / "trial_1").glob("*.*")}
    seeded = (*words, "--seed", 1, "--trials", 2)
    assert study(*seeded, "--trial-range", "1:1") == 2
    assert study(*seeded, "--trial-range", "1:1", "--overwrite") == 2  # trial 2 is of seed 0
    assert "holds another configuration (seed: 0, now 1)" in capsys.readouterr().err
    assert not list(study.trials.glob("*/replaced_*"))
    assert study(*words, "--trials", 2, "--trial-range", "1:1", "--overwrite") == 0
    said = capsys.readouterr().err
    kept = study.trials / "trial_1/replaced_0"
    assert (
        f"digits pytorch study 0 trial 1: is run anew; what was measured (it was complete) is kept "
        f"in {kept}\n" in said
    )
    assert "  point 1 listed in space.json: decay 0, learning_rate 1e-09\n" in said
    assert {path.name: path.read_bytes() for path in kept.glob("*.*")} == old
    new = run_log.read_result(study.trials / "trial_1")
    assert new["parameters_crc32"] == json.loads(old["result.json"])["parameters_crc32"]
    assert study(*words, "--trials", 2) == 0
    assert capsys.readouterr().err.count("done before (complete), skipped") == 2


def test_contended_trials_are_run_anew_and_kept(first, capsys):
    """The last test of the study: of two trials the second is said to have been contended."""
    study, words = first
    last = study.trials / "trial_2" / run_log.RESULT
    result = {**run_log.read_json(last), "contended": True}
    run_log.write_json(last, result)
    run_log.write_json(
        study.trials / "trial_1" / run_log.RESULT,
        {**run_log.read_result(study.trials / "trial_1"), "contended": None},
    )
    assert study(*words, "--trials", 2, "--rerun-contended") == 0
    said = capsys.readouterr().err
    kept = study.trials / "trial_2/replaced_0"
    assert f"what was measured (it was complete, contended) is kept in {kept}\n" in said
    assert said.count("done before (complete), skipped") == 1
    assert run_log.read_json(kept / run_log.RESULT) == result
    new = run_log.read_json(last)
    assert new["parameters_crc32"] == result["parameters_crc32"]
