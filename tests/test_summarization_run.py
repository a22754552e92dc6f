"""`algoperf run` of a workload that generates text, from the command to the files."""

import csv
import json

import pytest

from algoperf.cli import commands
from algoperf.run_folder import run_log
from algoperf.workload import Generation
from workloads import xsum
from workloads.metrics import rouge


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_a_short_run_of_xsum(tmp_path, capsys, framework):
    words = ["--workload", "xsum", "--submission", "nadamw", "--framework", framework]
    words += ["--max-steps", "2", "--eval-every-steps", "1", "--out", str(tmp_path)]
    assert commands.main(["run", *words]) == 0
    folder = run_log.trial_folder(tmp_path, "mini-builtin", "nadamw", 0, "xsum", framework, 1)
    with (folder / "eval_measurements.csv").open(newline="") as file:
        first, last = csv.DictReader(file)
    assert float(first["validation/loss"]) > float(last["validation/loss"]) > 0
    for name in rouge.names:
        assert 0 <= float(last[f"validation/{name}"]) <= 1
        assert first[f"test/{name}"] == ""  # the test split is looked at once
        assert 0 <= float(last[f"test/{name}"]) <= 1
    generation = xsum.WORKLOAD.scales["mini"].generation
    assert isinstance(generation, Generation)
    assert 0 <= float(last["validation/generated_tokens"]) <= generation.max_new_tokens
    # The last evaluation is the whole test split.
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 1000
    assert {row["split"] for row in rows} == {"test"}
    found = rouge.score([r["prediction"] for r in rows], [r["reference"] for r in rows])
    for name in rouge.names:
        assert found[name].mean() == pytest.approx(float(last[f"test/{name}"]), abs=1e-12)
    result = json.loads((folder / "result.json").read_text())
    assert [row["source"] for row in result["examples"]] == [row["source"] for row in rows[:3]]
    assert 0.5 < result["real_token_share"] <= 1
    printed = capsys.readouterr().out
    assert printed.count("prediction:") == 3
