"""What is said of a trial when it ends, and of all trials of a study."""

import io

import pytest
from rich.console import Console

from algoperf.study import outcome
from algoperf.study.outcome import Ended

LEDGER = {
    "submission_s": 8.0,
    "evaluation_s": 1.0,
    "logging_s": 0.5,
    "checkpoint_s": 0.0,
    "set_up_s": 2.25,
    "other_s": 0.25,
    "wall_s": 12.0,
    "data_wait_s": 0.4,
    "first_step_s": 1.5,
}
RESULT = {
    "workload": "digits",
    "framework": "jax",
    "submission": "adamw",
    "study": 0,
    "trial": 1,
    "status": "reached",
    "scoreable": True,
    "steps": 300,
    "time_to_target_s": 7.5,
    "steps_to_target": 300,
    "last_miss": {"time_s": 7.25, "step": 290},
    "target": {"metric": "accuracy", "validation": 0.97},
    "budget_s": 15.0,
    "final": {
        "validation/loss": 0.123456,
        "validation/accuracy": 0.972,
        "validation/num_examples": 500,
    },
    "ledger": LEDGER,
    "error": None,
}
WHERE = "digits jax adamw study 0 trial 1: "


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({}, "reached target accuracy 0.97 after 7.50 s, 300 steps (missed at 7.25 s, step 290)"),
        (
            {"interpolated": {"time_s": 7.375, "step": 295.0}},
            "reached target accuracy 0.97 after 7.50 s, 300 steps "
            "(missed at 7.25 s, step 290; interpolated 7.38 s)",
        ),
        ({"last_miss": None}, "reached target accuracy 0.97 after 7.50 s, 300 steps"),
        (
            {"status": "budget", "steps": 512},
            "did not reach target accuracy 0.97 in its budget of 15 s, 512 steps",
        ),
        (
            {"status": "diverged", "steps": 20},
            "diverged (loss not finite); ended after 8.00 s, 20 steps",
        ),
        (
            {
                "status": "diverged",
                "steps": 499,
                "not_finite": {
                    "training loss": {"first_step": 30, "last_step": 498, "times": 469},
                    "parameters": {"first_step": 499, "last_step": 499, "times": 1},
                },
            },
            "diverged (training loss not finite from step 30 on, parameters not finite from step "
            "499 on); ended after 8.00 s, 499 steps",
        ),
        (
            {"status": "failed", "steps": 3, "error": {"cause": "killed"}, "ledger": {}},
            "failed after at least 3 steps: killed",
        ),
        (
            {"status": "failed", "steps": 0, "error": {"cause": "killed"}, "ledger": {}},
            "failed before its first evaluation: killed",
        ),
        (
            {"status": "budget", "best": {"validation/accuracy": 0.961, "step": 480}},
            "did not reach target accuracy 0.97 in its budget of 15 s, 300 steps; best accuracy "
            "0.9610 at step 480",
        ),
        (
            {"status": "failed", "steps": 3, "error": {"cause": "KeyError: 'x'"}},
            "failed after 3 steps: KeyError: 'x'",
        ),
        (
            {"status": "complete", "scoreable": False},
            "complete after 8.00 s, 300 steps (target accuracy 0.97; not scoreable)",
        ),
        ({"status": "complete"}, "complete after 8.00 s, 300 steps (target accuracy 0.97)"),
        (
            {"status": "complete", "scoreable": False, "target": {"validation": None}},
            "complete after 8.00 s, 300 steps (no target)",
        ),
    ],
)
def test_what_came_of_a_trial(changed, text):
    assert outcome.of_trial({**RESULT, **changed}).splitlines()[0] == WHERE + text


def test_metrics_and_seconds_are_told():
    _, metrics, seconds = outcome.of_trial(RESULT).splitlines()
    assert metrics == "  last evaluation: validation/loss 0.1235, validation/accuracy 0.9720"
    assert seconds == (
        "  seconds: submission 8.00 + evaluation 1.00 + logging 0.50 + checkpoint 0.00 + "
        "set_up 2.25 + other 0.25 = 12.00 wall "
        "(5.0% of the submission's waiting for data, first step 1.50)"
    )


def test_a_trial_that_died_has_neither():
    died = {**RESULT, "status": "failed", "error": {"cause": "killed"}, "final": {}, "ledger": {}}
    assert outcome.of_trial(died) == WHERE + "failed after at least 300 steps: killed"


