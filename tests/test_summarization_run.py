"""`algoperf run` of a workload that generates text, from the command to the files."""

import json

import pytest

from algoperf.cli import commands
from algoperf.run_folder import run_log
from algoperf.workload import Generation
from workloads import xsum
from workloads.metrics import rouge

HINDI = ["राष्ट्रपति", "ने", "दिल्ली", "में", "कहा", "कि", "वर्षा", "आज", "होगी"]


@pytest.mark.slow
def test_text_of_another_script_is_told_once_and_judged_if_asked(tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    for split, count in (("train", 16), ("validation", 2), ("test", 2)):
        rows = [
            {"document": " ".join(HINDI[row % 5 :]), "summary": HINDI[0]} for row in range(count)
        ]
        (data / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["run", "--workload", "xsum", "--submission", "nadamw", "--framework", "pytorch"]
    words += ["--data", str(data), "--max-steps", "1", "--eval-every-steps", "1"]
    words += ["--batch-size", "4", "--out", str(tmp_path / "runs")]
    assert commands.main([*words, "--trials", "2"]) == 0
    told = capsys.readouterr()
    assert (told.out + told.err).count("100.0% of the reference texts have none and score 0") == 1
    place = ("mini-folder", "nadamw", 0, "xsum", "pytorch", 1)
    flags = run_log.read_flags(run_log.trial_folder(tmp_path / "runs", *place))
    assert "rouge_tokenizer" not in flags
    assert "rouge_tokenizer" not in flags["pool"]
    asked = [*words, "--rouge-tokenizer", "unicode"]
    assert commands.main(asked) == 2  # never in the folder of runs that are judged otherwise
    assert 'target.metric: "rouge2", now "rouge2_unicode"' in capsys.readouterr().err
    assert commands.main([*asked, "--experiment", "other"]) == 0
    assert "of the reference texts" not in capsys.readouterr().err
    folder = run_log.trial_folder(tmp_path / "runs", "other", *place[1:])
    flags = run_log.read_flags(folder)
    assert flags["rouge_tokenizer"] == flags["pool"]["rouge_tokenizer"] == "unicode"
    assert (flags["target"]["metric"], flags["target"]["validation"]) == ("rouge2_unicode", None)
    columns = run_log.evaluations(folder)[0].keys()
    assert "validation/rouge1_unicode" in columns
    assert "validation/rouge1" not in columns


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_a_short_run_of_xsum(short_run, capsys, framework):
    folder, (first, last), rows = short_run("xsum", framework)
    assert float(first["validation/loss"]) > float(last["validation/loss"]) > 0
    for name in rouge.names:
        assert 0 <= float(last[f"validation/{name}"]) <= 1
        assert first[f"test/{name}"] == ""  # the test split is looked at once
        assert 0 <= float(last[f"test/{name}"]) <= 1
    generation = xsum.WORKLOAD.scales["mini"].generation
    assert isinstance(generation, Generation)
    assert 0 <= float(last["validation/generated_tokens"]) <= generation.max_new_tokens
    # The last evaluation is the whole test split.
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
