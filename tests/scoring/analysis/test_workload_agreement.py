"""Which workloads tell the order, and what trials cost: by hand, and by scipy."""

import csv
import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from algoperf.cli import commands
from scoring.analysis import costs as costs_module
from scoring.analysis import workload_agreement as module
from scoring.analysis.workload_agreement import SUBSET, tau_b
from scoring.report import Options, score, write
from scoring.rules import rules as scoring_rules


def test_tau_b_is_scipy_s_with_ties_and_without():
    generator = np.random.default_rng(0)
    for _ in range(50):
        first, second = generator.integers(0, 4, (2, 7)) / 3
        wanted = stats.kendalltau(first, second, variant="b").statistic
        assert tau_b(first, second) == pytest.approx(wanted, nan_ok=True)
    first_RTS, second_RTS = generator.random((2, 3, 4, 6))
    taus = tau_b(first_RTS, second_RTS)
    assert taus.shape == (3, 4)
    wanted = stats.kendalltau(first_RTS[2, 1], second_RTS[2, 1]).statistic
    assert taus[2, 1] == pytest.approx(wanted)


def test_tau_b_by_hand():
    # Pairs of a, b, c: (ab, ac, bc). The second side ties ab, and has bc the other way round:
    # (0 + 1 - 1) / sqrt(3 * 2) = 0. With c below both: (0 + 1 + 1) / sqrt(6).
    assert tau_b(np.array([3.0, 2.0, 1.0]), np.array([2.0, 2.0, 1.0])) == pytest.approx(2 / 6**0.5)
    assert math.isnan(tau_b(np.array([3.0, 2.0, 1.0]), np.array([1.0, 1.0, 1.0])))
    # One sum in two orders is one score.
    assert 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1
    assert math.isnan(tau_b(np.array([0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1]), np.array([1.0, 2.0])))


# Seconds of a, b, c and d on each workload; 0 is a miss. Ratios to the fastest, r, give credits
# (4 - r) / 3:
#                 a     b     c     d       credits
#   alpha        10    13    16    19       1     .9    .8    .7      order a b c d
#   beta         10    16    13    19       1     .8    .9    .7      a c b d
#   gamma        19    16    13    10       .7    .8    .9    1       d c b a
#   delta        10    10    10    10       1     1     1     1       none: all at once
#   epsilon       0     0     0     0       0     0     0     0       none: nobody
#   suite (of 5), sum:                      3.7   3.5   3.6   3.4     a c b d
#   without alpha                           2.7   2.6   2.8   2.7
#   without beta                            2.7   2.7   2.7   2.7
#   without gamma                           3     2.7   2.7   2.4
TIMES_S = {
    "alpha": (10, 13, 16, 19),
    "beta": (10, 16, 13, 19),
    "gamma": (19, 16, 13, 10),
    "delta": (10, 10, 10, 10),
    "epsilon": (0, 0, 0, 0),
}
WALL_S = {"alpha": 3600.0, "beta": 1800.0, "gamma": 1200.0, "delta": 900.0, "epsilon": 9000.0}
# Hours of four submissions of three studies on two cores: seconds / 3600 * 24.
HOURS = {name: 24 * wall_s / 3600 for name, wall_s in WALL_S.items()}


@pytest.fixture
def five(reach, miss):
    """The board above: three studies, in which all times are longer by 0, 1 and 2 %."""
    for study, (workload, times_s) in itertools.product(range(3), TIMES_S.items()):
        for label, time_s in zip("abcd", times_s, strict=True):
            facts = {"submission": label, "workload": workload, "study": study}
            facts["pool"] = {"scale": "mini", "hardware": {"threads": 2}}
            clock_s = time_s or 50.0
            facts["result"] = {"ledger": {"wall_s": WALL_S[workload], "submission_s": clock_s}}
            if time_s:
                reach(time_s * (1 + study / 100), 100 + study, **facts)
            else:
                status = "outrun" if label == "d" else "budget"
                miss(**facts, status=status)


@pytest.fixture
def scored(five, tmp_path):
    return score([tmp_path / "runs"], Options(resamples=200, rules="by-the-rules"))


def test_each_workload_beside_the_suite_and_beside_the_others(scored):
    (summary,) = scored.summaries
    assert summary.board.labels == ["a", "c", "b", "d"]
    by_name = {one.workload: one for one in summary.agreement.orders}
    # Against the suite's a c b d: alpha has one pair of six the other way round, (5 - 1) / 6.
    suite = {name: one.with_suite.tau for name, one in by_name.items()}
    assert suite == pytest.approx(
        {"alpha": 4 / 6, "beta": 1, "gamma": -4 / 6, "delta": math.nan, "epsilon": math.nan},
        nan_ok=True,
    )
    # alpha's a b c d against 2.7, 2.6, 2.8, 2.7: ab agrees, ac not, ad tied, bc not, bd not, cd
    # agrees: (2 - 3) / sqrt(6 * 5). beta's others tie all. gamma's d c b a against 3, 2.7, 2.7,
    # 2.4: all but the tied bc the other way round, -5 / sqrt(6 * 5).
    others = {name: one.with_others.tau for name, one in by_name.items()}
    assert others == pytest.approx(
        {
            "alpha": -1 / 30**0.5,
            "beta": math.nan,
            "gamma": -5 / 30**0.5,
            "delta": math.nan,
            "epsilon": math.nan,
        },
        nan_ok=True,
    )
    assert [one.workload for one in summary.agreement.orders] == [
        *("alpha", "gamma", "beta"),  # by the others, then by the suite; what has none is last
        *("delta", "epsilon"),
    ]


