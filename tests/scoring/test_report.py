"""The whole way from folders to table, JSON, CSV and plots."""

import csv
import io
import itertools
import json

import pytest
from rich.console import Console

from algoperf import errors
from algoperf.machine import supervision
from scoring.report import Options, score_command


def run(paths, out=None, as_json=False, width=120, code=0, **options):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    options = Options(out=out, as_json=as_json, **{"resamples": 200, **options})
    assert score_command(paths, console, options) == code
    return console.file.getvalue()


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_json(tmp_path, competition):
    (pool,) = json.loads(run([tmp_path], as_json=True, width=20))["pools"]
    entries = {entry["submission"]: entry for entry in pool["submissions"]}
    assert [(name, entry["rank"]) for name, entry in entries.items()] == [
        ("b", 1),
        ("a", 2),
        ("c", 3),
    ]
    assert {name: entry["score"] for name, entry in entries.items()} == pytest.approx(
        {"a": 1 / 2, "b": 5 / 6, "c": 11 / 24}, rel=1e-14
    )
    a, b, c = (entries[name]["workloads"] for name in "abc")
    assert (a["digits"]["median_time_s"], a["digits"]["median_steps"]) == (12.0, 120)
    assert (b["digits"]["ratio"], c["lm"]["ratio"]) == (2.0, 1.25)
    assert (a["lm"]["median_time_s"], a["lm"]["ratio"], a["lm"]["studies_reached"]) == (
        None,
        None,
        1,
    )
    assert [study["outcome"] for study in c["digits"]["studies"]] == ["reached", "missing"]
    # Profiles step at 1.25 (c) and 2 (b); within tau: a 1/2 all along, b 1/2 then 1, c 0 then 1/2.
    assert {name: entry["profile"] for name, entry in entries.items()} == {
        "a": {"tau": [1, 1.25, 2, 4], "share": [0.5, 0.5, 0.5, 0.5]},
        "b": {"tau": [1, 1.25, 2, 4], "share": [0.5, 0.5, 1, 1]},
        "c": {"tau": [1, 1.25, 2, 4], "share": [0, 0.5, 0.5, 0.5]},
    }


def test_what_is_running_or_interrupted_is_no_miss(tmp_path, reach, miss):
    """Of a, study 1 is interrupted, and both studies of lm; studies 0 and 1 of b are reached."""
    for study, workload in itertools.product((0, 1), ("digits", "lm")):
        place = {"study": study, "workload": workload}
        reach(20.0 + study, submission="b", **place)
        if place == {"study": 0, "workload": "digits"}:
            reach(10.0, submission="a", **place)
        else:
            folder = miss(submission="a", status=None, **place)
    (folder.parent / "trial_2").mkdir()

    def cells(**options):
        document = json.loads(run([tmp_path / "runs"], as_json=True, **options))
        (a, b) = sorted(document["pools"][0]["submissions"], key=lambda row: row["submission"])
        return a, b, [finding["message"] for finding in document["findings"]]

    with supervision.locked(folder), supervision.locked(folder.parent / "trial_2"):
        a, b, messages = cells()
        counted, _, told = cells(count_unfinished=True)
    assert a["workloads"]["digits"]["median_time_s"] == 10.0
    assert a["workloads"]["digits"]["credit"] == "credited"
    studies = [
        [study["outcome"] for study in a["workloads"][n]["studies"]] for n in ("digits", "lm")
    ]
    assert studies == [["reached", "interrupted"], ["interrupted", "running"]]
    assert (a["workloads"]["lm"]["median_time_s"], a["workloads"]["lm"]["credit"]) == (
        None,
        "unfinished",
    )
    # 20.5 / 10 on digits, and alone on lm: (1 + 1.95 / 3) / 2; a has digits alone.
    assert (a["score"], b["score"]) == pytest.approx((0.5, (1 + 1.95 / 3) / 2))
    assert a["speedup_note"] == "1 left out"  # lm, on which it decided nothing
    assert any(m.startswith("a on lm: running: study_1/trial_1;") for m in messages)
    assert any(m.startswith("a on lm: interrupted (the same command") for m in messages)
    assert "is running: nothing is written yet" in messages
    assert not any("early" in message for message in messages)
    assert counted["workloads"]["digits"]["median_time_s"] is None
    assert [s["outcome"] for s in counted["workloads"]["lm"]["studies"]] == ["ended early"] * 2
    assert any("ended early without the target" in message for message in told)
    assert "finding" in run([tmp_path / "runs"])


