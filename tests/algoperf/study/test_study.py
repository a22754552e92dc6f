"""Trials times studies: which run, with which seeds and points, and what is skipped."""

import contextlib
import json
from types import SimpleNamespace

import pytest

from algoperf.cli import commands
from algoperf.errors import UserError
from algoperf.run_folder import run_log
from algoperf.study import study
from algoperf.trial.plan import TrialPlan

QUICK = """
from algoperf import spec

SEARCH_SPACE = {
    "rate": {"min": 0.001, "max": 1.0, "scaling": "log"},
    "kind": {"feasible_points": ["a", "b"]},
}

def init_optimizer_state(hyperparameters, rng):
    print("hyperparameters", hyperparameters)

def update_params():
    raise spec.TrainingCompleteError
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("none", None, 1, None, None), [(0, 1)]),
        (("external", None, 1, None, None), [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]),
        (("external", None, 1, None, 2), [(0, 1), (0, 2)]),
        (("self", None, 1, None, None), [(0, 1)]),
        (("none", 2, 2, None, None), [(0, 1), (0, 2), (1, 1), (1, 2)]),
        (("external", None, 2, "2:3", None), [(0, 2), (0, 3), (1, 2), (1, 3)]),
        (("none", 3, 1, "3:3", 3), [(0, 3)]),
        (("none", None, 3, None, None, "1:1"), [(1, 1)]),
        (("none", 2, 4, "2:2", None, "1:2"), [(1, 2), (2, 2)]),
    ],
)
def test_slice(arguments, expected):
    assert list(study.choose_slice(*arguments)) == expected


@pytest.mark.parametrize(
    "cut", ["", ":", "1", "1:", ":2", "a:b", "0:1", "3:2", "1:6", "-1:2", "1:2:3"]
)
def test_slice_that_is_none(cut):
    with pytest.raises(UserError, match="expected FIRST:LAST within 1:5"):
        study.choose_slice("external", None, 1, cut, None)


@pytest.mark.parametrize("cut", ["", "1", "1:", "a:b", "2:1", "0:3", "-1:1"])
def test_range_of_studies_that_is_none(cut):
    with pytest.raises(UserError, match="expected FIRST:LAST within 0:2"):
        study.choose_slice("none", None, 3, None, None, cut)


class Runs:
    """`algoperf run` with one file, again and again into one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "quick.py"
        self.file.write_text(QUICK)

    def __call__(self, *words, out="runs"):
        base = ["run", "--workload", "digits", "--framework", "jax", "--out", self.folder / out]
        return commands.main([str(word) for word in (*base, "--submission", self.file, *words)])

    def read(self, name, out="runs", experiment="mini-builtin"):
        """(study, trial) -> the JSON of that file name."""
        found = {}
        for path in (self.folder / out / experiment / "quick").glob(f"study_*/*/trial_*/{name}"):
            at = (int(path.parents[2].name[6:]), int(path.parents[0].name[6:]))
            found[at] = json.loads(path.read_text())
        return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def whole(runs):
    """Two studies of two trials, drawn."""
    words = ("--tuning-ruleset", "external", "--studies", 2, "--trials", 2)
    assert runs(*words) == 0
    return words


def test_every_trial_has_a_seed_and_a_point_of_its_own(runs, whole):
    results, points = runs.read("result.json"), runs.read("hparams.json")
    assert sorted(results) == sorted(points) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert len({result["seed"] for result in results.values()}) == 4
    assert len({point["rate"] for point in points.values()}) == 4
    assert all(0.001 <= point["rate"] <= 1 for point in points.values())
    for (number, trial), flags in runs.read("flags_0.json").items():
        assert (flags["study"], flags["trial"]) == (number, trial)
        assert (flags["seed"], flags["tuning_ruleset"]) == (0, "external")
        assert flags["budget_s"] == 15.0


def test_slices_give_the_points_and_seeds_of_the_whole(runs, whole):
    assert runs(*whole, "--trial-range", "2:2", out="slices") == 0
    for name in ("hparams.json", "flags_0.json"):
        all_of_them, part = runs.read(name), runs.read(name, "slices")
        assert part == {at: all_of_them[at] for at in ((0, 2), (1, 2))}
    results, part = runs.read("result.json"), runs.read("result.json", "slices")
    assert {at: part[at]["seed"] for at in part} == {at: results[at]["seed"] for at in part}


def test_what_is_done_is_skipped_and_what_is_missing_is_run(runs, whole, capsys):
    times = {path: path.stat().st_mtime_ns for path in runs.folder.rglob("runs/**/trial_*/*")}
    second = runs.folder / "runs/mini-builtin/quick/study_1/digits_jax/trial_2"
    before = runs.read("result.json")[(1, 2)]
    (second / "result.json").unlink()
    assert runs(*whole) == 0
    said = capsys.readouterr().err
    assert said.count("done before (complete), skipped") == 3
    assert "study 1 trial 2 (4 of 4): point 2 drawn from its SEARCH_SPACE\n  kind " in said
    kept = {path: at for path, at in times.items() if second not in path.parents}
    assert len(kept) >= 3 * 5
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    after = runs.read("result.json")[(1, 2)]
    assert after["seed"] == before["seed"]
    assert runs.read("hparams.json")[(1, 2)] != runs.read("hparams.json")[(1, 1)]


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (("--seed", 1), "seed: 0, now 1"),
        (("--max-steps", 5), "max_steps: null, now 5"),
        (("--eval-every-steps", 2), "eval_every_steps: null, now 2"),
        (("--batch-size", 8), "batch_size_given: null, now 8"),
        (("--until", "test"), "until: "),
        (("--search-space", "two.json"), "search_space: null, now "),
    ],
)
def test_another_configuration_is_refused(runs, whole, capsys, monkeypatch, words, changed):
    monkeypatch.chdir(runs.folder)
    (runs.folder / "two.json").write_text('[{"rate": 1, "kind": "a"}, {"rate": 2, "kind": "a"}]')
    before = sorted(runs.folder.rglob("*"))
    assert runs(*whole, *words) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "digits_jax: holds another configuration" in line
    assert changed in line
    assert "--experiment" in line
    assert sorted(runs.folder.rglob("*")) == before