def test_what_a_target_separates(scored):
    by_name = {one.workload: one for one in scored.summaries[0].agreement.orders}
    reached = {name: (one.reached, one.submissions) for name, one in by_name.items()}
    assert reached == dict.fromkeys(TIMES_S, (4, 4)) | {"epsilon": (0, 4)}
    spread = {name: one.spread for name, one in by_name.items()}
    wanted = {"alpha": 1.9, "beta": 1.9, "gamma": 1.9, "delta": 1, "epsilon": math.nan}
    assert spread == pytest.approx(wanted, nan_ok=True)
    assert by_name["alpha"].fastest_s == pytest.approx(10.1)  # the median study's, by the rules
    assert {name: one.separates for name, one in by_name.items()} == {
        **dict.fromkeys(("alpha", "beta", "gamma"), ""),
        "delta": "all reach it within 1.5 times",
        "epsilon": "nobody reaches it",
    }


def test_subsets_of_three(scored):
    agreement = scored.summaries[0].agreement
    assert len(agreement.subsets) == math.comb(5, SUBSET)
    # By scipy alone, from the credits above.
    credits = np.array(
        [[1, 0.9, 0.8, 0.7], [1, 0.8, 0.9, 0.7], [0.7, 0.8, 0.9, 1], [1] * 4, [0] * 4]
    )
    names = list(TIMES_S)
    for one in agreement.subsets:
        inside = np.isin(names, one.workloads)
        own, rest = (np.round(credits[each].sum(axis=0), 9) for each in (inside, ~inside))
        suite = np.round(credits.sum(axis=0), 9)
        wanted = stats.kendalltau(own, suite).statistic
        assert one.with_suite.tau == pytest.approx(wanted, nan_ok=True)
        wanted = stats.kendalltau(own, rest).statistic
        assert one.with_others.tau == pytest.approx(wanted, nan_ok=True)
        assert one.core_hours == pytest.approx(sum(HOURS[name] for name in one.workloads))
        assert [HOURS[name] for name in one.workloads] == sorted(
            HOURS[name] for name in one.workloads
        )
    taus = [one.with_suite.tau for one in agreement.subsets]
    known = [tau for tau in taus if not math.isnan(tau)]
    assert taus[: len(known)] == sorted(known, reverse=True)
    # alpha, beta and gamma have the suite's order, a c b d (2.7 2.5 2.6 2.4); so have beta, delta
    # and epsilon, of which two separate nothing, for 78 core-hours in place of 44.
    assert agreement.best.workloads == ("gamma", "beta", "alpha")
    assert agreement.best.with_suite.tau == 1
    assert agreement.subsets[1].workloads == ("delta", "beta", "epsilon")
    # alpha, beta and delta tie b and c: 5 / sqrt(6 * 5) = .91 is within .1 of it, and cheaper. Yet
    # cheaper are beta, gamma and delta, with 1 / sqrt(6 * 5) = .18.
    assert agreement.cheap.workloads == ("delta", "beta", "alpha")
    assert agreement.cheap.with_suite.tau == pytest.approx(5 / 30**0.5)
    assert agreement.core_hours == pytest.approx(sum(HOURS.values()))


def test_ranges_over_studies(scored, five, tmp_path):
    """All studies rank alike and are a per cent apart, so fresh ones do, too."""
    (summary,) = scored.summaries
    by_name = {one.workload: one for one in summary.agreement.orders}
    beta = by_name["beta"].with_suite
    assert beta.low <= beta.tau <= beta.high
    assert beta.low >= 4 / 6
    assert math.isnan(by_name["epsilon"].with_suite.low)
    assert all(0 <= one.stays_best <= 1 for one in summary.agreement.subsets)
    assert summary.agreement.best.stays_best > summary.agreement.subsets[-1].stays_best
    for folder in (tmp_path / "runs").rglob("study_[12]"):
        folder.rename(folder.with_name(f"not_{folder.name}"))
    (alone,) = score([tmp_path / "runs"], Options(rules="by-the-rules")).summaries
    assert all(math.isnan(one.with_suite.low) for one in alone.agreement.orders)
    assert math.isnan(alone.agreement.best.stays_best)
    assert alone.agreement.best.with_suite.tau == 1


