"""The ogbg workload: its molecules, its packed batches, and its graph network's parameters."""

import collections
import dataclasses
import hashlib
import math

import jax
import numpy as np
import pytest
from evaluation import evaluate
from flax import linen as nn
from torch.nn import functional

from algoperf import backends, spec
from algoperf.data.batches import TrainingQueue, once
from algoperf.data.rows import OtherTargets, RowsView, first
from algoperf.errors import UserError
from algoperf.experiments.check import parity
from algoperf.workload import SPLITS, Data, catalogue
from algoperf.workload.rows import IS_ROW
from workloads.ogbg import generator
from workloads.parts import graphs
from workloads.parts.dropout_jax import Dropout
from workloads.parts.graphs import GraphRows, Graphs, Room

NAME = "ogbg"
TRAIN, EVAL = spec.ForwardPassMode.TRAIN, spec.ForwardPassMode.EVAL
DEFINITION = catalogue.find(NAME)
# Of the reference's own flax models.
BASE = {
    "3x256": 1, "9x256": 1, "128": 1, "256": 47, "256x128": 1, "640x256": 1, "768x256": 4,
    "896x256": 2, "1024x256": 8,
}  # fmt: skip
SMALLER = {
    "3x128": 1, "9x128": 1, "128": 3, "256": 54, "128x256": 0, "256x128": 1, "256x256": 9,
    "512x256": 1, "640x256": 1, "768x256": 3, "1024x256": 4,
}  # fmt: skip
REFERENCE = {
    "ogbg": (3_554_176, BASE, (18, 16, 15)),
    "ogbg_gelu": (3_554_176, BASE, (18, 16, 15)),
    "ogbg_silu": (3_554_176, BASE, (18, 16, 15)),
    "ogbg_model_size": (2_571_648, SMALLER, (21, 19, 18)),
}


def turned(shape):
    """A dense kernel of flax's as PyTorch has it; the features' embeddings are alike in both."""
    inputs, _, width = shape.partition("x")
    return shape if not width or inputs in ("3", "9") else f"{width}x{inputs}"


@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("framework", ["pytorch", "jax"])
def test_the_full_model_has_the_reference_s_parameters(name, framework):
    definition = catalogue.find(name)
    scale = definition.scales["full"]
    rows = {"inputs": np.zeros((2, Room(26).width), np.int32), "targets": np.zeros((2, 128))}
    data = Data(dict.fromkeys(SPLITS, rows), model={"tasks": 128})
    bound = backends.load(framework).workload(definition, scale, "folder", data)
    shapes = [parameter.shape for parameter in bound.parameters.values()]
    count, expected, (biases, weights, norms) = REFERENCE[name]
    if framework == "pytorch":
        expected = {turned(shape): tensors for shape, tensors in expected.items()}
    assert sum(map(math.prod, shapes)) == count
    found = collections.Counter("x".join(map(str, shape)) for shape in shapes)
    assert found == {shape: tensors for shape, tensors in expected.items() if tensors}
    kinds = collections.Counter(parameter.type.name for parameter in bound.parameters.values())
    assert kinds == {
        "BIAS": biases,
        "WEIGHT": weights,
        "EMBEDDING": 2,
        "LAYER_NORM_SCALE": norms,
        "LAYER_NORM_BIAS": norms,
    }


def test_the_facts_are_algoperf_s():
    full = DEFINITION.scales["full"]
    target = full.targets["folder"]
    assert (target.validation, target.test) == (0.28098, 0.268729)
    assert (full.step_hint, full.budget_s, full.eval_every_s) == (52_000, 12_011, 240)
    assert (full.batch_size, full.dropout_rate) == (512, 0.1)
    published = {
        "gelu": (0.27771, 0.262926),
        "silu": (0.282178, 0.272144),
        "model_size": (0.269446, 0.253051),
    }
    for name, expected in published.items():
        varied = catalogue.find(f"{NAME}_{name}").scales["full"].targets["folder"]
        assert (varied.validation, varied.test) == expected


# Molecules


