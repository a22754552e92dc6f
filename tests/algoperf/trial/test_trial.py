"""Stop rules, statuses, and what a submission is handed, on fakes (see conftest.py)."""

import contextlib
import dataclasses
import json
import math
import weakref
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from algoperf import errors, spec
from algoperf.submission.blame import cause_of
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.loop import State
from algoperf.workload.crossing import Point, crossing

NO_TARGET = Goal("accuracy", True, None)
UNREACHED = Goal("accuracy", True, 2.0)


def at(values):
    """Validation metrics by the steps trained; the last stays. Train and test are far off."""

    def metrics(split, steps):
        value = values[min(int(steps), len(values)) - 1] if split == "validation" else 0.25
        return {"loss": 1.0, "accuracy": value, "num_examples": 10.0}

    return metrics


# Reached


def test_reached_has_time_steps_and_last_miss(make_rig):
    """1 s steps, evaluation every 2 steps; the target is met at step 6."""
    limits = Limits(budget_s=50.0, eval_every_s=1.0, eval_every_steps=2)
    rig = make_rig(
        metrics=lambda s, w: {"loss": 1.0, "accuracy": w},
        goal=Goal("accuracy", True, 6.0),
        limits=limits,
    )
    rig.trial.run()
    assert rig.trial.status == "reached"
    assert rig.evaluated == [(1, 1.0), (2, 2.0), (4, 4.0), (6, 6.0)]
    assert rig.trial.error is None


def test_the_load_is_read_before_the_clock_starts_and_after_it_has_stopped(make_rig):
    """Reading takes 3 s each time, none of which is the submission's; the drain's wait is."""
    rig = make_rig(step_s=2.0, limits=Limits(budget_s=7.0, eval_every_s=50.0))
    submission, read = rig.trial.ledger.submission, []

    @contextlib.contextmanager
    def timed():
        for _ in range(2):
            rig.clock.sleep(3.0)
            read.append((submission.elapsed_s, rig.device.unfinished()))
            if len(read) % 2:
                yield

    rig.trial._timed = timed
    rig.trial.run()
    assert read[:3] == [(0.0, 0), (2.0, 0), (2.0, 0)]
    assert read[-1] == (submission.elapsed_s, 0)
    assert submission.elapsed_s == 2.0 * rig.trial.state.step


def test_the_target_itself_counts_and_just_below_does_not():
    goal = Goal("accuracy", True, 0.5)
    assert goal.is_met({"validation/accuracy": 0.5})
    assert not goal.is_met({"validation/accuracy": math.nextafter(0.5, 0)})
    assert not goal.is_met({"train/accuracy": 1.0, "test/accuracy": 1.0})


def test_lower_is_better(make_rig):
    errors = {1: 9.0, 2: 5.0, 4: 3.0, 6: 2.5}
    limits = Limits(budget_s=50.0, eval_every_s=1.0, eval_every_steps=2)
    goal = Goal("error", False, 3.0)
    rig = make_rig(metrics=lambda s, w: {"loss": 1.0, "error": errors[w]}, goal=goal, limits=limits)
    rig.trial.run()
    assert (rig.trial.status, rig.trial.evaluations[-1][0]) == ("reached", 4)
    assert goal.is_better(2.0, 3.0)
    assert not goal.is_better(3.0, 2.0)
    assert not goal.is_better(2.0, 2.0)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_nan_meets_no_target_and_beats_nothing(higher_is_better):
    goal = Goal("accuracy", higher_is_better, 0.5)
    assert not goal.is_met({"validation/accuracy": math.nan})
    assert not goal.is_met({})
    assert not goal.is_better(math.nan, 1.0)
    assert not goal.is_better(math.nan, None)
    assert goal.is_better(1.0, math.nan)
    assert goal.is_better(1.0, None)


