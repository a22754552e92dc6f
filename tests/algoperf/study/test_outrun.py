"""Trials that are outrun by another one of their study, or late beside another submission, end, and
the scores are the same.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from algoperf.cli import commands
from algoperf.experiments import campaign
from algoperf.run_folder import run_log
from algoperf.study import outrun, study
from algoperf.trial.clock import Ledger
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.referee import Referee, Segment
from scoring.rules import rules as scoring_rules

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


def test_a_trial_without_credit_ends_as_late_and_one_that_is_outrun_first_as_that():
    watched = Watched(late_s=25.0)
    assert watched.at(20.5, 0.5).due_s == 25.0
    assert watched.at(25.0, 0.89).has_ended
    assert watched.referee.status == "late"
    watched = Watched(late_s=25.0, outrun_s=22.0)
    assert watched.at(20.5, 0.5).due_s == 22.0
    watched.at(26.0, 0.5)
    assert watched.referee.status == "outrun"
    watched = Watched(late_s=25.0)
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


@pytest.mark.parametrize("option", ["--stop-outrun", "--stop-late"])
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ("--until", "end", "--max-steps", "3"),
            "with --until end: it is for trials to a target",
        ),
        (("--max-steps", "3"), "with --max-steps: it is for trials to a target"),
        (("--tuning-ruleset", "population"), "with --tuning-ruleset population"),
    ],
)
def test_where_it_means_nothing_it_is_refused(option, words, why, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(SUBMISSION)
    (tmp_path / "points.json").write_text(json.dumps(POINTS))
    space = ("--search-space", str(tmp_path / "points.json"))
    given = ("--workload", "digits", "--framework", "pytorch", "--out", str(tmp_path / "runs"))
    submission = ("--submission", str(tmp_path / "mine.py"))
    assert commands.main(["run", *given, *submission, *space, option, *words]) == 2
    assert f"{option} {why}" in capsys.readouterr().err


def test_beside_a_held_out_variant_nobody_is_late(tmp_path, capsys):
    words = ["--workload", "digits_tanh", "--stop-late", "--out", str(tmp_path / "runs")]
    assert commands.main(["run", *words, "--submission", "adamw"]) == 2
    assert "--stop-late with held-out variants" in capsys.readouterr().err
    words += ["--submissions", "adamw", "--tuning-ruleset", "self"]
    assert commands.main(["campaign", *words]) == 2
    assert "--stop-late with held-out variants" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_campaign_takes_it_for_studies_of_several_trials(tmp_path, capsys):
    words = ["campaign", "--workload", "digits", "--stop-outrun", "--out", str(tmp_path / "runs")]
    assert commands.main(words) == 2
    assert "--stop-outrun goes with --tuning-ruleset external" in capsys.readouterr().err


def test_a_campaign_counts_who_is_late_among_studies(tmp_path, capsys):
    words = ["campaign", "--workload", "digits", "--stop-late", "--out", str(tmp_path / "runs")]
    assert commands.main(words) == 2
    assert "--stop-late goes with --tuning-ruleset" in capsys.readouterr().err


def test_a_campaign_has_all_studies_of_a_submission_before_those_of_the_next(tmp_path):
    asked = (["digits", "ag_news"], ["adamw", "nadamw"], ["jax", "pytorch"], "external", 2, 2)
    entries = campaign.entries(*asked, alone=True, stop_late=True)
    order = [(each.workload, each.framework, each.submission, each.study) for each in entries]
    assert order[:4] == [
        *(("digits", "jax", "adamw", study) for study in (0, 1)),
        *(("digits", "jax", "nadamw", study) for study in (0, 1)),
    ]
    assert sorted(order) == sorted(
        (each.workload, each.framework, each.submission, each.study)
        for each in campaign.entries(*asked, alone=True)
    )
    words = " ".join(entries[1].command(tmp_path))
    assert "--stop-late" in words
    assert "--studies 2 --study-range 1:1" in words


RIVAL = {
    "target": {"metric": "accuracy", "validation": 0.9},
    "scale": "mini",
    "hardware": {"cpu": "one", "threads": 1},
}


def write(runs, submission, study, times_s, trial=1, workload="digits_pytorch", **changes):
    """Write trials of a study with such times to target; return the first one's folder."""
    for number, time_s in enumerate(times_s, start=trial):
        folder = runs / submission / f"study_{study}" / workload / f"trial_{number}"
        folder.mkdir(parents=True, exist_ok=True)
        result = {"status": "reached", "time_to_target_s": time_s, "scoreable": True}
        run_log.write_json(folder / "flags_0.json", RIVAL | changes)
        run_log.write_json(folder / run_log.RESULT, result)
    return runs / submission / f"study_{study}" / workload / f"trial_{trial}"


