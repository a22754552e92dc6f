"""`--offload`: the optimizer's state in the host's memory between steps."""

import jax
import numpy as np
import optax
import pytest
import several_devices
import torch
from torch import nn

from algoperf import backends
from algoperf.backends.computation import Computation
from algoperf.backends.shared import OptimizerFunctions, StepSettings
from algoperf.backends.torch_offload import HostStates
from algoperf.data.loading import load_data
from algoperf.errors import UserError
from algoperf.run_folder import run_log, state
from algoperf.study import run_plan
from algoperf.study.request import RunRequest
from algoperf.trial.scalars import ScalarBuffer
from algoperf.workload import catalogue

DIGITS = catalogue.find("digits")
STEPS = 3


def averaging():
    adam = optax.adam(1e-2)

    def init(params):
        return {"adam": adam.init(params), "average": params}

    def update(gradients, kept, params):
        updates, new = adam.update(gradients, kept["adam"], params)
        mean = jax.tree.map(lambda a, p: (a + p) / 2, kept["average"], params)
        return updates, {"adam": new, "average": mean}

    return optax.GradientTransformation(init, update)


class Training:
    """A few steps of digits in JAX."""

    def __init__(self, rows, **computation):
        self.rows = rows
        self.backend = backends.load("jax", computation=Computation(**computation))
        scale = DIGITS.scales["mini"]
        self.workload = self.backend.workload(DIGITS, scale, "builtin", rows)
        self.workload.metrics_logger = ScalarBuffer()
        functions = OptimizerFunctions(
            lambda *_: averaging(), lambda params, kept: kept["average"], lambda step: None, 1
        )
        self.form = self.backend.optimizer_form(functions, StepSettings())

    def begin(self):
        params, model_state = self.workload.init_model_fn(self.backend.random_state((1, 2)))
        kept = self.form.init_optimizer_state(self.workload, params, None, model_state)
        return {"params": params, "model_state": model_state, "state": kept}

    def train(self, trial, first=0, steps=STEPS):
        params, model_state, kept = trial.values()
        train = self.rows.splits["train"]
        for step in range(first, first + steps):
            rows = slice(16 * step, 16 * step + 16)
            batch = {key: array[rows].copy() for key, array in train.items()}
            kept, params, model_state = self.form.update_params(
                *(self.workload, params, model_state, self.backend.place(batch), kept, step),
                self.backend.random_state((5, step)),
            )
        return {"params": params, "model_state": model_state, "state": kept}


def kinds(tree):
    return {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tree)}


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_jax_has_the_state_on_the_host_between_steps_and_trains_the_same(precision):
    rows = load_data(DIGITS, DIGITS.scales["mini"], "builtin")
    usual, offloaded = (
        Training(rows, precision=precision),
        Training(rows, precision=precision, offload=True),
    )
    first = offloaded.begin()
    assert kinds(first["state"]) == {"pinned_host"}
    expected, trained = usual.train(usual.begin()), offloaded.train(first)
    assert kinds(trained["state"]) == {"pinned_host"}
    assert kinds(trained["params"]) == kinds(expected["state"]) == {"device"}
    evaluated = offloaded.form.eval_params(trained["params"], trained["state"])
    assert kinds(evaluated) == {"device"}
    arrays, structure = state.to_arrays(trained)
    resumed = state.restore(arrays, structure, state.outline(offloaded.begin()))
    assert kinds(resumed["state"]) == {"pinned_host"}
    several = [
        usual.train(expected, STEPS),
        *(offloaded.train(each, STEPS) for each in (trained, resumed)),
    ]
    for tree in several[1:]:
        for one, other in zip(*map(jax.tree.leaves, (several[0], tree)), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-9)
    assert not np.array_equal(several[1]["params"]["head"]["kernel"], evaluated["head"]["kernel"])
    assert offloaded.form._step._cache_size() == 1


# PyTorch: a processor's memory stands for the device's, and each move is one to other memory.


class Moves:
    """Which tensors are on the 'device', by where they lie; copies that count."""

    def __init__(self):
        self.away, self.log = set(), []

    def to_host(self, tensor):
        copy = tensor.clone()
        self.away.add(copy.data_ptr())
        self.log.append(("away", tuple(tensor.shape)))
        return copy

    def to_device(self, tensor):
        assert tensor.data_ptr() in self.away
        self.log.append(("back", tuple(tensor.shape)))
        return tensor.clone()

    def is_on_device(self, tensor):
        return tensor.ndim > 0  # Counts of steps are the host's, as PyTorch has them.

    def states(self, optimizers, parameters):
        cpu = torch.device("cpu")
        return HostStates(
            optimizers, parameters, cpu, self.to_host, self.to_device, self.is_on_device
        )