def test_a_trial_that_failed_before_its_first_step_ended():
    ledger = {**LEDGER, "submission_s": 0.0, "data_wait_s": 0.0, "first_step_s": None}
    failed = {**RESULT, "status": "failed", "error": {"cause": "x"}, "ledger": ledger}
    assert "(0.0% of the submission's waiting for data, no first step)" in outcome.of_trial(failed)


def test_brief_is_the_outcome_and_what_is_unusual():
    busy = {"other_cores": 1.5, "cores": 2}
    lines = outcome.of_trial({**RESULT, "flags": ["sleeps"], "resources": busy}, brief=True)
    assert lines.splitlines() == [
        WHERE + "reached target accuracy 0.97 after 7.50 s, 300 steps",
        "  busy machine: other processes used 1.5 of its 2 cores (docs/resources.md)",
        "  flagged: sleeps (docs/trust.md)",
    ]


def trial(number, status, rate, *, time_s=None, best=None, higher=True, study=0, **others):
    target = {"metric": "accuracy", "validation": 0.97, "higher_is_better": higher}
    changed = {"study": study, "trial": number, "status": status, "target": target}
    changed |= {"time_to_target_s": time_s, "steps_to_target": None if time_s is None else 40}
    changed["best"] = {} if best is None else {"validation/accuracy": best, "step": 30}
    return Ended({**RESULT, **changed}, {"learning_rate": rate, "clip": 1.0, **others})


STUDY = [
    trial(1, "budget", 0.1, best=0.9),
    trial(2, "reached", 0.0312345, time_s=4.5, best=0.971),
    trial(3, "failed", 0.5, best=0.99),
    trial(4, "reached", 0.02, time_s=2.25, best=0.972),
    trial(5, "diverged", 0.7, best=0.999),
]


@pytest.mark.parametrize(
    ("ended", "number"),
    [
        (STUDY, 4),  # the fastest, not the one with the best value
        ([STUDY[0], STUDY[2], STUDY[4]], 1),  # the only one that counts
        ([trial(1, "complete", 1, best=0.3), trial(2, "budget", 1, best=0.5)], 2),
        (
            [
                trial(1, "complete", 1, best=0.3, higher=False),
                trial(2, "budget", 1, best=0.5, higher=False),
                trial(3, "budget", 1, best=float("nan"), higher=False),
            ],
            1,
        ),
        ([STUDY[2], STUDY[4], trial(6, "complete", 1)], None),
    ],
)
def test_the_best_is_the_fastest_else_the_one_with_the_best_value(ended, number):
    best = outcome.best(ended)
    assert (None if best is None else best.result["trial"]) == number


def shown(ended, width=80):
    console = Console(file=io.StringIO(), width=width)
    for each in outcome.table(ended, width):
        console.print(each)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_table_has_all_points_and_marks_the_best():
    lines = shown(STUDY)
    assert "adamw on digits in jax, study 0" in lines[0]
    rows = [
        line.split() for line in lines if line.split()[:1] and line.split()[0].strip("*").isdigit()
    ]
    assert rows == [
        ["1", "missed", "-", "300", "0.9000", "0.1"],
        ["2", "reached", "4.50", "300", "0.9710", "0.0312"],
        ["3", "failed", "-", "300", "0.9900", "0.5"],
        ["*4", "reached", "2.25", "300", "0.9720", "0.02"],
        ["5", "diverged", "-", "300", "0.9990", "0.7"],
    ]
    assert lines[-1] == "the same in all: clip 1"
    assert outcome.best_line(STUDY) == (
        "best of 5 (*): study 0 trial 4, target after 2.25 s, 40 steps, at clip 1, "
        "learning_rate 0.02"
    )
    assert outcome.best_line(STUDY[2:3]) == "none of 1 trials has a result to choose by"
    assert outcome.best_line(STUDY[:1]) == (
        "best of 1 (*): study 0 trial 1, accuracy 0.9000 at step 30, at clip 1, learning_rate 0.1"
    )


def test_many_hyperparameters_share_a_column_in_80():
    many = {f"hyperparameter_{index}": 0.1 + index for index in range(8)}
    other = {name: value / 3 for name, value in many.items()}
    ended = [trial(1, "budget", 0.1, best=0.9, **many), trial(2, "budget", 0.2, study=1, **other)]
    lines = shown(ended)
    assert max(map(len, lines)) <= 80
    assert "hyperparameter_7 7.1" in " ".join(" ".join(lines).split())
    assert "study" in " ".join(lines[:4])  # of two studies
    assert "hyperparameter_7 7.1" not in " ".join(" ".join(shown(ended, width=200)).split())
