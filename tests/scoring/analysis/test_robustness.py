"""Held-out variants beside their base workloads: the table, and scores with and without them."""

import csv
import dataclasses
import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import scoring
from scoring.analysis.analysis import analyse, summarise
from scoring.analysis.robustness import NOT_RECORDED, robustness
from scoring.output.export import write_files
from scoring.report import Options, make_boards, score_command

DOCS = Path(__file__).parents[3] / "docs" / "scoring.md"
AIMLESS = {"metric": "accuracy", "higher_is_better": True, "validation": None}
WIDE = {"base_workload": "digits", "changes": {"width": 2.0}}
# (base s, variant s, slow-down in time, in steps, outcome), by hand from the table of `held_out`.
PAIRS = {
    ("a", "digits_tanh"): (10, 12, 1.2, 1.2, "reached"),
    ("b", "digits_tanh"): (20, 22, 1.1, 1.1, "reached"),
    ("c", "digits_tanh"): (None, 30, None, None, "base not reached"),
    ("a", "digits_wide"): (10, 20, 2.0, 4.0, "reached"),
    ("b", "digits_wide"): (20, 25, 1.25, 2.5, "reached"),
    ("c", "digits_wide"): (None, 30, None, None, "base not reached"),
    ("a", "ag_news_post_ln"): (40, None, None, None, "not reached"),
    ("b", "ag_news_post_ln"): (60, 90, 1.5, 1.5, "reached"),
    ("c", "ag_news_post_ln"): (80, 120, 1.5, 1.5, "reached"),
}
# (variants, bases reached, reached, slow-down in time, in steps).
AXES = {
    ("a", "all"): (3, 3, 2, 2.4**0.5, 4.8**0.5),
    ("b", "all"): (3, 3, 3, (1.1 * 1.25 * 1.5) ** (1 / 3), (1.1 * 2.5 * 1.5) ** (1 / 3)),
    ("c", "all"): (3, 1, 1, 1.5, 1.5),
    ("a", "activation"): (2, 2, 2, 2.4**0.5, 4.8**0.5),
    ("b", "activation"): (2, 2, 2, 1.375**0.5, 2.75**0.5),
    ("c", "activation"): (2, 0, 0, None, None),
    ("a", "norm_place"): (1, 1, 0, None, None),
    ("b", "norm_place"): (1, 1, 1, 1.5, 1.5),
    ("c", "norm_place"): (1, 1, 1, 1.5, 1.5),
    ("a", "width"): (1, 1, 1, 2.0, 4.0),
    ("b", "width"): (1, 1, 1, 1.25, 2.5),
    ("c", "width"): (1, 0, 0, None, None),
}


def run(path, **options):
    console = Console(file=io.StringIO(), width=400, color_system=None)
    score_command([path], console, Options(**{"resamples": 200, **options}))
    return console.file.getvalue()


def pools_of(path, **options):
    return json.loads(run(path, as_json=True, **options))["pools"]


def scores_of(path, column, **options):
    (pool,) = pools_of(path, **options)
    return {entry["submission"]: entry[column] for entry in pool["submissions"]}


def only(built):
    (board,) = built.values()
    return robustness(board)


def test_every_variant_beside_its_base(tmp_path, held_out):
    (pool,) = pools_of(tmp_path)
    found = {(one["submission"], one["variant"]): one for one in pool["robustness"]["variants"]}
    names = ("base_time_s", "time_s", "slowdown", "steps_slowdown", "outcome")
    assert {pair: tuple(one[name] for name in names) for pair, one in found.items()} == PAIRS
    wide = found["b", "digits_wide"]
    assert (wide["base"], wide["base_steps"], wide["steps"]) == ("digits", 200, 500)
    assert wide["changes"] == {"activation": "gelu", "width": 2.0}
    # Submissions best first (b, a, c), variants by base and name.
    order = [(one["variant"], one["submission"]) for one in pool["robustness"]["variants"]]
    variants = ("ag_news_post_ln", "digits_tanh", "digits_wide")
    assert order == [(variant, submission) for variant in variants for submission in "bac"]
    assert pool["robustness"]["bases_without_a_variant"] == ["xsum"]


