"""One trial, the trials of a study, the studies of a submission."""

import dataclasses
import math
import shutil

import numpy as np
import pytest

from algoperf.machine import supervision
from algoperf.workload.crossing import Point
from scoring.reading.runs import read_runs
from scoring.reading.trials import CONTENDED, Target
from scoring.rules.rules import AS_PUBLISHED, BY_THE_RULES, INTERPOLATED, median_over_studies
from scoring.rules.time_to_target import Miss, study_result, study_results, time_to_target

HIGHER = Target("accuracy", higher_is_better=True, validation=0.9)
LOWER = Target("loss", higher_is_better=False, validation=0.5)


def rows(values, target=HIGHER, times=(1.0, 2.0, 3.0, 4.0)):
    return {
        "accumulated_submission_time": np.array(times[: len(values)], float),
        "global_step": np.arange(1.0, len(values) + 1) * 10,
        target.column: np.array(values, float),
    }


def test_first_evaluation_that_meets_the_target():
    crossing = time_to_target(rows([0.1, 0.8, 0.9, 0.95]), HIGHER)  # 0.9 >= 0.9 meets
    assert (crossing.time_s, crossing.step, crossing.evaluation) == (3.0, 30, 2)
    assert crossing.last_miss == Miss(2.0, 20)


def test_lower_is_better():
    crossing = time_to_target(rows([2.0, 0.5, 0.9], LOWER), LOWER)  # 0.5 <= 0.5 meets
    assert (crossing.time_s, crossing.step) == (2.0, 20)
    assert not time_to_target(rows([2.0, 0.51], LOWER), LOWER).reached


