"""Times restated in another hardware class: estimates beside what was measured."""

import csv
import io
import json

import pytest
from rich.console import Console

import algoperf
from algoperf import errors
from algoperf.machine import class_file
from algoperf.machine.hardware_class import Budget, HardwareClass, Measurement, Spread
from algoperf.run_folder import run_log
from scoring.analysis.restated import restate
from scoring.report import Options, score, score_command

POOL = {"scale": "mini", "data": "builtin", "precision": "float32", "tuning_ruleset": "none"}
HERE = {"name": "here", "id": "h1"}
TIMES = {
    "budget_factor": 2.0,
    "work": "w1",
    "step": {"median_s": 0.5, "low_s": 0.4, "high_s": 0.6},
}


def measurement(workload="digits", framework="jax", median_s=1.0, work="w1", data="builtin"):
    """The step's lowest is .8 of the median, its highest 1.5 times."""
    step = Spread(median_s, 0.8 * median_s, 1.5 * median_s)
    return Measurement(workload, "mini", data, framework, 50, 64, work, 3, 0, step, step, step)


def make_class(*measurements, factor=3.0):
    keys = dict.fromkeys(each.key for each in measurements)
    budgets = tuple(Budget(*key, factor, 100.0 * factor) for key in keys)
    machine = {"hardware": {}, "versions": {}, "environment": {}, "library_threads": "2"}
    return HardwareClass("there", machine, "nadamw", measurements, budgets)


@pytest.fixture
def trial(reach):
    """A trial in the class `HERE`."""

    def make(time_s, times=TIMES, hardware_class=HERE, flags=None, **facts):
        pool = POOL | ({} if hardware_class is None else {"hardware_class": hardware_class})
        all_flags = {"class_times": times} | (flags or {})
        return reach(time_s, pool=pool, flags=all_flags, **facts)

    return make


def restated(boards, there):
    (board,) = boards()[0].values()
    result, findings = restate(board, there)
    return result, [finding.message for finding in findings]


def test_a_time_times_the_ratio_of_step_times(trial, boards):
    """1 over .5 s a step: twice as long; at least .8 over .6, at most 1.5 over .4."""
    trial(10.0, submission="a")
    trial(30.0, submission="b")
    result, findings = restated(boards, make_class(measurement()))
    assert not findings
    assert (result.name, result.measured_in) == ("there", "here (h1)")
    assert [(one.label, one.workload, one.time_s, one.estimate_s) for one in result.times] == [
        ("a", "digits", 10.0, 20.0),
        ("b", "digits", 30.0, 60.0),
    ]
    assert result.times[0].low_s == pytest.approx(10 * 0.8 / 0.6)
    assert result.times[0].high_s == pytest.approx(10 * 1.5 / 0.4)
    # The budget of 100 s is 2 times the workload's own; there it is 3 times.
    assert (result.times[0].budget_s, result.times[0].budget_there_s) == (100.0, 150.0)


def test_each_framework_has_its_own_ratio(trial, boards):
    trial(10.0, submission="a")
    slow = TIMES | {"step": {"median_s": 2.0, "low_s": 2.0, "high_s": 2.0}}
    trial(10.0, slow, submission="b", framework="pytorch")
    there = make_class(measurement(), measurement(framework="pytorch"))
    result, _ = restated(boards, there)
    assert [(one.framework, one.ratio) for one in result.times] == [("jax", 2.0), ("pytorch", 0.5)]


def test_a_missed_target_stays_missed(trial, miss, boards):
    trial(10.0, submission="a")
    miss(submission="b", pool=POOL | {"hardware_class": HERE}, flags={"class_times": TIMES})
    result, _ = restated(boards, make_class(measurement()))
    assert [one.estimate_s for one in result.times] == [20.0, float("inf")]


def test_a_variant_goes_by_its_base(trial, boards):
    trial(10.0)
    trial(12.0, workload="digits_wide", flags={"base_workload": "digits"})
    result, findings = restated(boards, make_class(measurement()))
    assert [(one.workload, one.estimate_s) for one in result.times] == [
        ("digits", 20.0),
        ("digits_wide", 24.0),
    ]
    assert not findings


@pytest.mark.parametrize(
    ("there", "facts", "message"),
    [
        (
            make_class(measurement("lm")),
            {},
            "that class has no times of digits (mini, builtin) in jax",
        ),
        (
            make_class(measurement(data="hub")),
            {},
            "that class has no times of digits (mini, builtin) in jax",
        ),
        (
            make_class(measurement(work="w2")),
            {},
            "the two classes measured other work (w1 and w2)",
        ),
        (
            make_class(measurement()),
            {"times": {"budget_factor": 1.0}},
            "the runs record no step time of their own class in jax",
        ),
        (
            make_class(measurement()),
            {"hardware_class": None, "times": None},
            "mini-builtin records no hardware class: not restated",
        ),
    ],
)
def test_what_cannot_be_restated_is_told(trial, boards, there, facts, message):
    trial(10.0, **facts)
    result, (finding,) = restated(boards, there)
    assert result is None
    assert message in finding


