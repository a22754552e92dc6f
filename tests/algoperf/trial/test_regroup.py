"""Parts of a checkpoint, put together and divided anew: by hand, without processes."""

import collections
import types

import numpy as np
import pytest
import torch
from torch import nn

from algoperf.backends.torch_shards import Owned
from algoperf.errors import UserError
from algoperf.run_folder import state
from algoperf.run_folder.checkpoint import Checkpoints
from algoperf.trial import preservation, regroup
from algoperf.trial.preservation import Saved

Rank = collections.namedtuple("Rank", "rank count")


def saved(tree, **document):
    """What one process has saved."""
    arrays, structure = state.to_arrays({**tree, "generators": tree.get("generators", {})})
    return Saved(arrays, {"structure": structure, "position": {"step": 3}, **document})


def taken(part, fresh):
    fresh = {**fresh, "generators": {}}
    return state.restore(part.arrays, part.document["structure"], fresh)


def regrouped(trees, rank, count, shard=None, fresh=None, others=lambda optimizer: ()):
    """What one process takes up of what others have saved."""
    fresh = {} if fresh is None else fresh
    part = regroup.part_of([saved(tree) for tree in trees], Rank(rank, count), shard, fresh, others)
    return taken(part, fresh)


@pytest.mark.parametrize(
    ("size", "count", "expected"),
    [
        (10, 4, [(0, 3), (3, 6), (6, 9), (9, 10)]),
        (5, 4, [(0, 2), (2, 4), (4, 5), (5, 5)]),
        (8, 2, [(0, 4), (4, 8)]),
        (3, 1, [(0, 3)]),
        (1, 3, [(0, 1), (1, 1), (1, 1)]),
    ],
)
def test_the_rows_of_each_part(size, count, expected):
    from torch.distributed.tensor import Shard

    for rank, (start, stop) in enumerate(expected):
        assert regroup.own_range(size, rank, count) == (start, stop)
        theirs = Shard.local_shard_size_and_offset(size, count, rank)
        assert theirs == (stop - start, start)


def divided(whole, axis, count, size=None):
    """The parts of an array as processes have saved them."""
    shape = list(whole.shape)
    if size is not None:
        shape[axis] = size
    node = {"kind": "torch", "dtype": "float32", "device": "cpu", "gradient": False}
    parts = []
    for rank in range(count):
        rows = [slice(None)] * axis + [slice(*regroup.own_range(whole.shape[axis], rank, count))]
        part = saved({"params": None})
        entry = {
            **node,
            "array": "w",
            "whole": {"shape": shape, "strides": [], "axes": [axis]},
        }
        structure = part.document["structure"]
        items = [
            [key, entry if key["value"] == "params" else old] for key, old in structure["items"]
        ]
        document = {**part.document, "structure": {**structure, "items": items}}
        parts.append(Saved({"w": whole[tuple(rows)]}, document))
    return parts


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3), (4, 2), (2, 4), (3, 8)])
@pytest.mark.parametrize("on_disk", [False, True])
def test_rows_go_to_whom_they_belong(axis, before, after, on_disk, tmp_path):
    whole = np.arange(35, dtype=np.float32).reshape(5, 7)
    parts = divided(whole, axis, before)
    if on_disk:
        for rank, part in enumerate(parts):
            Checkpoints(tmp_path, rank, before).write(3, part.arrays, part.document)
        read = [next(Checkpoints(tmp_path, rank).read()) for rank in range(before)]
        parts = [Saved(*each) for each in read]
    pieces = []
    for rank in range(after):
        part = regroup.part_of(parts, Rank(rank, after), "parameters", {})
        (name,) = part.arrays
        (node,) = [
            node for key, node in part.document["structure"]["items"] if key["value"] == "params"
        ]
        assert node["array"] == name
        assert node["whole"]["shape"] == [5, 7]
        piece = part.arrays[name]
        start, stop = regroup.own_range(whole.shape[axis], rank, after)
        assert piece.shape[axis] == stop - start
        pieces.append(piece)
    np.testing.assert_array_equal(np.concatenate(pieces, axis), whole)


def test_parts_that_are_not_the_whole_are_refused():
    whole = np.zeros((5, 7), np.float32)
    parts = divided(whole, 0, 2, size=6)
    with pytest.raises(UserError, match="state/params has 6 rows, and its parts have 5"):
        regroup.part_of(parts, Rank(0, 1), "parameters", {})
    with pytest.raises(UserError, match="state/params is divided by the submission itself"):
        regroup.part_of(divided(whole, 0, 2), Rank(0, 1), None, {})


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))


