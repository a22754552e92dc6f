"""What is divided among processes: who owns what, parts of tensors, and who is refused."""

import copy
import itertools
import random

import pytest
import torch
from torch import nn

import reference_algorithms
from algoperf import spec
from algoperf.backends import torch_shard_check, torch_shards
from algoperf.backends.ranks import OPTIMIZER
from algoperf.errors import UserError
from algoperf.run_folder import state
from algoperf.submission import loading

INFO = spec.TrainingInfo(step_hint=40, loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY, budget_s=60.0)


def test_the_largest_parameters_are_given_out_first():
    # 5 to rank 0; 3 and 3 to rank 1, which has 6 then; 2 to rank 0 (7); 1 to rank 1 (7); of two
    # that have 7 the first gets the last.
    assert torch_shards.owners([1, 3, 5, 2, 3, 1], 2) == [1, 1, 0, 0, 1, 0]
    assert torch_shards.owners([4, 4, 4], 4) == [0, 1, 2]


def parameters_of(*shapes):
    tensors = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    for tensor in tensors:
        tensor.grad = torch.ones_like(tensor)
    return tensors


def test_a_process_sees_the_gradients_of_what_it_owns():
    tensors = parameters_of((3,), (2,), (2,))
    torch_shards.Owned(tensors, 0, 2).hide()
    assert [tensor.grad is None for tensor in tensors] == [False, True, True]
    tensors = parameters_of((3,), (2,), (2,))
    torch_shards.Owned(tensors, 1, 2).hide()
    assert [tensor.grad is None for tensor in tensors] == [True, False, False]


def test_states_that_are_made_at_once_are_dropped_where_another_process_owns_them():
    tensors = parameters_of((3,), (2,))
    optimizer = torch.optim.Adagrad(tensors, lr=0.1)
    torch_shards.Owned(tensors, 1, 2).drop_states([optimizer])
    assert list(optimizer.state) == [tensors[1]]
    optimizer.step = None  # What is no torch.optim.Optimizer has no `state`.
    torch_shards.Owned(tensors, 1, 2).drop_states([object()])


# Who is tried, and refused.


def model_parameters():
    """Parameters as of a small network, some of them hidden matrices."""
    shapes = {
        "embed/embedding": (50, 8),
        "block_0/up/kernel": (16, 8),
        "block_0/up/bias": (16,),
        "block_0/down/kernel": (8, 16),
        "block_1/up/kernel": (16, 8),
        "block_1/down/kernel": (8, 16),
        "norm/scale": (8,),
        "output/kernel": (10, 8),
        "output/bias": (10,),
    }
    types = spec.ParameterType
    by_leaf = {
        "embedding": types.EMBEDDING,
        "kernel": types.WEIGHT,
        "bias": types.BIAS,
        "scale": types.LAYER_NORM_SCALE,
    }
    return spec.Parameters(
        spec.Parameter(
            name,
            by_leaf[name.rpartition("/")[2]],
            shape,
            name.startswith("output"),
            nn.Parameter(torch.zeros(shape)),
        )
        for name, shape in shapes.items()
    )


def check(make, shard=OPTIMIZER):
    return torch_shard_check.check(make, model_parameters(), shard)


def reference(name):
    path, _ = loading.locate(name)
    loaded = loading.load(loading.inspect(path), "pytorch")
    point = spec.make_hyperparameters(getattr(loaded.module, "DEFAULTS", {}))
    make = loaded.functions["torch_optimizer"]
    return lambda params: make(params=params, hyperparameters=point, info=INFO)


def has_optimizer_form(name):
    return not loading.inspect(loading.locate(name)[0]).is_full_form


def test_of_the_reference_algorithms_one_looks_over_all_parameters():
    names = [name for name in reference_algorithms.names() if has_optimizer_form(name)]
    refused = {}
    for name in names:
        try:
            assert check(reference(name)) is None, name
        except UserError as error:
            refused[name] = str(error)
    assert len(names) >= 17
    assert list(refused) == ["prodigy"]
    assert (
        "--shard optimizer: the optimizer trains otherwise on what is divided"
        in (refused["prodigy"])
    )


class ByNorm(torch.optim.SGD):
    """Gradient descent by the gradient's direction over all parameters."""

    def step(self, closure=None):
        tensors = [each for group in self.param_groups for each in group["params"]]
        tensors = [each for each in tensors if each.grad is not None]
        norm = torch.stack([each.grad.norm() for each in tensors]).norm()
        for each in tensors:
            each.grad /= norm
        super().step()


