"""Numbers that are not finite, and evaluations that fail, on fakes (see conftest.py)."""

import contextlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from algoperf.submission.blame import cause_of, place_of
from algoperf.trial import assemble
from algoperf.trial.goal import Limits


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_training_loss_that_is_not_finite_ends_the_trial(make_rig, value):
    """Step 3's, which only the next drain shows; the evaluation that was due then is not made."""
    limits = Limits(budget_s=50.0, eval_every_s=1.0, eval_every_steps=5)
    rig = make_rig(loss=lambda step: value if step == 3 else 1.0, limits=limits)
    rig.trial.run()
    assert (rig.trial.status, rig.trial.state.step) == ("diverged", 5)
    assert rig.evaluated == [(1, 1.0)]
    steps = [step for step, _ in rig.log.scalar_rows]
    assert steps == [0, 1, 2, 3, 4]
    assert rig.trial.error is None


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_evaluated_loss_that_is_not_finite_ends_the_trial(make_rig, split, value):
    def metrics(asked, steps):
        bad = asked == split and steps >= 4
        return {"loss": value if bad else 1.0, "accuracy": 0.1}

    limits = Limits(budget_s=50.0, eval_every_s=1.0, eval_every_steps=4)
    rig = make_rig(metrics=metrics, limits=limits)
    rig.trial.run()
    assert (rig.trial.status, rig.trial.state.step) == ("diverged", 4)
    assert len(rig.log.rows) == 2  # the row that shows it is written


def infinite_from(step, until=math.inf):
    """An update whose parameter is infinite between two steps, and the count of steps else."""

    def update_params(*, global_step, optimizer_state, model_state, **_):
        done = global_step + 1
        value = math.inf if step <= done < until else done
        return optimizer_state, {"w": np.float32(value)}, model_state

    return update_params


EVERY_2 = {"budget_s": 50.0, "eval_every_s": 1.0, "eval_every_steps": 2, "max_steps": 10}


def test_a_parameter_that_is_not_finite_ends_the_trial_whatever_the_metrics_are(make_rig):
    """It is infinite from step 3 on; the evaluation at 4 is good, and the last."""
    rig = make_rig(
        metrics=lambda split, w: {"loss": 1.0, "accuracy": 0.5},
        limits=Limits(**EVERY_2),
        update_params=infinite_from(3),
    )
    rig.trial.run()
    assert (rig.trial.status, rig.trial.state.step) == ("diverged", 4)
    assert len(rig.log.rows) == 3
    seen = {"parameters": {"first_step": 4, "last_step": 4, "times": 1}}
    assert rig.trial.not_finite.seen == seen
    assert rig.trial.ledger.evaluation.elapsed_s == 3 * 2 * 0.5  # looked at off the clock


def test_evaluated_parameters_are_looked_at_as_well(make_rig):
    rig = make_rig(
        metrics=lambda split, w: {"loss": 1.0, "accuracy": 0.5},
        limits=Limits(**EVERY_2),
        eval_params=lambda params, optimizer_state: {"w": np.float32(math.nan)},
    )
    rig.trial.run()
    assert (rig.trial.status, rig.trial.state.step) == ("diverged", 1)


def test_with_keep_going_it_is_noted_and_the_trial_goes_on(make_rig):
    """Infinite at steps 3 to 6, seen at the evaluations 4 and 6; a loss at steps 2 and 7."""

    def update_params(*, global_step, **arguments):
        loss = math.nan if global_step in (2, 7) else 1.0
        rig.workload.metrics_logger.append_scalar_metrics({"loss": loss}, global_step)
        return infinite_from(3, until=7)(global_step=global_step, **arguments)

    rig = make_rig(
        metrics=lambda split, w: {"loss": 1.0 if w < 10 else math.nan, "accuracy": 0.5},
        limits=Limits(**EVERY_2, keep_going=True),
        update_params=update_params,
    )
    rig.trial.run()
    assert (rig.trial.status, rig.trial.state.step) == ("complete", 10)
    assert rig.trial.not_finite.seen == {
        "training loss": {"first_step": 2, "last_step": 7, "times": 2},
        "parameters": {"first_step": 4, "last_step": 6, "times": 2},
        "train/loss": {"first_step": 4, "last_step": 10, "times": 3},
        "validation/loss": {"first_step": 4, "last_step": 10, "times": 3},
    }


def test_what_was_not_finite_is_known_after_an_interruption(make_rig):
    first = make_rig(
        metrics=lambda split, w: {"loss": 1.0, "accuracy": 0.5},
        limits=Limits(**{**EVERY_2, "max_steps": 4}, keep_going=True),
        update_params=infinite_from(2),
    )
    first.trial.run()
    first.trial._queue.position = lambda: None
    position = json.loads(json.dumps(first.trial.position()))
    second = make_rig()
    second.trial._queue.go_to = lambda position: None
    second.trial.go_on(second.trial.state, position)
    seen = {"parameters": {"first_step": 2, "last_step": 4, "times": 2}}
    assert second.trial.not_finite.seen == first.trial.not_finite.seen == seen


def test_an_error_of_the_evaluation_fails_the_trial_at_once(make_rig):
    tried = []

    def metrics(split, steps):
        tried.append((split, steps))
        raise RuntimeError("broken evaluation")

    rig = make_rig(metrics=metrics, limits=Limits(**EVERY_2))
    assemble.run(SimpleNamespace(trial=rig.trial, log=rig.log, gauges=contextlib.nullcontext()))
    assert (rig.trial.status, rig.trial.error["cause"]) == (
        "failed",
        "RuntimeError: broken evaluation",
    )
    assert tried == [("train", 1)]
    assert rig.evaluated == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("assert x", "AssertionError (mine.py:3: assert x)"),
        ("1 / x", "division by zero (mine.py:3)"),
    ],
)
def test_an_error_is_said_with_its_place(tmp_path, line, said):
    """The last of the submission's lines; the line itself where the error says nothing."""
    (path := tmp_path / "mine.py").write_text(f"def f(call, x):\n    call()\n    {line}\n")
    names = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    with pytest.raises((AssertionError, ZeroDivisionError)) as caught:
        names["f"](lambda: None, 0)
    error = caught.value
    assert f"{cause_of(error)}{place_of(error, path.__eq__)}".endswith(said)
    assert place_of(error, lambda file: file == Path(__file__)).startswith(" (test_judgement.py:")
    assert place_of(error, lambda file: False) == ""