def test_nothing_to_restate_in_the_same_class(trial, boards):
    there = make_class(measurement())
    trial(10.0, hardware_class={"name": "there", "id": there.id})
    result, (finding,) = restated(boards, there)
    assert result is None
    assert f"is of hardware class {there} already" in finding


def test_workloads_that_can_be_restated_are(trial, boards):
    trial(10.0)
    trial(10.0, workload="lm")
    result, (finding,) = restated(boards, make_class(measurement("lm")))
    assert [one.workload for one in result.times] == ["lm"]
    assert finding.startswith("digits is not restated in there (")


# Pools


def test_one_class_is_pooled_and_two_never(trial, boards):
    trial(10.0, submission="a")
    trial(20.0, submission="b")
    trial(5.0, submission="c", hardware_class={"name": "here", "id": "h2"})
    trial(5.0, submission="d", hardware_class=None)
    built, _ = boards()
    assert sorted([row.entry.label for row in board.rows] for board in built.values()) == [
        ["a", "b"],
        ["c"],
        ["d"],
    ]
    assert "mini-builtin-class-here (hardware_class.id=h1)" in built
    assert "mini-builtin" in built


# What is shown and written


@pytest.fixture
def file(tmp_path):
    there = make_class(measurement())
    run_log.write_json(tmp_path / "there.json", class_file.to_json(there))
    return str(tmp_path / "there.json")


def test_estimates_stand_beside_the_times_and_change_no_score(tmp_path, trial, file):
    trial(10.0, submission="a")
    trial(20.0, submission="b")
    console = Console(file=io.StringIO(), width=120, color_system=None)
    runs, out = tmp_path / "runs", tmp_path / "out"
    options = {"resamples": 200}
    assert score_command([runs], console, Options(out=out, restate=file, **options)) == 0
    text = console.file.getvalue()
    assert "Estimate, not measured: times in hardware class there" in text
    assert (
        " digits    a                10.00  2.000  20.00 (13.33-37.50)       100      150" in text
    )
    with (out / "restated.csv").open(newline="") as lines:
        first, second = csv.DictReader(lines)
    assert (first["time_s"], first["estimated_time_s"], first["class"]) == ("10.0", "20.0", "there")
    assert (second["estimated_budget_s"], second["measured_in"]) == ("150.0", "here (h1)")
    page = (out / "report.html").read_text()
    assert "Estimate: times in hardware class there" in page
    assert "about 20.00 s (10.00 s" in page
    plain = score([runs], Options(**options)).summaries[0]
    estimated = score([runs], Options(restate=file, **options)).summaries[0]
    assert [row.score for row in plain.board.rows] == [row.score for row in estimated.board.rows]
    assert (plain.board.times_SWN == estimated.board.times_SWN).all()


def test_json_calls_it_an_estimate(tmp_path, trial, file):
    trial(10.0)
    console = Console(file=io.StringIO(), width=120)
    options = Options(as_json=True, restate=file, resamples=200)
    score_command([tmp_path / "runs"], console, options)
    (pool,) = json.loads(console.file.getvalue())["pools"]
    assert pool["restated"]["is_estimate"] is True
    assert pool["restated"]["times"][0]["estimated_time_s"] == 20.0


def test_the_frame_of_estimates(tmp_path, trial, file):
    trial(10.0)
    frame = algoperf.score(tmp_path / "runs", restate=file, resamples=200).restated()
    assert frame[["submission", "estimated_time_s", "class"]].values.tolist() == [
        ["adamw", 20.0, "there"]
    ]
    assert algoperf.score(tmp_path / "runs", resamples=200).restated().empty


def test_without_the_option_nothing_is_estimated(tmp_path, trial):
    trial(10.0)
    console = Console(file=io.StringIO(), width=120)
    out = tmp_path / "out"
    score_command([tmp_path / "runs"], console, Options(out=out, resamples=200))
    assert "stimate, not" not in console.file.getvalue()
    assert not (out / "restated.csv").exists()
    assert "Estimate: times" not in (out / "report.html").read_text()


def test_a_file_that_is_no_class(tmp_path, trial):
    trial(10.0)
    with pytest.raises(errors.UserError, match="cannot be read"):
        score([tmp_path / "runs"], Options(restate=str(tmp_path / "none.json")))


@pytest.mark.parametrize(
    "times",
    [
        3,
        {},
        {"budget_factor": 0},
        {"budget_factor": True},
        TIMES | {"step": 1},
        TIMES | {"step": {"median_s": 1.0}},
        TIMES | {"step": {"median_s": "1", "low_s": 1.0, "high_s": 1.0}},
        TIMES | {"step": {"median_s": float("nan"), "low_s": 1.0, "high_s": 1.0}},
    ],
)
def test_damaged_times_of_a_class_are_a_finding(trial, boards, times):
    trial(10.0, times)
    built, findings = boards()
    assert sum("class_times in flags are no times of a hardware class" in each for each in findings)
    (board,) = built.values()
    assert board.rows[0].cells["digits"].median_time_s == 10.0