def test_a_variant_of_two_axes_counts_for_each(tmp_path, held_out):
    (pool,) = pools_of(tmp_path)
    names = ("variants", "bases_reached", "reached", "slowdown", "steps_slowdown")
    found = {
        (one["submission"], one["axis"]): tuple(one[name] for name in names)
        for one in pool["robustness"]["axes"]
    }
    assert list(found) == [(submission, axis) for axis in dict.fromkeys(
        axis for _, axis in AXES) for submission in "bac"]  # fmt: skip
    for pair, expected in AXES.items():
        known = [value for value in found[pair] if value is not None]
        assert known == pytest.approx([value for value in expected if value is not None]), pair
        assert found[pair].index(None) == 3 if None in expected else None not in found[pair]


def test_a_missed_variant_is_infinitely_slow_and_a_missed_base_says_nothing(boards, held_out):
    slow = {(one.label, one.variant): one.slowdown for one in only(boards()[0]).variants}
    assert slow["a", "ag_news_post_ln"] == math.inf
    assert math.isnan(slow["c", "digits_tanh"])


def test_scores_with_and_without_held_out(tmp_path, held_out):
    base_scores = {"a": 1, "b": 5 / 6, "c": 1 / 2}
    assert scores_of(tmp_path, "score") == pytest.approx({"b": 8 / 9, "a": 2 / 3, "c": 31 / 54})
    assert scores_of(tmp_path, "base_score") == pytest.approx(base_scores)
    assert scores_of(tmp_path, "score", held_out=False) == pytest.approx(base_scores)
    (pool,) = pools_of(tmp_path, held_out=False)
    assert [entry["submission"] for entry in pool["submissions"]] == ["a", "b", "c"]
    assert pool["robustness"] == {"variants": [], "axes": [], "bases_without_a_variant": []}


@pytest.mark.parametrize("rules", ["by-the-rules", "as-published"])
def test_the_csv_agrees_with_medians_made_by_pandas(tmp_path, held_out, rules):
    boards, _ = make_boards([tmp_path / "runs"], Options(rules=rules))
    analyses = [analyse(summarise(board, resamples=20), resamples=20) for board in boards]
    write_files(analyses, [], tmp_path)
    table = pd.read_csv(tmp_path / "robustness.csv")
    times = scoring.time_to_target(scoring.load_runs(tmp_path / "runs"), rules=rules)
    for column, slowdown in (("time_s", "slowdown"), ("steps", "steps_slowdown")):
        medians = times.groupby(["submission", "workload"])[column].median()
        own = medians.loc[list(zip(table.submission, table.variant, strict=True))].to_numpy()
        base = medians.loc[list(zip(table.submission, table.base, strict=True))].to_numpy()
        known = np.isfinite(own) & np.isfinite(base)
        assert known.sum() == 6
        np.testing.assert_allclose(table[slowdown][known], own[known] / base[known], rtol=1e-12)
        assert table[slowdown][~known].isna().all()


