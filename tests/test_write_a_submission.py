"""Every file of docs/write_a_submission.md runs as it stands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "write_a_submission.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
FILES = {source.partition("\n")[0].removeprefix("# "): source for source in BLOCKS}
ALL_FRAMEWORKS = [
    (name, framework)
    for name, source in FILES.items()
    for framework, serves in (("jax", "optax"), ("pytorch", "torch."))
    if serves in source
]


def test_every_block_is_a_file_with_a_name():
    assert len(FILES) == len(BLOCKS) == 10
    assert all(re.fullmatch(r"\w+\.py", name) for name in FILES)


@pytest.mark.parametrize("name", ["adam_optax.py", "adam_torch.py"])
def test_a_new_optimizer_is_at_most_fifteen_lines(name):
    assert len(FILES[name].splitlines()) <= 15


def run(folder, source, name, framework, every_steps):
    (folder / name).write_text(source)
    command = ["run", "--workload", "digits", "--submission", name, "--framework", framework]
    command += ["--max-steps", "60", "--eval-every-steps", str(every_steps)]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "algoperf", *command],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("name", "framework"), ALL_FRAMEWORKS)
def test_it_runs(name, framework, tmp_path):
    printed = run(tmp_path, FILES[name], name, framework, 60)
    accuracy = re.search(r"validation/accuracy (\d\.\d+)", printed)
    assert float(accuracy[1]) > 0.8


def test_early_stopping_ends_complete_with_one_last_evaluation(tmp_path):
    """At a rate of 0 the loss stays: the first evaluation is the best, three more are none."""
    name = "early_stopping.py"
    stuck = FILES[name].replace("lr=0.05", "lr=0.0")
    run(tmp_path, stuck, name, "pytorch", 5)
    (folder,) = tmp_path.glob("runs/*/early_stopping/study_0/digits_pytorch/trial_1")
    result = json.loads((folder / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("complete", 15)
    rows = pd.read_csv(folder / "eval_measurements.csv")
    assert rows["global_step"].tolist() == [1, 5, 10, 15, 15]
    assert rows["test/accuracy"].notna().tolist() == [False] * 4 + [True]


def test_the_tutorial_s_file_trains_as_it_is_written_and_as_it_is_tuned(tmp_path):
    tutorial = PAGE.with_name("tutorial.md").read_text(encoding="utf-8")
    whole, tuned = re.findall(r"```python\n(.*?)```", tutorial, re.DOTALL)
    lines = {line.partition(" {")[0]: line for line in tuned.splitlines()}
    assert list(lines) == ["DEFAULTS =", "SEARCH_SPACE =", '    "learning_rate":']
    source = "\n".join(lines.get(line.partition(" {")[0], line) for line in whole.splitlines())
    assert source != whole
    for name, text in (("normed.py", whole), ("normed_tuned.py", source)):
        printed = run(tmp_path, text, name, "pytorch", 60)
        assert float(re.search(r"validation/accuracy (\d\.\d+)", printed)[1]) > 0.8