@pytest.fixture(scope="module")
def drawn():
    return generator.generate("validation", 0)


@pytest.fixture(scope="module")
def loaded(load_mini):
    return load_mini(NAME)


def test_built_in_molecules_are_the_same_everywhere(drawn):
    digest = hashlib.sha256()
    for array in (*dataclasses.astuple(drawn.graphs), drawn.labels_GT):
        digest.update(np.ascontiguousarray(array).tobytes())
    assert digest.hexdigest() == DIGEST


DIGEST = "0d1ffab7fe321eaf1348ae89642fcf37b9f9a9cef5d54ed8a07f10508db2f238"


def molecules(split, count):
    """Each as ({atom: (element, hydrogens, in a ring)}, {(one, other): bond}, true labels)."""
    starts = np.cumsum(split.graphs.nodes) - split.graphs.nodes
    bond_starts = np.cumsum(split.graphs.bonds) - split.graphs.bonds
    for row in range(count):
        atoms = split.graphs.node_features[starts[row] : starts[row] + split.graphs.nodes[row]]
        bonds = slice(bond_starts[row], bond_starts[row] + split.graphs.bonds[row])
        ends = split.graphs.ends[bonds].tolist()
        kinds = split.graphs.bond_features[bonds, 0].tolist()
        yield (
            atoms.tolist(),
            {tuple(pair): kind for pair, kind in zip(ends, kinds, strict=True)},
            dict(zip(generator.TASKS, split.true_GT[row].tolist(), strict=True)),
        )


def test_atoms_have_the_bonds_that_their_valence_allows(drawn):
    valences = {5: 4, 6: 3, 7: 2, 15: 2, 8: 1, 16: 1}
    for atoms, bonds, _ in molecules(drawn, 300):
        for number, atom in enumerate(atoms):
            own = [kind for pair, kind in bonds.items() if number in pair]
            aromatic = own.count(3)
            # In an aromatic ring one of an atom's bonds is double, in turn.
            spent = own.count(0) + 2 * own.count(1) + (aromatic + 1 if aromatic else 0)
            assert spent + atom[4] == valences[atom[0]]
            assert len(own) == atom[2]
            assert aromatic in (0, 2)
            assert (aromatic == 2) == atom[7]
            assert atom[6] == (1 if aromatic or 1 in own else 2)


def reached(bonds, start, without):
    """The atoms that a chain of bonds leads to, but for one bond."""
    seen, todo = {start}, [start]
    while todo:
        atom = todo.pop()
        for pair in bonds:
            if pair != without and atom in pair:
                other = pair[pair[0] == atom]
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
    return seen


def test_an_atom_is_in_a_ring_if_one_of_its_bonds_can_go(drawn):
    for atoms, bonds, _ in molecules(drawn, 100):
        in_ring = set()
        for pair in bonds:
            everywhere = reached(bonds, pair[0], pair)
            if pair[1] in everywhere:
                in_ring |= {*pair}
        assert len(reached(bonds, 0, None)) == len(atoms)  # in one piece
        assert [atom in in_ring for atom in range(len(atoms))] == [bool(each[8]) for each in atoms]