def test_an_optimizer_that_looks_over_all_parameters_is_refused():
    with pytest.raises(UserError, match="needs all parameters at once; use --shard none"):
        check(lambda params: ByNorm(params.tensors(), lr=0.1))


def test_numbers_of_a_group_that_come_from_all_parameters_are_seen():
    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            group = self.param_groups[0]
            group["total"] = sum(
                float(each.grad.abs().sum()) for each in group["params"] if each.grad is not None
            )
            super().step()

    with pytest.raises(UserError, match=r"its total is .*, and becomes"):
        check(lambda params: Counting(params.tensors(), lr=0.1))


def test_what_has_no_groups_is_tried_as_well():
    class Plain:
        def __init__(self, optimizer):
            self.zero_grad, self.step = optimizer.zero_grad, optimizer.step

    assert check(lambda params: Plain(torch.optim.SGD(params.tensors(), lr=0.1))) is None
    with pytest.raises(UserError, match="needs all parameters at once"):
        check(lambda params: Plain(ByNorm(params.tensors(), lr=0.1)))


def test_what_stumbles_over_a_missing_gradient_is_refused_by_its_own_words():
    class Bold(torch.optim.SGD):
        def step(self, closure=None):
            for each in self.param_groups[0]["params"]:
                each.data -= each.grad

    with pytest.raises(UserError, match=r"does not train on what is divided \(TypeError: "):
        check(lambda params: Bold(params.tensors(), lr=0.1))


def test_what_cannot_be_tried_on_small_parameters_is_told_of():
    def make(params):
        assert params["embed/embedding"].shape == (50, 8), "another model"
        return torch.optim.SGD(params.tensors(), lr=0.1)

    note = check(make)
    assert note.startswith("--shard optimizer: the optimizer could not be tried on small param")
    assert "AssertionError: another model" in note


def test_closures_are_refused():
    class NoClosureError(Exception):
        pass

    class Closed(torch.optim.SGD):
        def step(self, closure=None):
            if closure is None:
                raise NoClosureError

    with pytest.raises(UserError, match=r"needs a closure.* use --shard none"):
        check(lambda params: Closed(params.tensors(), lr=0.1))


def test_trying_leaves_random_generators_as_they_were():
    def make(params):
        random.random()
        torch.rand(3)
        return torch.optim.SGD(params.tensors(), lr=0.1)

    torch.manual_seed(5)
    random.seed(5)
    expected = torch.rand(1), random.random()
    torch.manual_seed(5)
    random.seed(5)
    check(make)
    assert (torch.rand(1), random.random()) == expected


# Parts of tensors, as one of two processes that do not talk.


