"""A run whose validation rows a secret draws: what its folder holds, and what goes on with it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from algoperf.cli import commands
from algoperf.data import validation_seed
from algoperf.run_folder import run_log

SPIRALS = Path(__file__).resolve().parents[1] / "docs" / "examples" / "spirals"
SECRET, OTHER = "a text for tests, known to all", "another text for tests, known"
EDITS = (  # after which a secret may draw its rows
    ("noise: float) -> Data:", "noise: float, validation_seed: int = 0) -> Data:"),
    (
        "generator = np.random.default_rng(0)\n",
        "secret = {split: [len(split), validation_seed * (split != 'train')] for split in rows}\n",
    ),
    ("_points(generator, count", "_points(np.random.default_rng(secret[split]), count"),
)
SUBMISSION = """
import os, re, sys
from reference_algorithms.adamw import DEFAULTS, torch_optimizer
assert not any("known to all" in value for value in os.environ.values())

def is_in_memory(pattern):
    with open("/proc/self/maps") as listed, open("/proc/self/mem", "rb") as memory:
        for line in listed:
            span, rights, *_ = line.split()
            first, last = (int(each, 16) for each in span.split("-"))
            if rights.startswith("rw") and "[v" not in line:
                memory.seek(first)
                if re.search(pattern, memory.read(last - first)):
                    return True
    return False

if sys.platform == "linux":
    control = str(10**20 // 7)  # It has this number, but for what is looked for below.
    assert is_in_memory("".join(f"[{digit}]" for digit in control).encode())
    assert not is_in_memory(rb"{pattern}")
"""


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workloads") / "spirals"
    shutil.copytree(SPIRALS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / "data.py").read_text()
    for old, new in EDITS:
        assert old in text
        text = text.replace(old, new)
    (folder / "data.py").write_text(text)
    pattern = "".join(f"[{digit}]" for digit in str(validation_seed.derive(SECRET).rows_seed))
    (folder.parent / "mine.py").write_text(SUBMISSION.replace("{pattern}", pattern))
    return folder


def words(workload, out, *more):
    submission = workload.with_name("mine.py")
    asked = ["run", "--workload", str(workload), "--submission", str(submission)]
    return [*asked, "--framework", "pytorch", "--max-steps", "2", "--out", str(out), *more]


@pytest.fixture(scope="module")
def folder(workload, tmp_path_factory):
    """The run folder of a trial, started with the secret in the environment."""
    out = tmp_path_factory.mktemp("runs")
    given = ("--validation-seed", "env:SEED_OF_TEST")
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "algoperf", *words(workload, out, *given)],
        check=False, capture_output=True, text=True, env={**os.environ, "SEED_OF_TEST": SECRET},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert validation_seed.derive(SECRET).commitment in ended.stderr
    assert SECRET not in ended.stderr + ended.stdout
    (found,) = out.glob("*/*/study_0/spirals_pytorch/trial_1")
    return found


def test_the_commitment_is_recorded_and_the_secret_nowhere(folder):
    seed = validation_seed.derive(SECRET)
    assert folder.parents[3].name == f"mini-builtin-validation-{seed.short}"
    flags, result = run_log.read_flags(folder), run_log.read_result(folder)
    assert flags["validation_commitment"] == seed.commitment == result["validation_commitment"]
    assert flags["pool"]["validation_commitment"] == seed.commitment
    assert "validation_seed" not in flags
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 8
    for path in files:
        content = path.read_bytes()
        assert SECRET.encode() not in content, path
        assert str(seed.rows_seed).encode() not in content, path


def test_the_first_loss_is_of_other_rows_and_the_training_loss_of_the_same(workload, folder):
    usual = folder.parents[3].with_name("usual")
    assert commands.main(words(workload, usual.parent, "--experiment", "usual")) == 0
    (other,) = usual.glob("*/study_0/spirals_pytorch/trial_1")
    first, second = (run_log.evaluations(each)[-1] for each in (folder, other))
    assert first["train/loss"] == second["train/loss"]
    assert first["validation/loss"] != second["validation/loss"]
    assert first["test/loss"] != second["test/loss"]
    flags = run_log.read_flags(other)
    assert "validation_commitment" not in {**flags, **flags["pool"]}


@pytest.mark.parametrize("secret", [OTHER, None])
def test_a_folder_of_one_secret_refuses_another_and_none(workload, folder, secret, capsys):
    given = [] if secret is None else ["--validation-seed", f"text:{secret}"]
    more = ["--experiment", folder.parents[3].name, *given]
    assert commands.main(words(workload, folder.parents[4], *more)) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "algoperf: " in line]
    now = "null" if secret is None else f'"{validation_seed.derive(secret).commitment[:12]}'
    before = validation_seed.derive(SECRET).short
    assert f'holds another configuration (validation_commitment: "{before}' in error
    assert f", now {now}" in error
    assert OTHER not in error


def test_the_same_secret_goes_on(workload, folder, capsys):
    given = ("--validation-seed", f"text:{SECRET}")
    assert commands.main(words(workload, folder.parents[4], *given)) == 0
    captured = capsys.readouterr()
    assert "spirals pytorch" in captured.out
    assert len(list(folder.glob("flags_*.json"))) == 1


def test_facts_of_rows_say_whose_they_are(workload, capsys):
    reports = []
    for given in ([], ["--validation-seed", f"text:{SECRET}"]):
        assert commands.main(["data", str(workload), "--json", *given]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    usual, secret = reports
    assert secret.pop("validation_commitment") == validation_seed.derive(SECRET).commitment
    assert usual.keys() == secret.keys()
    assert usual["fingerprint"] != secret["fingerprint"]
    assert commands.main(["data", str(workload), *given]) == 0
    line = "validation and test rows are drawn by a secret; its commitment is "
    assert line + validation_seed.derive(SECRET).commitment in capsys.readouterr().out