def test_met_at_the_first_evaluation():
    crossing = time_to_target(rows([0.99]), HIGHER)
    assert (crossing.evaluation, crossing.last_miss) == (0, None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_meets(value):
    assert time_to_target(rows([0.1, value, 0.9]), HIGHER).time_s == 3.0
    assert time_to_target(rows([0.6, value, 0.4], LOWER), LOWER).time_s == 3.0


def test_budget_is_inclusive_and_nothing_is_given_after_it():
    values = [0.1, 0.2, 0.9]
    assert time_to_target(rows(values), HIGHER, budget_s=3.0).time_s == 3.0
    late = time_to_target(rows(values), HIGHER, budget_s=2.999)
    assert not late.reached
    assert late.time_s == math.inf


def test_an_evaluation_without_a_time_does_not_count():
    crossing = time_to_target(rows([0.9, 0.95], times=(math.nan, 2.0)), HIGHER)
    assert crossing.time_s == 2.0


@pytest.mark.parametrize("column", ["accumulated_submission_time", "validation/accuracy"])
def test_without_a_column_nothing_is_reached(column):
    columns = rows([0.95])
    del columns[column]
    assert not time_to_target(columns, HIGHER).reached


def test_without_the_step_column_the_time_counts():
    columns = rows([0.95])
    del columns["global_step"]
    crossing = time_to_target(columns, HIGHER)
    assert crossing.time_s == 1.0
    assert math.isnan(crossing.step)


def test_interpolated_between_the_miss_and_the_hit():
    """0.8 at 2 s, 1.0 at 3 s: 0.9 is halfway; from 8 to 2 it is 4 whose logarithm is halfway."""
    half = time_to_target(rows([0.1, 0.8, 1.0]), HIGHER, interpolates=True)
    assert (half.time_s, half.step, half.evaluation) == pytest.approx((2.5, 25.0, 2))
    assert (half.last_miss, half.hit_time_s, half.hit_step) == (Miss(2.0, 20), 3.0, 30)
    assert half.interpolated
    goal = dataclasses.replace(LOWER, validation=4.0)
    falling = time_to_target(rows([9.0, 8.0, 2.0], LOWER), goal, interpolates=True)
    assert falling.time_s == pytest.approx(2.5)
    below = dataclasses.replace(LOWER, validation=-1.0)  # no logarithm
    assert time_to_target(rows([1.0, -3.0], LOWER), below, interpolates=True).time_s == 1.5


@pytest.mark.parametrize(
    ("values", "times"),
    [
        ([0.99], (1.0,)),  # no miss
        ([math.nan, 0.95], (1.0, 2.0)),  # the miss measured nothing,
        ([-math.inf, 0.95], (1.0, 2.0)),
        ([0.8, 0.9], (1.0, 2.0)),  # the target itself,
        ([0.8, 0.95], (3.0, 2.0)),  # a clock that went back,
        ([0.8, 0.95], (-1.0, 2.0)),  # or below 0
    ],
)
def test_the_hit_counts_where_nothing_can_be_interpolated(values, times):
    crossing = time_to_target(rows(values, times=times), HIGHER, interpolates=True)
    assert (crossing.time_s, crossing.hit_time_s) == (times[-1], times[-1])
    assert not crossing.interpolated


def test_the_hit_has_to_keep_to_the_budget_although_the_crossing_does():
    late = time_to_target(rows([0.8, 1.0]), HIGHER, budget_s=1.9, interpolates=True)
    assert not late.reached  # met at 1.5 s, seen at 2


def test_what_a_bracket_leaves_open():
    """0.3 of log(4 / 2); where the hit counts, uniform: log(4 / 2) / sqrt(12)."""
    values, times = [0.8, 1.0], (2.0, 4.0)
    between = time_to_target(rows(values, times=times), HIGHER, interpolates=True)
    assert between.log_error == pytest.approx(0.207944154)
    assert time_to_target(rows(values, times=times), HIGHER).log_error == pytest.approx(0.200094530)
    assert time_to_target(rows([0.99]), HIGHER, interpolates=True).log_error == 0.0


def test_probes_narrow_the_bracket():
    """0.8 at 2 s, 1.0 at 4 s; the few rows agree at both ends and say 0.9 at 2.5 s, not at 3 s."""
    columns = rows([0.8, 1.0], times=(2.0, 4.0))
    probes = [Point(*each) for each in ((2.0, 10, 0.8), (2.5, 12, 0.9), (4.0, 20, 1.0))]
    found = time_to_target(columns, HIGHER, interpolates=True, probes=probes)
    assert (found.time_s, found.step) == pytest.approx((2.5, 12.0))
    assert found.last_miss == Miss(2.0, 10)
    assert found.log_error == pytest.approx(0.3 * math.log(2.5 / 2.0))
    assert time_to_target(columns, HIGHER, probes=probes).time_s == 4.0
    harder = dataclasses.replace(HIGHER, validation=0.95)  # between 0.9 at 2.5 s and 1.0 at 4 s
    found = time_to_target(columns, harder, interpolates=True, probes=probes)
    assert found.time_s == pytest.approx(3.25)


@pytest.mark.parametrize(
    ("told", "time_s"),
    [
        ([[10, 1, 0.8], [12, 1.2, 0.9], [20, 2, 1.0]], 12.0),
        ([[10, 1, 0.8], [12, 1.2, "0.9"], [20, 2, 1.0]], 15.0),
        ([[10, 1, 0.8], [12, 0.9], [20, 2, 1.0]], 15.0),
        ([[10, 1, 0.8], [12, 1.2, True], [20, 2, 1.0]], 15.0),
        ({"probes": 1}, 15.0),
        (None, 15.0),
    ],
)
def test_probes_are_read_from_the_result_or_left_out(tmp_path, make_trial, told, time_s):
    make_trial([(10.0, 1, 0.8), (20.0, 2, 1.0)], result={"probes": told})
    (found,) = results(tmp_path, [0], INTERPOLATED)
    assert found.time_s == pytest.approx(time_s)
    assert results(tmp_path, [0])[0].time_s == 20.0


def test_a_study_takes_the_earliest_interpolated_time(tmp_path, make_trial):
    make_trial([(10.0, 1, 0.8), (20.0, 2, 1.0)], trial=1, result={"ledger": {"first_step_s": 6}})
    make_trial([(10.0, 1, 0.0), (19.0, 2, 0.9)], trial=2)
    (found,) = results(tmp_path, [0], INTERPOLATED)
    assert (found.trial, found.time_s, found.time_without_first_step_s) == (1, 15.0, 9.0)
    assert results(tmp_path, [0])[0].trial == 2
    assert math.isnan(results(tmp_path, [0])[0].time_without_first_step_s)  # not recorded


def results(tmp_path, studies, rules=BY_THE_RULES):
    runs, _ = read_runs(tmp_path / "runs")
    return study_results(runs, studies, rules)


def test_study_takes_the_earliest_time_not_the_earliest_evaluation(tmp_path, make_trial):
    make_trial([(30.0, 300, 0.9)], trial=1)  # first evaluation, but late
    make_trial([(5.0, 500, 0.1), (20.0, 600, 0.9)], trial=2)
    (result,) = results(tmp_path, [0])
    assert (result.trial, result.crossing.time_s, result.crossing.step) == (2, 20.0, 600)
    assert result.outcome == "reached"
    (published,) = results(tmp_path, [0], AS_PUBLISHED)
    assert (published.trial, published.time_s) == (1, 30.0)


def test_equal_evaluations_go_to_the_smallest_time(tmp_path, make_trial):
    for trial, time_s in [(1, 30.0), (2, 20.0), (3, 25.0)]:
        make_trial([(1.0, 1, 0.1), (time_s, 600, 0.9)], trial=trial)
    (result,) = results(tmp_path, [0], AS_PUBLISHED)
    assert (result.trial, result.time_s) == (2, 20.0)


def test_budgets_are_enforced_by_the_rules_alone(tmp_path, reach):
    reach(50.0, budget_s=49.0)
    assert results(tmp_path, [0])[0].outcome == "budget"
    assert results(tmp_path, [0], AS_PUBLISHED)[0].time_s == 50.0


def test_a_trial_without_the_metric_is_not_there(tmp_path, reach, miss):
    folder = reach(20.0, trial=1)
    (folder / "eval_measurements.csv").write_text(
        "accumulated_submission_time,global_step,validation/loss\n1.0,1,0.5\n"
    )
    (absent,) = results(tmp_path, [0])
    assert (absent.outcome, absent.absent) == ("missing", True)
    assert math.isnan(absent.time_s)
    reach(30.0, trial=2)
    assert results(tmp_path, [0])[0].time_s == 30.0


def test_equal_times_go_to_the_lower_trial(tmp_path, reach):
    reach(20.0, trial=10)
    reach(20.0, trial=2)
    assert results(tmp_path, [0])[0].trial == 2


def test_median_over_odd_and_even_studies_with_missing_ones(tmp_path, reach, miss):
    reach(10.0, 100, study=0)
    reach(30.0, 310, study=1)
    miss(study=2)
    # Present 0 and 1: (10 + 30) / 2. With the miss: 10, 30, inf -> 30. With a missing fourth:
    # 10, 30, inf, inf -> (30 + inf) / 2 = inf.
    expected = {(0, 1): (20.0, 205.0), (0, 1, 2): (30.0, 310.0), (0, 1, 2, 3): (math.inf, math.inf)}
    for studies, medians in expected.items():
        found = results(tmp_path, studies)
        # by-the-rules, a study that is not there counts as infinite
        times = [math.inf if result.absent else result.time_s for result in found]
        steps = [math.inf if result.absent else result.step for result in found]
        assert tuple(median_over_studies(np.array([times, steps]))) == medians
    assert [result.outcome for result in found] == ["reached", "reached", "not reached", "missing"]


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        (["failed"], "failed"),
        (["failed", "diverged"], "diverged"),
        (["diverged", "complete"], "not reached"),
        (["complete", "budget"], "budget"),
        (["complete", "late"], "not reached"),
        (["late", "outrun"], "not reached"),
        (["late", "diverged"], "late"),
        ([None], "ended early"),  # killed at 2 of 100 s
    ],
)
def test_why_a_study_was_not_reached(tmp_path, miss, statuses, outcome):
    for trial, status in enumerate(statuses, start=1):
        miss(trial=trial, status=status, pool={})  # AlgoPerf's folders record no settings
    assert results(tmp_path, [0])[0].outcome == outcome


