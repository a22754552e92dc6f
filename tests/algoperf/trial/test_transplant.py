"""A copied state goes on at other hyperparameters: rates worked out by hand, in both frameworks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from algoperf.errors import UserError
from algoperf.run_folder import state
from algoperf.trial import transplant
from algoperf.trial.preservation import Saved

OLD, NEW = {"rate": 0.1, "momentum": 0.5}, {"rate": 0.3, "momentum": 0.9}
STEPS = 4


def saved(optimizer_state, point=OLD):
    """A checkpoint that was copied from a trial at that point."""
    arrays, structure = state.to_arrays({"optimizer_state": optimizer_state})
    return Saved(arrays, {"structure": structure, "copied": {"point": point}})


def gone_on(checkpoint, make, point=NEW):
    """The optimizer state with which a trial at another point goes on."""
    fitted = transplant.fitted(checkpoint, point, make)
    fresh = {"optimizer_state": make(point)}
    return state.restore(fitted.arrays, fitted.document["structure"], fresh)["optimizer_state"]


def sgd(point, parameter, scheduler):
    optimizer = torch.optim.SGD([parameter], lr=point["rate"], momentum=point["momentum"])
    return {"optimizer": optimizer, "scheduler": scheduler(optimizer, point)}


def step(held):
    """One step at a gradient of 1."""
    optimizer = held["optimizer"]
    for value in optimizer.param_groups[0]["params"]:
        value.grad = torch.ones_like(value)
    optimizer.step()
    if held["scheduler"] is not None:
        held["scheduler"].step()


def decay(step):
    return 0.5**step


def closed(optimizer, point):
    """As the reference algorithms do: the whole rate is the lambda's."""
    for group in optimizer.param_groups:
        group["lr"] = 1.0
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: point["rate"] / (step + 1))


def warm_cosine(optimizer, point):
    schedulers = torch.optim.lr_scheduler
    warm = schedulers.LinearLR(optimizer, 0.25, 1.0, total_iters=2)
    cosine = schedulers.CosineAnnealingLR(optimizer, T_max=10)
    return schedulers.SequentialLR(optimizer, [warm, cosine], milestones=[2])


# What the rate of the next step is after so many steps, by the scheduler's documentation.
SCHEDULES = {
    "none": (lambda optimizer, point: None, lambda rate, step: rate),
    "lambda": (
        lambda optimizer, point: torch.optim.lr_scheduler.LambdaLR(optimizer, decay),
        lambda rate, step: rate * 0.5**step,
    ),
    "closed": (closed, lambda rate, step: rate / (step + 1)),
    "multiplied": (
        lambda optimizer, point: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8),
        lambda rate, step: rate * 0.8**step,
    ),
    "warm cosine": (
        warm_cosine,
        lambda rate, step: rate * (1 + math.cos(math.pi * (step - 2) / 10)) / 2,
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_torch_takes_the_new_rate_at_the_same_step_of_its_schedule(name):
    scheduler, rate = SCHEDULES[name]
    parameter = torch.nn.Parameter(torch.zeros(3))
    held = sgd(OLD, parameter, scheduler)
    for _ in range(STEPS):
        step(held)
    group = held["optimizer"].param_groups[0]
    assert group["lr"] == pytest.approx(rate(0.1, STEPS))
    checkpoint = saved(held)
    buffer = sum(0.5**k for k in range(STEPS))  # of a gradient of 1, by the old momentum

    own = torch.nn.Parameter(torch.zeros(3))
    after = gone_on(checkpoint, lambda point: sgd(point, own, scheduler))
    group = after["optimizer"].param_groups[0]
    assert group["momentum"] == 0.9
    assert after["optimizer"].state[own]["momentum_buffer"].tolist() == pytest.approx([buffer] * 3)
    for number in range(STEPS, STEPS + 3):
        assert group["lr"] == pytest.approx(rate(0.3, number))
        before = own.detach().clone()
        buffer = 0.9 * buffer + 1
        step(after)
        moved = (own.detach() - before).tolist()
        assert moved == pytest.approx([-rate(0.3, number) * buffer] * 3, rel=1e-5)


def test_torch_moves_a_rate_that_a_plateau_has_lowered_in_proportion():
    def plateau(optimizer, point):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)

    parameter = torch.nn.Parameter(torch.zeros(1))
    held = sgd(OLD, parameter, plateau)
    for loss in (1.0, 2.0, 3.0):
        held["scheduler"].step(loss)
    assert held["optimizer"].param_groups[0]["lr"] == pytest.approx(0.001)
    after = gone_on(saved(held), lambda point: sgd(point, parameter, plateau))
    assert after["optimizer"].param_groups[0]["lr"] == pytest.approx(0.003)
    assert after["scheduler"].num_bad_epochs == held["scheduler"].num_bad_epochs