def test_interpolated_times_are_marked_and_the_first_step_is_beside(tmp_path, make_trial):
    """0.8 at 10 s, 1.0 at 20 s, so 15 s; without a first step of 6 s 9 s, of 1 s 14 s."""
    for name, first_step_s in (("a", 6.0), ("b", 1.0)):
        result = {"status": "reached", "ledger": {"first_step_s": first_step_s}}
        rows = [(10.0, 100, 0.8), (20.0, 200, 1.0)]
        make_trial(rows, submission=name, result=result)
    text = run([tmp_path / "runs"], tmp_path / "out")
    lines = [line.split() for line in text.splitlines()]
    times = {line[1]: line[2:5] for line in lines if line[:1] == ["digits"]}
    assert times == {"a": ["~15.00", "9.00", "~150"], "b": ["~15.00", "14.00", "~150"]}
    assert "w/o 1st step" in text
    assert "~: interpolated between the last evaluation that missed" in text
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Times and steps are interpolated between the two." in page
    assert "without first step, s" in page
    (row, _) = read_csv(tmp_path / "out" / "time_to_target.csv")
    told = ("time_s", "steps", "last_miss_time_s", "hit_time_s", "hit_steps")
    assert [float(row[name]) for name in told] == [15.0, 150.0, 10.0, 20.0, 200.0]
    assert row["time_without_first_step_s"] == "9.0"
    (pool,) = json.loads(run([tmp_path / "runs"], as_json=True))["pools"]
    (study,) = pool["submissions"][0]["workloads"]["digits"]["studies"]
    assert (pool["rules"], study["time_s"], study["hit_time_s"]) == ("interpolated", 15.0, 20.0)
    plain = run([tmp_path / "runs"], rules="by-the-rules")
    assert "~" not in plain
    assert "20.00" in plain


def test_the_first_step_is_not_shown_where_it_is_short(tmp_path, make_trial):
    result = {"status": "reached", "ledger": {"first_step_s": 1.0}}
    make_trial([(10.0, 100, 0.8), (20.0, 200, 1.0)], result=result)
    assert "1st step" not in run([tmp_path / "runs"])  # 1 of 15 s


def test_rows_of_algoperf_s_kind_are_scored_by_its_rules(tmp_path, make_trial):
    """A folder that records no settings, and AlgoPerf's workloads whoever trained them."""
    make_trial([(10.0, 100, 0.8), (20.0, 200, 1.0)], pool={})
    (pool,) = json.loads(run([tmp_path / "runs"], as_json=True))["pools"]
    assert pool["rules"] == "by-the-rules"
    loss = {"metric": "loss", "higher_is_better": False, "validation": 0.1}
    make_trial([(9.0, 9, 0.2), (20.0, 20, 0.1)], workload="criteo1tb", target=loss, submission="c")
    options = {"as_json": True, "targets": "algoperf-0.6"}
    pools = json.loads(run([tmp_path / "runs"], **options))["pools"]
    assert {pool["rules"] for pool in pools} == {"by-the-rules"}


def test_csv_files(tmp_path, competition):
    out = tmp_path / "deep" / "out"
    run([tmp_path / "runs"], out)
    scores = read_csv(out / "scores.csv")
    assert [row["submission"] for row in scores] == ["b", "a", "c"]
    assert [float(row["score"]) for row in scores] == pytest.approx([5 / 6, 1 / 2, 11 / 24])
    assert [row["workloads_reached"] for row in scores] == ["2", "1", "1"]
    rows = {
        (row["submission"], row["workload"], row["study"]): row
        for row in read_csv(out / "time_to_target.csv")
    }
    assert len(rows) == 3 * 2 * 2
    chosen = rows["a", "digits", "1"]
    assert (chosen["time_s"], chosen["steps"], chosen["trial"], chosen["evaluation"]) == (
        "14.0",
        "140",
        "2",
        "1",
    )
    assert (chosen["last_miss_time_s"], chosen["last_miss_steps"]) == ("7.0", "70")
    assert rows["a", "lm", "1"]["outcome"] == "budget"
    assert rows["c", "digits", "1"]["outcome"] == "missing"
    assert rows["c", "digits", "1"]["time_s"] == ""
    profile = [row for row in read_csv(out / "profile.csv") if row["submission"] == "c"]
    assert [(row["tau"], row["share_of_workloads"]) for row in profile] == [
        ("1.0", "0.0"),
        ("1.25", "0.5"),
        ("2.0", "0.5"),
        ("4.0", "0.5"),
    ]
    findings = json.loads((out / "findings.json").read_text())
    damage = [finding["message"] for finding in findings if finding["damage"]]
    assert damage == ["c has no trial of digits in study_1"]


