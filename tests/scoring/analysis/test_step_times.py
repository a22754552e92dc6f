"""What times are made of: by hand, and on the public logs from the CSV files alone."""

import csv
import itertools
import math
import statistics
from pathlib import Path

import pytest

from scoring.analysis.fragility import fragility, smallest_change
from scoring.analysis.leaderboard import build_leaderboard
from scoring.analysis.step_times import step_times
from scoring.rules.rules import BY_THE_RULES

LOGS = Path(__file__).parents[4] / "shared" / "algoperf_logs"
DOCS = Path(__file__).parents[3] / "docs" / "scoring.md"


@pytest.fixture
def two_frameworks(reach, make_trial, boards):
    """Two workloads; seconds and steps at the target, and so seconds a step:

                 digits                     lm
      a, jax     20 s, 100 steps: .2        30 s, 100 steps: .3
      b, jax     30 s, 100 steps: .3        missed after 60 s, 120 steps: .5
      c, torch   15 s, 150 steps: .1        90 s, 100 steps: .9

    The cheapest: digits jax .2, torch .1; lm jax .3, torch .9. Own factors: b 1.5 on digits and
    5/3 on lm, others 1. At the cheaper step a takes 10 s, b 15 s, c 15 s on digits; a 30 s and c 30
    s on lm. Scores, mean of max(0, 4 - r) / 3:
      a  time (8/9 + 1) / 2     neutral (1 + 1) / 2
      b  time (2/3 + 0) / 2     neutral (5/6 + 0) / 2
      c  time (1 + 1/3) / 2     neutral (5/6 + 1) / 2
    """
    jax, torch = {"framework": "jax"}, {"framework": "pytorch"}
    reach(20.0, 100, submission="a", **jax)
    reach(30.0, 100, submission="b", **jax)
    reach(15.0, 150, submission="c", **torch)
    reach(30.0, 100, submission="a", workload="lm", **jax)
    rows = [(30.0, 60, 0.1), (60.0, 120, 0.2)]
    make_trial(rows, submission="b", workload="lm", **jax)
    reach(90.0, 100, submission="c", workload="lm", **torch)
    return boards()[0]["mini-builtin"]


def test_steps_frameworks_and_own_factors(two_frameworks):
    made = step_times(two_frameworks)
    own = {(one.label, one.workload): one.own for one in made.cells}
    assert own == pytest.approx(
        {
            ("a", "digits"): 1,
            ("a", "lm"): 1,
            ("b", "digits"): 1.5,
            ("b", "lm"): 5 / 3,
            ("c", "digits"): 1,
            ("c", "lm"): 1,
        }
    )
    for one in made.cells:
        if math.isfinite(one.time_s):
            assert one.steps * one.framework_s * one.own == pytest.approx(one.time_s)
    digits, lm = made.gaps
    assert digits.step_s == pytest.approx({"jax": 0.2, "pytorch": 0.1})
    assert (digits.ratio, lm.ratio) == pytest.approx((2, 3))
    # At the cheaper step: digits 10, 15 and 15 s, whose pairs are 1.5, 1.5 and 1 apart; lm 30 s
    # twice.
    assert (digits.apart, lm.apart) == pytest.approx((1.5, 1))
    assert made.framework_dominates
    assert made.held_back == 0  # b missed lm in the cheaper framework.


def test_the_framework_neutral_score(two_frameworks):
    made = step_times(two_frameworks)
    by_time = {row.entry.label: row.score for row in two_frameworks.rows}
    assert by_time == pytest.approx({"a": 17 / 18, "b": 1 / 3, "c": 2 / 3})
    neutral = dict(zip(two_frameworks.labels, made.neutral_scores, strict=True))
    assert neutral == pytest.approx({"a": 1, "b": 5 / 12, "c": 11 / 12})


def test_one_framework_has_no_neutral_score(reach, boards):
    reach(20.0)
    made = step_times(boards()[0]["mini-builtin"])
    assert (made.gaps, made.neutral_scores, made.framework_dominates) == ((), (), False)


def test_the_smallest_change_of_a_time_that_changes_a_rank(reach, boards):
    """x 10 s and 20 s, y 11 s and 19 s: scores (1 + .98246) / 2 and (.96667 + 1) / 2.

    Ratios: x 1 and 20/19, y 1.1 and 1. x leads as 1/19 < .1. They tie where both ratios are equal:
    y's 11 s at 10 x 20/19 = 10.5263 s (a factor .95694) or x's 10 s at 11 x 19/20 = 10.45 s (factor
    1.045); y's 19 s at 20/1.1 = 18.1818 s (1 / 1.045) or x's 20 s at 20.9 s (1.045). A rank changes
    at the tie itself, and all four ask for a change by 4.5 %.
    """
    reach(10.0, submission="x")
    reach(20.0, submission="x", workload="lm")
    reach(11.0, submission="y")
    reach(19.0, submission="y", workload="lm")
    board = boards()[0]["mini-builtin"]
    assert board.labels == ["x", "y"]
    change = smallest_change(board)
    assert max(change.factor, 1 / change.factor) == pytest.approx(1.045, rel=1e-6)


