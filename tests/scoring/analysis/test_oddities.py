"""Each oddity, made once."""

import io
import json

import pytest
from rich.console import Console

from algoperf.machine import supervision
from scoring.analysis.oddities import find_oddities, find_unfounded
from scoring.output.export import to_json
from scoring.output.tables import to_table
from scoring.report import Options, score


def oddities(boards):
    board = boards()[0]["mini-builtin"]
    found = find_oddities(row.entry for row in board.rows)
    assert not any(finding.damage for finding in found)
    return [finding.message for finding in found]


def test_a_whole_study_is_not_odd(reach, miss, boards):
    for study in (0, 1):
        reach(10.0, study=study, trial=1)
        miss(study=study, trial=2, budget_s=100.0)
    assert oddities(boards) == []


def test_a_clock_that_goes_back(make_trial, boards):
    make_trial([(5, 1, 0.1), (4, 2, 0.2), (99, 3, 0.2)], study=3, trial=7)
    assert oddities(boards) == [
        "adamw on digits: the submission time goes back in study_3/trial_7",
    ]


def test_a_target_met_after_0_seconds(make_trial, boards):
    make_trial([(0.0, 1, 0.9)], trial=2)
    assert oddities(boards) == [
        "adamw on digits: the target is met after 0 s of submission time in study_0/trial_2"
    ]


def test_trials_that_ended_early(make_trial, boards):
    make_trial([(1, 1, 0.1), (2.5, 2, 0.2)], trial=1, status=None, pool={})
    make_trial([(1, 1, 0.1), (20, 20, 0.2)], trial=2, status=None, pool={})
    make_trial([(1, 1, 0.1), (90, 90, 0.2)], trial=3, status=None, pool={})
    board = boards()[0]["settings not recorded"]
    assert [found.message for found in find_oddities(row.entry for row in board.rows)] == [
        "adamw on digits: 2 trials ended early without the target, at 20 % of the budget"
    ]


def test_trials_that_have_not_ended(make_trial, boards):
    make_trial([(1, 1, 0.1)], trial=1)
    make_trial([(1, 1, 0.1)], trial=2, status=None)
    running = make_trial([(1, 1, 0.1)], trial=3, status=None)
    rest = "a study that may still be decided is left out of medians, but with --count-unfinished"
    with supervision.locked(running):
        assert oddities(boards) == [
            f"adamw on digits: running: study_0/trial_3; {rest}",
            f"adamw on digits: interrupted (the same command goes on): study_0/trial_2; {rest}",
        ]


def test_uneven_step_times(reach, make_trial, boards):
    reach(10.0, 100, trial=1)
    make_trial([(1.0, 5, 0.1), (2.0, 10, 0.1), (21.0, 100, 0.9)], trial=2)
    assert oddities(boards) == [
        "adamw on digits: step times differ 2.1 times between trials (0.1 to 0.21 s)"
    ]


def test_ties_that_folder_order_would_decide(make_trial, boards):
    """In AlgoPerf's logs, which have no result."""
    for study, times in enumerate([(10.0, 11.0), (10.0, 10.0)]):
        for trial, time_s in enumerate(times):
            rows = [(time_s, 100, 0.9)]
            make_trial(rows, study=study, trial=trial, status=None, pool={})
    board = boards()[0]["settings not recorded"]
    assert [found.message for found in find_oddities(row.entry for row in board.rows)] == [
        "adamw on digits: trials of study_0 meet the target at one evaluation with different times"
    ]


def test_trials_of_this_library_are_ranked_by_time(reach, boards):
    for trial, time_s in enumerate((10.0, 11.0)):
        reach(time_s, 100, trial=trial)
    assert oddities(boards) == []


def test_uneven_numbers_of_trials(reach, boards):
    reach(10.0, study=0, trial=1)
    reach(10.0, study=0, trial=2)
    reach(10.0, study=1, trial=1)
    assert oddities(boards) == [
        "adamw on digits: studies have different numbers of trials (study_0: 2, study_1: 1)"
    ]


def test_what_runs_were_flagged_for(reach, boards):
    for trial, flags in ((1, ["time.sleep was replaced"]), (2, []), (3, "not a list")):
        path = reach(10.0, trial=trial) / "result.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "flags": flags}))
    assert "adamw on digits: FLAGGED in study_0/trial_1: time.sleep was replaced" in oddities(
        boards
    )


def test_the_ranking_marks_what_was_flagged(reach, analysis):
    for trial, flags in ((1, ["time.sleep was replaced", "more"]), (2, ["more"]), (3, [])):
        reach(10.0, trial=trial, submission="cheat", result={"flags": flags})
    reach(10.0, submission="honest")
    analysed = analysis()
    console = Console(width=150, file=io.StringIO())
    console.print(to_table(analysed, console.width))
    told = console.file.getvalue()
    assert "cheat FLAGGED " in told
    assert told.count("FLAGGED") == 2
    assert "FLAGGED: 2 trials saw the submission do what it should not" in told
    (pool,) = to_json([analysed], [])["pools"]
    marks = {row["submission"]: row["flagged_trials"] for row in pool["submissions"]}
    assert marks == {"cheat": 2, "honest": 0}


def unfounded(boards):
    (board,) = boards()[0].values()
    return [finding.message for finding in find_unfounded(board)]


@pytest.mark.parametrize(("studies", "limit_s"), [(1, 40.0), (2, 80.0), (3, 40.0)])
def test_a_trial_that_was_late_beside_nobody(studies, limit_s, reach, miss, boards):
    for study in range(studies):
        reach(10.0, submission="fast", study=study)
        facts = {"submission": "slow", "study": study, "status": "late"}
        miss(**facts, result={"ledger": {"submission_s": limit_s}})
    assert unfounded(boards) == []
    assert oddities(boards) == []
    miss(**facts, trial=2, result={"ledger": {"submission_s": limit_s - 0.1}})
    (told,) = unfounded(boards)
    assert told.startswith("slow on digits: 1 trials were ended by --stop-late beside a submission")


def test_without_the_submission_beside_which_they_were_late(reach, miss, boards):
    for workload in ("digits", "lm"):
        late = {"status": "late", "result": {"ledger": {"submission_s": 40.0}}}
        miss(submission="slow", workload=workload, **late)
        miss(submission="slow", workload=workload, **late, trial=2)
    reach(20.0, submission="other", workload="digits")
    assert [text.partition(" trials")[0] for text in unfounded(boards)] == [
        "slow on digits: 2",
        "slow on lm: 2",
    ]


def test_a_workload_that_nobody_has_makes_nobody_late(reach, miss, tmp_path):
    reach(10.0, submission="fast")
    miss(submission="slow", status="late", result={"ledger": {"submission_s": 40.0}})
    goal = {"metric": "accuracy", "validation": 0.9}
    path = tmp_path / "targets.json"
    path.write_text(json.dumps({"benchmark": "two", "workloads": {"digits": goal, "other": goal}}))
    scored = score([tmp_path / "runs"], Options(targets=str(path)))
    assert not [one for one in scored.findings if "--stop-late" in one.message]