def test_table(tmp_path, competition):
    text = run([tmp_path], reference="a")
    assert "mini-builtin, 2 workloads" in text
    assert [word for word in text.split() if word in ("0.8333", "0.5000", "0.4583")] == [
        "0.8333",
        "0.5000",
        "0.4583",
    ]
    line = next(line for line in text.splitlines() if "digits" in line and " b " in line)
    assert line.split() == ["digits", "b", "24.00", "240", "2/2", "2.000", "credited"]
    line = next(line for line in text.splitlines() if "digits" in line and " c " in line)
    assert line.split() == ["digits", "c", "-", "-", "1/2", "-", "missed"]
    # b over a: 12/24 on digits and, missed by a, 100/40 on lm.
    b = next(line for line in text.splitlines() if line.split()[:2] == ["1", "b"])
    assert f"{(0.5 * 2.5) ** 0.5:.2f} (" in b
    assert (
        "A miss counts as the budget: b (1 missed by a); c (1 missed by it, 1 missed by a)." in text
    )


@pytest.mark.parametrize(
    ("width", "left_out"), [(120, ""), (80, "speed-up"), (60, "P(1st), rank, speed-up")]
)
def test_a_narrow_screen_shows_fewer_columns_and_every_name(tmp_path, held_out, width, left_out):
    lines = run([tmp_path], width=width).splitlines()
    header = next(line for line in lines if "submission" in line)
    for name in ("score", "95 %", "rank", "P(1st)", "base score", "reached", "speed-up"):
        assert (name in header) == (name not in left_out.split(", "))
    ranked = [line.split()[1] for line in lines if line.lstrip()[:2] in ("1 ", "2 ", "3 ")]
    assert ranked == ["b", "a", "c"]
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    (told,) = [line for line in lines if line.startswith("Too wide")] or [""]
    assert told.startswith(f"Too wide for this screen: {left_out}") == bool(left_out)


def test_a_long_name_is_folded_before_a_column_goes(tmp_path, reach):
    name = "a_submission_with_a_name_that_nobody_would_like_to_type"
    reach(10.0, submission=name)
    lines = run([tmp_path], width=90).splitlines()
    assert "Too wide" not in "".join(lines)
    first, *rest = [line.split() for line in lines if line.strip()][3:5]
    assert "".join([first[1], *rest[0]]) == name


def test_equal_scores_share_a_rank(tmp_path, reach):
    for submission, time_s in [("b", 10.0), ("a", 10.0), ("c", 20.0)]:
        reach(time_s, submission=submission)
    (pool,) = json.loads(run([tmp_path], as_json=True))["pools"]
    assert [(e["submission"], e["rank"]) for e in pool["submissions"]] == [
        ("a", 1),
        ("b", 1),
        ("c", 3),
    ]


def test_names_are_not_markup(tmp_path, reach):
    reach(10.0, submission="[red]a")
    assert "[red]a" in run([tmp_path])


def test_every_pool_has_its_files(tmp_path, competition, reach):
    reach(3.0, pool={"scale": "full", "data": "hub"}, experiment="full", submission="z")
    out = tmp_path / "out"
    run([tmp_path / "runs"], out)
    names = sorted(path.name for path in out.iterdir())
    plots = ("performance_profile", "rank_intervals", "speedups", "training_curves")
    assert names == sorted(
        [
            *("findings.json", "profile.csv", "report.html", "scores.csv", "time_to_target.csv"),
            *("robustness.csv", "robustness_axes.csv", "step_times.csv", "costs.csv"),
            *("workload_agreement.csv", "workload_subsets.csv"),
            *(
                f"{plot}_{pool}.{kind}"
                for plot in plots
                for pool in ("full-hub", "mini-builtin")
                for kind in ("png", "svg")
            ),
        ]
    )