def test_the_rival_is_the_one_whose_slowest_study_is_the_fastest(tmp_path):
    own = write(tmp_path, "own", 0, [None])
    for number, times_s in enumerate(([None, 10.0], [30.0, 12.0], [11.0])):
        write(tmp_path, "steady", number, times_s)
    for number, times_s in enumerate(([5.0], [5.0], [13.0])):
        write(tmp_path, "uneven", number, times_s)
    rival = outrun.fastest_rival(own, RIVAL, 3)
    assert rival == {"submission": "steady", "studies": 3, "slowest_s": 12.0, "after_s": 48.0}
    # Of two studies the median is their mean, and the other one could take no time.
    rival = outrun.fastest_rival(own, RIVAL, 2)
    assert rival == {"submission": "uneven", "studies": 2, "slowest_s": 5.0, "after_s": 40.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"workload": "digits_jax"},
        {"target": {"metric": "accuracy", "validation": 0.8}},
        {"hardware": {"cpu": "another", "threads": 1}},
        {"offload": True},
        {"submission": "own"},
    ],
)
def test_trials_that_are_not_scored_together_make_nobody_late(changes, tmp_path):
    own = write(tmp_path, "own", 0, [None])
    write(tmp_path, changes.pop("submission", "other"), 0, [1.0], trial=2, **changes)
    assert outrun.fastest_rival(own, RIVAL, 1) is None
    write(tmp_path, "other", 0, [1.0], trial=3)
    assert outrun.fastest_rival(own, RIVAL, 1)


def test_a_submission_that_missed_in_one_of_its_studies_makes_nobody_late(tmp_path):
    own = write(tmp_path, "own", 0, [None])
    write(tmp_path, "other", 0, [1.0])
    write(tmp_path, "other", 1, [None, None])
    assert outrun.fastest_rival(own, RIVAL, 1)
    assert outrun.fastest_rival(own, RIVAL, 2) is None
    assert outrun.fastest_rival(own, RIVAL, 3) is None


def test_a_late_trial_is_late_no_longer_where_the_rival_is_gone_or_slower(tmp_path):
    own = write(tmp_path, "own", 0, [None])
    write(tmp_path, "other", 0, [10.0])
    late = {"status": "late", "late": {"studies": 1}, "ledger": {"submission_s": 40.0}}
    run_log.write_json(own / run_log.RESULT, late)
    assert study.lasting_result(own) == late
    write(tmp_path, "other", 0, [10.1])
    assert study.lasting_result(own) is None
    write(tmp_path, "other", 0, [None])
    assert study.lasting_result(own) is None
    write(tmp_path, "other", 0, [9.0])
    assert study.lasting_result(own) == late


@pytest.mark.parametrize(
    "damage", [{"late": None}, {"late": {}}, {"late": {"studies": "two"}}, {"late": {"studies": 0}}]
)
def test_a_late_trial_whose_result_is_damaged_is_run_anew(damage, tmp_path):
    own = write(tmp_path, "own", 0, [None])
    write(tmp_path, "other", 0, [10.0])
    late = {"status": "late", "late": {"studies": 1}, "ledger": {"submission_s": 40.0}}
    run_log.write_json(own / run_log.RESULT, late | damage)
    assert study.lasting_result(own) is None


@pytest.mark.parametrize("studies", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("rules", [scoring_rules.BY_THE_RULES, scoring_rules.INTERPOLATED])
def test_a_score_is_the_same_without_the_late_times_whichever_studies_are_drawn(studies, rules):
    random = np.random.default_rng(studies)
    layout = scoring_rules.make_layout(["a", "b"], ["a", "b"], {})
    cut = 0
    for _ in range(500):
        times_SWN = np.exp(random.normal(0, 1.5, (4, 2, studies)))
        times_SWN[random.random(times_SWN.shape) < 0.1] = np.inf
        slowest_W = times_SWN.max(axis=-1).min(axis=0)
        limits_W = [outrun.late_after_s(slowest_s, studies) for slowest_s in slowest_W]
        seen_SWN = np.where(times_SWN > np.array(limits_W)[:, None], np.inf, times_SWN)
        cut += int((seen_SWN != times_SWN).sum())
        drawn = random.integers(studies, size=studies)
        for numbers in (np.arange(studies), drawn):
            expected = scoring_rules.scores(times_SWN[..., numbers], layout, rules)
            scores = scoring_rules.scores(seen_SWN[..., numbers], layout, rules)
            np.testing.assert_array_equal(scores, expected)
    assert cut > 100


def test_a_run_beside_a_submission_that_is_four_times_as_fast_ends(ran, capsys):
    folder, _ = ran
    slow = folder / "slow.py"
    slow.write_text(SUBMISSION)
    (folder / "slow.json").write_text(json.dumps([{"rate": 1e-7}]))
    words = ["--workload", "digits", "--framework", "pytorch", "--seed", "1", "--trials", "1"]
    words += ["--tuning-ruleset", "external", "--search-space", str(folder / "slow.json")]
    words += ["--out", str(folder / "runs"), "--submission", str(slow), "--stop-late"]
    assert commands.main(["run", *words]) == 0
    assert "late after" in capsys.readouterr().out
    best_s = min(
        result["time_to_target_s"] for result in results(folder) if result["time_to_target_s"]
    )
    result = run_log.read_result(folder / "runs/mini-builtin/slow/study_0/digits_pytorch/trial_1")
    assert result["status"] == "late"
    rival = {"submission": "mine", "studies": 1, "slowest_s": best_s, "after_s": 4 * best_s}
    assert result["late"] == rival
    assert 4 * best_s <= result["ledger"]["submission_s"] < result["budget_s"]
    assert commands.main(["run", *words]) == 0
    assert "skip" in capsys.readouterr().err