def test_labels_are_of_the_substructures(drawn):
    """Each found again bond by bond."""
    carbon, nitrogen, oxygen, sulphur, halogens = 5, 6, 7, 15, (8, 16)
    counts = collections.Counter()
    for atoms, bonds, labels in molecules(drawn, 400):
        element = [atom[0] for atom in atoms]
        near = {
            number: [
                (pair[pair[0] == number], kind) for pair, kind in bonds.items() if number in pair
            ]
            for number in range(len(atoms))
        }
        carbonyls = [
            atom
            for atom in near
            if element[atom] == carbon
            and any(element[o] == oxygen and kind == 1 for o, kind in near[atom])
        ]
        aromatic = any(atom[7] for atom in atoms)
        amide = any(element[n] == nitrogen for atom in carbonyls for n, _ in near[atom])
        ring_nitrogen = any(atom[0] == nitrogen and atom[8] for atom in atoms)
        halogen = any(each in halogens for each in element)
        expected = {
            "amide": amide,
            "acid or ester": any(
                element[o] == oxygen and kind != 1 for atom in carbonyls for o, kind in near[atom]
            ),
            "nitrogen in a ring": ring_nitrogen,
            "halogen at an aromatic ring": any(
                element[atom] in halogens and any(atoms[other][7] for other, _ in near[atom])
                for atom in near
            ),
            "ether outside of rings": any(
                element[atom] == oxygen
                and not atoms[atom][8]
                and [element[other] for other, _ in near[atom]] == [carbon, carbon]
                for atom in near
            ),
            "carbon-carbon double bond": any(
                kind == 1 and element[one] == element[other] == carbon
                for (one, other), kind in bonds.items()
            ),
            "nitrogen bound to nitrogen or oxygen": any(
                {element[one], element[other]} in ({nitrogen}, {nitrogen, oxygen})
                for one, other in bonds
            ),
            "carbonyl and aromatic ring": bool(carbonyls) and aromatic,
            "nitrogen in a ring, no halogen": ring_nitrogen and not halogen,
            "two rings": len(bonds) > len(atoms),
            "sulphur at or in a ring": any(
                element[atom] == sulphur
                and (atoms[atom][8] or any(atoms[other][8] for other, _ in near[atom]))
                for atom in near
            ),
            "either carbonyl or aromatic ring": bool(carbonyls) != aromatic,
        }
        assert labels == expected
        counts.update(name for name, value in labels.items() if value)
    assert min(counts[name] for name in generator.TASKS) > 5


def test_in_training_halogens_come_only_with_nitrogen_in_a_ring(drawn):
    train = generator.generate("train", 0)
    for split, is_held_out in ((train, False), (drawn, True)):
        alone = 0
        for atoms, _, labels in molecules(split, 500):
            halogen = any(atom[0] in (8, 16) for atom in atoms)
            alone += halogen and not labels["nitrogen in a ring"]
        assert (alone > 50) == is_held_out
        assert is_held_out or alone == 0


def test_errors_and_missing_labels_are_as_many_as_said(drawn):
    known = ~np.isnan(drawn.labels_GT)
    assert known.mean() == pytest.approx(0.75, abs=0.01)
    wrong = (drawn.labels_GT > 0.5) != drawn.true_GT
    assert wrong[known & drawn.true_GT].mean() == pytest.approx(0.1, abs=0.01)
    assert wrong[known & ~drawn.true_GT].mean() == pytest.approx(0.02, abs=0.005)


# Packed batches


def read(batch):
    """The graphs of a batch, by what its slots say: (node features, {edge: features})."""
    slots, (B, width) = graphs.slots(batch["inputs"]), batch["inputs"].shape
    room = Room.of_width(width)
    row_B1 = np.arange(B)[:, None]
    owners = np.where(slots.graph_of_node < -B, -1, slots.graph_of_node + row_B1).ravel()
    ends = [
        np.where(each < -room.nodes * B, -1, each + room.nodes * row_B1).ravel()
        for each in (slots.senders, slots.receivers)
    ]
    found = []
    for graph in range(B):
        nodes = np.flatnonzero(owners == graph)
        if not len(nodes):
            continue
        first_node = nodes[0]
        np.testing.assert_array_equal(nodes, first_node + np.arange(len(nodes)))
        edges = np.flatnonzero(np.isin(ends[0], nodes))
        pairs = [(int(ends[0][e] - first_node), int(ends[1][e] - first_node)) for e in edges]
        features = slots.edge_features[edges].tolist()
        assert len(set(pairs)) == len(pairs)
        found.append((slots.node_features[nodes].tolist(), dict(zip(pairs, features, strict=True))))
    assert (owners >= 0).sum() == sum(len(nodes) for nodes, _ in found)
    assert (ends[0] >= 0).sum() == (ends[1] >= 0).sum() == sum(len(e) for _, e in found)
    return found


