"""`algoperf run` of the workload that translates, from the command to the files."""

import csv
import json

import pytest
import sacrebleu

from algoperf.cli import commands
from algoperf.run_folder import run_log


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_a_short_run_of_wmt(tmp_path, framework):
    words = ["--workload", "wmt", "--submission", "nadamw", "--framework", framework]
    words += ["--max-steps", "2", "--eval-every-steps", "1", "--out", str(tmp_path)]
    assert commands.main(["run", *words]) == 0
    folder = run_log.trial_folder(tmp_path, "mini-builtin", "nadamw", 0, "wmt", framework, 1)
    with (folder / "eval_measurements.csv").open(newline="") as file:
        first, last = csv.DictReader(file)
    assert float(first["validation/loss"]) > float(last["validation/loss"]) > 0
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 1000  # the whole test split, searched at the end
    predictions = [row["prediction"] for row in rows]
    expected = sacrebleu.corpus_bleu(predictions, [[row["reference"] for row in rows]])
    assert float(last["test/bleu"]) == expected.score
    (meta,) = folder.glob("meta_data_*.json")
    signature = json.loads(meta.read_text())["metric_signatures"]["bleu"]
    assert signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