@pytest.mark.parametrize(("test_value", "met"), [(0.9, True), (0.8, False), (math.nan, False)])
def test_until_test_asks_for_both_targets(test_value, met):
    goal = Goal("accuracy", True, 0.9, 0.85, until="test")
    assert goal.is_met({"validation/accuracy": 0.95, "test/accuracy": test_value}) is met
    assert not goal.is_met({"validation/accuracy": 0.8, "test/accuracy": 0.99})
    past = Goal("accuracy", True, 0.9, 0.85, until="end")
    assert not past.is_met({"validation/accuracy": 0.95, "test/accuracy": 0.95})


def test_until_test_measures_the_test_split_every_time(make_rig):
    def metrics(split, steps):
        return {
            "loss": 1.0,
            "accuracy": {"validation": 1.0, "train": 1.0, "test": steps / 10}[split],
        }

    limits = Limits(budget_s=50.0, eval_every_s=1.0, eval_every_steps=1)
    goal = Goal("accuracy", True, 0.9, 0.3, until="test")
    rig = make_rig(metrics=metrics, goal=goal, limits=limits)
    rig.trial.run()
    assert (rig.trial.status, rig.trial.state.step) == ("reached", 3)
    assert rig.calls["splits"] == ["train", "validation", "test"] * 3


# The budget


def test_what_is_reached_after_the_budget_does_not_count(make_rig):
    """The evaluation that the clock asks for at 12 s (budget 10) would meet the target."""
    metrics = at([0.0] * 4 + [1.0])
    rig = make_rig(step_s=3.0, metrics=metrics, limits=Limits(budget_s=10.0, eval_every_s=4.0))
    rig.trial.run()
    assert rig.trial.status == "budget"
    assert rig.evaluated == [(1, 3.0)]
    assert rig.calls["splits"] == ["train", "validation"]


def test_a_drain_past_the_budget_is_past_the_budget(make_rig):
    """At step 5 the clock reads 9 s; the two steps in flight end at 15 s; the budget is 14 s."""
    metrics = at([0.0, 0.0, 0.0, 1.0])
    limits = Limits(budget_s=14.0, eval_every_s=100.0, eval_every_steps=5)
    rig = make_rig(step_s=3.0, metrics=metrics, limits=limits)
    rig.trial.run()
    assert (rig.trial.status, rig.trial.state.step) == ("budget", 5)
    assert rig.trial.ledger.submission.elapsed_s == 15.0
    assert rig.evaluated == [(1, 3.0)]


def test_the_budget_to_the_second_is_within_it(make_rig):
    limits = Limits(budget_s=15.0, eval_every_s=100.0, eval_every_steps=5)
    rig = make_rig(step_s=3.0, metrics=at([0.0, 0.0, 0.0, 1.0]), limits=limits)
    rig.trial.run()
    assert (rig.trial.status, rig.evaluated[-1]) == ("reached", (5, 15.0))


def test_evaluation_and_logging_cost_no_budget(make_rig):
    limits = Limits(budget_s=6.0, eval_every_s=1.0, eval_every_steps=1, max_steps=6)
    rig = make_rig(goal=UNREACHED, limits=limits, evaluation_s=1000.0, log_s=1000.0)
    rig.trial.run()
    assert (rig.trial.status, rig.trial.state.step) == ("complete", 6)
    assert rig.trial.ledger.evaluation.elapsed_s == (6 * 2 + 1) * 1000.0


def test_without_a_target_the_budget_completes_the_trial(make_rig):
    rig = make_rig(goal=NO_TARGET, limits=Limits(budget_s=10.0, eval_every_s=100.0))
    rig.trial.run()
    assert rig.trial.status == "complete"
    assert rig.evaluated == [(1, 1.0), (13, 13.0)]
    assert rig.calls["splits"][-3:] == ["train", "validation", "test"]


# Divergence (test_judgement.py has the rest)


