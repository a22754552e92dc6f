"""Saving and restoring a state: the same bits, the same types, plain arrays and JSON between."""

import collections
import dataclasses
import enum
import functools
import io
import json
import math
import random
import tracemalloc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import struct

from algoperf.errors import UserError
from algoperf.run_folder import state, state_kinds


def through_files(tree, fresh, name="state"):
    """Save a tree, take arrays and structure through bytes and text, restore it beside `fresh`."""
    arrays, structure = state.to_arrays(tree, name)
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)
    loaded = dict(np.load(file, allow_pickle=False))
    return state.restore(loaded, json.loads(json.dumps(structure)), fresh, name)


class Named(collections.namedtuple("Named", ["count", "mu"])):
    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: float
    values: object
    function: object = None


@struct.dataclass
class Averaged:
    mean: object
    label: str = struct.field(pytree_node=False)


class Kind(enum.Enum):
    ONE = 1
    TWO = 2


class Counter:
    """An object with a state of its own."""

    def __init__(self, count):
        self.count = count

    def state_dict(self):
        return {"count": self.count, "seen": [torch.tensor([self.count])]}

    def load_state_dict(self, saved):
        assert saved["seen"][0].item() == saved["count"]
        self.count = saved["count"]


def same_leaves(one, other):
    one, other = jax.tree.leaves(one), jax.tree.leaves(other)
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert type(left) is type(right)
        if isinstance(left, jax.Array):
            assert (left.dtype, left.weak_type) == (right.dtype, right.weak_type)
            assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 2**70, 0.1, -0.0, 1e-310, math.inf, -math.inf, "text", "", 5e-324],
)
def test_plain_values(value):
    restored = through_files(value, None)
    assert (type(restored), repr(restored)) == (type(value), repr(value))


def test_not_a_number():
    assert math.isnan(through_files([math.nan], [0.0])[0])


def test_containers_keep_their_types_and_order():
    tree = {
        "b": [1, (2.0, None), Named(3, [4])],
        7: {"x/y": 1, "x": {"y": 2}},
        ("a", 0): collections.OrderedDict(z=1, a=2),
        None: collections.Counter({3: 2, 1: 1}),
        True: collections.defaultdict(list, k=[1]),
        "data": Settings(0.5, (1, 2), len),
        "empty": [[], {}, ()],
    }
    fresh = {
        "b": [0, (0.0, None), Named(0, [])],
        True: collections.defaultdict(list),
        "data": Settings(0.0, (), len),
    }
    restored = through_files(tree, fresh)
    assert restored == tree
    assert list(restored) == list(tree)
    assert type(restored["b"][2]) is Named
    assert type(restored["a", 0]) is collections.OrderedDict
    assert restored[True]["new"] == []
    assert restored["data"].function is len


def test_names_that_meet_keep_their_arrays_apart():
    tree = {"x/y": np.array(1.0), "x": {"y": np.array(2.0)}}
    arrays, _ = state.to_arrays(tree, "s")
    assert sorted(arrays) == ["s/x/y", "s/x/y'"]
    assert through_files(tree, {}) == tree


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "int8", "uint32", "int64", "bool", "complex64"]
)
def test_numpy(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    for value in (array, array.T, array[:0], array[1, 1], np.array(array[1, 1])):
        restored = through_files(value, None)
        assert (type(restored), restored.dtype, restored.shape) == (
            type(value),
            value.dtype,
            value.shape,
        )
        assert restored.tobytes() == value.tobytes()


def test_what_is_written_at_once_is_not_copied():
    tree = {"numpy": np.ones(4), "torch": torch.ones(4), "jax": jnp.ones(4)}
    arrays, _ = state.to_arrays(tree, copy=False)
    for name, value in tree.items():
        assert np.shares_memory(arrays[f"state/{name}"], np.asarray(value))
    arrays, _ = state.to_arrays(tree)
    for name, value in tree.items():
        assert not np.shares_memory(arrays[f"state/{name}"], np.asarray(value))


def test_a_tensor_is_filled_without_another_copy():
    saved = np.ones(2**20, np.float32)
    structure = state.to_arrays({"weight": torch.ones(2**20)})[1]
    fresh = {"weight": torch.zeros(2**20)}
    tracemalloc.start()
    restored = state.restore({"state/weight": saved}, structure, fresh)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert restored["weight"] is fresh["weight"]
    assert restored["weight"].sum() == 2**20


def test_what_is_saved_does_not_change_with_the_state():
    array, tensor = np.zeros(2), torch.zeros(2)
    arrays, structure = state.to_arrays([array, tensor])
    array += 1
    tensor.add_(1)
    restored = state.restore(arrays, structure, [array, torch.zeros(2)])
    assert [each.tolist() for each in restored] == [[0, 0], [0, 0]]
    restored[0] += 5
    restored[1].add_(5)
    assert [each.tolist() for each in arrays.values()] == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    "dtype", ["float32", "bfloat16", "float16", "int32", "uint8", "bool", "float8_e4m3fn"]
)
def test_jax_types(dtype):
    value = jnp.asarray([[1, 0, 3]], dtype)
    (restored,) = through_files([value], [jnp.zeros((1, 3), dtype)])
    same_leaves(restored, value)
    assert restored.sharding == jnp.zeros((1, 3), dtype).sharding