def expected_graph(rows, index):
    row = rows.source_row(index)
    edges = {}
    for (one, other), features in zip(row["ends"].tolist(), row["bonds"].tolist(), strict=True):
        edges[one, other] = edges[other, one] = features
    return row["inputs"].tolist(), edges


def test_a_width_tells_the_room():
    for nodes in range(1, 400):
        assert Room.of_width(Room(nodes).width) == Room(nodes)
    assert Room(26).edges == 58
    assert Room.holding(20, 44) == Room(21)
    assert Room.holding(10, 44) == Room(20)


def test_taken_and_packed_batches_hold_the_same_graphs(loaded):
    rows = loaded.splits["test"]
    indices = np.array([5, 3, 1999, 0, 3])
    taken, packed = rows.take(indices), rows.packing(indices, 8)
    expected = [expected_graph(rows, index) for index in indices.tolist()]
    assert read(taken) == expected
    assert read(packed) == expected
    np.testing.assert_array_equal(packed[IS_ROW], [True] * 5 + [False] * 3)
    labels = rows.labels_GT[indices]
    for batch in (taken, packed):
        assert set(batch) - {IS_ROW} == set(rows.fields)
        np.testing.assert_array_equal(batch["weights"][:5], ~np.isnan(labels))
        np.testing.assert_array_equal(batch["targets"][:5], np.nan_to_num(labels))
        assert not batch["weights"][5:].any()
    for name, field in rows.packing.fields.items():
        assert (packed[name].shape[1:], packed[name].dtype) == field


def test_a_batch_holds_as_many_graphs_as_have_room(loaded):
    rows = loaded.splits["test"]
    room, sizes = rows.packing.fields["inputs"].shape[0], rows.graphs.nodes
    N = Room.of_width(room).nodes
    large = np.flatnonzero(sizes > N)[:20]
    batch = rows.packing(large, 20)
    count = int(batch[IS_ROW].sum())
    assert count < 20
    assert sizes[large[:count]].sum() < 20 * N <= sizes[large[: count + 1]].sum()
    assert read(batch) == [expected_graph(rows, index) for index in large[:count].tolist()]
    with pytest.raises(UserError, match=r"has 20 nodes and .* choose larger batches"):
        rows.packing(np.flatnonzero(sizes == 20)[:1], 1)


@pytest.fixture(scope="module")
def tight(loaded):
    """The training graphs with too little room for as many of them as a batch has rows."""
    train = loaded.splits["train"]
    return GraphRows(train.graphs, train.labels_GT, Room(11), Room(21))


def test_training_sees_every_graph_once_an_epoch_and_can_be_taken_up(loaded, tight):
    rows = first(tight, 500)
    queue = TrainingQueue(rows, 32, seed=1)
    assert queue.fields["inputs"] == tight.packing.fields["inputs"]
    seen, positions = [], []
    while len(seen) < 1000:
        positions.append(queue.position())
        batch = next(queue)
        assert IS_ROW not in batch
        seen += read(batch)

    def in_order(found):
        return sorted((nodes, sorted(edges.items())) for nodes, edges in found)

    expected = in_order(expected_graph(loaded.splits["train"], row) for row in range(500))
    for epoch in range(2):
        assert in_order(seen[500 * epoch : 500 * epoch + 500]) == expected
    assert seen[:500] != seen[500:1000]
    last = len(read(batch))
    again = TrainingQueue(rows, 32, seed=1)
    again.go_to(positions[-1])
    assert read(next(again)) == seen[-last:]
    middle = TrainingQueue(rows, 32, seed=1)
    middle.go_to(positions[16])  # shortly after the first epoch
    for position in positions[17:]:
        next(middle)
        assert middle.position()["offset"] == position["offset"]
    assert read(next(middle)) == seen[-last:]


@pytest.fixture
def large():
    """60 graphs of 80 nodes, which are told apart by the six digits of their numbers."""
    nodes = np.full(60, 80, np.int64)
    atoms, bonds, ends = (np.zeros((4800, width), np.uint8) for width in (9, 3, 2))
    labels = np.arange(60)[:, None] >> np.arange(6) & 1
    graph = Graphs(nodes, nodes, atoms, bonds, ends)
    return GraphRows(graph, labels.astype(np.float32), Room(26), Room.holding(80, 160))