def test_a_nan_metric_is_a_miss_and_no_divergence(make_rig):
    rig = make_rig(
        metrics=at([math.nan, math.nan, 1.0]),
        limits=Limits(budget_s=50.0, eval_every_s=1.0, eval_every_steps=1),
    )
    rig.trial.run()
    assert (rig.trial.status, rig.trial.state.step) == ("reached", 3)


# Failure


def raiser(at_step):
    def function(**arguments):
        if arguments.get("global_step") == at_step:
            raise KeyError("no such thing")
        return {"number": 0}

    return function


@pytest.mark.parametrize(
    "name", ["data_selection", "update_params", "prepare_for_eval", "eval_params"]
)
def test_an_exception_in_a_function_fails_the_trial(make_rig, name):
    def function(**arguments):
        raise KeyError("no such thing")

    rig = make_rig(**{name: function})
    rig.trial.run()
    assert rig.trial.status == "failed"
    assert rig.trial.error["cause"] == "KeyError: 'no such thing'"
    assert "in function" in rig.trial.error["traceback"]
    assert rig.evaluated == []
    rig.clock.sleep(5)  # the clock has stopped
    assert rig.trial.ledger.submission.elapsed_s <= 1.0


def test_an_exception_later_keeps_what_was_measured(make_rig):
    limits = Limits(budget_s=50.0, eval_every_s=1.0, eval_every_steps=2)
    rig = make_rig(data_selection=raiser(at_step=5), limits=limits)
    rig.trial.run()
    assert (rig.trial.status, rig.trial.state.step) == ("failed", 5)
    assert [step for step, _ in rig.evaluated] == [1, 2, 4]
    assert [step for step, _ in rig.log.scalar_rows] == [
        0,
        1,
        2,
        3,
        4,
    ]  # up to the step that failed


def test_an_asynchronous_error_at_the_drain_fails_the_trial(make_rig):
    rig = make_rig()

    def drain(*trees):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes\nmore lines")

    rig.backend.drain = drain
    rig.trial.run()
    assert rig.trial.status == "failed"
    assert rig.trial.error["cause"] == (
        "out of memory (RuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes)"
    )


def test_a_mistake_of_the_user_goes_up(make_rig):
    def function(**arguments):
        raise errors.UserError("choose another")

    rig = make_rig(update_params=function)
    with pytest.raises(errors.UserError, match="choose another"):
        rig.trial.run()


@pytest.mark.parametrize(
    ("params", "cause"),
    [
        ({"w": np.zeros(2, np.float32)}, "w was float32[], is float32[2]"),
        ({"w": np.zeros((), np.float16)}, "w was float32[], is float16[]"),
        ({}, "w was float32[], is absent"),
        (
            {"w": np.zeros((), np.float32), "v": np.zeros(1, np.float32)},
            "v was absent, is float32[1]",
        ),
    ],
)
def test_parameters_of_another_shape_or_type_fail_the_trial(make_rig, params, cause):
    rig = make_rig(update_params=lambda optimizer_state, **_: (optimizer_state, params, None))
    rig.trial.run()
    assert rig.trial.status == "failed"
    assert rig.trial.error["cause"] == f"update_params changed the parameters: {cause}"
    assert rig.evaluated == []


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("two\nlines"), "ValueError: two"),
        (ValueError(), "ValueError"),
        (MemoryError(), "out of memory (MemoryError)"),
        (RuntimeError("CUDA out of memory."), "out of memory (RuntimeError: CUDA out of memory.)"),
        (
            OSError("[Errno 12] Can't allocate memory"),
            "out of memory (OSError: [Errno 12] Can't allocate memory)",
        ),
    ],
)
def test_causes_are_one_line(error, cause):
    assert cause_of(error) == cause


# The end without a target met


