"""`algoperf run` from pretraining to fine-tuning: saved in one framework, started from in the
other.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors import numpy

from algoperf.cli import commands
from algoperf.run_folder import run_log

TOPICS = ("coast storm", "goal match", "price market", "chip orbit")


def words_of(workload, framework, data, out, *more):
    words = ["--workload", workload, "--submission", "nadamw", "--framework", framework]
    words += ["--data", str(data), "--max-steps", "2", "--eval-every-steps", "2"]
    return ["run", *words, "--batch-size", "4", "--out", str(out), *map(str, more)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, optimised):
    """Plain text, and the same as ag_news' files; and where runs and the model go."""
    folder = tmp_path_factory.mktemp("pretraining")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(400):
        label = number % 4
        picked = rng.choice(TOPICS[label].split(), 5)
        rows.append((label + 1, f"{' '.join(picked)} in town {number}"))
    for name in ("text", "news"):
        (folder / name).mkdir()
    for split, part in (("train", rows[:360]), ("test", rows[360:])):
        (folder / "text" / f"{split}.txt").write_text("\n".join(text for _, text in part))
        lines = [f'"{label}","{text}","as told"' for label, text in part]
        (folder / "news" / f"{split}.csv").write_text("\n".join(lines))
    return folder


def test_a_run_on_built_in_data_needs_no_transformers(tmp_path):
    """It takes seconds to import: here no process of a run can."""
    (tmp_path / "transformers.py").write_text("raise ImportError('transformers is imported')")
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def python(*words):
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    words = words_of("finewebedu_lm", "pytorch", "builtin", tmp_path / "runs", "--threads", "1")
    done = python("-m", "algoperf", *words)
    assert done.returncode == 0, done.stderr
    assert "transformers is imported" in python("-c", "import transformers").stderr


@pytest.mark.slow
def test_pretrained_in_jax_and_tuned_in_pytorch(folders, tmp_path, capsys):
    model = folders / "model"
    run = words_of("lm", "jax", folders / "text", tmp_path, "--save-model", model)
    assert commands.main(run) == 0
    assert sorted(path.name for path in model.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    tune = words_of("ag_news", "pytorch", folders / "news", tmp_path, "--pretrained", model)
    assert commands.main(tune) == 0
    folder = run_log.trial_folder(tmp_path, "mini-folder", "nadamw", 0, "ag_news", "pytorch", 1)
    flags = json.loads((folder / "flags_0.json").read_text())
    assert flags["pretrained"] == str(model)
    assert len(flags["pretrained_hash"]) == 16
    assert flags["pool"]["pretrained_hash"] == flags["pretrained_hash"]
    assert "save_model" not in flags
    # Other weights under the same path are another configuration, and one folder holds one.
    tensors = numpy.load_file(model / "model.safetensors")
    tensors["transformer.ln_f.bias"] += 1
    numpy.save_file(tensors, model / "model.safetensors")
    (folder / "result.json").unlink()
    capsys.readouterr()
    assert commands.main(tune) == 2
    assert "pretrained_hash" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("workload", "more", "named"),
    [
        ("digits", [], "--save-model: digits has no model that transformers knows"),
        ("ag_news", ["--trials", "2"], "takes the model of one trial, and these are 2"),
    ],
)
def test_what_cannot_be_saved_is_said_before_the_run(tmp_path, capsys, workload, more, named):
    words = ["run", "--workload", workload, "--submission", "nadamw", *more]
    assert commands.main([*words, "--save-model", str(tmp_path / "model")]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