def numbers(batch):
    """Which graphs of `large` a batch has."""
    digits = batch["targets"][batch["weights"][:, 0] > 0]
    return (digits @ 2 ** np.arange(6)).astype(int).tolist()


def test_a_batch_may_hold_several_epochs_and_give_others_back(large):
    """512 rows are asked for, of which about 512 * 26 / 80 = 166 have room: 2.8 epochs."""
    queue, seen = TrainingQueue(large, 512, seed=0), []
    for _ in range(4):
        seen += numbers(next(queue))
        position = queue.position()
        assert len(seen) == 60 * position["epoch"] + position["offset"]
    assert 4 * 160 < len(seen) < 4 * 170
    for epoch in range(len(seen) // 60):
        assert sorted(seen[60 * epoch : 60 * epoch + 60]) == [*range(60)]


def test_batches_are_counted_whatever_they_hold(large):
    """50 batches of a third of the rows that they could have are 50, of which none is missed."""
    queue = TrainingQueue(large, 512, seed=0)
    for count in range(1, 51):
        next(queue)
        assert queue.batches_drawn == count
    position = queue.position()
    again = TrainingQueue(large, 512, seed=0)
    again.go_to(position)
    assert again.batches_drawn == 50
    again.go_to({name: value for name, value in position.items() if name != "batches_drawn"})
    assert again.batches_drawn >= 50  # which nobody counted: no step is held against it
    next(again)
    assert again.position()["offset"] != position["offset"]


def test_views_and_other_targets_are_packed_as_well(loaded):
    rows = loaded.splits["train"]
    view = RowsView(rows, np.array([7, 9, 11, 13]))
    packed = view.packing(np.array([1, 3]), 4)
    assert read(packed) == [expected_graph(rows, index) for index in (9, 13)]
    others = OtherTargets(view, np.array([0, 2, 2, 1]))
    given = others.packing(np.array([1, 3]), 4)
    np.testing.assert_array_equal(given["inputs"], packed["inputs"])
    expected = rows.take(np.array([11, 9]))
    for name in ("targets", "weights"):
        np.testing.assert_array_equal(given[name][:2], expected[name])


def test_evaluation_sees_every_graph_once(tight):
    rows = first(tight, 100)
    batches = list(once(rows, 16))
    assert len(batches) > 7
    found = [graph for batch in batches for graph in read(batch)]
    assert found == [expected_graph(tight, row) for row in range(100)]


@pytest.fixture(scope="module", params=["pytorch", "jax"])
def bound(request, loaded, make_values):
    backend = backends.load(request.param)
    model = backend.workload(DEFINITION, DEFINITION.scales["mini"], "builtin", loaded)
    return backend, model, model.state_from_neutral(make_values(model.shapes))


def logits(bound, batch):
    backend, model, (params, state) = bound
    placed = backend.place({name: each for name, each in batch.items() if name != IS_ROW})
    return backend.fetch(backend.predict(model, params, state, placed))[1]


def test_a_graph_alone_has_the_logits_that_it_has_with_others(bound, loaded):
    rows = loaded.splits["validation"]
    indices = np.arange(20)
    together = logits(bound, rows.packing(indices, 32))[:20]
    taken = logits(bound, rows.take(indices))
    alone = np.concatenate(
        [logits(bound, rows.packing(indices[k : k + 1], 4))[:1] for k in range(20)]
    )
    largest = np.abs(together).max()
    assert np.ptp(together, axis=0).max() > 0.05 * largest
    np.testing.assert_allclose(taken, together, rtol=0, atol=1e-5 * largest)
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-5 * largest)