def test_training_complete_gives_one_last_evaluation_with_test(make_rig):
    def update_params(optimizer_state, current_param_container, global_step, **_):
        if global_step == 7:
            raise spec.TrainingCompleteError
        return optimizer_state, {"w": current_param_container["w"] + np.float32(1)}, None

    rig = make_rig(update_params=update_params, limits=Limits(50.0, 100.0))
    rig.trial.run()
    assert (rig.trial.status, rig.trial.state.step) == ("complete", 7)
    assert [step for step, _ in rig.evaluated] == [1, 7]
    assert rig.calls["splits"] == ["train", "validation", "train", "validation", "test"]


def test_the_last_evaluation_can_still_reach_the_target(make_rig):
    limits = Limits(budget_s=50.0, eval_every_s=100.0, max_steps=7)
    rig = make_rig(metrics=at([0.0] * 6 + [1.0]), limits=limits)
    rig.trial.run()
    assert rig.trial.status == "reached"
    assert rig.calls["splits"] == ["train", "validation", "train", "validation", "test"]


@pytest.mark.parametrize("max_steps", [1, 2, 3, 8])
def test_max_steps_is_exact(make_rig, max_steps):
    rig = make_rig(goal=UNREACHED, limits=Limits(50.0, 100.0, max_steps=max_steps))
    rig.trial.run()
    assert (rig.trial.status, rig.trial.state.step) == ("complete", max_steps)
    assert rig.evaluated == [(step, float(step)) for step in sorted({1, max_steps})]
    assert rig.calls["splits"].count("test") == 1
    assert len(rig.calls["updates"]) == max_steps


# When evaluations fall due


def one_at_a_time(rig):
    """Let the host wait for each step."""
    rig.backend.marker = lambda params: rig.backend.drain() or 0.0
    return rig


def test_evaluations_by_time(make_rig):
    """3 s steps, every 10 s: after step 1, then the first that ends at 10, 20, 30 s or later."""
    rig = one_at_a_time(make_rig(step_s=3.0, goal=UNREACHED, limits=Limits(40.0, 10.0)))
    rig.trial.run()
    assert rig.evaluated == [(1, 3.0), (4, 12.0), (7, 21.0), (10, 30.0)]
    assert rig.trial.state.step == 14


def test_a_step_may_jump_over_several_periods(make_rig):
    """25 s steps, every 10 s: one evaluation a step; then short steps, none made up for."""
    rig = one_at_a_time(make_rig(step_s=25.0, goal=UNREACHED, limits=Limits(75.0, 10.0)))
    rig.trial.run()
    assert rig.evaluated == [(1, 25.0), (2, 50.0), (3, 75.0)]
    seconds = iter([25.0] + [1.0] * 100)

    def update_params(optimizer_state, current_param_container, **_):
        rig.device.queue(next(seconds))
        return optimizer_state, current_param_container, None

    rig = one_at_a_time(
        make_rig(update_params=update_params, goal=UNREACHED, limits=Limits(41.0, 10.0))
    )
    rig.trial.run()
    assert rig.evaluated == [(1, 25.0), (6, 30.0), (16, 40.0)]


def test_evaluations_by_steps_ignore_the_time(make_rig):
    limits = Limits(budget_s=11.5, eval_every_s=0.001, eval_every_steps=4)
    rig = one_at_a_time(make_rig(goal=UNREACHED, limits=limits))
    rig.trial.run()
    assert [step for step, _ in rig.evaluated] == [1, 4, 8]


def test_a_trial_that_stops_before_its_first_step_has_not_timed_one(make_rig):
    """Else the process that goes on with it would take no time for the time of the first step."""
    rig = make_rig()
    saved = []
    rig.trial._keeper = SimpleNamespace(
        is_due=lambda: True,
        save=lambda trial: saved.append((trial.state.step, trial.ledger.totals())),
        must_stop=lambda: True,
    )
    rig.trial.run()
    assert rig.trial.interrupted
    assert rig.trial.status is None
    ((step, ledger),) = saved
    assert (step, ledger["first_step_s"]) == (0, None)


# Evaluations by what they cost, steered by probes