def test_damaged_and_empty_trials(tmp_path, make_trial):
    folder = make_trial([(1.0, 1, "nan"), (2.0, 2, "inf")])
    (folder.parent / "trial_2").mkdir()
    (folder.parent / "trial_2" / "flags_0.json").write_text((folder / "flags_0.json").read_text())
    run([tmp_path / "runs"], tmp_path / "out")
    assert (tmp_path / "out" / "scores.csv").is_file()


def test_workload_without_a_target_is_told(tmp_path, make_trial, reach):
    none = {"metric": "accuracy", "higher_is_better": True, "validation": None}
    make_trial([(1.0, 1, 0.5)], workload="ag_news", target=none)
    text = run([tmp_path], tmp_path / "alone")
    assert "nothing to score" in text
    assert (tmp_path / "alone" / "training_curves_mini-builtin.png").is_file()
    reach(5.0)
    (pool,) = json.loads(run([tmp_path], as_json=True))["pools"]
    assert [entry["score"] for entry in pool["submissions"]] == [1.0]
    assert "ag_news has no target in mini-builtin: not scored" in run([tmp_path])


def test_result_that_the_rows_contradict_is_told(tmp_path, miss):
    miss(status="reached")
    assert "result.json says 'reached'" in run([tmp_path])


@pytest.mark.parametrize("where", ["nowhere", "empty", "hollow"])
def test_nothing_to_read_is_the_users_mistake(tmp_path, where):
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow" / "adamw" / "study_0").mkdir(parents=True)
    with pytest.raises(errors.UserError) as raised:
        run([tmp_path / where])
    message = str(raised.value)
    assert where in message
    assert "<submission>/study_<k>/<workload>_<framework>/trial_<j>" in message
    assert "\n" not in message


def test_one_good_path_does_not_hide_an_empty_one(tmp_path, miss):
    miss()
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.UserError, match="empty"):
        run([tmp_path / "runs", tmp_path / "empty"])


def test_out_that_cannot_be_written(tmp_path, miss):
    miss()
    (tmp_path / "file").touch()
    with pytest.raises(errors.UserError, match=r"cannot write to .*file"):
        run([tmp_path / "runs"], tmp_path / "file" / "out")


def test_scores_and_intervals_in_the_csv_are_those_of_the_json(tmp_path, competition):
    out = tmp_path / "out"
    run([tmp_path / "runs"], out)
    (pool,) = json.loads(run([tmp_path / "runs"], as_json=True))["pools"]
    rows = read_csv(out / "scores.csv")
    assert list(rows[0])[:5] == ["submission", "score", "score_low", "score_high", "rank"]
    for row, entry in zip(rows, pool["submissions"], strict=True):
        for name, text in row.items():
            value = 2 if name == "workloads" else entry[name]
            assert text == ("" if value is None else str(value)), name
    # c was run once on digits, which the rules count as missed: both studies are there.
    assert pool["intervals"]["studies"]["not_estimable"] == ""
    assert pool["intervals"]["workloads"]["not_estimable"] == "2 workloads; 3 are needed"
    assert pool["intervals"]["workloads"]["score"] == {
        "a": [None, None],
        "b": [None, None],
        "c": [None, None],
    }


def test_one_study_is_not_estimable(tmp_path, reach):
    reach(10.0, submission="a")
    reach(20.0, submission="b")
    text = run([tmp_path])
    assert "not estimable (digits has 1 study; 2 are needed)" in text
    row = next(line for line in text.splitlines() if line.split()[:2] == ["1", "a"])
    assert row.split()[:6] == ["1", "a", "1.0000", "?", "?", "?"]
    run([tmp_path / "runs"], tmp_path / "out")
    row = read_csv(tmp_path / "out" / "scores.csv")[0]
    assert row["score_low"] == row["p_first"] == row["speedup_high"] == ""
    assert row["not_estimable"] == "digits has 1 study; 2 are needed"


def test_two_studies_of_one_workload_are_not_estimable(tmp_path, reach):
    for submission, first in {"a": 10.0, "b": 20.0}.items():
        for study in (0, 1):
            reach(first + study, submission=submission, study=study)
    why = (
        "all submissions and workloads have 4 studies together; 9 are needed, as fewer may hide "
        "that 30% would miss the target"
    )
    assert f"interval of the speed-up: not estimable ({why})." in " ".join(run([tmp_path]).split())
    (pool,) = json.loads(run([tmp_path / "runs"], as_json=True))["pools"]
    for entry in pool["submissions"]:
        names = "score_low score_high rank_low rank_high p_first speedup_low speedup_high"
        assert [entry[name] for name in names.split()] == [None] * 7
        assert entry["not_estimable"] == why