def training(make, moves=None):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    parameters = list(model.parameters())
    optimizer = make(parameters)
    states = None if moves is None else moves.states([optimizer], parameters)
    for step in range(STEPS):
        for value in parameters:
            value.grad = torch.full_like(value, 1.0 + step)
        if states is None:
            optimizer.step()
        else:
            with states.on_device():
                optimizer.step()
    return parameters, optimizer, states


def test_torch_moves_what_an_optimizer_keeps_and_trains_the_same():
    moves = Moves()
    parameters, optimizer, states = training(lambda each: torch.optim.AdamW(each, 0.1), moves)
    expected, plain, _ = training(lambda each: torch.optim.AdamW(each, 0.1))
    for value, other in zip(parameters, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=0)
        for name, kept in plain.state[other].items():
            torch.testing.assert_close(optimizer.state[value][name], kept, rtol=0, atol=0)
    # The two moments of both parameters, after each step, and before each but the first.
    both = [(2, 3), (2, 3), (2,), (2,)]
    assert moves.log == [
        *[("away", shape) for shape in both],
        *[(way, shape) for _ in range(STEPS - 1) for way in ("back", "away") for shape in both],
    ]
    held = optimizer.state[parameters[0]]["exp_avg"]
    assert held.data_ptr() in moves.away
    with states.on_device():
        assert held is optimizer.state[parameters[0]]["exp_avg"]  # in place
        assert held.data_ptr() not in moves.away
    assert held.data_ptr() in moves.away


class Keeping(torch.optim.Optimizer):
    """Keeps what must stay: the parameter itself, a part of it, and two views of one memory."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    def step(self):
        for group in self.param_groups:
            for value in group["params"]:
                kept = self.state[value]
                if not kept:
                    both = torch.zeros(2, *value.shape)
                    kept |= {"itself": value, "row": value.detach()[:1], "pair": list(both)}
                    kept["nested"] = {"deep": [torch.zeros_like(value)]}
                kept["nested"]["deep"][0] += 1
                kept["pair"][0] += 1
                kept["new"] = torch.ones_like(value)


def test_torch_leaves_what_shares_memory_where_it_is():
    moves = Moves()
    parameters, optimizer, states = training(Keeping, moves)
    weight, _ = parameters
    kept = optimizer.state[weight]
    assert kept["itself"] is weight
    assert kept["row"].data_ptr() == weight.data_ptr()
    assert (
        kept["pair"][0].untyped_storage().data_ptr() == kept["pair"][1].untyped_storage().data_ptr()
    )
    torch.testing.assert_close(kept["nested"]["deep"][0], torch.full_like(weight, STEPS))
    # Of each parameter 'deep' and the 'new' one of that step; old ones are not brought back.
    assert [way for way, _ in moves.log] == ["away"] * 4 + (["back"] * 4 + ["away"] * 4) * 2
    kept["new"] = torch.zeros_like(weight)
    moves.log.clear()
    states.bring()
    assert sorted(moves.log) == [("back", (2,)), ("back", (2,)), ("back", (2, 3))]


def test_torch_on_a_processor_refuses_what_it_would_not_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--offload: PyTorch has no accelerator here"):
        backends.load("pytorch", computation=Computation(offload=True))


def test_it_is_part_of_the_configuration_and_of_the_optimizer_form(tmp_path):
    request = {"framework": "jax", "out": tmp_path, "offload": True}
    plan = run_plan.make(RunRequest("digits", "adamw", **request)).trial
    assert plan.computation.offload
    assert run_log.with_hashes(plan.settings())["pool"]["offload"] is True
    with pytest.raises(UserError, match="--offload moves the state before and after the library's"):
        run_plan.make(RunRequest("digits", "sam", **request))


@pytest.mark.slow
def test_jax_moves_the_parts_of_each_device(tmp_path):
    one = several_devices.train_together(tmp_path, "jax", 1, ("digits",))["digits"]
    names = [
        f'digits+offload=true+shard="{shard}"' for shard in ("none", "optimizer", "parameters")
    ]
    several = several_devices.train_together(tmp_path, "jax", 2, names)
    for name in names:
        several_devices.assert_alike(one, several[name], 1e-5)