def test_jax_weak_types_and_keys():
    tree = [jnp.asarray(1.5), jnp.asarray(2), jnp.float32(1.5), jax.random.PRNGKey(3)]
    assert [each.weak_type for each in tree] == [True, True, False, False]
    same_leaves(through_files(tree, tree), tree)
    key = through_files(jax.random.key(7, impl="rbg"), None)
    assert key.dtype == jax.random.key(0, impl="rbg").dtype
    assert jnp.array_equal(
        jax.random.key_data(key), jax.random.key_data(jax.random.key(7, impl="rbg"))
    )


def test_jax_placement_is_the_fresh_one():
    sharding = jax.sharding.NamedSharding(
        jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,)),
        jax.sharding.PartitionSpec(),
    )
    fresh = jax.device_put(jnp.zeros(3), sharding)
    restored = through_files(jnp.arange(3.0), fresh)
    assert restored.sharding == sharding
    assert restored.tolist() == [0, 1, 2]


def test_an_outline_keeps_no_array_of_jax_s_and_is_restored_from_as_the_tree_would_be():
    def make(value):
        params = {
            "w": jax.device_put(jnp.full(3, value), jax.devices()[0]),
            "b": jnp.asarray(value),
        }
        return {
            "optax": optax.inject_hyperparams(optax.adamw)(0.1).init(params),
            "averaged": [Averaged((params, jax.random.PRNGKey(int(value))), "mine")],
            "torch": torch.full((2,), value),
            1: optax.sgd,
        }

    fresh = make(0.0)
    tensor = fresh["torch"]
    held = [weakref.ref(leaf) for leaf in jax.tree.leaves([fresh["optax"], fresh["averaged"]])]
    outlined = state.outline(fresh)
    del fresh
    assert {each() for each in held} == {None}
    restored, expected = through_files(make(2.0), outlined), through_files(make(2.0), make(0.0))
    assert restored["torch"] is tensor
    assert tensor.tolist() == [2, 2]
    for name in ("optax", "averaged"):
        same_leaves(restored[name], expected[name])
        assert jax.tree.structure(restored[name]) == jax.tree.structure(expected[name])
    committed = [leaf.committed for leaf in jax.tree.leaves(restored["averaged"])]
    assert committed == [False, True, False]
    assert restored["averaged"][0].label == "mine"


def test_optax_state_with_its_update_function_goes_on_bit_for_bit():
    def make():
        optimizer = optax.chain(
            optax.clip_by_global_norm(0.5),
            optax.masked(optax.add_decayed_weights(0.1), {"w": True, "b": False}),
            optax.inject_hyperparams(optax.adamw)(optax.linear_schedule(0.1, 0.0, 20)),
            optax.MultiSteps(optax.trace(0.9), every_k_schedule=2),
        )
        return (optimizer.init(first), optimizer.update, optimizer), first

    def step(state_, params, number):
        (optimizer_state, update, optimizer) = state_
        gradients = jax.tree.map(lambda value: jnp.sin(value + number), params)
        updates, optimizer_state = jax.jit(update)(gradients, optimizer_state, params)
        return (optimizer_state, update, optimizer), optax.apply_updates(params, updates)

    first = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}
    current, params = make()
    for number in range(5):
        current, params = step(current, params, number)
    restored, restored_params = through_files((current, params), make())
    for number in range(5, 10):
        current, params = step(current, params, number)
        restored, restored_params = step(restored, restored_params, number)
    same_leaves(restored_params, params)
    same_leaves(restored[0], current[0])


def test_registered_pytrees_take_their_static_parts_from_the_fresh_one():
    tree = Averaged({"w": jnp.ones(2)}, "mine")
    restored = through_files(tree, Averaged({"w": jnp.zeros(2)}, "mine"))
    assert restored.label == "mine"
    same_leaves(restored.mean, tree.mean)
    partial = jax.tree_util.Partial(jnp.add, jnp.asarray(2.0))
    assert through_files(partial, jax.tree_util.Partial(jnp.add, jnp.asarray(0.0)))(1.0) == 3.0


