"""What the command line says of a result and of a workload."""

import dataclasses

import pytest

from algoperf.cli import summary
from algoperf.workload import Target, Variant, catalogue

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
        ({"last_miss": None}, "reached target accuracy 0.97 after 7.50 s, 300 steps"),
        (
            {"status": "budget", "steps": 512},
            "did not reach target accuracy 0.97 in its budget of 15 s, 512 steps",
        ),
        (
            {"status": "diverged", "steps": 20},
            "diverged (loss not finite) after 8.00 s, 20 steps",
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
    assert summary.of_trial({**RESULT, **changed}).splitlines()[0] == WHERE + text


def test_metrics_and_seconds_are_told():
    _, metrics, seconds = summary.of_trial(RESULT).splitlines()
    assert metrics == "  last evaluation: validation/loss 0.1235, validation/accuracy 0.9720"
    assert seconds == (
        "  seconds: submission 8.00 + evaluation 1.00 + logging 0.50 + checkpoint 0.00 + "
        "set_up 2.25 + other 0.25 = 12.00 wall "
        "(5.0% of the submission's waiting for data, first step 1.50)"
    )


def test_a_trial_that_died_has_neither():
    died = {**RESULT, "status": "failed", "error": {"cause": "killed"}, "final": {}, "ledger": {}}
    assert summary.of_trial(died) == WHERE + "failed after 300 steps: killed"


def test_a_trial_that_failed_before_its_first_step_ended():
    ledger = {**LEDGER, "submission_s": 0.0, "data_wait_s": 0.0, "first_step_s": None}
    failed = {**RESULT, "status": "failed", "error": {"cause": "x"}, "ledger": ledger}
    assert "(0.0% of the submission's waiting for data, first step 0.00)" in summary.of_trial(
        failed
    )


def test_workloads():
    definition = catalogue.find("digits")
    target = Target(0.97, "ten seeds", ceiling=0.99, baselines={"nearest neighbour": 0.9512345})
    mini = dataclasses.replace(definition.scales["mini"], targets={"builtin": target})
    variants = {"wide": Variant({"width": 2.0, "norm": "rms"})}
    definition = dataclasses.replace(definition, scales={"mini": mini}, variants=variants)
    described = summary.of_workload(definition)
    assert (described["name"], described["loss_type"]) == ("digits", "SOFTMAX_CROSS_ENTROPY")
    lines = summary.workload_lines([described], details=True)
    assert lines == [
        f"digits: {definition.summary}",
        f"  mini: batch {mini.batch_size}, step hint {mini.step_hint}, budget {mini.budget_s:g} s, "
        f"evaluation every {mini.eval_every_s:g} s, data: builtin (or no other)",
        "    target on builtin: accuracy 0.97",
        "      baseline: nearest neighbour 0.9512",
        "      ceiling: 0.9900",
        "      set by: ten seeds",
        "  variant digits_wide: width 2.0, norm rms",
    ]
    assert summary.workload_lines([described], details=False) == [*lines[:3], lines[-1]]