def test_files_and_screen(tmp_path, held_out):
    text = run(tmp_path / "runs", out=tmp_path / "out")
    with (tmp_path / "out" / "robustness.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = [row for row in rows if (row["submission"], row["variant"]) == ("b", "digits_wide")]
    assert told == [
        {
            "submission": "b",
            "variant": "digits_wide",
            "base": "digits",
            "changes": "activation gelu, width 2.0",
            "outcome": "reached",
            "base_time_s": "20.0",
            "time_s": "25.0",
            "slowdown": "1.25",
            "base_steps": "200",
            "steps": "500",
            "steps_slowdown": "2.5",
            "pool": "mini-builtin",
        }
    ]
    header, first, *_ = (tmp_path / "out" / "robustness_axes.csv").read_text().splitlines()
    assert header == "submission,axis,variants,bases_reached,reached,slowdown,steps_slowdown,pool"
    assert first.startswith("b,all,3,3,3,1.27291")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "activation a 2/2 2/2 1.55x 2.19x" in lines
    assert "activation c 0/2 0/2 - -" in lines
    assert "ag_news_post_ln a 40.00 - inf inf not reached" in lines
    assert "digits_wide: digits with activation gelu, width 2.0." in lines
    assert "Without a held-out variant: xsum." in lines
    ranking = next(line for line in lines if line.startswith("1 b"))
    assert ranking.split()[:3] + ranking.split()[6:8] == ["1", "b", "0.8889", "0.8333", "3/3"]


def test_the_screen_without_held_out_says_so(tmp_path, held_out, reach):
    text = run(tmp_path, held_out=False)
    assert "Base workloads alone (--no-held-out): 3 held-out variants not counted." in text
    assert "Robustness" not in text
    assert "base score" not in text


def test_without_variants_nothing_is_said_and_the_files_are_empty(tmp_path, reach, analysis):
    reach(10.0)
    text = run(tmp_path / "runs").lower()
    assert not [word for word in ("robustness", "base score", "held-out") if word in text]
    write_files([analysis()], [], tmp_path)
    for name in ("robustness.csv", "robustness_axes.csv"):
        assert len((tmp_path / name).read_text().splitlines()) == 1


def test_the_documented_table_is_that_of_the_command(tmp_path, held_out):
    documented = {" ".join(line.split()) for line in DOCS.read_text().splitlines()}
    lines = [" ".join(line.split()) for line in run(tmp_path).splitlines()]
    start = next(n for n, line in enumerate(lines) if line.startswith("Robustness by axis"))
    end = next(n for n, line in enumerate(lines) if line.startswith("Which workloads tell"))
    shown = [line for line in lines[start:end] if line]
    assert len(shown) > 24
    assert [line for line in shown if line not in documented] == []


def test_a_variant_that_a_submission_did_not_run(boards, reach):
    for submission, workloads in (("a", ("digits", "digits_wide")), ("b", ("digits",))):
        for name in workloads:
            told = WIDE if name == "digits_wide" else None
            reach(10.0, submission=submission, workload=name, flags=told)
    built, findings = boards()
    outcomes = {one.label: (one.outcome, one.slowdown) for one in only(built).variants}
    assert outcomes["a"] == ("reached", 1.0)
    assert outcomes["b"][0] == "no logs"
    assert math.isnan(outcomes["b"][1])
    axes = {(one.label, one.axis): (one.variants, one.reached) for one in only(built).axes}
    assert axes["b", "width"] == (1, 0)
    assert any("b has no runs of digits_wide: counted as not reached" in f for f in findings)


def test_trials_that_diverged_are_logs(boards, reach, make_trial):
    reach(10.0)
    folder = make_trial([], workload="digits_wide", flags=WIDE, status="diverged")
    (folder / "eval_measurements.csv").unlink()
    (one,) = only(boards()[0]).variants
    assert (one.outcome, one.slowdown) == ("not reached", math.inf)


def test_pools_are_never_mixed(boards, reach):
    fast = {"scale": "mini", "data": "builtin", "hardware": "fast"}
    slow = fast | {"hardware": "slow"}
    for pool, base_s, variant_s in ((fast, 1.0, 2.0), (slow, 10.0, 30.0)):
        experiment = pool["hardware"]
        reach(base_s, pool=pool, experiment=experiment)
        reach(variant_s, pool=pool, experiment=experiment, workload="digits_wide", flags=WIDE)
    built, _ = boards()
    slowdowns = {name: [x.slowdown for x in robustness(of).variants] for name, of in built.items()}
    assert slowdowns == {
        "mini-builtin (hardware=fast)": [2.0],
        "mini-builtin (hardware=slow)": [3.0],
    }


@pytest.mark.parametrize(
    ("other", "told", "apart"),
    [
        (
            WIDE | {"changes": {"width": 0.5}},
            "changes.width 2.0, 0.5",
            ["changes.width=0.5", "changes.width=2.0"],
        ),
        (
            WIDE | {"base_workload": "lm"},
            "base_workload digits, lm",
            ["base_workload=digits", "base_workload=lm"],
        ),
    ],
)
def test_variants_of_one_name_that_differ_are_set_apart(
    tmp_path, boards, reach, other, told, apart
):
    for submission, facts in (("a", WIDE), ("b", other)):
        reach(10.0, submission=submission)
        reach(20.0, submission=submission, workload="digits_h1", flags=facts)
    built, findings = boards()
    names = [f"mini-builtin, digits_h1 apart ({setting})" for setting in apart]
    assert sorted(built) == ["mini-builtin", *names]
    told = f"runs of digits_h1 disagree, each version is scored apart: {told}"
    assert sum(told in finding for finding in findings) == 1
    assert [len(robustness(board).variants) for board in built.values()] == [0, 0, 0]
    frame = scoring.time_to_target(scoring.load_runs(tmp_path / "runs"))
    assert [told in finding for finding in frame.attrs["findings"]].count(True) == 1


def test_changes_that_are_not_recorded(tmp_path, boards, reach):
    reach(10.0)
    reach(15.0, workload="digits_odd", flags={"base_workload": "digits"})
    assert [(one.axis, one.slowdown) for one in only(boards()[0]).axes] == [("all", 1.5)]
    assert "digits_odd: digits, its changes not recorded." in run(tmp_path)
    reach(60.0, workload="digits_wide", flags=WIDE)
    found = [(one.axis, one.variants, one.slowdown) for one in only(boards()[0]).axes]
    assert found == [("all", 2, pytest.approx(3.0)), (NOT_RECORDED, 1, 1.5), ("width", 1, 6.0)]


@pytest.mark.parametrize(
    ("base", "why"),
    [(None, "was not run"), (AIMLESS, "has no target")],
)
def test_a_variant_without_its_base_is_not_scored(boards, reach, make_trial, base, why):
    reach(10.0, workload="lm")
    reach(10.0, workload="digits_wide", flags=WIDE)
    if base:
        make_trial([(1.0, 1, 0.5)], target=base, result={"scoreable": False})
    built, findings = boards()
    (board,) = built.values()
    assert list(board.rows[0].cells) == ["lm"]
    told = f"digits_wide is a variant of digits, which {why} in mini-builtin: not scored"
    assert sum(told in finding for finding in findings) == 1


def test_a_variant_of_a_variant_is_not_scored(boards, reach):
    reach(10.0)
    reach(12.0, workload="digits_wide", flags=WIDE)
    deeper = {"base_workload": "digits_wide", "changes": {"depth": 2.0}}
    reach(14.0, workload="digits_wide_deep", flags=deeper)
    built, findings = boards()
    assert [one.variant for one in only(built).variants] == ["digits_wide"]
    told = "digits_wide_deep is a variant of digits_wide, which is a variant itself"
    assert sum(told in finding for finding in findings) == 1


def test_a_variant_without_a_target_does_not_count_against_its_base(boards, reach, make_trial):
    reach(10.0)
    make_trial(
        [(1.0, 1, 0.5)],
        workload="digits_wide",
        target=AIMLESS,
        flags=WIDE,
        result={"scoreable": False},
    )
    built, findings = boards()
    (board,) = built.values()
    assert (board.rows[0].score, robustness(board).variants) == (1.0, ())
    for told in (
        "digits_wide has no target in mini-builtin: not scored",
        "digits_wide has no target: its base digits counts without it",
    ):
        assert sum(told in finding for finding in findings) == 1


def test_a_time_of_zero_or_beyond_numbers_has_no_ratio(boards, held_out):
    one = next(iter(only(boards()[0]).variants))
    for base_s, own_s in ((0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1e-9, 1e300), (1e300, 1e-30)):
        odd = dataclasses.replace(one, base_time_s=base_s, time_s=own_s)
        assert math.isnan(odd.slowdown)
        assert odd.steps_slowdown == 1.5


def test_variants_of_a_file_of_targets(tmp_path, held_out, boards):
    facts = {"metric": "accuracy", "validation": 0.9}
    names = {"digits": facts, "digits_tanh": facts | {"variant_of": "digits"}, "lm": facts}
    names["lm_deep"] = facts | {"variant_of": "lm"}
    (tmp_path / "targets.json").write_text(json.dumps({"workloads": names}))
    (pool,) = pools_of(tmp_path / "runs", targets=str(tmp_path / "targets.json"))
    found = [
        (one["submission"], one["variant"], one["slowdown"], one["outcome"])
        for one in pool["robustness"]["variants"]
        if one["submission"] != "c"
    ]
    assert found == [
        ("a", "digits_tanh", 1.2, "reached"),
        ("b", "digits_tanh", 1.1, "reached"),
        ("a", "lm_deep", None, "base not reached"),
        ("b", "lm_deep", None, "base not reached"),
    ]
