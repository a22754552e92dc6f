"""A trial that another one of its study has outrun ends, and its study scores the same."""

import json
from types import SimpleNamespace

import pytest

from algoperf.cli import commands
from algoperf.run_folder import run_log
from algoperf.study import study
from algoperf.trial.clock import Ledger
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.referee import Referee, Segment

SUBMISSION = """
DEFAULTS = {"rate": 0.1}


def torch_optimizer(params, hyperparameters):
    import torch
    return torch.optim.SGD(params.tensors(), lr=hyperparameters.rate, momentum=0.9)
"""
POINTS = [{"rate": 0.1}, {"rate": 1e-7}, {"rate": 2e-7}]
COLUMN = "validation/accuracy"


class Watched:
    """A referee by a clock that is set by hand; the metric of each evaluation is given."""

    def __init__(self, **limits):
        self.now_s = 0.0
        ledger = Ledger(lambda: self.now_s)
        self.value = 0.5
        self.referee = Referee(
            goal=Goal("accuracy", True, 0.9),
            limits=Limits(100.0, 10.0, **limits),
            ledger=ledger,
            evaluate=lambda split, params, state: {"loss": 1.0, "accuracy": self.value},
            log=SimpleNamespace(scalars=lambda rows: None, evaluation=lambda times, metrics: None),
        )
        self.handed = SimpleNamespace(
            evaluated=lambda: (None, None), are_finite=lambda: True, checksum=lambda: 0
        )
        self.referee.begin({}, self.handed)
        self.referee.initialised(self.handed, 0.0)
        self.step = 0

    def at(self, clock_s, value):
        """Train until the clock says so, and evaluate."""
        self.value = value
        self.step += 1
        submission = self.referee.ledger.submission
        with submission.running():
            self.now_s += clock_s - submission.elapsed_s
        return self.referee.between(Segment(self.step, evaluates=True), self.handed)


def test_an_evaluation_comes_due_when_the_best_time_has_passed():
    watched = Watched(outrun_s=25.0)
    assert watched.at(11.0, 0.5).due_s == 20.0
    assert watched.at(20.5, 0.5).due_s == 25.0  # and not 30
    assert watched.referee.status is None
    assert watched.at(25.0, 0.89).has_ended
    assert watched.referee.status == "outrun"


def test_before_the_best_time_a_miss_ends_nothing():
    watched = Watched(outrun_s=25.0)
    watched.at(24.9, 0.5)
    assert watched.referee.status is None


def test_who_hits_after_the_best_time_has_reached_since_it_may_have_crossed_before():
    watched = Watched(outrun_s=25.0)
    watched.at(24.9, 0.5)
    watched.at(26.0, 0.95)
    assert watched.referee.status == "reached"


def test_without_a_best_time_only_the_budget_ends():
    watched = Watched()
    assert watched.at(99.0, 0.5).due_s == 100.0
    assert watched.referee.status is None
    watched.at(100.5, 0.5)
    assert watched.referee.status == "budget"


def test_where_a_few_rows_are_probed_all_are_evaluated_at_the_end():
    watched = Watched(outrun_s=25.0, eval_share=0.2)
    probed = []
    watched.referee._probe = lambda params, state: probed.append(1) or 0.1
    watched.referee.cadence = watched.referee.limits.cadence(watched.referee.goal)
    first = watched.at(0.1, 0.1)
    assert first.due_s <= 25.0
    watched.referee.cadence.wants_all = lambda: False
    watched.at(24.0, 0.1)
    assert len(watched.referee.evaluations) == 1
    watched.at(25.0, 0.1)
    assert len(watched.referee.evaluations) == 2
    assert watched.referee.status == "outrun"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A study whose first trial reaches the target, and whose others would not in any budget."""
    folder = tmp_path_factory.mktemp("outrun")
    (folder / "mine.py").write_text(SUBMISSION)
    (folder / "points.json").write_text(json.dumps(POINTS))

    def run(*words):
        return commands.main(
            [
                *("run", "--workload", "digits", "--framework", "pytorch", "--seed", "1"),
                *("--submission", str(folder / "mine.py"), "--out", str(folder / "runs")),
                *("--tuning-ruleset", "external", "--trials", "3", "--stop-outrun"),
                *("--search-space", str(folder / "points.json"), *words),
            ]
        )

    assert run() == 0
    return folder, run


def trial(folder, number):
    return folder / f"runs/mini-builtin/mine/study_0/digits_pytorch/trial_{number}"


def results(folder):
    return [run_log.read_result(trial(folder, number)) for number in (1, 2, 3)]


def test_the_trials_after_the_one_that_reached_end_at_its_time(ran):
    folder, _ = ran
    first, *others = results(folder)
    best_s = first["time_to_target_s"]
    assert first["status"] == "reached"
    for number, result in enumerate(others, start=2):
        assert result["status"] == "outrun"
        assert result["outrun_s"] == best_s
        assert result["best"][COLUMN] < result["target"]["validation"]
        assert best_s <= result["ledger"]["submission_s"] < result["budget_s"]
        last = run_log.evaluations(trial(folder, number))[-1]
        assert last["accumulated_submission_time"] >= best_s


def test_its_study_scores_by_the_one_that_reached(ran, capsys):
    folder, _ = ran
    assert commands.main(["score", str(folder / "runs"), "--out", str(folder / "scores")]) == 0
    shown = capsys.readouterr()
    assert "1/1" in shown.out
    assert "outrun" not in shown.err


def test_a_trial_is_outrun_no_longer_where_the_better_time_is_gone(ran, capsys):
    folder, run = ran
    best, _, last = (trial(folder, number) for number in (1, 2, 3))
    before = run_log.read_result(last)
    assert study.lasting_result(last) == before
    later_s = 1.0 + max(result["ledger"]["submission_s"] for result in results(folder))
    later = {**run_log.read_result(best), "time_to_target_s": later_s}
    run_log.write_json(best / run_log.RESULT, later)
    assert study.lasting_result(last) is None
    assert run() == 0
    again = run_log.read_result(last)
    assert (again["status"], again["outrun_s"]) == ("outrun", later_s)
    assert run_log.read_json(last / "replaced_0" / run_log.RESULT) == before
    assert "is run anew, as no other trial of its study" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ("--until", "end", "--max-steps", "3"),
            "--stop-outrun with --until end: it is for trials to a target",
        ),
        (("--max-steps", "3"), "--stop-outrun with --max-steps: it is for trials to a target"),
        (("--tuning-ruleset", "population"), "--stop-outrun with --tuning-ruleset population"),
    ],
)
def test_where_it_means_nothing_it_is_refused(words, why, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(SUBMISSION)
    (tmp_path / "points.json").write_text(json.dumps(POINTS))
    space = ("--search-space", str(tmp_path / "points.json"))
    given = ("--workload", "digits", "--framework", "pytorch", "--out", str(tmp_path / "runs"))
    submission = ("--submission", str(tmp_path / "mine.py"))
    assert commands.main(["run", *given, *submission, *space, "--stop-outrun", *words]) == 2
    assert why in capsys.readouterr().err


def test_a_campaign_takes_it_for_studies_of_several_trials(tmp_path, capsys):
    words = ["campaign", "--workload", "digits", "--stop-outrun", "--out", str(tmp_path / "runs")]
    assert commands.main(words) == 2
    assert "--stop-outrun goes with --tuning-ruleset external" in capsys.readouterr().err