def test_rules(tmp_path, competition):
    def scores(**options):
        (pool,) = json.loads(run([tmp_path], as_json=True, **options))["pools"]
        return {entry["submission"]: entry["score"] for entry in pool["submissions"]}

    # as-published: c's one study of digits counts alone (12 s, ratio 1), so do a's 100.5 s on lm
    # after its budget: (60 + 100.5) / 2 = 80.25, ratio 80.25 / 40.
    grid = {"a": (1 + (4 - 80.25 / 40) / 3) / 2, "b": (2 / 3 + 1) / 2, "c": (1 + 2.75 / 3) / 2}
    assert scores(rules="as-published") == pytest.approx(grid, abs=0.006)
    assert scores(rules="as-published")["c"] != pytest.approx(grid["c"], abs=1e-12)
    with pytest.raises(errors.UserError, match="unknown rules 'fair'; one of: interpolated"):
        run([tmp_path], rules="fair")
    with pytest.raises(errors.UserError, match="unknown tuning ruleset 'none'; one of: external"):
        run([tmp_path], tuning_ruleset="none")


def test_held_out_variants_of_targets(tmp_path, reach, miss):
    for submission, time_s in [("a", 10.0), ("b", 20.0)]:
        reach(time_s, submission=submission, pool={})
    reach(5.0, submission="b", workload="digits_wide", pool={})
    miss(submission="a", workload="digits_wide", pool={})
    targets = tmp_path / "targets.json"
    facts = {"metric": "accuracy", "validation": 0.9, "budget_s": 15}
    of = {"digits": facts, "digits_wide": facts | {"variant_of": "digits"}}
    targets.write_text(
        json.dumps({"benchmark": "spring", "workloads": of, "self_tuning_factor": 2})
    )

    def scores(**options):
        text = run([tmp_path / "runs"], as_json=True, targets=str(targets), **options)
        (pool,) = json.loads(text)["pools"]
        return {entry["submission"]: entry["score"] for entry in pool["submissions"]}

    assert scores() == {"a": 0, "b": 0}  # b takes 20 s of 15
    assert scores(tuning_ruleset="self") == {"a": 0, "b": 1}
    assert scores(held_out=False) == {"a": 1, "b": 0}
    text = run([tmp_path / "runs"], targets=str(targets), tuning_ruleset="self")
    assert "spring, 1 workload and 1 held-out (by-the-rules)" in text
    a = next(line for line in text.splitlines() if line.split()[:2] == ["digits", "a"])
    assert a.rstrip().endswith("held-out: missed")


def test_a_base_workload_that_nobody_ran_counts(tmp_path, reach):
    reach(10.0, pool={})
    facts = {"metric": "accuracy", "validation": 0.9}
    targets = tmp_path / "targets.json"
    targets.write_text(json.dumps({"workloads": {"digits": facts, "lm": facts}, "studies": 1}))
    text = run([tmp_path / "runs"], as_json=True, targets=str(targets))
    found = json.loads(text)
    assert found["pools"][0]["submissions"][0]["score"] == 0.5
    assert "adamw has no runs of lm: counted as not reached" in [
        f["message"] for f in found["findings"]
    ]


def test_folders_are_merged_and_submissions_excluded(tmp_path, reach):
    reach(10.0, submission="a")
    (tmp_path / "runs").rename(tmp_path / "A")
    reach(20.0, submission="b")
    reach(5.0, submission="c")
    both = [tmp_path / "A", tmp_path / "runs"]

    def order(**options):
        (pool,) = json.loads(run(both, as_json=True, **options))["pools"]
        return [entry["submission"] for entry in pool["submissions"]]

    assert order() == ["c", "a", "b"]
    assert order(exclude=("c",)) == ["a", "b"]
    assert order(exclude=("mini-builtin/c", "a")) == ["b"]
    with pytest.raises(errors.UserError, match="no submission 'd' to exclude; one of: a, b, c"):
        order(exclude=("d",))
    with pytest.raises(errors.UserError, match="every submission is excluded"):
        order(exclude=("a", "b", "c"))


