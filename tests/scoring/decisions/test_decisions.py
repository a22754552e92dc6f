"""Decisions before everything has run: the parts by hand, and finished boards played again."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest

from algoperf.cli import commands
from algoperf.errors import UserError
from scoring.decisions import betting, replay, rule
from scoring.decisions.contest import (
    Contest,
    Seen,
    curve,
    end_bounds,
    is_decisive,
    nothing_seen,
    settled_lead,
)
from scoring.decisions.forecast import Forecast
from scoring.decisions.priors import NO_PRIOR, Finished, Prior, learn, scatter
from scoring.decisions.rule import Referee, Settings

INF = math.inf
TWO = Contest(("a", "b"), ("w0", "w1"), ("w0", "w1"), {}, {"w0": 100.0, "w1": 1000.0}, 1)
SIX = tuple(f"w{number}" for number in range(6))
TWO_OF_SIX = Contest(("a", "c"), SIX, SIX, {}, dict.fromkeys(SIX, 100.0), 1)


def hit(time_s):
    return Seen(time_s, time_s, True)


def missed(budget_s):
    return Seen(budget_s, INF, True)


def running(clock_s, times_s=(), gaps=()):
    return Seen(clock_s, INF, False, times_s, gaps)


def board_of(contest, **cells):
    """`a_w0=hit(10)`: what is known of study 0 of a on w0; the rest has not begun."""
    board = nothing_seen(contest)
    for name, seen in cells.items():
        submission, workload = name.split("_")
        place = contest.submissions.index(submission), contest.workloads.index(workload), 0
        board[place] = seen
    return board


def test_bounds_of_a_pair():
    # a: 1 on w0 if b is slower than its 20 s there or misses, else as little as 0.
    board = board_of(TWO, a_w0=hit(20.0), b_w0=running(40.0), a_w1=hit(100.0), b_w1=missed(1000.0))
    lowest, highest = end_bounds(TWO, board, (0, 1))
    assert lowest.tolist() == [1.0, 0.0]
    assert highest == pytest.approx([1.0, (2 / 3 + 0) / 2])  # b at 40 s: ratio 2, credit 2/3.
    assert settled_lead(TWO, board, (0, 1)) == 1
    assert settled_lead(TWO, board, (1, 0)) == -1
    one = board_of(TWO, a_w0=hit(20.0), b_w0=running(40.0))
    assert settled_lead(TWO, one, (0, 1)) is None  # w1 is worth more.
    missed_all = {f"{s}_{w}": missed(100.0) for s in "ab" for w in ("w0", "w1")}
    assert settled_lead(TWO, board_of(TWO, **missed_all), (0, 1)) == 0


def test_a_study_past_four_times_its_rival_tells_nothing_more():
    board = board_of(TWO, a_w0=hit(10.0), b_w0=running(40.0))
    assert is_decisive(TWO, board, (0, 1), 0, 0)
    board = board_of(TWO, a_w0=hit(10.0), b_w0=running(40.1))
    assert not is_decisive(TWO, board, (0, 1), 0, 0)
    board = board_of(TWO, a_w0=hit(10.0), b_w0=missed(100.0))
    assert not is_decisive(TWO, board, (0, 1), 0, 0)


def test_distances_to_the_target_are_the_best_so_far_without_the_first_step():
    times_s, gaps = curve(
        np.array([1.0, 5.0, 9.0, 12.0]),
        np.array([0.1, 0.6, np.nan, 0.5]),
        0.9,
        higher_is_better=True,
    )
    assert times_s.tolist() == [5, 9, 12]
    assert gaps == pytest.approx([0.3, 0.3, 0.3])
    seen = running(12.0, times_s, gaps)
    assert seen.gap_at(4.9) is None
    assert seen.gap_at(5.0) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (hit(10.0), hit(20.0), 0.5),  # Half of a factor of four, in logarithms.
        (hit(20.0), hit(10.0), -0.5),
        (hit(10.0), hit(90.0), 1.0),
        (hit(50.0), missed(100.0), 0.5),  # The budget of 100 s in place of the miss.
        (missed(100.0), missed(100.0), 0.0),
        (hit(10.0), running(41.0), 1.0),  # Stopped at four times the rival's.
        (hit(10.0), running(39.0), None),
        (running(1.0), running(1.0), None),
    ],
)
def test_values_of_pairs(first, second, expected):
    value = betting.paired(first, second, 100.0)
    assert value == (None if expected is None else pytest.approx(expected))


def test_wealth():
    # Stakes .1, .3, .6 and .9 on 1: 1.1, 1.3, 1.6 and 1.9, squared; against it .9, .7, .4 and .1.
    one = betting.wealth([1.0, 1.0])
    assert one.first == pytest.approx((1.21 + 1.69 + 2.56 + 3.61) / 4)
    assert one.second == pytest.approx((0.81 + 0.49 + 0.16 + 0.01) / 4)
    assert one.pairs == 2
    assert one.leader(0.05) == 0
    # Ville's inequality on each side, so a wealth of 40 and not of 20.
    assert betting.Wealth(39.9, 0.0, 1).leader(0.05) == 0
    assert betting.Wealth(0.0, 40.1, 1).leader(0.05) == -1
    assert betting.wealth([1.0] * 10).leader(0.05) == 1
    assert betting.wealth([-1.0] * 10).leader(0.05) == -1


def test_the_test_errs_as_seldom_as_it_says_however_often_one_looks():
    """Two alike submissions, 27 pairs, looked at after each: error at most 5 % of 2,000."""
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(2000):
        spread = generator.uniform(0.05, 1.5)
        values = np.clip(generator.standard_normal(27) * spread, -1, 1)
        wrong += any(betting.wealth(values[: count + 1]).leader(0.05) for count in range(2, 27, 3))
    assert wrong <= 0.05 * 2000


def forecast_of(board, contest=TWO, prior=NO_PRIOR, **options):
    made = Forecast(contest, (0, 1), prior, **options)
    for w in range(len(contest.workloads)):
        made.update(board, w)
    return made.lead()


def test_a_forecast_of_nothing_is_even():
    lead = forecast_of(nothing_seen(TWO))
    assert lead.probability == pytest.approx(0.5, abs=0.06)
    assert lead.mean == pytest.approx(0, abs=0.06)


def test_a_forecast_of_all_is_certain():
    # Ratio 2 on w0 for b, and a alone on w1: (1 - 2/3 + 1 - 0) / 2.
    all_run = {"a_w0": hit(20.0), "b_w0": hit(40.0), "a_w1": hit(50.0), "b_w1": missed(1000.0)}
    lead = forecast_of(board_of(TWO, **all_run))
    assert lead.mean == pytest.approx((1 / 3 + 1) / 2)
    assert lead.deviation < 1e-3
    assert lead.probability > 0.999
    assert lead.open_by_workload == pytest.approx((0, 0), abs=1e-9)


def test_names_of_a_pair_might_as_well_be_exchanged():
    board = board_of(TWO, a_w0=hit(20.0), b_w0=running(60.0))
    other = board_of(TWO, b_w0=hit(20.0), a_w0=running(60.0))
    lead, back = forecast_of(board), forecast_of(other)
    assert lead.probability > 0.7
    assert lead.probability + back.probability == pytest.approx(1, abs=0.06)


def test_a_clock_without_a_hit_leaves_less_of_the_early_times():
    """A log time of deviation sqrt(.4^2 + .2^2) around the budget, 0 so far at .9 of it.

    P(z > log .9) = .593, P(log .9 < z < 0) = .093, 6 % lost: .94 x .093 / (.593 + .06 x .407) =
    .142 that a still meets the target, alone; .088 if its clock told nothing. The mean over twenty
    workloads has an error of .007 by the draws.
    """
    names = tuple(f"w{number}" for number in range(20))
    many = Contest(("a", "b"), names, names, {}, dict.fromkeys(names, 100.0), 1)
    prior = Prior(
        between_workloads=1e-9, between_submissions=1e-9, within_workload=0.4, between_studies=0.2
    )
    so_far = {f"a_{name}": running(90.0) for name in names}
    board = board_of(many, **so_far, **{f"b_{name}": missed(100.0) for name in names})
    assert forecast_of(board, many, prior).mean == pytest.approx(0.142, abs=0.02)


def test_curves_tell_who_is_ahead():
    near, far = running(30.0, [20.0, 30.0], [0.2, 0.05]), running(30.0, [20.0, 30.0], [0.5, 0.4])
    board = board_of(TWO, a_w0=near, b_w0=far)
    assert forecast_of(board).probability > forecast_of(board, curves=False).probability + 0.05
    assert forecast_of(board, curves=False).probability == pytest.approx(0.5, abs=0.06)


def test_a_target_that_nobody_reaches_leaves_little_open():
    never = Prior(reached={"w1": 0.02})
    lead = forecast_of(nothing_seen(TWO), prior=never)
    assert lead.open_by_workload[1] < 0.3 * lead.open_by_workload[0]


def made_recording(tmp_path, make_trial, factors, studies=2, seed=0):
    """A board of three workloads; a submission's times are the workload's times its factor."""
    generator = np.random.default_rng(seed)
    usual_s = {"w0": 10.0, "w1": 20.0, "w2": 30.0}
    for (name, factor), (workload, usual), study in itertools.product(
        factors.items(), usual_s.items(), range(studies)
    ):
        end_s = usual * factor * math.exp(0.05 * generator.standard_normal())
        times_s = np.linspace(0.1, 1, 10) * end_s
        values = 0.9 * times_s / end_s
        values[-1] = 0.9
        rows = [(t, i + 1, v) for i, (t, v) in enumerate(zip(times_s, values, strict=True))]
        make_trial(
            rows, submission=name, workload=workload, study=study, budget_s=90.0, status="reached"
        )
    return tmp_path / "runs"


def test_a_replay_costs_and_decides(tmp_path, make_trial):
    runs = made_recording(tmp_path, make_trial, {"a": 1.0, "b": 2.0})
    from algoperf.cli.decide_command import recorded

    recording = recorded(str(runs), None)
    assert recording.contest.submissions == ("a", "b")
    assert recording.truth((0, 1)) == pytest.approx(1 - 2 / 3, abs=0.05)
    assert recording.log_ratio((0, 1)) == pytest.approx(math.log(2), abs=0.05)
    everything = replay.play(recording, (0, 1), Settings(stops=(), caps=False, order="given"))
    assert everything.cost == pytest.approx(1)
    assert (everything.verdict.leader, everything.verdict.by) == (1, "end")
    for stops in (("bounds",), ("forecast",)):
        one = replay.play(recording, (0, 1), Settings(stops=stops))
        assert (one.verdict.leader, one.verdict.by) == (1, stops[0])
        assert one.cost < 1
        assert one.steps[-1].cost_s == pytest.approx(one.cost * recording.cost_s((0, 1)))
    assert "per second" in one.steps[0].action.reason
    again = replay.play(recording, (0, 1), Settings(stops=("forecast",)))
    assert [step.action for step in again.steps] == [step.action for step in one.steps]
    back = replay.play(recording, (1, 0), Settings(stops=("forecast",)))
    assert back.verdict.leader == -1


def test_small_differences_can_be_called_small(tmp_path, make_trial):
    from algoperf.cli.decide_command import recorded

    runs = made_recording(tmp_path, make_trial, {"a": 1.0, "b": 1.001})
    one = replay.play(
        recorded(str(runs), None), (0, 1), Settings(stops=("forecast",), small=0.2, confidence=0.8)
    )
    assert (one.verdict.leader, one.verdict.by) == (0, "forecast")
    text = rule.told(TWO, (0, 1), one.verdict, 0.2)
    assert text == "a against b: cannot be told apart: the difference is under 0.2"


def test_tallies():
    def made(truth, leader, cost, log_ratio=1.0):
        verdict = rule.Verdict(leader, "forecast", None) if leader is not None else None
        return replay.Replay(("a", "b"), truth, log_ratio, verdict, cost, (), ())

    played = [made(0.3, 1, 0.05), made(0.3, -1, 0.2), made(-0.05, -1, 0.05), made(0.2, None, 0.5)]
    one = replay.tally(played, 0.1)
    assert (one.pairs, one.decided, one.wrong) == (4, 2, 0)
    one = replay.tally(played, 0.33, apart=0.1)
    assert (one.pairs, one.decided, one.wrong) == (3, 2, 1)
    assert replay.tally(played, 0.1, by_log_ratio=True).wrong == 1


def test_priors_leave_families_out():
    contest = dataclasses.replace(TWO, submissions=("a", "b", "c"), studies=1)
    board = nothing_seen(contest)
    for s, (w0, w1) in enumerate([(10.0, INF), (20.0, INF), (INF, 50.0)]):
        board[s, 0, 0] = hit(w0) if w0 < INF else missed(100.0)
        board[s, 1, 0] = hit(w1) if w1 < INF else missed(1000.0)
    one = Finished("made", contest, board, {"a": "x", "b": "y", "c": "y"})
    assert learn([one]).reached == {"w0": 3 / 5, "w1": 2 / 5}  # (hits + 1) / (submissions + 2)
    without = learn([one], {"y"})
    assert without.reached == {"w0": 2 / 3, "w1": 1 / 3}
    assert without.reached_elsewhere == 1 / 2
    assert without.between_studies == NO_PRIOR.between_studies


def test_scatter_of_a_made_board(tmp_path, make_trial):
    from algoperf.cli.decide_command import recorded

    runs = made_recording(tmp_path, make_trial, {"a": 1.0, "b": 2.0, "c": 0.5}, studies=3)
    recording = recorded(str(runs), None)
    family_of = {name: name for name in recording.contest.submissions}
    one = Finished("made", recording.contest, recording.ended(), family_of)
    found = scatter([one])
    assert found.between_studies == pytest.approx(0.05, rel=0.4)
    # Submissions at log 2, 0 and -log 2; workloads at 10, 20 and 30 s.
    assert found.between_submissions == pytest.approx(math.log(2) * math.sqrt(4 / 3), rel=0.1)
    assert found.between_workloads == pytest.approx(np.std(np.log([10, 20, 30])), rel=0.1)
    assert found.lost == 0


def test_the_command_replays(tmp_path, make_trial, capsys):
    runs = made_recording(tmp_path, make_trial, {"a": 1.0, "b": 3.0, "c": 1.5})
    assert commands.main(["decide", "--replay", str(runs), "a", "b", "--steps"]) == 0
    shown = capsys.readouterr().out
    assert "a is ahead of b" in shown
    assert "c" not in shown.split("ahead of")[1][:3]
    assert "within 10% of the cost" in shown
    assert "the most per second of what is left" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--replay", "RUNS", "nobody"], "nobody"),
        (["--replay", "RUNS", "--confidence", "0.4"], "--confidence 0.4"),
        (["--replay", "RUNS", "--stop-by", "hope"], "hope"),
        (["a", "b"], "give at least two submissions, and --workloads"),
        ([], "give at least two submissions, and --workloads"),
        (["--replay", "RUNS", "--prior", "RUNS", "--prior-targets", "x,y"], None),
        (["--again", "RUNS/none.jsonl"], "is no log of algoperf decide"),
    ],
)
def test_mistakes_of_the_command(tmp_path, make_trial, capsys, words, message):
    runs = made_recording(tmp_path, make_trial, {"a": 1.0, "b": 3.0}, studies=1)
    words = [word.replace("RUNS", str(runs)) for word in words]
    assert commands.main(["decide", *words]) == 2
    if message is not None:
        assert message in capsys.readouterr().err


def test_a_referee_serves_the_most_open_pair_of_three():
    contest = dataclasses.replace(TWO, submissions=("a", "b", "c"))
    board = nothing_seen(contest)
    for s, (w0, w1) in enumerate([(10.0, 100.0), (12.0, 120.0)]):
        board[s, 0, 0], board[s, 1, 0] = hit(w0), hit(w1)
    referee = Referee(contest, Settings(stops=("bounds",)))
    referee.look(board)
    assert referee.verdicts[0, 1].leader == 1
    action = referee.next(board)
    assert set(action.runs) == {2}  # Only c has anything left to run.
    assert action.pair in ((0, 2), (1, 2))


def test_no_forecast_decides_about_a_submission_that_has_not_run():
    """Two that reach every target are no evidence that a third is slower: what a pair's forecast
    rests on, both have run.
    """
    three = dataclasses.replace(TWO_OF_SIX, submissions=("a", "b", "c"))
    cells = {f"{who}_{name}": hit(s) for name in SIX for who, s in (("a", 10.0), ("b", 25.0))}
    referee = Referee(three, Settings(stops=("forecast",), caps=False))
    board = board_of(three, **cells)
    referee.look(board)
    assert list(referee.verdicts) == [(0, 1)]
    for pair in ((0, 2), (1, 2)):
        assert referee.lead(pair).probability == pytest.approx(0.5, abs=0.05)
    action = referee.next(board)
    assert set(action.runs) == {2}
    # Once it has run on a workload it is compared there, with what the others took.
    board[2, action.workload, 0] = hit(90.0)
    referee.look(board, action.workload)
    alone = Referee(TWO_OF_SIX, Settings(stops=("forecast",), caps=False))
    pool = board_of(TWO_OF_SIX)
    pool[0, action.workload, 0], pool[1, action.workload, 0] = hit(10.0), hit(90.0)
    alone.look(pool)
    assert referee.lead((0, 2)).probability == pytest.approx(alone.lead((0, 1)).probability)
    assert 0.5 < referee.lead((0, 2)).probability < 1


def test_a_forecast_that_later_runs_contradict_is_taken_back():
    """Runs for one pair tell about another that was decided before; they are not left out."""
    three = dataclasses.replace(TWO_OF_SIX, submissions=("a", "b", "c"))
    referee = Referee(three, Settings(stops=("forecast",), caps=False))
    board = nothing_seen(three)
    for w in range(2):
        board[0, w, 0], board[2, w, 0] = missed(100.0), hit(10.0)
    referee.look(board)
    assert referee.verdicts[0, 2].leader == -1
    for w in range(2, 4):
        board[0, w, 0], board[2, w, 0] = hit(10.0), missed(100.0)
        referee.look(board, w)
    assert referee.lead((0, 2)).probability == pytest.approx(0.5, abs=0.06)
    assert (0, 2) not in referee.verdicts
    assert referee.next(board) is not None


def test_a_study_that_has_nothing_to_run_is_known():
    """As of a trial that is missing in finished logs."""
    referee = Referee(TWO, Settings(stops=("forecast",), confidence=0.999))
    referee.look(board_of(TWO, a_w0=hit(10.0), b_w0=missed(0.0)))
    assert referee.lead((0, 1)).probability > 0.8


def test_a_log_gives_the_same_decisions_again(tmp_path):
    from algoperf.experiments import decide

    settings = Settings(stops=("bounds",))
    board = board_of(TWO, a_w0=hit(20.0), b_w0=running(40.0, [30.0, 40.0], [0.2, INF]))
    later = {(0, 1, 0): hit(100.0), (1, 1, 0): missed(1000.0)}
    lines = [
        {"contest": decide._contest_json(TWO), "settings": decide._settings_json(settings)},
        {"known": decide._board_json(board)},
        {"chosen": {"workload": "w1"}, "known": decide._board_json(later)},
    ]
    log = tmp_path / "decisions.jsonl"
    log.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    assert decide.again(log) == ["a is ahead of b (whatever the rest would give)"]
    log.write_text("nothing")
    with pytest.raises(UserError, match="is no log of algoperf decide"):
        decide.again(log)


def test_runs_that_were_ended_as_late_are_not_replayed(tmp_path, make_trial):
    from algoperf.cli.decide_command import recorded

    runs = made_recording(tmp_path, make_trial, {"a": 1.0, "b": 2.0})
    recorded(str(runs), None)
    path = next(runs.rglob("result.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "late"}))
    with pytest.raises(UserError, match="1 trials were ended by --stop-late"):
        recorded(str(runs), None)
