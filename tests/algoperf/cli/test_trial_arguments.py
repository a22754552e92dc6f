"""What a trial hands to the submission and to the log, on fakes (see conftest.py)."""

import traceback
from types import MappingProxyType

import numpy as np

from algoperf import spec
from algoperf.submission.blame import cause_of
from algoperf.trial import seeds
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.scalars import ScalarBuffer

UNREACHED = Goal("accuracy", True, 2.0)


def test_scalars_are_fetched_at_drains_only(make_rig):
    limits = Limits(budget_s=50.0, eval_every_s=1.0, eval_every_steps=10, max_steps=40)
    rig = make_rig(goal=UNREACHED, limits=limits, loss=lambda step: 1 + step / 8)
    rig.trial.run()
    assert set(rig.backend.fetches) == {0}  # nothing was unfinished, so nothing was waited for
    assert rig.log.scalar_rows == [(step, {"loss": 1 + step / 8}) for step in range(40)]
    assert rig.trial.last_loss == 1 + 39 / 8


def test_the_buffer_hands_over_once_and_takes_a_copy():
    buffer, values = ScalarBuffer(), {"loss": np.float32(0.5)}
    buffer.append_scalar_metrics(values, 3)
    values["loss"] = np.float32(9)
    buffer.append_scalar_metrics({"lr": 0.1}, global_step=4, preemption_count=0)
    assert buffer.take(lambda tree: tree) == [(3, {"loss": 0.5}), (4, {"lr": 0.1})]
    assert buffer.take(lambda tree: tree) == []


def test_rows_have_times_and_metrics(make_rig):
    limits = Limits(budget_s=50.0, eval_every_s=1.0, eval_every_steps=2, max_steps=2)
    rig = make_rig(goal=UNREACHED, limits=limits)
    rig.trial.run()
    first, second = rig.log.rows
    assert first[0] == {
        "accumulated_submission_time": 1.0,
        "accumulated_eval_time": 1.0,
        "accumulated_logging_time": 0.25,
        "global_step": 1,
        "preemption_count": 0,
        "score": 1.0,
        "total_duration": 2.25,
    }
    assert first[1] == {
        f"{split}/{name}": value
        for split in ("train", "validation")
        for name, value in (("loss", 1.0), ("accuracy", 0.01))
    }
    assert second[0]["accumulated_submission_time"] == 2.0
    assert second[0]["accumulated_eval_time"] == 1.0 + 1.5
    assert second[0]["accumulated_logging_time"] == 0.75
    assert second[1]["test/accuracy"] == 0.02


def test_evaluated_parameters_do_not_train(make_rig):
    """`eval_params` returns 100 + w: evaluated, and never handed to `update_params`."""
    seen = []

    def eval_params(*, params, optimizer_state):
        seen.append(optimizer_state)
        return {"w": params["w"] + np.float32(100)}

    limits = Limits(budget_s=50.0, eval_every_s=1.0, eval_every_steps=2, max_steps=6)
    rig = make_rig(eval_params=eval_params, goal=UNREACHED, limits=limits)
    rig.trial.run()
    assert sorted(set(rig.calls["evaluated"])) == [101.0, 102.0, 104.0, 106.0]
    handed = [float(update["current_param_container"]["w"]) for update in rig.calls["updates"]]
    assert handed == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert seen == [{"momentum": 0}] * 4
    assert float(rig.trial.state.params["w"]) == 6.0


def test_prepare_for_eval_replaces_what_trains_at_the_submissions_expense(make_rig):
    def prepare_for_eval(*, current_param_container, optimizer_state, model_state, **_):
        rig.device.queue(4.0)
        return {"momentum": 1}, {"w": current_param_container["w"] + np.float32(50)}, model_state

    limits = Limits(budget_s=50.0, eval_every_s=1.0, eval_every_steps=2, max_steps=2)
    rig = make_rig(prepare_for_eval=prepare_for_eval, goal=UNREACHED, limits=limits)
    rig.trial.run()
    assert rig.evaluated == [(1, 5.0), (2, 10.0)]
    assert float(rig.calls["updates"][1]["current_param_container"]["w"]) == 51.0
    assert rig.calls["updates"][1]["optimizer_state"] == {"momentum": 1}


def test_the_train_state_is_read_only_and_only_for_those_who_ask(make_rig):
    states, refused = [], []

    def update_params(*, train_state, optimizer_state, current_param_container, **_):
        states.append(dict(train_state))
        try:
            train_state["training_complete"] = True
        except TypeError:
            refused.append(type(train_state))
        rig.device.queue(1.0)
        return optimizer_state, current_param_container, None

    limits = Limits(budget_s=50.0, eval_every_s=1.0, eval_every_steps=2, max_steps=4)
    rig = make_rig(
        update_params=update_params, wants_train_state=True, goal=UNREACHED, limits=limits
    )
    rig.trial.run()
    assert refused == [MappingProxyType] * 4
    assert [state["accumulated_submission_time"] for state in states] == [0.0, 1.0, 2.0, 2.0]
    assert [state["accumulated_eval_time"] for state in states] == [0.0, 1.0, 2.0, 2.0]
    assert [state["last_eval_time"] for state in states] == [0.0, 1.0, 2.0, 2.0]
    assert all(state["is_time_remaining"] for state in states)
    assert not any(
        state["validation_goal_reached"] or state["training_complete"] for state in states
    )
    states.clear()
    rig = make_rig(update_params=update_params, goal=UNREACHED, limits=limits)
    rig.trial.run()
    assert states == [{}] * 4


def test_arguments(make_rig):
    limits = Limits(budget_s=50.0, eval_every_s=1.0, eval_every_steps=2, max_steps=3)
    rig = make_rig(goal=UNREACHED, limits=limits, seed=5)
    rig.trial.run()
    init = rig.calls["init_optimizer_state"]
    assert rig.calls["init_rng"] == seeds.pair(5, seeds.INIT)
    assert init["rng"] == seeds.pair(5, seeds.OPTIMIZER)
    assert (init["hyperparameters"], float(init["model_params"]["w"])) == ("point", 0.0)
    assert rig.backend.seeds == [seeds.pair(5, seeds.UPDATE)]
    updates = rig.calls["updates"]
    assert [update["global_step"] for update in updates] == [0, 1, 2]
    assert [update["batch"]["number"] for update in updates] == [0, 1, 2]
    assert [update["rng"] for update in updates] == [
        seeds.pair(5, seeds.UPDATE, step) for step in range(3)
    ]
    results = updates[-1]["eval_results"]
    assert [step for step, _ in results] == [1, 2, 3]  # the same list all along
    assert results[0][1]["validation/accuracy"] == 0.01
    assert updates[0]["loss_type"] is spec.LossType.SOFTMAX_CROSS_ENTROPY


def test_every_evaluation_is_reported_with_its_status_known(make_rig):
    reported = []
    limits = Limits(budget_s=50.0, eval_every_s=1.0, eval_every_steps=2, max_steps=4)
    rig = make_rig(goal=UNREACHED, limits=limits)
    rig.trial.referee._report = lambda metrics: reported.append(
        (rig.trial.state.step, rig.trial.status)
    )
    rig.trial.run()
    assert reported == [(1, None), (2, None), (4, "complete")]


def test_fail_keeps_the_traceback(make_rig):
    rig = make_rig()
    try:
        raise ValueError("here")
    except ValueError as error:
        rig.trial.fail(cause_of(error), traceback.format_exc())
    assert rig.trial.error["traceback"].endswith("ValueError: here\n")