def test_reference(tmp_path, reach):
    reach(10.0, submission="a")
    reach(20.0, submission="b")
    (pool,) = json.loads(run([tmp_path], as_json=True, reference="b"))["pools"]
    assert [entry["speedup"] for entry in pool["submissions"]] == pytest.approx([2, 1])
    assert pool["submissions"][0]["speedup_reference"] == "b"
    with pytest.raises(errors.UserError, match="no submission 'z' to refer to; one of: a, b"):
        run([tmp_path], reference="z")


def test_strict_turns_damage_into_failure(tmp_path, reach, miss):
    folder = reach(10.0, study=0, trial=1)
    reach(40.0, study=0, trial=2)
    run([tmp_path], strict=True)  # a step time that differs is odd, not damage
    (folder / "eval_measurements.csv").write_text("")
    assert "eval_measurements.csv: is empty" in run([tmp_path], strict=True, code=1)
    run([tmp_path], code=0)


def test_many_findings_are_grouped(tmp_path, reach):
    for study in range(3):
        (reach(10.0, study=study) / "eval_measurements.csv").unlink()
    lines = [line for line in run([tmp_path], width=400).splitlines() if "finding" in line]
    assert [line.split(": ", 2)[2] for line in lines if "missing" in line] == [
        "is missing: no evaluation"
    ]
    assert "(and 2 more)" in lines[0]


def test_the_page_says_how_it_was_made(tmp_path, competition):
    run([tmp_path / "runs"], tmp_path / "out", command="algoperf score runs --out out")
    assert "algoperf score runs --out out" in (tmp_path / "out" / "report.html").read_text()


def contended_runs(reach):
    """Two studies each; one of b's was beside other work, which doubled its time."""
    for study in range(2):
        reach(10.0, 100, submission="a", study=study, result={"contended": False})
    reach(8.0, 80, submission="b", result={"contended": False})
    reach(16.0, 80, submission="b", study=1, result={"contended": True})


def test_contended_trials_are_marked_and_left_out_on_request(tmp_path, reach):
    contended_runs(reach)
    told = run([tmp_path], width=200)
    assert "b CONTENDED " in told
    assert "a CONTENDED" not in told
    assert "CONTENDED: 1 trial waited for work beside them" in told
    assert "b on digits: CONTENDED in study_1/trial_1: others had its cores" in told
    whole = json.loads(run([tmp_path], as_json=True))["pools"][0]["submissions"]
    assert {row["submission"]: row["contended_trials"] for row in whole} == {"a": 0, "b": 1}
    times = {row["submission"]: row["workloads"]["digits"]["median_time_s"] for row in whole}
    assert times == {"a": 10.0, "b": 12.0}
    out = run([tmp_path], out=tmp_path / "out", exclude_contended=True, width=200)
    assert "CONTENDED" not in out
    assert "b: 1 trial of digits contended: left out" in out
    left = json.loads(run([tmp_path], as_json=True, exclude_contended=True))["pools"][0]
    times = {
        row["submission"]: row["workloads"]["digits"]["median_time_s"]
        for row in left["submissions"]
    }
    assert times == {"a": 10.0, "b": 8.0}
    options = {"exclude_contended": True, "count_unfinished": True}
    assert json.loads(run([tmp_path], as_json=True, **options))["pools"] == [left]
    marks = {
        row["submission"]: row["contended_trials"] for row in read_csv(tmp_path / "out/scores.csv")
    }
    assert marks == {"a": "0", "b": "0"}


def test_the_page_marks_contended_trials(tmp_path, reach):
    contended_runs(reach)
    run([tmp_path], out=tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("contended in 1 of 2 trials") == 1
    assert "1 trial that waited for work beside them" in page


def test_nothing_is_left_where_every_trial_is_contended(tmp_path, reach):
    reach(10.0, result={"contended": True})
    with pytest.raises(errors.UserError, match="every trial is contended"):
        run([tmp_path], exclude_contended=True)


def test_the_order_by_steps_is_said_where_it_is_another(tmp_path, reach):
    for study in range(2):
        reach(10.0, 100, submission="a", study=study)
        reach(12.0, 60, submission="b", study=study)
        reach(40.0, 900, submission="c", study=study)
    assert "By steps the order is another: b, a, c." in run([tmp_path], width=200)
    assert "By steps" not in run([tmp_path], width=200, exclude=("a",))
