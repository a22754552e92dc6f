"""Every script of docs/python.md runs as it stands, and its loops train as `algoperf run` does."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import algoperf
from algoperf.machine import hardware

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
SCRIPTS = {source.partition("\n")[0].removeprefix("# "): source for source in BLOCKS}
LAST = "\nimport json; print(json.dumps({}))\n"
ADAMW = """
DEFAULTS = {}


def jax_optimizer():
    import optax

    return optax.adamw(1e-3, weight_decay=1e-2)


def torch_optimizer(params):
    import torch

    return torch.optim.AdamW(params.tensors(), lr=1e-3)
"""


def run_script(name, shown, folder):
    """Run a script of the page in a process like a trial's; return what it shows at its end."""
    (folder / name).write_text(SCRIPTS[name] + LAST.format(shown))
    done = subprocess.run(
        [sys.executable, "-P", name],
        cwd=folder,
        env={**hardware.thread_environment(), **os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done


def test_two_submissions_are_run_and_scored(tmp_path):
    name = "two_submissions.py"
    lines = [line for line in SCRIPTS[name].splitlines() if line]
    assert len(lines) <= 20
    (curves, scores), done = run_script(
        name, "[wide.to_dict(), scores.to_dict('records')]", tmp_path
    )
    assert curves.keys() == {"nadamw", "my_sgd"}
    assert {row["submission"] for row in scores} == {"nadamw", "my_sgd"}
    for row in scores:  # whether a target is reached in time depends on the machine
        (result,) = tmp_path.glob(f"runs/mini-builtin/{row['submission']}/study_0/*/*/result.json")
        reached = json.loads(result.read_text())["status"] == "reached"
        assert (row["workloads_reached"], row["workloads"]) == (int(reached), 1)
    (folder,) = tmp_path.glob("runs/mini-builtin/nadamw/study_0/digits_pytorch/trial_1")
    with (folder / "eval_measurements.csv").open(newline="") as file:
        rows = {row["global_step"]: row["validation/accuracy"] for row in csv.DictReader(file)}
    measured = {step: value for step, value in curves["nadamw"].items() if value == value}
    assert measured == {step: float(value) for step, value in rows.items()}
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "digits" not in done.stderr  # nothing is told unless asked


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_an_own_loop_trains_as_a_run_does_bit_for_bit(framework, tmp_path):
    script = f"own_loop_{framework.replace('py', '')}.py"
    (losses, metrics), _ = run_script(script, "[losses, metrics]", tmp_path)
    (tmp_path / "adamw.py").write_text(ADAMW)
    (trial,) = algoperf.run(
        "ag_news",
        tmp_path / "adamw.py",
        framework=framework,
        max_steps=20,
        eval_every_steps=20,
        out=tmp_path / "runs",
    )
    with (trial.folder / "measurements.csv").open(newline="") as file:
        logged = {int(row["global_step"]): float(row["loss"]) for row in csv.DictReader(file)}
    assert logged == {0: losses[0], 10: losses[10]}
    final = trial.details["final"]
    assert {f"validation/{name}": value for name, value in metrics.items()}.items() <= final.items()