def probing(make_rig, goal=None, **settings):
    """1 s steps; w is the step. All rows say w / 100, the few 0.05 less. A probe takes 1/8 s, an
    evaluation of two splits 1 s.
    """
    limits = Limits(budget_s=90.0, eval_every_s=1000.0, eval_share=0.25, **settings)
    goal = goal or Goal("accuracy", True, 0.5)
    return one_at_a_time(make_rig(probe=lambda w: w / 100 - 0.05, goal=goal, limits=limits))


def test_a_probe_that_predicts_the_target_has_all_rows_evaluated_at_once(make_rig):
    rig = probing(make_rig)
    trial = rig.trial
    trial.run()
    assert trial.status == "reached"
    steps = [step for step, _, _ in trial.evaluations]
    miss, hit = steps[-2:]
    assert steps[0] == 1
    probed = rig.calls["probed"]
    assert probed[0] == 1
    assert probed[1] == 9  # (1/8 + 1 + 1/8 + 1) / 0.25
    assert hit == probed[-1] >= 55 > probed[-2] >= miss
    points = [Point(step, step, step / 100) for step in (miss, hit)]
    found = crossing(*points, 0.5, higher_is_better=True, probes=trial.referee.cadence.probes)
    assert found.step == pytest.approx(50)  # By now it is known that all say 0.05 more.
    assert set(steps) <= set(probed)
    bracket = [(probe.time_s, probe.step, probe.value) for probe in trial.referee.cadence.probes]
    assert [step for _, step, _ in bracket] == [step for step in probed if step >= miss]
    assert bracket == [(step, step, step / 100 - 0.05) for _, step, _ in bracket]
    spent = trial.ledger.evaluation.elapsed_s - 0.5  # The test split is looked at in the end.
    assert spent == len(probed) / 8 + len(trial.evaluations)
    assert spent <= 0.25 * hit + 1


def test_a_probe_alone_is_no_evaluation(make_rig):
    """It is neither logged nor told, saves nothing, and meets no target."""
    rig = make_rig(
        probe=lambda w: 0.45 if w < 30 else 0.499,
        metrics=at([0.45]),
        goal=Goal("accuracy", True, 0.5),
        limits=Limits(budget_s=60.0, eval_every_s=1000.0, eval_share=0.25),
    )
    saved = []
    rig.trial._keeper = SimpleNamespace(
        is_due=lambda: False,
        after_step=lambda ledger: None,
        save=lambda trial: saved.append(trial.state.step),
        must_stop=lambda: False,
    )
    one_at_a_time(rig).trial.run()
    assert rig.trial.status == "budget"
    steps = [step for step, _, _ in rig.trial.evaluations]
    assert saved == steps
    assert [row["global_step"] for row, _ in rig.log.rows] == steps
    assert len(rig.calls["probed"]) > 2 * len(steps)


def test_a_probe_that_is_not_finite_is_evaluated_and_ends_the_trial(make_rig):
    rig = make_rig(
        probe=lambda w: 0.1 if w < 20 else math.nan,
        metrics=lambda split, w: {"loss": 1.0 if w < 20 else math.nan, "accuracy": 0.1},
        goal=Goal("accuracy", True, 0.5),
        limits=Limits(budget_s=90.0, eval_every_s=1000.0, eval_share=0.25),
    )
    one_at_a_time(rig).trial.run()
    assert rig.trial.status == "diverged"
    assert rig.trial.evaluations[-1][0] == rig.calls["probed"][-1]


def test_once_the_target_is_met_nothing_is_probed(make_rig):
    rig = probing(make_rig, goal=Goal("accuracy", True, 0.5, until="end"), max_steps=80)
    rig.trial.run()
    assert rig.trial.status == "complete"
    met = next(
        step for step, _, metrics in rig.trial.evaluations if metrics["validation/accuracy"] >= 0.5
    )
    assert rig.calls["probed"][-1] == met < rig.trial.evaluations[-2][0]
    spent = rig.trial.ledger.evaluation.elapsed_s
    assert spent <= 0.25 * 80 + 2.5