def test_ranges_are_percentiles_of_drawn_competitions(scored, monkeypatch):
    """Of 100 competitions by hand 90 are as it is, in 10 alpha and gamma change their credits."""
    (summary,) = scored.summaries
    board = summary.board
    credits = scoring_rules.credits(board.ratios, board.rules)
    columns = list(board.benchmark.base_workloads)
    swapped = credits.copy()
    a, g = columns.index("alpha"), columns.index("gamma")
    swapped[:, [a, g]] = swapped[:, [g, a]]
    drawn = np.stack([*[credits] * 90, *[swapped] * 10])
    monkeypatch.setattr(module, "_drawn", lambda *_: drawn)
    made = module.workload_agreement(
        board, costs_module.by_workload(summary.costs), summary.studies
    )
    by_name = {one.workload: one.with_suite for one in made.orders}
    assert (by_name["alpha"].low, by_name["alpha"].high) == pytest.approx((-4 / 6, 4 / 6))
    assert (by_name["beta"].low, by_name["beta"].high) == pytest.approx((1, 1))
    assert made.best.stays_best == pytest.approx(1)
    by_set = {frozenset(one.workloads): one for one in made.subsets}
    assert by_set[frozenset(("alpha", "beta", "gamma"))].stays_best == pytest.approx(1)
    assert by_set[frozenset(("alpha", "beta", "delta"))].stays_best == pytest.approx(0)


def test_too_few_submissions_or_workloads_tell_nothing(reach, tmp_path):
    for submission, workload in itertools.product("ab", ("digits", "lm")):
        reach(10.0, submission=submission, workload=workload)
    assert score([tmp_path / "runs"]).summaries[0].agreement is None
    for workload in ("digits", "lm"):
        reach(30.0, submission="c", workload=workload)
    (summary,) = score([tmp_path / "runs"]).summaries
    assert summary.agreement.subsets == ()
    assert summary.agreement.cheap is None
    assert math.isnan(summary.agreement.core_hours)  # nothing is recorded


def test_costs(scored):
    every = scored.summaries[0].costs
    by_name = costs_module.by_workload(every)
    assert {name: one.core_hours for name, one in by_name.items()} == pytest.approx(HOURS)
    # d's three trials on epsilon were outrun after 50 s of a budget of 100: twice 15 core-hours.
    assert by_name["epsilon"].ended_early == 3
    full = {name: one.full_core_hours for name, one in by_name.items()}
    assert full == pytest.approx(HOURS | {"epsilon": HOURS["epsilon"] + 15})
    total = costs_module.total(every)
    assert (total.trials, total.ended_early, total.unknown) == (60, 3, 0)
    assert total.core_hours == pytest.approx(sum(HOURS.values()))
    assert total.full_core_hours == pytest.approx(sum(HOURS.values()) + 15)


def test_trials_that_do_not_say_how_long_they_took(reach, make_trial, tmp_path):
    reach(10.0, submission="a")
    reach(10.0, submission="a", trial=2, result={"ledger": {"wall_s": 1800.0}})
    folder = reach(10.0, submission="a", study=1)  # as AlgoPerf's logs: the last row says it
    (folder / "eval_measurements.csv").write_text(
        "accumulated_submission_time,global_step,validation/accuracy,total_duration\n"
        "5.0,50,0.5,300.0\n10.0,100,0.9,900.0\n"
    )
    (cost,) = score([tmp_path / "runs"]).summaries[0].costs
    assert (cost.trials, cost.unknown, cost.core_hours) == (3, 1, 0.75)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_files_and_page(scored, tmp_path, capsys):
    out = tmp_path / "out"
    write(scored, Options(out=out, resamples=200, rules="by-the-rules"))
    rows = read(out / "workload_agreement.csv")
    assert [row["workload"] for row in rows] == ["alpha", "gamma", "beta", "delta", "epsilon"]
    assert float(rows[0]["tau_others"]) == pytest.approx(-1 / 30**0.5)
    assert rows[4]["separates_little"] == "nobody reaches it"
    assert rows[4]["tau_suite"] == rows[4]["spread"] == ""
    subsets = read(out / "workload_subsets.csv")
    assert [row["workloads"] for row in subsets if row["is_best"] == "True"] == ["gamma beta alpha"]
    assert [row["workloads"] for row in subsets if row["is_cheap"] == "True"] == [
        "delta beta alpha"
    ]
    spent = read(out / "costs.csv")
    assert sum(float(row["core_hours"]) for row in spent) == pytest.approx(sum(HOURS.values()))
    page = (out / "report.html").read_text()
    assert "To try an algorithm, run delta, beta, alpha first, in this order. For 38% of" in page
    assert 'href="#pool-0-order"' in page
    assert 'href="#pool-0-costs"' in page
    words = ["score", str(tmp_path / "runs"), "--rules", "by-the-rules"]
    assert commands.main([*words, "--json"]) == 0
    pool = json.loads(capsys.readouterr().out)["pools"][0]
    assert len(pool["workload_agreement"]["subsets"]) == 10
    assert len(pool["costs"]) == 20
    assert commands.main(words) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "The 3 workloads that give the order best: gamma, beta, alpha (tau 1.00 (" in told
    assert "What to run first, the cheapest 3 whose tau is at most 0.1 lower: delta, " in told
    assert (
        "core-hours in 60 trials, of which 3 were ended early, as outrun or late; had they" in told
    )