def test_torch_keeps_a_schedule_that_two_points_share():
    parameter = torch.nn.Parameter(torch.zeros(1))
    scheduler = SCHEDULES["lambda"][0]
    held = sgd(OLD, parameter, scheduler)
    for _ in range(STEPS):
        step(held)
    point = {"rate": 0.1, "momentum": 0.9}
    after = gone_on(saved(held), lambda point: sgd(point, parameter, scheduler), point)
    assert after["optimizer"].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**STEPS)
    assert after["optimizer"].param_groups[0]["momentum"] == 0.9


PARAMS = {"weight": jnp.zeros(2), "bias": jnp.zeros(1)}
GRADIENTS = jax.tree.map(jnp.ones_like, PARAMS)


def jax_trained(make, point=OLD):
    transformation = make(point)
    held = transformation.init(PARAMS)
    for _ in range(STEPS):
        _, held = transformation.update(GRADIENTS, held, PARAMS)
    return held


def jax_update(make, held, point=NEW):
    updates, after = make(point).update(GRADIENTS, held, PARAMS)
    return np.asarray(updates["weight"]).tolist(), after


@pytest.mark.parametrize("is_injected", [True, False], ids=["in the state", "in a closure"])
def test_jax_takes_the_new_rate_wherever_it_is_held(is_injected):
    def make(point):
        sgd = optax.inject_hyperparams(optax.sgd) if is_injected else optax.sgd
        return sgd(learning_rate=point["rate"], momentum=point["momentum"])

    after = gone_on(saved(jax_trained(make)), lambda point: make(point).init(PARAMS))
    trace = 0.9 * sum(0.5**k for k in range(STEPS)) + 1
    assert jax_update(make, after)[0] == pytest.approx([-0.3 * trace] * 2, rel=1e-5)


def test_jax_keeps_the_step_of_a_schedule():
    def make(point):
        return optax.sgd(optax.linear_schedule(point["rate"], 0.0, 10))

    after = gone_on(saved(jax_trained(make)), lambda point: make(point).init(PARAMS))
    assert jax_update(make, after)[0] == pytest.approx([-0.3 * 0.6] * 2, rel=1e-5)


def test_jax_takes_a_number_that_schedule_free_keeps_in_its_state():
    def make(point):
        return optax.contrib.schedule_free(
            optax.sgd(point["rate"]), learning_rate=point["rate"], b1=point["momentum"]
        )

    trained = jax_trained(make)
    after = gone_on(saved(trained), lambda point: make(point).init(PARAMS))
    assert float(trained.b1) == 0.5
    assert float(after.b1) == pytest.approx(0.9)
    assert float(after.weight_sum) == float(trained.weight_sum)
    np.testing.assert_array_equal(after.z["weight"], trained.z["weight"])


def test_a_full_form_keeps_its_values_and_takes_its_hyperparameters():
    def make(point):
        generator = torch.rand(1)  # the same for both points
        return {"point": dict(point), "seen": [], "random": generator}

    held = make(OLD)
    held["seen"] += [1.0, 2.0]
    after = gone_on(saved(held), make)
    assert after["point"] == NEW
    assert after["seen"] == [1.0, 2.0]
    assert torch.equal(after["random"], held["random"])


def test_a_state_of_another_form_cannot_take_the_point():
    def make(point):
        return {"memory": np.zeros(int(10 * point["rate"]))}

    with pytest.raises(UserError) as error:
        gone_on(saved(make(OLD)), make)
    text = str(error.value)
    assert "state/optimizer_state/memory of the copied state is float64[1]" in text
    assert "float64[3] by the new ones" in text
    assert "leave the hyperparameter that decides it out of the search space" in text


def test_a_state_of_other_parts_cannot_take_the_point():
    def make(point):
        return {f"part {number}": 1.0 for number in range(int(10 * point["rate"]))}

    with pytest.raises(UserError, match="has other parts by the new hyperparameters"):
        gone_on(saved(make(OLD)), make)


def test_what_was_not_copied_stays_as_it_is():
    plain = Saved({}, {"structure": {}})
    assert transplant.fitted(plain, NEW, lambda point: pytest.fail("nothing is asked")) is plain
    same = saved({"a": 1.0})
    assert transplant.fitted(same, OLD, lambda point: pytest.fail("nothing is asked")) is same
