"""Submissions in the style of each generation of the published contract run as they are.

They are in `tests/published`, one folder each, and contain what published ones trip over elsewhere:
names that JAX and NumPy removed, absolute imports of their own old place, packages beside them,
settings in a dict, tables of batch sizes that raise, `train_state`, `prepare_for_eval`, early
completion, points and ranges, an indexed scalar in what is logged, a file that does not parse.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PUBLISHED = Path(__file__).parent / "published"
FRAMEWORKS = {"v05_jax": "jax", "v05_torch": "pytorch", "v06_jax": "jax", "v06_torch": "pytorch"}

TRIAL = "mini-builtin/{name}/study_0/{workload}_{framework}/trial_1"


def run(workload, submission, out, *more, cwd=None):
    words = ["run", "--workload", workload, "--submission", str(submission), "--out", str(out)]
    return subprocess.run(
        [sys.executable, "-P", "-m", "algoperf", *words, *more],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )


def improves(workload, name, tmp_path, steps, by):
    every = ("--max-steps", str(steps), "--eval-every-steps", str(steps), "--json")
    done = run(workload, PUBLISHED / name, tmp_path, *every)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert (result["framework"], result["steps"]) == (FRAMEWORKS[name], steps)
    assert result["flags"] == []
    trial = tmp_path / TRIAL.format(name=name, workload=workload, framework=FRAMEWORKS[name])
    rows = (trial / "eval_measurements.csv").read_text().splitlines()
    column = rows[0].split(",").index("validation/loss")
    first, *_, last = (float(row.split(",")[column]) for row in rows[1:])
    assert last < by * first
    return done.stderr, trial


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_it_improves_digits(name, tmp_path):
    said, trial = improves("digits", name, tmp_path, 40, 0.6)
    older = "run by the contract of version 0.5" in said
    assert older == name.startswith("v05")
    copied = {path.name for path in (trial / "submission").rglob("*.py")}
    expected = {path.name for path in (PUBLISHED / name).rglob("*.py")}
    assert copied == expected
    is_logged = (trial / "measurements.csv").exists()
    assert is_logged == (name != "v06_jax")
    assert ("scalars are not logged: line" in said) == (name == "v06_jax")
    assert ("runs self-tuning" in said) == (name == "v06_jax")
    assert ("get_batch_size does not know digits (ValueError)" in said) == (name != "v06_torch")
    assert ("get_eval_batch_size is ignored" in said) == (name == "v06_torch")
    unmet = "requirements.txt asks for torch==1.13.1 (2"
    assert (unmet in said and "no-such-package-anywhere>=2 (not installed)" in said) == (
        name == "v06_torch"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    "name",
    [
        "v05_jax",
        pytest.param("v05_torch", marks=pytest.mark.exhaustive),
        pytest.param("v06_jax", marks=pytest.mark.exhaustive),
        "v06_torch",
    ],
)
def test_it_improves_ag_news(name, tmp_path):
    improves("ag_news", name, tmp_path, 40, 0.98)


def test_early_completion_is_followed_by_one_evaluation(tmp_path):
    done = run("digits", PUBLISHED / "v06_jax", tmp_path, "--until", "end", "--max-steps", "400",
               "--eval-every-steps", "150", "--json")  # fmt: skip
    (result,) = json.loads(done.stdout)
    assert (result["status"], result["steps"]) == ("complete", 200)
    flags = json.loads(
        (
            (tmp_path / TRIAL.format(name="v06_jax", workload="digits", framework="jax"))
            / "flags_0.json"
        ).read_text()
    )
    assert flags["tuning_ruleset"] == "self"


def test_a_renamed_folder_run_from_a_place_with_submissions_of_its_own(tmp_path):
    """As from a clone's root: the old absolute name does not lead into the folder there."""
    renamed = tmp_path / "mine"
    shutil.copytree(PUBLISHED / "v06_jax", renamed)
    (tmp_path / "submissions" / "self_tuning" / "v06_jax").mkdir(parents=True)
    (tmp_path / "submissions" / "__init__.py").write_text("raise ImportError('not this one')")
    done = run("digits", "mine", "out", "--max-steps", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_file_that_does_not_parse_is_named_with_its_line(tmp_path):
    (tmp_path / "submission.py").write_text("import jax\n\ndef update_params(workload:\n    pass\n")
    done = run("digits", tmp_path, tmp_path / "out")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith("submission.py:3: '(' was never closed")
