"""docs/variants: the suite follows from the curves beside it, without a run, byte for byte."""

from pathlib import Path

from algoperf.experiments.held_out import sample
from algoperf.run_folder import run_log
from algoperf.study.executors import local
from algoperf.study.executors.local import Local

COMMITTED = Path(__file__).parents[4] / "docs" / "variants"
REQUEST = sample.Request(7, ["digits", "ag_news", "xsum"], 1)


def test_the_suite_is_what_its_curves_say(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(local, "run", lambda todo, *_, **__: asked.extend(todo))
    curves = COMMITTED / "curves.json"
    sampler = sample.Sampler(REQUEST, tmp_path, Local(), lambda text: None, curves)
    run_log.write_json(tmp_path / "suite.json", sampler.suite())
    assert asked == []
    assert (tmp_path / "suite.json").read_bytes() == (COMMITTED / "suite.json").read_bytes()