def test_functions_and_constants_come_from_the_fresh_tree():
    tree = [
        len,
        functools.partial(max, 3),
        torch.float32,
        torch.device("cpu"),
        Kind.ONE,
        np.dtype("i4"),
    ]
    restored = through_files(tree, tree)
    assert all(one is other for one, other in zip(restored, tree, strict=True))
    for old, new in ((Kind.ONE, Kind.TWO), (len, max), (torch.float32, torch.float16)):
        with pytest.raises(UserError, match=r"state was saved as .* after initialisation"):
            through_files(old, new)
    with pytest.raises(UserError, match=r"state/f was saved as len, but is absent after init"):
        through_files({"f": len}, {})


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16", "int64", "bool"])
def test_torch_types(dtype):
    dtype = getattr(torch, dtype)
    value = torch.tensor([[1.0, 0.0], [2.5, 3.0]]).to(dtype)
    for tensor in (value, value.T, value[:0], value[0, 0]):
        for fresh in (None, torch.zeros_like(tensor), torch.zeros(7)):
            restored = through_files([tensor], [fresh])[0]
            assert (restored.dtype, restored.shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(restored, tensor)


def test_torch_leaves_keep_their_gradient_flag():
    restored = through_files(torch.ones(2, requires_grad=True), None)
    assert restored.requires_grad
    assert not through_files(torch.ones(2), None).requires_grad


def test_torch_fills_what_refers_to_the_parameters():
    """A state that holds the parameters themselves still does after it was restored."""
    saved = torch.nn.Linear(2, 2)
    fresh = torch.nn.Linear(2, 2)
    tree = {"params": fresh, "list": list(fresh.parameters())}
    restored = through_files({"params": saved, "list": list(saved.parameters())}, tree)
    assert restored["params"] is fresh
    assert restored["list"][0] is fresh.weight
    assert torch.equal(fresh.weight, saved.weight)


def test_torch_tensors_that_began_as_one_are_parted():
    zero = torch.zeros(2)
    restored = through_files([torch.ones(2), torch.full((2,), 5.0)], [zero, zero])
    assert [each.tolist() for each in restored] == [[1, 1], [5, 5]]


def make_torch(kind):
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    groups = [{"params": [module.weight], "lr": 0.1}, {"params": [module.bias], "lr": 0.2}]
    optimizer = {
        "adamw": lambda: torch.optim.AdamW(groups, amsgrad=True),
        "sgd": lambda: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
        "nadam": lambda: torch.optim.NAdam(groups),
        "lbfgs": lambda: torch.optim.LBFGS(module.parameters(), max_iter=2),
    }[kind]()
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 5)
    rest = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5], 0.5)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, rest], [4])
    average = torch.optim.swa_utils.AveragedModel(module, use_buffers=True)
    return {"module": module, "optimizers": [optimizer], "scheduler": both, "average": average}


def torch_step(tree, number):
    module, optimizer = tree["module"], tree["optimizers"][0]

    def closure():
        optimizer.zero_grad()
        loss = (module(torch.ones(4, 3) * number) - 1).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    tree["scheduler"].step()
    tree["average"].update_parameters(module)


@pytest.mark.parametrize("kind", ["adamw", "sgd", "nadam", "lbfgs"])
def test_torch_optimizers_and_schedulers_go_on_bit_for_bit(kind):
    tree = make_torch(kind)
    for number in range(6):
        torch_step(tree, number)
    restored = through_files(tree, make_torch(kind))
    assert restored["optimizers"][0] is not tree["optimizers"][0]
    for number in range(6, 12):
        torch_step(tree, number)
        torch_step(restored, number)
    for name in ("module", "average"):
        for one, other in zip(tree[name].parameters(), restored[name].parameters(), strict=True):
            assert one.detach().numpy().tobytes() == other.detach().numpy().tobytes()
    assert tree["scheduler"].get_last_lr() == restored["scheduler"].get_last_lr()
    assert restored["average"].n_averaged == 6 + 6


def test_a_torch_optimizer_s_tensors_keep_their_types():
    """Its own `load_state_dict` gives them the parameter's."""

    def make():
        parameters = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
        optimizer = torch.optim.SGD(parameters, 0.1)
        optimizer.state[parameters[1]] = {
            "half": torch.full((3,), 1 / 3, dtype=torch.bfloat16),
            "count": torch.tensor(2**40 + 1),
            "whole": torch.full((3,), 1 / 3),
        }
        return {"p": parameters, "o": optimizer}

    saved, fresh = make(), make()
    for value in fresh["o"].state[fresh["p"][1]].values():
        value.zero_()
    restored = through_files(saved, fresh)
    found = restored["o"].state[restored["p"][1]]
    for name, value in saved["o"].state[saved["p"][1]].items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