def stepped(optimizer_of, rank, count):
    """A model, and its optimizer after two steps as the owner of some parameters."""
    net = model()
    parameters = list(net.parameters())
    optimizer = optimizer_of(parameters)
    owned = Owned(parameters, rank, count)
    for step in range(2):
        for number, value in enumerate(parameters):
            value.grad = torch.full_like(value, 1.0 + number + step)
        if count > 1:
            owned.hide()
        optimizer.step()
    return net, optimizer


def moments(optimizer):
    entries = optimizer.state_dict()["state"]
    return {index: entries[index]["exp_avg"] for index in sorted(entries)}


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=0.1)


# Of 12, 4 and 8 numbers, with two owners: the first has 12, the second 8 and 4.
OWNED = {1: [{0, 1, 2}], 2: [{0}, {1, 2}], 3: [{0}, {2}, {1}]}


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3), (3, 2)])
def test_each_owner_takes_the_states_that_it_owns(before, after):
    _, one = stepped(adam, 0, 1)
    trees = [
        {"optimizer_state": {"optimizer": stepped(adam, rank, before)[1], "scheduler": None}}
        for rank in range(before)
    ]
    for rank, tree in enumerate(trees):
        assert set(moments(tree["optimizer_state"]["optimizer"])) == OWNED[before][rank]
    for rank in range(after):
        parameters = list(model().parameters())
        fresh = {"optimizer_state": {"optimizer": adam(parameters), "scheduler": None}}
        owned = Owned(parameters, rank, after)
        now = regrouped(trees, rank, after, "optimizer", fresh, owned.indices_of_others)
        kept = moments(now["optimizer_state"]["optimizer"])
        assert set(kept) == OWNED[after][rank]
        for index, value in kept.items():
            torch.testing.assert_close(value, moments(one)[index], rtol=0, atol=0)


class Counting(torch.optim.SGD):
    """Counts the steps of a group, in the group, where it has gradients."""

    def step(self, closure=None):
        for group in self.param_groups:
            if any(value.grad is not None for value in group["params"]):
                group["count"] = group.get("count", 0) + 1
        super().step()


def counting(parameters):
    weight, *others = parameters
    return Counting([{"params": [weight]}, {"params": others}], lr=0.1, momentum=0.9)


def test_what_is_of_a_group_is_as_its_owners_have_it():
    """The second of three owners has none of the first group, and the first none of the other."""
    trees = [{"optimizer_state": stepped(counting, rank, 3)[1]} for rank in range(3)]
    counts = [
        [group.get("count", 0) for group in tree["optimizer_state"].param_groups] for tree in trees
    ]
    assert counts == [[2, 0], [0, 2], [0, 2]]
    for tree, owned in zip(trees, counts, strict=True):  # As where they count from the beginning.
        for group, count in zip(tree["optimizer_state"].param_groups, owned, strict=True):
            group["count"] = count
    now = regrouped(trees, 0, 1, "optimizer", {"optimizer_state": counting(model().parameters())})
    assert [group["count"] for group in now["optimizer_state"].param_groups] == [2, 2]
    trees[2]["optimizer_state"].param_groups[1]["count"] = 3
    fresh = {"optimizer_state": counting(model().parameters())}
    with pytest.raises(UserError, match="param_groups/1/count is not the same"):
        regrouped(trees, 0, 1, "optimizer", fresh)


def test_states_of_nobody_knows_whose_parameters_are_refused():
    tree = {"optimizer_state": stepped(adam, 0, 1)[1]}

    class Wrapper:
        def state_dict(self):
            return tree["optimizer_state"].state_dict()

        def load_state_dict(self, given):
            pass

    trees = [{"optimizer_state": Wrapper()}]
    with pytest.raises(UserError, match=r"nobody knows which parameters .*optimizer_state/state"):
        regrouped(trees, 0, 2, "optimizer", {"optimizer_state": Wrapper()})


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (({"rank": 0}, {"rank": 1}), "rank"),
        (({"seen": [1, 2]}, {"seen": [1]}), "seen"),
        (({"m": torch.zeros(2)}, {"m": torch.ones(2)}), "m"),
        (({"m": torch.zeros(2)}, {"m": torch.zeros(2).double()}), "m"),
        (({"m": torch.zeros(2)}, {"m": 0.0}), "m"),
        (({"a": 1}, {"b": 1}), None),
        (({"generator": np.random.default_rng(0)}, {"generator": np.random.default_rng(1)}), None),
    ],
)
def test_what_is_of_each_process_is_refused_and_named(values, name):
    trees = [{"optimizer_state": each} for each in values]
    place = "state/optimizer_state" + ("" if name is None else f"/{name}")
    message = f"--change-devices: .*{place}.* is not the same on all devices"
    # Of two that go on the second looks at the values of the second's arrays.
    for rank, count in ((0, 1), (1, 2)):
        with pytest.raises(UserError, match=message):
            regrouped(trees, rank, count, None, trees[0])