@pytest.fixture(params=(0, 1))
def mesh(request):
    """The mesh of two processes, of which this one is the first or the second."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group(
        "fake", rank=request.param, world_size=2, store=FakeStore()
    )
    yield init_device_mesh("cpu", (2,))
    torch.distributed.destroy_process_group()


def parted(mesh, whole):
    from torch.distributed.tensor import Shard, distribute_tensor

    return distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None)


def rows_of(mesh, whole):
    return whole.chunk(2)[mesh.get_rank()]


def test_parts_are_rows_and_come_back(mesh):
    whole = torch.arange(10.0).reshape(5, 2)
    tensor = parted(mesh, torch.zeros(5, 2))
    assert torch_shards.is_divided(tensor)
    assert not torch_shards.is_divided(whole)
    assert torch.equal(torch_shards.part(tensor), rows_of(mesh, torch.zeros(5, 2)))
    divided = INFO.divided(whole, tensor)
    assert torch.equal(torch_shards.part(divided), rows_of(mesh, whole))
    assert INFO.divided(whole, whole) is whole
    assert INFO.whole(whole) is whole
    assert torch_shards.whole(whole) is whole


def test_a_part_is_saved_and_restored_in_its_memory(mesh):
    whole = torch.arange(10.0).reshape(5, 2)
    arrays, structure = state.to_arrays({"w": parted(mesh, whole)})
    assert arrays["state/w"].shape == (3 - mesh.get_rank(), 2)
    fresh = parted(mesh, torch.zeros(5, 2))
    memory = torch_shards.part(fresh).data_ptr()
    restored = state.restore(arrays, structure, {"w": fresh})["w"]
    assert restored is fresh
    assert torch_shards.part(restored).data_ptr() == memory
    assert torch.equal(torch_shards.part(restored), rows_of(mesh, whole))


def test_a_part_that_an_optimizer_makes_late_is_made_again(mesh):
    parameter = nn.Parameter(parted(mesh, torch.ones(5, 2)))

    def make():
        return torch.optim.Adam([parameter], lr=0.1)

    optimizer = make()
    parameter.grad = parted(mesh, torch.arange(10.0).reshape(5, 2))
    optimizer.step()
    arrays, structure = state.to_arrays({"params": parameter, "optimizer": optimizer})
    restored = state.restore(arrays, structure, {"params": parameter, "optimizer": make()})
    moment = restored["optimizer"].state[parameter]["exp_avg"]
    assert torch_shards.is_divided(moment)
    assert (moment.shape, moment.placements) == ((5, 2), parameter.placements)
    saved = optimizer.state[parameter]["exp_avg"]
    assert torch.equal(torch_shards.part(moment), torch_shards.part(saved))
    assert torch_shards.part(moment).abs().sum() > 0


def test_a_part_without_a_counterpart_is_named(mesh):
    arrays, structure = state.to_arrays({"w": parted(mesh, torch.ones(5, 2))})
    with pytest.raises(UserError, match="state/w was saved as torch, but is a Tensor after"):
        state.restore(arrays, structure, {"w": torch.ones(5, 2)})


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block_0 = nn.Linear(4, 4)
        self.output = nn.Linear(4, 3)
        self.temperature = nn.Parameter(torch.ones(()))
        self.norm = nn.BatchNorm1d(4)

    def forward(self, inputs):
        return self.output(self.norm(self.block_0(inputs))) * self.temperature


def test_a_copy_of_a_divided_model_holds_its_parameters_and_computes_nothing(mesh):
    model = torch_shards.divide(Net(), torch.device("cpu"), 2)
    twin = copy.deepcopy(model)
    assert type(twin) is Net
    assert list(twin.state_dict()) == list(model.state_dict())
    pairs = zip(model.named_parameters(), twin.named_parameters(), strict=True)
    for (name, value), (twin_name, copied) in pairs:
        assert twin_name == name
        assert copied is not value
        assert torch_shards.is_divided(copied) == (name != "temperature")
        assert torch.equal(torch_shards.part(copied), torch_shards.part(value))
    assert twin.norm.running_mean is not model.norm.running_mean
    with pytest.raises(UserError, match="a copy of the model holds its parameters"):
        twin(torch.ones(2, 4))
    with torch.no_grad():
        torch_shards.part(twin.output.weight).add_(1.0)
    again = copy.deepcopy(twin)
    assert torch.equal(
        torch_shards.part(again.output.weight), torch_shards.part(twin.output.weight)
    )
    assert not torch.equal(
        torch_shards.part(twin.output.weight), torch_shards.part(model.output.weight)
    )


def test_what_has_no_axes_gets_the_mean_gradient(mesh, monkeypatch):
    model = torch_shards.divide(Net(), torch.device("cpu"), 2)
    # The other process has a gradient of 5.
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda gradient: gradient.add_(5.0))
    (3.0 * model.temperature).backward()
    assert float(model.temperature.grad) == (3 + 5) / 2


def test_a_block_that_computes_by_more_than_forward_is_put_together_with_the_rest(mesh):
    from torch.distributed.fsdp import FSDPModule

    class Block(nn.Linear):
        def forward(self, inputs):
            return self._halved(super().forward(inputs))

        def _halved(self, outputs):
            return outputs / 2

    class Asked(Block):
        def keys(self, inputs):
            return self.weight @ inputs

    for kind in (Block, Asked):
        model = Net()
        model.block_0 = kind(4, 4)
        torch_shards.divide(model, torch.device("cpu"), 2)
        assert isinstance(model.block_0, FSDPModule) == (kind is Block)
        assert torch_shards.is_divided(model.block_0.weight)


def test_blocks_and_the_rest_are_divided_apart(mesh):
    from torch.distributed.fsdp import FSDPModule

    model = torch_shards.divide(Net(), torch.device("cpu"), 2)
    assert [isinstance(each, FSDPModule) for each in (model, model.block_0, model.output)] == [
        *(True, True, False)
    ]
    counted = itertools.accumulate(torch_shards.part(each).numel() for each in model.parameters())
    # Of 4 rows of 4 and 4, 3 of 4 and 3, two norms of 4, and a number that each has: by halves, of
    # three the first has two.
    expected = 8 + 2 + 4 + 1 + 2 + 2 + 1 + (5 if mesh.get_rank() == 0 else 0)
    assert list(counted)[-1] == expected
