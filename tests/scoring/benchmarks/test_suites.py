"""`algoperf score --suite`: the suite's variants count, with its targets, run or not."""

import io
import json

import pytest
from rich.console import Console

import scoring
from algoperf.errors import UserError
from scoring.report import Options, score_command

ACCURACY = {"metric": "accuracy", "higher_is_better": True}
WIDE = {"width": 2.0}
OF_WIDE = {"base_workload": "digits", "changes": WIDE}


def entry(base="digits", changes=WIDE, validation=0.9, scale="mini"):
    target = {"validation": validation, "provenance": "by hand"}
    return {"base": base, "changes": changes, "targets": {scale: {"builtin": target}}}


@pytest.fixture
def by_suite(tmp_path):
    """`by_suite({"digits_d0": entry()}, code, ...)` -> what scoring by a suite of those prints."""

    def make(variants, code=0, **options):
        path = tmp_path / "suite.json"
        path.write_text(json.dumps({"format": 1, "variants": variants}))
        console = Console(file=io.StringIO(), width=100_000, color_system=None)
        asked = Options(suite=str(path), resamples=100, strict=bool(code), **options)
        assert score_command([tmp_path / "runs"], console, asked) == code
        return console.file.getvalue()

    return make


@pytest.fixture
def score(by_suite):
    """`score(digits_d0=entry(), ...)` -> (the pool of the JSON, findings) by a suite of those."""

    def make(code=0, **variants):
        document = json.loads(by_suite(variants, code, as_json=True))
        (pool,) = document["pools"]
        return pool, [finding["message"] for finding in document["findings"]]

    return make


@pytest.fixture
def bases(reach):
    """Two submissions on digits, two studies: 10 s and 20 s; credits 1 and (4 - 2) / 3 = 2/3."""
    for study in (0, 1):
        reach(10.0, submission="a", study=study)
        reach(20.0, submission="b", study=study)


@pytest.fixture
def on_variant(reach, miss):
    """`on_variant("a", 15.0)`: two studies of digits_d0, missed where the time is None."""

    def make(submission, time_s, flags=OF_WIDE, **facts):
        for study in (0, 1):
            told = {"submission": submission, "study": study, "flags": flags}
            told |= {"workload": "digits_d0"} | facts
            miss(**told) if time_s is None else reach(time_s, **told)

    return make


def scores(pool, column="score"):
    return {entry["submission"]: entry[column] for entry in pool["submissions"]}


def test_a_variant_that_nobody_ran_counts_for_nobody(score, bases, tmp_path):
    pool, told = score(digits_d0=entry())
    assert scores(pool) == {"a": 0.0, "b": 0.0}
    assert scores(pool, "base_score") == pytest.approx({"a": 1.0, "b": 2 / 3})
    for name in ("a", "b"):
        assert f"{name} has no runs of digits_d0: counted as not reached" in told
    variants = pool["robustness"]["variants"]
    assert [(one["outcome"], one["changes"]) for one in variants] == [("no logs", WIDE)] * 2
    times = scoring.time_to_target(
        scoring.load_runs(tmp_path / "runs"), suite=tmp_path / "suite.json"
    )
    assert set(times["workload"]) == {"digits", "digits_d0"}
    assert scoring.score(times)["score"].tolist() == [0.0, 0.0]
    assert scoring.score(times, held_out=False)["score"].tolist() == pytest.approx([1.0, 2 / 3])


def test_a_page_is_made_of_a_variant_that_nobody_ran(by_suite, bases, tmp_path):
    text = by_suite({"digits_d0": entry()}, out=tmp_path / "out")
    assert "digits_d0: digits with width 2.0." in text
    assert "digits_d0" in (tmp_path / "out" / "report.html").read_text()