def test_a_third_process_that_differs_is_seen():
    trees = [{"optimizer_state": torch.full((2,), 0.0 if rank < 2 else 1.0)} for rank in range(3)]
    for rank in (0, 1, 2):
        regrouped(trees[:2], rank, 3)
    seen = 0
    for rank in range(3):
        try:
            regrouped(trees, rank, 3)
        except UserError:
            seen += 1
    assert seen == 1


def test_a_mistake_of_one_is_one_of_all():
    def broken():
        raise UserError("this one")

    theirs = types.SimpleNamespace(gathered=lambda text: [text, "the other's"])
    with pytest.raises(UserError, match="this one"):
        regroup.together(theirs, broken)
    with pytest.raises(UserError, match="the other's"):
        regroup.together(theirs, lambda: saved({"params": 1}))


def test_an_array_of_each_device_is_refused():
    """As `jax.pmap` has them: an axis as long as there are devices."""
    import jax.numpy as jnp

    trees, fresh = [{"params": jnp.zeros((2, 3))}], {"params": jnp.zeros((1, 3))}
    with pytest.raises(UserError, match=r"state/params has the shape \(2, 3\), and \(1, 3\) on"):
        regrouped(trees, 0, 1, None, fresh)


class Wrapped(nn.Module):
    """As DistributedDataParallel has a model."""

    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize(
    ("wrap_before", "wrap_now"), [(Wrapped, nn.Identity), (None, Wrapped), (Wrapped, Wrapped)]
)
def test_a_model_is_found_within_another(wrap_before, wrap_now):
    trained, fresh = model(), model()
    with torch.no_grad():
        for value in trained.parameters():
            value.add_(1.0)
    before = Wrapped(trained) if wrap_before is Wrapped else trained
    now = Wrapped(fresh) if wrap_now is Wrapped else fresh
    by_name = {name: value.detach() + 1 for name, value in before.named_parameters()}
    tree = {"params": before, "optimizer_state": {"average": by_name}}
    zeros = {name: torch.zeros_like(value) for name, value in now.named_parameters()}
    fresh_tree = {"params": now, "optimizer_state": {"average": zeros}}
    restored = regrouped([tree, tree], 0, 1, None, fresh_tree)
    assert restored["params"] is now
    for value, expected in zip(fresh.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
    average = restored["optimizer_state"]["average"]
    assert list(average) == [name for name, _ in now.named_parameters()]
    for value, expected in zip(average.values(), trained.parameters(), strict=True):
        torch.testing.assert_close(value, expected + 1, rtol=0, atol=0)


def test_generators_go_on_by_rank_and_a_new_process_begins_with_the_firsts():
    trees = [{"params": 1, "generators": {"python": 10 + rank}} for rank in range(2)]
    drawn = [regrouped(trees, rank, 4)["generators"]["python"] for rank in range(4)]
    assert drawn == [10, 11, 10, 10]


def test_all_else_is_the_first_process_s(tmp_path):
    """So that all go on at the same place in the order of rows."""
    parts = []
    for offset in (64, 65):
        parts.append(saved({"params": 1}, position={"step": 3, "queue": {"offset": offset}}))
    for rank in range(3):
        position = regroup.part_of(parts, Rank(rank, 3), None, {}).document["position"]
        assert position["queue"] == {"offset": 64}


class Log:
    folder = None

    def holds(self, sizes):
        return sizes == {"rows.csv": 5}


def test_the_parts_of_the_checkpoint_that_is_meant_are_found(tmp_path):
    def write(step, count, files):
        for rank in reversed(range(count)):
            document = {
                "format": preservation.FORMAT,
                "processes": count,
                "files": files,
                "position": {"step": step},
            }
            Checkpoints(tmp_path, rank, count).write(step, {"rank": np.array(rank)}, document)

    write(10, 3, {"rows.csv": 5})
    write(20, 2, {"rows.csv": 9})
    parts = preservation.find_parts(tmp_path, Log(), 3)
    assert [int(part.arrays["rank"]) for part in parts] == [0, 1, 2]
    assert {part.document["position"]["step"] for part in parts} == {10}
    assert preservation.find_parts(tmp_path, Log(), 3, step=20) is None
    assert preservation.find_parts(tmp_path, Log(), 4) is None


def test_of_two_checkpoints_with_the_same_files_one_is_meant(tmp_path):
    """As where no row was written between them, and the second was never finished."""
    for step in (10, 12):
        document = {
            "format": preservation.FORMAT,
            "files": {"rows.csv": 5},
            "position": {"step": step},
        }
        Checkpoints(tmp_path, 1, 2).write(step, {}, document)
    for step, expected in ((10, 10), (12, 12), (None, 12)):
        saved = preservation.find(Checkpoints(tmp_path, 1, 2), Log(), step=step)
        assert saved.document["position"]["step"] == expected
