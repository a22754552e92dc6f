"""Score bounds: never violated, whatever comes, and each end reached by some completion."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import score_bounds

from scoring.analysis import bounds
from scoring.analysis.bounds import LATEST_S, TrialState, bounds_of, study_bounds
from scoring.analysis.leaderboard import build_leaderboard
from scoring.benchmarks.pools import make_pools
from scoring.reading.runs import read_runs
from scoring.rules import rules as scoring_rules
from scoring.rules.rules import AS_PUBLISHED, BY_THE_RULES, INTERPOLATED
from scoring.rules.time_to_target import Crossing, Miss

INF = math.inf


def hit(time_s, evaluation, last_miss_s=None):
    miss = None if last_miss_s is None else Miss(last_miss_s, 1)
    return Crossing(time_s, 10, evaluation, miss, hit_time_s=max(time_s, 10.0))


def state(clock_s=0.0, *, evaluations=0, hit=None, is_open=True):
    return TrialState(1, is_open, clock_s, evaluations, hit, evaluations > 0)


REACHED = state(10.0, evaluations=4, hit=hit(10.0, 3), is_open=False)
MISSED = state(99.0, evaluations=9, is_open=False)


@pytest.mark.parametrize(
    ("states", "trials", "expected"),
    [
        ([REACHED], 1, (10, 10)),
        ([MISSED], 1, (INF, INF)),
        ([], 1, (0, INF)),  # Not begun.
        ([state(6.0, evaluations=2)], 1, (6, INF)),  # A miss so far: above its clock, or never.
        ([REACHED, state(6.0, evaluations=2)], 2, (6, 10)),
        ([REACHED, state(12.0, evaluations=2)], 2, (10, 10)),
        ([REACHED], 2, (0, 10)),  # The second trial has not begun.
        ([MISSED, MISSED], 2, (INF, INF)),
    ],
)
def test_one_study_by_the_rules(states, trials, expected):
    assert study_bounds(states, BY_THE_RULES, trials=trials) == expected


def test_a_study_without_a_readable_trial_is_none():
    gone = state(is_open=False)
    assert np.isnan(study_bounds([gone], BY_THE_RULES, trials=1)).all()
    assert np.isnan(study_bounds([], BY_THE_RULES, trials=0)).all()


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        # The earlier evaluation counts as published, however late it is.
        (state(30.0, evaluations=2), (10, LATEST_S)),
        (state(7.0, evaluations=2), (7, LATEST_S)),
        (state(7.0, evaluations=3), (7, 10)),  # The same evaluation: the smaller time.
        (state(7.0, evaluations=4), (10, 10)),
    ],
)
def test_one_study_as_published(other, expected):
    assert study_bounds([REACHED, other], AS_PUBLISHED, trials=2) == expected


def test_probes_may_move_the_hit_of_a_trial_that_has_not_ended():
    crossed = hit(8.0, 3, last_miss_s=6.0)
    running = state(10.0, evaluations=4, hit=crossed)
    assert study_bounds([running], INTERPOLATED, trials=1) == (6, 10)
    assert study_bounds([running], BY_THE_RULES, trials=1) == (8, 8)
    ended = dataclasses.replace(running, is_open=False)
    assert study_bounds([ended], INTERPOLATED, trials=1) == (8, 8)


def board_below(folder, rules=BY_THE_RULES):
    runs, _ = read_runs(folder)
    (pool,), _ = make_pools(runs)
    board, _ = build_leaderboard(pool, rules)
    return board


def test_each_end_is_reached_by_a_completion(tmp_path, make_trial):
    """a: digits at 20 s, lm interrupted at 30 s. b: digits interrupted at 8 s, lm at 40 s.

    a is lowest if it misses lm (0) and b meets digits at once, at 8 s: ratio 20 / 8 = 2.5, credit
    .5, score .25. It is highest if it meets lm at 30 s (1) and b misses digits (1): 1. b is lowest
    if it misses digits (0) and a meets lm at 30 s: ratio 4/3, credit 8/9, score 4/9; highest 1.
    """
    loss = {"metric": "loss", "higher_is_better": False, "validation": 0.5}
    make_trial([(10.0, 5, 0.2), (20.0, 9, 0.95)], submission="a")
    make_trial([(8.0, 5, 0.2)], submission="b", status=None)
    make_trial([(30.0, 5, 0.9)], submission="a", workload="lm", target=loss, status=None)
    make_trial([(40.0, 5, 0.4)], submission="b", workload="lm", target=loss)
    board = board_below(tmp_path / "runs")
    ends = zip(*dataclasses.astuple(bounds_of(board))[:4], strict=True)
    one = dict(zip(board.labels, ends, strict=True))
    assert one["a"] == pytest.approx((0.25, 1.0, 1, 2))
    assert one["b"] == pytest.approx((4 / 9, 1.0, 1, 2))

    def ends_with(**lines):
        """The scores after each interrupted trial has got one more line."""
        for path, line in lines.items():
            submission, workload = path.split("_")
            (file,) = (tmp_path / "runs").glob(f"*/{submission}/*/{workload}_jax/*/eval*.csv")
            kept = file.read_text().splitlines()[:2]
            file.write_text("\n".join([*kept, line]) + "\n")
            (file.parent / "result.json").write_text('{"status": "complete", "scoreable": true}')
        scored = board_below(tmp_path / "runs")
        ended = bounds_of(scored)
        assert ended.lowest == ended.highest == tuple(row.score for row in scored.rows)
        assert ended.settled == len(scored.rows)
        return {row.entry.label: row.score for row in scored.rows}

    at_once, never = {"b_digits": "8.0,9,0.95"}, {"b_digits": "100.0,9,0.3"}
    a_at_once, a_never = {"a_lm": "30.0,9,0.4"}, {"a_lm": "100.0,9,0.8"}
    assert ends_with(**at_once, **a_never)["a"] == pytest.approx(0.25)
    assert ends_with(**never, **a_at_once)["a"] == pytest.approx(1.0)
    assert ends_with(**never, **a_at_once)["b"] == pytest.approx(4 / 9)
    assert ends_with(**at_once, **a_never)["b"] == pytest.approx(1.0)


def test_places_settle_where_intervals_part():
    best, worst = bounds.place_bounds(np.array([0.6, 0.2, 0.3]), np.array([0.9, 0.5, 0.6]))
    assert best.tolist() == [1, 2, 1]  # The third may tie with the first, not pass it.
    assert worst.tolist() == [1, 3, 3]


def made_board(tmp_path, make_trial, generator, trials=2):
    """Three submissions on two bases and a variant of the first, three studies, random curves."""
    variant = {"base_workload": "digits", "changes": {"width": 2.0}}
    names = ("digits", "digits_wide", "letters")
    for submission, workload, study in itertools.product("abc", names, range(3)):
        for trial in range(1, trials + 1):
            count = int(generator.integers(1, 8))
            times = np.cumsum(generator.uniform(1, 20, count))
            values = generator.uniform(0.3, 1.0, count)
            make_trial(
                [(t, 10 * (i + 1), v) for i, (t, v) in enumerate(zip(times, values, strict=True))],
                submission=submission,
                workload=workload,
                study=study,
                trial=trial,
                flags=variant if workload == "digits_wide" else None,
            )


@pytest.mark.parametrize("rules", [BY_THE_RULES, AS_PUBLISHED], ids=lambda rules: rules.name)
def test_the_final_score_is_within_the_bounds_of_every_cut(tmp_path, make_trial, rules):
    made_board(tmp_path, make_trial, np.random.default_rng(3))
    board = board_below(tmp_path / "runs", rules)
    assert board.benchmark.variant_of == {"digits_wide": "digits"}
    outside, table = score_bounds.check(board, 60, seed=1)
    assert outside == 0
    assert table[:, 1].max() > 0.5  # Some cuts leave much open,
    trials = score_bounds.trials_of(board)
    low, high, _ = score_bounds.bounds_of_cut(board, trials, [1.0] * len(trials))
    final = scoring_rules.scores(board.times_SWN, board.layout, rules)
    for end in bounds.score_bounds(low, high, board.layout, rules):
        assert end.tolist() == final.tolist()  # and the whole board nothing.


ONE_BASE = scoring_rules.make_layout(["base", "variant"], ["base"], {"variant": "base"})


def test_a_third_submission_may_take_a_rivals_credit_away():
    """a: base 20 s, variant 10 s. b: base 10 s, variant 30 s. c: base 80 s, variant open.

    Where c meets the variant at 2.5 s or more, a has it within four times; under 7.5 s b has not,
    so that a's reference is its own time: ratio 1, score 1. Where c does not, b is the reference:
    ratio 2, score 2/3. Where c meets it at once (0 s), a has no credit: 0.
    """
    low = np.array([[20.0, 10.0], [10.0, 30.0], [80.0, 0.0]])[..., None]
    high = low.copy()
    high[2, 1] = INF
    lowest, highest = bounds.score_bounds(low, high, ONE_BASE, BY_THE_RULES)
    assert lowest[0] == 0
    assert highest[0] == 1
    low[2, 1] = 3.0
    lowest, highest = bounds.score_bounds(low, high, ONE_BASE, BY_THE_RULES)
    assert lowest[0] == pytest.approx(2 / 3)  # All early is not its lowest end:
    assert scoring_rules.scores(low, ONE_BASE, BY_THE_RULES)[0] == highest[0] == 1
    low[2, 1] = 8.0
    lowest, highest = bounds.score_bounds(low, high, ONE_BASE, BY_THE_RULES)
    assert lowest[0] == highest[0] == pytest.approx(2 / 3)


@pytest.mark.parametrize("rules", [BY_THE_RULES, AS_PUBLISHED], ids=lambda rules: rules.name)
def test_no_end_is_outside_of_the_bounds_and_both_are_reached(rules):
    """Every end on a grid of times, of random boards of three submissions, one study each.

    Times are powers of two, so that a quarter of one, at which the cut-off lies, is on the grid.
    """
    generator = np.random.default_rng(5)
    grid = 2.0 ** np.arange(-1, 8)
    for _ in range(150):
        options = []
        for _ in range(6):
            low, high = sorted(generator.choice(grid, 2))
            kind = generator.integers(3)
            most = [low, high, INF][kind]
            later = [time for time in grid if low <= time <= most]
            options.append([*later, INF] if kind == 2 else later)
        ends = np.array(list(itertools.islice(itertools.product(*options), 60_000)))
        if len(ends) == 60_000:
            continue
        scores = scoring_rules.scores(ends.reshape(-1, 3, 2, 1), ONE_BASE, rules)
        low, high = (np.array([f(each) for each in options]) for f in (min, max))
        found = bounds.score_bounds(*(t.reshape(3, 2, 1) for t in (low, high)), ONE_BASE, rules)
        if rules.exact:
            assert np.allclose(found, [scores.min(axis=0), scores.max(axis=0)], atol=1e-12)
        assert (scores >= found[0] - 1e-12).all()
        assert (scores <= found[1] + 1e-12).all()


def test_the_table_and_the_files_show_the_bounds(tmp_path, make_trial, reach, capsys):
    from algoperf.cli import commands

    reach(20.0, submission="a")
    make_trial([(8.0, 5, 0.2)], submission="b", status=None)
    out = tmp_path / "out"
    words = ["score", str(tmp_path / "runs"), "--partial", "--out", str(out)]
    assert commands.main(words) == 0
    shown = capsys.readouterr().out
    assert "can end in" in shown
    assert "Places settled: 0 of 2." in " ".join(shown.split())
    assert "0.5000-1.0000" in shown  # a: 20 s against 8 s is the ratio 2.5, credit .5.
    header, *rows = (out / "scores.csv").read_text().splitlines()
    table = [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]
    ends = {row["submission"]: (row["lowest_score"], row["worst_place"]) for row in table}
    assert ends == {"a": ("0.5", "2"), "b": ("0.0", "2")}
    assert "can end in" in (out / "report.html").read_text()


def test_what_is_to_come_needs_partial(tmp_path, reach):
    from scoring import report

    reach(20.0)
    with pytest.raises(report.errors.UserError, match="give --partial too"):
        report.score([tmp_path / "runs"], report.Options(trials=3))