def test_another_ruleset_is_another_configuration(runs, whole, capsys):
    assert runs() == 2
    assert 'tuning_ruleset: "external", now "none"' in capsys.readouterr().err


@pytest.mark.parametrize("name", ["quick.py", "helper.py", "tuning_search_space.json"])
def test_another_source_is_refused_whichever_of_its_files_changed(tmp_path, capsys, name):
    runs = Runs(tmp_path)
    (tmp_path / "helper.py").write_text("rate = 1")
    runs.file.write_text(QUICK + "\ndef late():\n    import helper\n")
    assert runs() == 0
    assert runs() == 0
    (tmp_path / name).write_text((QUICK + "import helper\n") if name == "quick.py" else "{}")
    capsys.readouterr()
    assert runs() == 2
    assert "holds another submission named 'quick', with other source" in capsys.readouterr().err


def test_a_seed_of_zero_is_a_seed(runs, whole):
    words = (*whole[:2], "--trials", 1, "--out", runs.folder / "zero")
    assert runs(*words, "--seed", 0) == 0
    assert (
        runs.read("result.json", "zero")[(0, 1)]["seed"] == runs.read("result.json")[(0, 1)]["seed"]
    )
    assert runs.read("hparams.json", "zero")[(0, 1)] == runs.read("hparams.json")[(0, 1)]
    assert runs(*words, "--seed", 1, "--experiment", "one") == 0
    one = {name: runs.read(name, "zero", "one")[(0, 1)] for name in ("result.json", "hparams.json")}
    assert one["result.json"]["seed"] != runs.read("result.json")[(0, 1)]["seed"]
    assert one["hparams.json"] != runs.read("hparams.json")[(0, 1)]


def test_self_tuning(runs, capfd):
    assert runs("--tuning-ruleset", "self", out="self") == 0
    flags = runs.read("flags_0.json", "self")
    assert list(flags) == [(0, 1)]
    assert flags[(0, 1)]["budget_s"] == 15.0 * 1.5
    assert runs.read("hparams.json", "self")[(0, 1)] == {}
    assert "hyperparameters None" in capfd.readouterr().err


def test_without_a_ruleset_a_full_form_takes_the_first_point_of_its_space(runs):
    assert runs(out="none") == 0
    assert list(runs.read("flags_0.json", "none")) == [(0, 1)]
    assert set(runs.read("hparams.json", "none")[(0, 1)]) == {"rate", "kind"}
    assert runs.read("flags_0.json", "none")[(0, 1)]["budget_s"] == 15.0


def test_the_batch_size_may_be_drawn(tmp_path):
    (tmp_path / "mine.py").write_text(
        'DEFAULTS = {"rate": 0.1}\n'
        "def jax_optimizer(hyperparameters):\n"
        "    import optax\n    return optax.sgd(hyperparameters.rate)\n"
    )
    (tmp_path / "sizes.json").write_text('[{"batch_size": 8}, {"batch_size": 16}]')
    words = ["run", "--workload", "digits", "--framework", "jax", "--max-steps", "1"]
    words += ["--submission", f"{tmp_path}/mine.py", "--search-space", f"{tmp_path}/sizes.json"]
    assert commands.main([*words, "--trials", "2", "--out", f"{tmp_path}/runs"]) == 0
    folder = tmp_path / "runs/mini-builtin/mine/study_0/digits_jax"
    sizes = [run_log.read_result(folder / f"trial_{trial}")["batch_size"] for trial in (1, 2)]
    assert sizes == [8, 16]


def test_what_another_process_ended_meanwhile_is_taken(tmp_path, monkeypatch):
    """Its result is not thrown away for the failed one that was there before."""
    folder = tmp_path / "trial_1"
    folder.mkdir()
    failed = {"status": "failed", "error": {"outside": True}}
    run_log.write_json(folder / run_log.RESULT, failed)

    @contextlib.contextmanager
    def held_by_another_until_now(_):
        run_log.write_json(folder / run_log.RESULT, {"status": "reached"})
        yield

    monkeypatch.setattr(study.supervision, "locked", held_by_another_until_now)
    monkeypatch.setattr(study, "known_settings", lambda *_: {})
    monkeypatch.setattr(run_log, "check_same_configuration", lambda *_: None)
    monkeypatch.setattr(run_log, "trial_folder", lambda *_: folder)
    plan = TrialPlan(*["x"] * 8, study=0, trial=1, seed=0)
    events = []
    outline = SimpleNamespace(name="x")
    (result,) = study.run(plan, outline, [(0, 1)], lambda _, event: events.append(event["event"]))
    assert (result, events) == ({"status": "reached"}, ["skip"])
    assert run_log.read_result(folder) == result