class Wrapper:
    """An optimizer around another one, with a `state_dict` of its own layout, as Lookahead's."""

    def __init__(self, parameters):
        self.inner = torch.optim.SGD(parameters, 0.1, momentum=0.9)
        self.slow = [value.detach().clone() for value in parameters]

    def step(self):
        self.inner.step()
        for value, slow in zip(self.inner.param_groups[0]["params"], self.slow, strict=True):
            slow.lerp_(value.detach(), 0.5)
            value.data.copy_(slow)
            own = self.inner.state[value]
            own["count"] = own.get("count", torch.tensor(2**40)) + 1
            own["phase"] = "fast" if own["count"] % 2 else "slow"
            own["recent"] = collections.deque([*own.get("recent", ()), slow.sum()], maxlen=2)

    def state_dict(self):
        return {"inner": self.inner.state_dict(), "slow": self.slow}

    def load_state_dict(self, saved):
        self.inner.load_state_dict(saved["inner"])
        self.slow = saved["slow"]


def test_a_torch_optimizer_with_a_layout_of_its_own_goes_on_bit_for_bit():
    """Its `load_state_dict` is enough; what the inner one's would cast stays as it was saved."""

    def make():
        parameters = [torch.nn.Parameter(torch.full((3,), 1.0 + k)) for k in range(2)]
        return {"p": parameters, "o": Wrapper(parameters)}

    def steps(tree, count):
        for _ in range(count):
            for value in tree["p"]:
                value.grad = torch.sin(value.detach())
            tree["o"].step()
        return tree

    saved = steps(make(), 3)
    restored = through_files(saved, make())
    own = restored["o"].inner.state[restored["p"][0]]
    assert (own["count"].dtype, int(own["count"])) == (torch.int64, 2**40 + 3)
    assert (own["phase"], own["recent"].maxlen) == ("fast", 2)
    for tree in (saved, restored):
        steps(tree, 3)
    for one, other in zip(saved["p"], restored["p"], strict=True):
        assert one.detach().numpy().tobytes() == other.detach().numpy().tobytes()
    assert restored["o"].inner.state[restored["p"][1]]["phase"] == "slow"


class Refusing(Counter):
    def load_state_dict(self, saved):
        raise ValueError("another group\nof parameters")


class Unwilling(Counter):
    def state_dict(self):
        raise RuntimeError("not in a step")


def test_an_object_that_raises_is_named():
    says = "state/c: load_state_dict of a Refusing raised ValueError: another group$"
    with pytest.raises(UserError, match=says):
        through_files({"c": Refusing(4)}, {"c": Refusing(0)})
    with pytest.raises(UserError, match="state/c: state_dict of an Unwilling raised RuntimeError"):
        state.to_arrays({"c": Unwilling(4)})


def test_an_object_that_is_made_late_comes_back():
    """As an optimizer's helper in the state of a parameter, which its first step makes."""
    late = Average()
    late.total = torch.ones(2)
    late.more = {"n": 3, "shape": torch.ones(2, 5).shape, "kind": Kind.TWO}
    restored = through_files({"helpers": {0: late}}, {"helpers": {}})["helpers"][0]
    assert type(restored) is Average
    assert restored.total.tolist() == [1, 1]
    assert restored.more == late.more
    assert type(restored.more["shape"]) is torch.Size

    class Local(Average):
        pass

    with pytest.raises(UserError, match=r"Local, but is absent after initialisation"):
        through_files({"a": Local()}, {})


def test_objects_with_a_state_of_their_own():
    fresh = Counter(0)
    assert through_files({"c": Counter(4)}, {"c": fresh})["c"] is fresh
    assert fresh.count == 4
    with pytest.raises(UserError, match="state/c was saved as Counter, but is an int after"):
        through_files({"c": Counter(4)}, {"c": 3})


def test_torch_generator():
    saved, fresh = torch.Generator().manual_seed(3), torch.Generator()
    torch.rand(5, generator=saved)
    restored = through_files([saved], [fresh])[0]
    assert restored is fresh
    assert torch.equal(torch.rand(3, generator=fresh), torch.rand(3, generator=saved))


def test_global_generators():
    random.seed(1)
    torch.manual_seed(2)
    np.random.seed(3)  # noqa: NPY002
    states = through_files(state_kinds.generators(), state_kinds.generators())
    drawn = random.random(), np.random.rand(), torch.rand(2).tolist()  # noqa: NPY002
    state_kinds.set_generators(states)
    assert (random.random(), np.random.rand(), torch.rand(2).tolist()) == drawn  # noqa: NPY002


