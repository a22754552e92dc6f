"""`algoperf run` of the workload that translates, from the command to the files."""

import json

import pytest
import sacrebleu


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_a_short_run_of_wmt(short_run, framework):
    folder, (first, last), rows = short_run("wmt", framework)
    assert float(first["validation/loss"]) > float(last["validation/loss"]) > 0
    assert len(rows) == 1000  # the whole test split, searched at the end
    predictions = [row["prediction"] for row in rows]
    expected = sacrebleu.corpus_bleu(predictions, [[row["reference"] for row in rows]])
    assert float(last["test/bleu"]) == expected.score
    (meta,) = folder.glob("meta_data_*.json")
    signature = json.loads(meta.read_text())["metric_signatures"]["bleu"]
    assert signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