def test_without_a_suite_every_variant_that_was_run_counts(score, bases, on_variant, tmp_path):
    """a misses d0 and reaches d1, b the other way round: by d1 alone a counts."""
    on_variant("a", None)
    on_variant("b", 30.0)
    on_variant("a", 15.0, workload="digits_d1", flags=OF_WIDE | {"changes": {"depth": 2.0}})
    on_variant("b", None, workload="digits_d1", flags=OF_WIDE | {"changes": {"depth": 2.0}})
    times = scoring.time_to_target(scoring.load_runs(tmp_path / "runs"))
    assert scoring.score(times)["score"].tolist() == [0.0, 0.0]
    pool, told = score(digits_d1=entry(changes={"depth": 2.0}))
    assert scores(pool) == {"a": 1.0, "b": 0.0}
    (left_out,) = {message for message in told if "d0" in message}
    assert left_out == f"digits_d0 is not in {tmp_path / 'suite.json'}: left out"
    pool, _ = score(digits_d0=entry())
    assert scores(pool) == {"a": 0.0, "b": 1.0}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (OF_WIDE | {"changes": {"width": 0.5}}, "digits with width 0.5 by its runs, "),
        (OF_WIDE | {"base_workload": "xsum"}, "xsum with width 2.0 by its runs, "),
    ],
)
def test_runs_of_something_else_are_left_out(score, bases, on_variant, tmp_path, flags, told):
    on_variant("a", 15.0, flags=flags)
    on_variant("b", 30.0)
    pool, findings = score(code=1, digits_d0=entry())
    assert scores(pool) == {"a": 0.0, "b": 1.0}
    by_suite = f"digits with width 2.0 by {tmp_path / 'suite.json'}: left out"
    assert f"digits_d0 is {told}{by_suite}" in findings


def test_changes_that_are_not_recorded_are_the_suite_s(score, bases, on_variant, tmp_path):
    on_variant("a", 15.0, flags={})
    on_variant("b", 30.0)
    pool, findings = score(digits_d0=entry())
    assert scores(pool) == pytest.approx({"a": 1.0, "b": 2 / 3})
    message = f"digits_d0 records no changes: taken to be those of {tmp_path / 'suite.json'}"
    assert findings.count(message) == 1


def test_runs_to_another_target_are_scored_by_the_suite_s(score, bases, make_trial, tmp_path):
    """a ran to 0.95 and met 0.9 at 15 s; b ran to 0.8 and stopped there."""
    for study in (0, 1):
        facts = {"workload": "digits_d0", "study": study, "flags": OF_WIDE}
        rows = [(5.0, 50, 0.5), (15.0, 150, 0.9), (25.0, 250, 0.96)]
        make_trial(rows, submission="a", target={**ACCURACY, "validation": 0.95}, **facts)
        make_trial(rows[:1], submission="b", target={**ACCURACY, "validation": 0.8}, **facts)
    pool, findings = score(code=1, digits_d0=entry())
    assert scores(pool) == {"a": 1.0, "b": 0.0}
    on = {one["submission"]: one["time_s"] for one in pool["robustness"]["variants"]}
    assert on == {"a": 15.0, "b": None}
    given = tmp_path / "suite.json"
    assert f"digits_d0 was run to 0.95 and is scored by the 0.9 of {given}" in findings
    easier = f"digits_d0 was run to 0.8 and is scored by the 0.9 of {given}, before which"
    assert [message for message in findings if message.startswith(easier)]


def test_what_a_suite_cannot_say_of_a_pool_is_told(score, bases, on_variant):
    on_variant("a", 15.0)
    pool, findings = score(
        digits_d0=entry(scale="full"), digits_d1=entry(scale="full"), xsum_d0=entry("xsum")
    )
    assert scores(pool) == pytest.approx({"a": 1.0, "b": 2 / 3})
    assert pool["held_out"] == {}
    assert "digits_d0 has no target: its base digits counts without it" in findings
    assert [message.partition(":")[0] for message in findings if "not counted" in message] == [
        "digits_d1 is not counted",
        "xsum_d0 is not counted",
    ]


def test_a_suite_and_targets_exclude_each_other(by_suite, bases):
    with pytest.raises(UserError, match="give one"):
        by_suite({"digits_d0": entry()}, targets="algoperf-0.6")
    with pytest.raises(UserError, match=r"suite\.json: no variants; --no-held-out scores"):
        by_suite({})