GENERATORS = {
    "python": (random.Random, lambda it: (it.random(), it.gauss(0, 1))),
    "numpy": (np.random.default_rng, lambda it: (it.integers(2**40), it.standard_normal())),
    "philox": (
        lambda seed: np.random.Generator(np.random.Philox(seed)),
        lambda it: (it.integers(2**20, dtype=np.int32), it.standard_normal()),
    ),
    "older": (np.random.RandomState, lambda it: (it.random_sample(), it.standard_normal())),
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_generators_of_a_submission(kind):
    """The kept half of a normal pair, or of 64 bits, is a part of their state."""
    make, draw = GENERATORS[kind]
    saved, fresh = make(3), make(0)
    draw(saved)
    restored = through_files({"g": saved}, {"g": fresh})["g"]
    assert restored is fresh
    assert [draw(fresh) for _ in range(3)] == [draw(saved) for _ in range(3)]


def test_a_deque_keeps_its_limit_and_fills_its_tensors_in_place():
    fresh = collections.deque([torch.zeros(2)], maxlen=3)
    (tensor,) = fresh
    saved = collections.deque([torch.ones(2), 2.5], maxlen=3)
    restored = through_files(saved, fresh)
    assert (type(restored), restored.maxlen) == (collections.deque, 3)
    assert restored[0] is tensor
    assert (tensor.tolist(), restored[1]) == ([1, 1], 2.5)


class Rows(list):
    """A list with attributes."""


class Slots:
    __slots__ = ("__dict__", "value")

    def __init__(self):
        self.value, self.other = 1, 2


class Odd:
    __slots__ = ()


class Average:
    """An object without a state_dict, as published submissions have them."""

    def __init__(self, module=None, values=()):
        self.module = module
        self.values = values


def test_objects_by_their_attributes():
    saved, fresh = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    average = Average(saved, [torch.ones(2)])
    average.late = 3
    new = Average(fresh)
    new.early = 4
    assert through_files([average], [new]) == [new]
    assert (new.module, vars(new).keys()) == (fresh, {"module", "values", "late"})
    assert torch.equal(fresh.weight, saved.weight)
    assert new.values[0].tolist() == [1, 1]
    average.values = average
    with pytest.raises(UserError, match="state/values is an Average that holds itself"):
        state.to_arrays(average)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({1, 2}, "state/a/1 is a set, which cannot be saved; a state holds arrays, numbers"),
        (Odd(), "state/a/1 is an Odd, which cannot"),
        (iter([]), "state/a/1 is a list_iterator"),
        (Rows([1]), "state/a/1 is a Rows, which cannot"),
        (Slots(), "state/a/1 is a Slots, which cannot"),
        (type("Own", (random.Random,), {})(), "state/a/1 is an Own, which cannot"),
        (b"bytes", "state/a/1 is a bytes"),
        (np.array([None]), "state/a/1 is an array of object"),
        (np.zeros(2, "i4,f4"), "state/a/1 is an array of"),
        ({Odd(): 1}, "state/a/1 is a dict with an Odd as a key"),
        ({((1,),): 1}, "state/a/1 is a dict with a tuple as a key"),
        (torch.eye(2).to_sparse(), "state/a/1 is a torch.sparse_coo tensor"),
    ],
)
def test_what_cannot_be_saved_is_named(value, says):
    with pytest.raises(UserError) as raised:
        state.to_arrays({"a": [0, value]})
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Named(1, 2), (1, 2)),
        (Named(1, 2), None),
        (Settings(1.0, 2), Named(1, 2)),
        (Averaged(1, "a"), {"mean": 1}),
        (collections.defaultdict(list), {}),
        (torch.Generator(), None),
        (random.Random(), None),
        (np.random.default_rng(), np.random.Generator(np.random.Philox())),
        (Average(), {}),
    ],
)
def test_another_kind_after_initialisation(old, new):
    with pytest.raises(UserError, match=r"state/x was saved as .*, but is .* after initialisation"):
        through_files({"x": old}, {"x": new})


def test_to_arrays_leaves_the_tree_as_it_is():
    tree = make_torch("adamw")
    torch_step(tree, 1)
    before = json.dumps(state.to_arrays(tree)[1])
    arrays = state.to_arrays(tree)[0]
    again, structure = state.to_arrays(tree)
    assert json.dumps(structure) == before
    assert all(again[name].tobytes() == arrays[name].tobytes() for name in arrays)
    assert all(array.dtype.isbuiltin == 1 for array in arrays.values())
