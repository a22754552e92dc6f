"""The line that a person sees: what it says, and that nothing of it comes where no terminal is."""

import dataclasses
import io

import pytest
from rich.console import Console

from algoperf.study.progress import Progress, wrapped
from algoperf.trial.plan import TrialPlan

PLAN = TrialPlan(
    workload="digits",
    scale="mini",
    data="builtin",
    source_kind="builtin",
    framework="jax",
    submission="adamw.py",
    out="runs",
    experiment="mini-builtin",
    study=1,
    trial=2,
    seed=0,
)
WHERE = "digits jax study 1 trial 2"
START = {
    "event": "start",
    "budget_s": 90.0,
    "target": {"metric": "accuracy", "validation": 0.97},
    "folder": "runs/[a]/trial_2",
    "step": 0,
    "clock_s": 0.0,
}
MIDDLE = {"event": "progress", "step": 120, "clock_s": 30.26, "loss": 0.12345}
MEASURED = {**MIDDLE, "event": "evaluation", "metrics": {"validation/accuracy": 0.95127}}


def progress(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
    return Progress(console), console


def test_the_line():
    shown, _ = progress(terminal=False)
    shown(PLAN, START)
    assert shown.line(WHERE, START) == f"{WHERE} | step 0 | clock 0.0 of 90 s | 90 s left"
    assert shown.line(WHERE, MIDDLE) == (
        f"{WHERE} | step 120 | clock 30.3 of 90 s | loss 0.1235 | 60 s left"
    )
    shown(PLAN, MEASURED)
    assert shown.line(WHERE, {**MIDDLE, "clock_s": 91.0}) == (
        f"{WHERE} | step 120 | clock 91.0 of 90 s | loss 0.1235 | "
        "accuracy 0.9513 (target 0.97) | 0 s left"
    )


def test_what_a_probe_predicts_is_newer_than_the_last_evaluation():
    shown, _ = progress(terminal=False)
    shown(PLAN, START)
    shown(PLAN, MEASURED)
    assert "| accuracy ~0.9612 (target 0.97) |" in shown.line(
        WHERE, {**MIDDLE, "predicted": 0.9612}
    )


def test_without_a_target_the_metric_stands_alone():
    shown, _ = progress(terminal=False)
    shown(PLAN, {**START, "target": {"metric": "accuracy", "validation": None}})
    shown(PLAN, MEASURED)
    assert "| accuracy 0.9513 | 60 s left" in shown.line(WHERE, MIDDLE)


def test_a_new_trial_starts_without_the_last_ones_metric():
    shown, _ = progress(terminal=False)
    shown(PLAN, START)
    shown(PLAN, MEASURED)
    shown(dataclasses.replace(PLAN, trial=3), START)
    assert "accuracy" not in shown.line(WHERE, MIDDLE)


def test_quiet_where_no_terminal_is():
    shown, console = progress(terminal=False)
    shown(PLAN, START)
    shown(PLAN, MIDDLE)
    shown(PLAN, MEASURED)
    shown(PLAN, {"event": "result", "result": {}})
    assert console.file.getvalue() == f"{WHERE}: in runs/[a]/trial_2\n"


def test_a_terminal_sees_the_line_until_the_result():
    shown, console = progress(terminal=True)
    try:
        shown(PLAN, START)
        shown(PLAN, MEASURED)
        assert shown._status is not None
        assert "accuracy 0.9513 (target 0.97)" in str(shown._status.status)
    finally:
        shown(PLAN, {"event": "result", "result": {}})
    assert shown._status is None
    assert f"{WHERE}: in runs/[a]/trial_2" in console.file.getvalue()
    shown.close()  # twice does no harm


@pytest.mark.parametrize("terminal", [True, False])
def test_notes_and_skipped_trials_are_said_in_any_case(terminal):
    shown, console = progress(terminal)
    long = "a note " * 50 + "[bold]as written[/bold]"
    shown(PLAN, {"event": "note", "text": long})
    shown(PLAN, {"event": "skip", "result": {"status": "reached"}})
    text = console.file.getvalue()
    assert f"{WHERE}: {long}" in " ".join(text.split())
    assert f"{WHERE}: done before (reached), skipped\n" in text


def test_trials_are_numbered_where_they_are_several_and_told_when_they_end():
    console, ended = Console(file=io.StringIO(), width=80), []
    shown = Progress(console, 3, lambda *told: ended.append(told))
    third = dataclasses.replace(PLAN, trial=3)
    started = {**START, "point": {"rate": 0.123456, "decay": 0}, "point_source": "its DEFAULTS"}
    shown(PLAN, {"event": "skip", "result": {"status": "budget"}})
    shown(third, {"event": "note", "text": "goes on from step 3"})
    shown(third, started)
    shown(third, {"event": "result", "result": {"status": "reached"}})
    assert console.file.getvalue().splitlines() == [
        f"{WHERE} (1 of 3): done before (missed), skipped",
        "digits jax study 1 trial 3 (2 of 3): goes on from step 3",
        "digits jax study 1 trial 3 (2 of 3): its DEFAULTS",
        "  decay 0, rate 0.1235",
    ]
    assert ended == [({"status": "budget"}, True), ({"status": "reached"}, False)]


def test_a_run_limited_in_steps_has_no_budget_left():
    shown, _ = progress(terminal=False)
    shown(PLAN, {**START, "budget_s": float("inf"), "max_steps": 480})
    assert shown.line(WHERE, START) == f"{WHERE} | step 0 of 480 | clock 0.0 s"
    assert shown.line(WHERE, {**MIDDLE, "clock_s": 30.0}) == (  # a quarter took 30 s
        f"{WHERE} | step 120 of 480 | clock 30.0 s | loss 0.1235 | 90 s left"
    )


def test_the_line_fits_a_narrow_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=84)
    shown = Progress(console)
    try:
        shown(PLAN, {**START, "max_steps": 600})
        shown(PLAN, MEASURED)
        text = str(shown._status.status)
        assert text == (
            "step 120 of 600 | clock 30.3 of 90 s | accuracy 0.9513 (target 0.97) | 60 s left"
        )
    finally:
        shown.close()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("one two three", "one two\n    three"),
        ("  one two 3 s, x", "  one two 3 s,\n      x"),
        ("  one twoo 3 s, x", "  one\n      twoo 3 s,\n      x"),  # it keeps its name and unit
        ("rate 0.5, decay -1", "rate 0.5,\n    decay -1"),
    ],
)
def test_wrapping(line, shown):
    assert wrapped(line, 14 if line.startswith("  ") else 12) == shown


def test_the_turns_of_a_member_are_said_and_its_point_when_it_is_another():
    shown, console = progress(terminal=False)
    turn = dataclasses.replace(PLAN, pause_at_step=20)
    start = {**START, "point_source": "its point", "point": {"rate": 0.5}}
    paused = {
        "steps": 20,
        "target": {"metric": "accuracy"},
        "final": {"validation/accuracy": 0.25},
        "ledger": {"submission_s": 1.5},
    }
    for point in (0.5, 0.5, 0.6):
        shown(turn, {**start, "point": {"rate": point}})
        shown(turn, {"event": "paused", "result": paused})
    lines = console.file.getvalue().splitlines()
    line = f"{WHERE}: step 20, clock 1.50 s: validation accuracy 0.2500"
    assert lines.count(line) == 3
    assert [line.split("rate ")[1] for line in lines if "rate " in line] == ["0.5", "0.6"]