def test_a_trial_that_has_not_ended_leaves_its_study_undecided(tmp_path, miss, reach, make_trial):
    miss(study=0, trial=1)
    miss(study=0, trial=2, status=None)  # interrupted, it may still reach
    miss(study=1, status=None)
    running = miss(study=1, trial=2, status=None)
    reach(8.0, study=2, status=None)  # what is reached is decided,
    make_trial([(100.0, 1, 0.1)], study=3, status=None)  # and so is a budget that is used up
    with supervision.locked(running):
        found = results(tmp_path, range(4))
        counted = [dataclasses.replace(run, unfinished=None) for run in read_runs(tmp_path)[0]]
    outcomes = [(result.outcome, result.undecided) for result in found]
    assert outcomes[:2] == [("interrupted", True), ("running", True)]
    assert outcomes[2:] == [("reached", False), ("not reached", False)]
    assert math.isnan(found[0].time_s)
    assert math.isnan(found[1].step)
    assert found[0].crossing.last_miss.time_s == 2.0
    told = [result.outcome for result in study_results(counted, range(4), BY_THE_RULES)]
    assert told == ["not reached", "ended early", "reached", "not reached"]


def test_met_after_the_budget_is_told_as_budget(tmp_path, reach):
    reach(50.0, budget_s=49.0, status=None)
    (result,) = results(tmp_path, [0])
    assert result.outcome == "budget"
    assert result.crossing.time_s == math.inf