def test_without_a_probe_or_a_share_the_period_counts(make_rig):
    limits = Limits(budget_s=25.0, eval_every_s=10.0, eval_share=0.25)
    for rig in (
        make_rig(metrics=at([0.1]), goal=UNREACHED, limits=limits),
        make_rig(
            metrics=at([0.1]),
            goal=UNREACHED,
            limits=dataclasses.replace(limits, eval_share=None),
            probe=lambda w: 0.1,
        ),
    ):
        one_at_a_time(rig).trial.run()
        assert [clock_s for _, clock_s, _ in rig.trial.evaluations] == [1.0, 10.0, 20.0]
        assert rig.calls["probed"] == []


def test_a_trial_that_goes_on_probes_as_it_would_have(make_rig):
    whole = probing(make_rig)
    whole.trial.run()
    begun = probing(make_rig)
    saved = {}

    class Keeper:
        def is_due(self):
            return begun.trial.state.step == 33

        def after_step(self, ledger):
            pass

        def save(self, trial):
            saved["position"] = json.loads(json.dumps(trial.position()))

        def must_stop(self):
            return begun.trial.state.step == 33

    begun.trial._keeper = Keeper()
    begun.trial.run()
    assert begun.trial.interrupted
    later = probing(make_rig)
    later.trial.go_on(begun.trial.state, saved["position"])
    later.trial.run()
    assert later.trial.referee.cadence == whole.trial.referee.cadence
    assert later.trial.evaluations == whole.trial.evaluations
    assert begun.calls["probed"] + later.calls["probed"] == whole.calls["probed"]


def test_a_member_of_a_population_is_evaluated_on_all_rows_and_left_at_its_step(make_rig):
    """By cost, nothing but the first step is evaluated on all rows before step 25."""
    alone = probing(make_rig)
    alone.trial.run()
    assert not {13, 26} & {step for step, _, _ in alone.trial.evaluations}
    rig = probing(make_rig, exchange_every_steps=13, pause_at_step=26)
    saved = []
    rig.trial._keeper = SimpleNamespace(
        is_due=lambda: False,
        after_step=lambda ledger: None,
        save=lambda trial: saved.append((trial.state.step, trial.position())),
        must_stop=lambda: False,
    )
    rig.trial.run()
    assert (rig.trial.status, rig.trial.interrupted, rig.trial.is_paused) == (None, True, True)
    assert [step for step, _, _ in rig.trial.evaluations][1:] == [13, 26]
    assert saved[-1][0] == 26
    # As after a death between the checkpoint and the word of it: it makes no step more.
    again = probing(make_rig, exchange_every_steps=13, pause_at_step=26)
    again.trial.go_on(rig.trial.state, json.loads(json.dumps(saved[-1][1])))
    again.trial.run()
    assert (again.trial.interrupted, again.trial.state.step) == (True, 26)
    further = probing(make_rig, exchange_every_steps=13, pause_at_step=39)
    further.trial.go_on(rig.trial.state, json.loads(json.dumps(saved[-1][1])))
    further.trial.run()
    assert (further.trial.interrupted, further.trial.state.step) == (True, 39)
    assert [step for step, _, _ in further.trial.evaluations][1:] == [13, 26, 39]


def test_the_first_values_are_not_kept_beside_those_that_it_goes_on_with(make_rig):
    """Both together would be more than some model's training takes."""
    trial = probing(make_rig).trial
    first = jnp.zeros(3)
    held = weakref.ref(first)
    trial.state = State({"w": first}, {}, (first, len), step=0)
    trial._evaluated = trial.state.params
    del first
    outlined = trial.give_up_state()
    assert held() is None
    assert outlined.params["w"].shape == (3,)
    assert outlined.optimizer_state[1] is len