def test_how_far_targets_move_until_another_is_first(make_trial, boards):
    """a meets .9 at 10 s with .91, b at 20 s with .95: at a target 1.2 % harder, .9108, b is first.

    Easier, a's .85 at 5 s is .9 x .9444, and b's .89 at 4 s is .9 x .9889: at a target 1.2 %
    easier, .8892, b is first too, with 4 s.
    """
    make_trial([(5.0, 1, 0.85), (10.0, 2, 0.91), (30.0, 3, 0.91)], submission="a")
    make_trial([(4.0, 1, 0.89), (20.0, 2, 0.95)], submission="b")
    board, _ = build_leaderboard(boards()[0]["mini-builtin"].pool, BY_THE_RULES)
    assert board.labels == ["a", "b"]
    one = fragility(board)
    assert (one.harder_first, one.easier_first) == ("b", "b")
    # 1.11 % and 1.11 % are the ends; shares are looked at in tenths of a percent.
    assert (one.harder, one.easier) == pytest.approx((0.012, 0.012))
    assert one.unknown == 1  # a stopped at .91, at a third of its budget.


@pytest.mark.skipif(not LOGS.is_dir(), reason="needs the public logs")
def test_the_table_of_the_board_of_2026_from_the_csv_files_alone(tmp_path):
    """docs/scoring.md's table, worked out here from the CSV files with nothing of the library."""
    import tarfile

    with tarfile.open(LOGS / "a100_self_tuning.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    goals = {
        "criteo1tb": ("loss", 0.123735, -1),
        "fastmri": ("ssim", 0.723653, 1),
        "finewebedu_lm": ("ppl", 22.2995, -1),
        "imagenet_resnet": ("accuracy", 0.77431, 1),
        "imagenet_vit": ("accuracy", 0.77309, 1),
        "librispeech_conformer": ("wer", 0.085884, -1),
        "librispeech_deepspeech": ("wer", 0.119936, -1),
        "ogbg": ("mean_average_precision", 0.28098, 1),
        "wmt": ("bleu", 30.8491, 1),
    }
    limits = (8915, 2745, 31967, 49918, 64292, 43680, 36949, 11303, 16114)
    budgets = dict(zip(sorted(goals), limits, strict=True))
    hits, paces, framework_of = {}, {}, {}
    for path in sorted(tmp_path.rglob("eval_measurements.csv")):
        submission, study = path.parts[-5], path.parts[-4]
        workload, framework = path.parts[-3].rsplit("_", 1)
        metric, goal, sign = goals[workload]
        framework_of[submission] = framework
        with path.open(newline="") as file:
            rows = [
                tuple(
                    float(row[name] or "nan")
                    for name in (
                        "accumulated_submission_time",
                        "global_step",
                        f"validation/{metric}",
                    )
                )
                for row in csv.DictReader(file)
            ]
        met = [
            (t, n)
            for t, n, value in rows
            if sign * value >= sign * goal and t <= 1.5 * budgets[workload]
        ]
        hits.setdefault((submission, workload), {})[study] = met[0] if met else (math.inf,) * 2
        if len(rows) > 1 and rows[-1][1] > 1:
            paces.setdefault((submission, workload), []).append(rows[-1][0] / rows[-1][1])
    studies = ("study_0", "study_1", "study_2")
    never = (math.inf, math.inf)
    median = {
        (s, w): tuple(
            statistics.median(hits.get((s, w), {}).get(k, never)[part] for k in studies)
            for part in (0, 1)
        )
        for s, w in itertools.product(framework_of, goals)
    }
    step_s = {
        key: t / n if math.isfinite(t) else statistics.median(paces[key])
        for key, (t, n) in median.items()
        if math.isfinite(t) or key in paces
    }
    cheapest = {
        (w, f): min(step_s[s, w] for s in framework_of if framework_of[s] == f and (s, w) in step_s)
        for w, f in itertools.product(goals, ("jax", "pytorch"))
    }

    def scores(times):
        fastest = {w: min(times[s, w] for s in framework_of) for w in goals}
        return {
            s: sum(
                max(0.0, 4 - times[s, w] / fastest[w]) / 3
                for w in goals
                if math.isfinite(times[s, w])
            )
            / 9
            for s in framework_of
        }

    neutral = {
        (s, w): t * min(cheapest[w, f] for f in ("jax", "pytorch")) / cheapest[w, framework_of[s]]
        for (s, w), (t, _) in median.items()
    }
    by = [
        scores({key: pair[0] for key, pair in median.items()}),
        scores({key: pair[1] for key, pair in median.items()}),
        scores(neutral),
    ]

    def place(of, s):
        return 1 + sum(value > of[s] + 1e-12 for value in of.values())

    text = DOCS.read_text()
    for s, framework in framework_of.items():
        cells = " | ".join(f"{of[s]:.4f} ({place(of, s)})" for of in by)
        assert f"| {s} | {framework} | {cells} |" in text
    for w in goals:
        jax, torch = cheapest[w, "jax"], cheapest[w, "pytorch"]
        assert f"| {w} | {jax:.4g} | {torch:.4g} | {jax / torch:.2f} |" in text
    from scoring import report

    (board,), _ = report.make_boards([tmp_path], report.Options(targets="algoperf-2026"))
    made = step_times(board)
    assert dict(zip(board.labels, made.neutral_scores, strict=True)) == pytest.approx(by[2])
    assert {gap.workload: gap.step_s for gap in made.gaps} == {
        w: pytest.approx({f: cheapest[w, f] for f in ("jax", "pytorch")}) for w in goals
    }