def test_rows_of_failed_and_killed_trials_count(tmp_path, reach):
    reach(7.0, study=0, status="failed")
    reach(8.0, study=1, status=None)
    assert [result.crossing.time_s for result in results(tmp_path, [0, 1])] == [7.0, 8.0]


POPULATION = {
    "scale": "mini",
    "data": "builtin",
    "precision": "float32",
    "tuning_ruleset": "population",
    "population": {"members": 3, "every_steps": 10},
}


def population_result(tmp_path, make_trial, members, rules=INTERPOLATED, **facts):
    """The result of a study whose members have these rows: (clock, step, accuracy)."""
    for number, rows in members.items():
        settings = {"trial": number, "pool": POPULATION, "status": "stopped"}
        make_trial(rows, **{**settings, **facts.get(f"member_{number}", {})})
    runs, findings = read_runs(tmp_path)
    assert not findings
    return study_result(0, runs, rules)


# Member 2 meets 0.9 in the third round, at step 25. By then member 1 has had its third turn, and
# member 3 has not.
MEMBERS = {
    1: [(1.0, 10, 0.1), (2.5, 20, 0.2), (4.5, 30, 0.3)],
    2: [(1.0, 10, 0.5), (2.0, 20, 0.8), (3.0, 25, 1.0)],
    3: [(8.0, 10, 0.6), (16.0, 20, 0.7)],
}


def test_a_population_is_timed_by_what_all_members_took_until_the_first(tmp_path, make_trial):
    result = population_result(tmp_path, make_trial, MEMBERS)
    # 2.5 s, half-way from the miss to the hit, after 4.5 s and 16 s of the others.
    assert (result.outcome, result.trial) == ("reached", 2)
    assert result.time_s == pytest.approx(23.0)
    assert result.step == pytest.approx(22.5 + 30 + 20)
    crossing = result.crossing
    assert (crossing.hit_time_s, crossing.hit_step) == (23.5, 75)
    assert (crossing.last_miss.time_s, crossing.last_miss.step) == (22.5, 70)
    assert (crossing.low_time_s, crossing.high_time_s) == (22.5, 23.5)


def test_a_population_by_the_rules_takes_the_evaluation(tmp_path, make_trial):
    for rules in (BY_THE_RULES, AS_PUBLISHED):
        folder = tmp_path / "runs"
        result = population_result(tmp_path, make_trial, MEMBERS, rules)
        assert (result.time_s, result.step) == (23.5, 75)
        shutil.rmtree(folder)


def test_the_first_member_is_the_first_in_the_order_of_turns(tmp_path, make_trial):
    """At an easier target two members meet it: the one whose turn came first, though by its own
    clock it was later; what came after is not counted.
    """
    members = {
        1: [(1.0, 10, 0.1), (2.5, 20, 0.2), (4.5, 30, 0.95)],
        2: [(9.0, 10, 0.5), (20.0, 20, 0.92), (30.0, 30, 0.99)],
        3: [(8.0, 10, 0.6), (16.0, 20, 0.7)],
    }
    result = population_result(tmp_path, make_trial, members, BY_THE_RULES)
    assert result.trial == 2
    assert (result.time_s, result.step) == (20.0 + 2.5 + 8.0, 20 + 20 + 10)


def test_a_member_that_had_ended_counts_whole(tmp_path, make_trial):
    """Its clock ran on after its last evaluation, until its budget was spent."""
    ended = {"status": "budget", "result": {"ledger": {"submission_s": 4.0}, "steps": 24}}
    members = {**MEMBERS, 1: MEMBERS[1][:2]}
    result = population_result(tmp_path, make_trial, members, BY_THE_RULES, member_1=ended)
    assert (result.time_s, result.step) == (3.0 + 4.0 + 16.0, 25 + 24 + 20)


def test_a_population_without_a_hit_missed_its_target(tmp_path, make_trial):
    members = {number: rows[:1] for number, rows in MEMBERS.items()}
    result = population_result(tmp_path, make_trial, members)
    assert (result.outcome, result.time_s) == ("not reached", math.inf)


def test_a_population_without_a_member_that_is_left_out_has_no_time(tmp_path, make_trial):
    population_result(tmp_path, make_trial, MEMBERS)
    runs, _ = read_runs(tmp_path)
    runs = [
        dataclasses.replace(run, rows={}, unfinished=CONTENDED) if run.trial == 3 else run
        for run in runs
    ]
    result = study_result(0, runs, INTERPOLATED)
    assert (result.outcome, result.undecided, math.isnan(result.time_s)) == (CONTENDED, True, True)