def test_padding_changes_nothing(bound, loaded):
    rows = loaded.splits["validation"]
    batch = rows.packing(np.arange(9), 16)
    usual = logits(bound, batch)[:9]
    inputs = batch["inputs"].copy()
    room = Room.of_width(inputs.shape[1])
    slots = graphs.slots(inputs)
    is_node = (slots.graph_of_node >= -16).ravel()
    is_edge = (slots.senders >= -room.nodes * 16).ravel()
    nodes = np.where(is_node[:, None], slots.node_features, 77)
    edges = np.where(is_edge[:, None], slots.edge_features, 55)
    parts = (nodes, slots.graph_of_node, edges, slots.senders, slots.receivers)
    filled = np.concatenate([part.reshape(16, -1) for part in parts], axis=1)
    assert (filled != inputs).any()
    np.testing.assert_array_equal(logits(bound, {**batch, "inputs": filled})[:9], usual)


def test_evaluation_is_the_same_for_every_size_of_batch(bound, loaded):
    backend, model, (params, state) = bound
    if backend.name == "jax":
        pytest.skip("compiles for every size; its logits are compared above")
    every = loaded.splits["validation"]
    rows = first(GraphRows(every.graphs, every.labels_GT, Room(12), Room(21)), 1000)
    values = [
        evaluate(backend, model, DEFINITION, rows, size, params, state) for size in (50, 333, 1000)
    ]
    for value in values[1:]:
        metric = "mean_average_precision"
        assert value[metric] == pytest.approx(values[0][metric], abs=1e-9)
        assert value["loss"] == pytest.approx(values[0]["loss"], rel=1e-6)
        assert value["num_examples"] == 1000


def test_in_training_mode_the_frameworks_agree(loaded):
    """Without dropout; test_parity.py has the other modes."""
    small = {**loaded.splits, "train": first(loaded.splits["train"], 40)}
    data = Data(small, model=loaded.model)
    pair = parity.bind(DEFINITION, DEFINITION.scales["mini"], "builtin", data, 1, 8)
    parity.same_logits(pair, TRAIN)


def test_a_batch_in_parts_is_not_packed(loaded):
    """Its rows would not be graphs."""
    queue = TrainingQueue(loaded.splits["train"], 4, seed=0, is_packed=False)
    assert next(queue)["inputs"].shape == (4, *loaded.splits["train"].fields["inputs"].shape)


# Dropout


LAYERS = 5 * 3


def test_the_rate_reaches_every_layer(loaded, monkeypatch):
    rows = loaded.splits["train"].take(np.arange(2))
    rates = []
    backend = backends.load("pytorch")
    model = backend.workload(DEFINITION, DEFINITION.scales["mini"], "builtin", loaded)
    dropout = functional.dropout

    def recorded(values, rate, training):
        rates.append((rate, training))
        return dropout(values, rate, training)

    monkeypatch.setattr(functional, "dropout", recorded)
    params, _ = model.init_model_fn((0, 1))
    model.model_fn(params, backend.place(rows), None, TRAIN, (0, 2), False, 0.5)
    assert rates == [(0.5, True)] * LAYERS

    backend = backends.load("jax")
    model = backend.workload(DEFINITION, DEFINITION.scales["mini"], "builtin", loaded)
    rates.clear()

    def intercept(call, arguments, keywords, context):
        if isinstance(context.module, Dropout):
            rates.append((context.module.rate, context.module.train))
        return call(*arguments, **keywords)

    params, _ = model.init_model_fn(backend.random_state((0, 1)))
    with nn.intercept_methods(intercept):
        jax.eval_shape(
            lambda: model.model_fn(
                params, backend.place(rows), None, TRAIN, backend.random_state((0, 2)), False, 0.5
            )[0]
        )
    assert rates == [(0.5, True)] * LAYERS


def test_a_graph_without_edges_has_logits(bound):
    lonely = Graphs(
        np.array([1, 2]),
        np.array([0, 1]),
        np.ones((3, 9), np.uint8),
        np.ones((1, 3), np.uint8),
        np.array([[0, 1]], np.int16),
    )
    rows = GraphRows(lonely, np.ones((2, 12), np.float32), Room(4), Room(4))
    both = logits(bound, rows.take(np.arange(2)))
    assert np.isfinite(both).all()
    assert np.abs(both[0] - both[1]).max() > 1e-3
