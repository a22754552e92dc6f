"""Rows in memory, mapped from files and decoded: the same batches of all, each rank its share."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from algoperf.data import batches, order, row_changes, rows, select
from algoperf.data.loading import load_data
from algoperf.data.provenance import OTHER_ROWS, Selection
from algoperf.data.provenance import Rows as KnownRows
from algoperf.data.report import facts
from algoperf.data.rows import DecodedRows, MemmapRows, RowsView
from algoperf.errors import UnreadableRowError, UserError
from algoperf.workload import ArrayRows, Data, Field, Text, catalogue
from algoperf.workload.rows import source_row
from reference_algorithms import adamw

ROWS = 30


def arrays(count=ROWS):
    rng = np.random.default_rng(1)
    return {
        "inputs": rng.standard_normal((count, 3)).astype(np.float32),
        "targets": np.arange(count, dtype=np.int32),
    }


def mapped(folder, given=None):
    paths = {}
    for name, array in (given or arrays()).items():
        paths[name] = folder / f"{name}.npy"
        np.save(paths[name], array)
    return MemmapRows(paths)


def decoded(given=None, source="test"):
    given = given or arrays()
    return DecodedRows(
        len(given["targets"]),
        {name: (array.shape[1:], array.dtype) for name, array in given.items()},
        lambda index: {name: array[index] for name, array in given.items()},
        source,
    )


@pytest.fixture(params=["arrays", "mapped", "slow mapped", "decoded", "view"])
def kind(request, tmp_path):
    """The rows of `arrays()`, in each kind."""
    if request.param == "arrays":
        return ArrayRows(arrays())
    if request.param == "view":
        backwards = {name: array[::-1].copy() for name, array in arrays().items()}
        return RowsView(decoded(backwards), np.arange(ROWS)[::-1])
    if request.param == "decoded":
        return decoded()
    built = mapped(tmp_path)
    built.is_slow = request.param == "slow mapped"
    return built


def same(batch, other):
    assert list(batch) == list(other)
    for name, array in batch.items():
        assert array.dtype == other[name].dtype
        np.testing.assert_array_equal(array, other[name])


# Kinds of rows


def test_every_kind_gives_the_same_rows(kind):
    assert len(kind) == batches.row_count(kind) == ROWS
    assert kind.fields == {
        "inputs": ((3,), np.dtype(np.float32)),
        "targets": ((), np.dtype(np.int32)),
    }
    assert kind.fields["inputs"] == Field((3,), np.dtype(np.float32))
    for indices in ([4], [29, 0, 4, 4], []):
        chosen = np.array(indices, np.int64)
        batch = kind.take(chosen)
        same(batch, {name: array[chosen] for name, array in arrays().items()})
        batch["inputs"][:] = -1  # a copy, which may be written
    same(kind.take(np.arange(ROWS)), arrays())


def test_every_kind_gives_the_same_training_batches(kind):
    queue, plain = (batches.TrainingQueue(each, 7, 5) for each in (kind, arrays()))
    for _ in range(12):
        same(next(queue), next(plain))
        ours, theirs = queue.position(), plain.position()
        assert ours.pop("wait_s") > 0 < theirs.pop("wait_s")
        assert ours == theirs
    assert queue.batches_drawn == plain.batches_drawn == 12
    queue.close()


def test_every_kind_trains_the_same(kind):
    """Losses of a linear regression by gradient descent, to the last bit."""

    def losses(given):
        queue, weights, means = batches.TrainingQueue(given, 8, 3), np.zeros(3), []
        for _ in range(25):
            batch = next(queue)
            wanted = batch["inputs"].sum(1) + batch["targets"] / 1000
            error = batch["inputs"] @ weights - wanted
            means.append(float((error**2).mean()))
            weights -= 0.1 * error @ batch["inputs"] / len(error)
        queue.close()
        return means

    expected = losses(arrays())
    assert losses(kind) == expected
    assert expected[-1] < expected[0]


@pytest.mark.parametrize("batch_size", [1, 7, 30, 40])
def test_every_kind_gives_the_same_evaluation_batches(kind, batch_size):
    ours, theirs = (list(batches.once(each, batch_size)) for each in (kind, arrays()))
    assert len(ours) == len(theirs) == -(-ROWS // batch_size)
    for one, other in zip(ours, theirs, strict=True):
        same(one, other)


def test_arrays_are_read_as_those_of_a_dict():
    own = ArrayRows(arrays())
    np.testing.assert_array_equal(own["targets"], np.arange(ROWS))
    assert "targets" in own
    assert "weights" not in own
    assert list(own) == list(own.keys()) == ["inputs", "targets"]
    same({**own}, arrays())
    same(dict(own.items()), arrays())
    assert own.get("weights") is None
    assert own.get("weights", own["targets"]) is own["targets"]
    with pytest.raises(UserError, match="inputs 30, targets 29"):
        ArrayRows({"inputs": np.zeros((30, 2)), "targets": np.zeros(29)})


def test_the_first_rows_and_chosen_ones(kind):
    same(rows.first(kind, 4).take(np.arange(4)), {n: a[:4] for n, a in arrays().items()})
    assert len(rows.first(kind, 4)) == 4
    assert len(rows.first(kind, 99)) == ROWS
    chosen = rows.chosen(kind, np.array([8, 3]))
    assert chosen.take(np.array([1, 0, 1]))["targets"].tolist() == [3, 8, 3]
    assert chosen.is_slow == kind.is_slow
    assert chosen.fields == kind.fields
    other = rows.chosen(kind, np.array([3, 8]))
    assert len({kind.fingerprint, chosen.fingerprint, other.fingerprint}) == 3


# Fingerprints


def test_the_fingerprint_of_arrays_is_what_it_ever_was():
    """By hand, and for digits what version 3c6129f wrote into run folders."""
    split = {"targets": np.array([1, 2], np.int32), "inputs": np.zeros((2, 1), np.float32)}
    by_hand = hashlib.sha256(
        b"a/inputs:<f4:(2, 1)" + bytes(8) + b"a/targets:<i4:(2,)\x01\0\0\0\x02\0\0\0"
        b"b/inputs:<f4:(2, 1)" + bytes(8) + b"b/targets:<i4:(2,)\x01\0\0\0\x02\0\0\0"
    )
    assert Data({"b": split, "a": ArrayRows(split)}).fingerprint == by_hand.hexdigest()[:16]
    definition = catalogue.find("digits")
    data = load_data(definition, definition.scales["mini"], "builtin")
    assert data.fingerprint == "88b5c8fffeb1f20f"


def test_the_fingerprint_of_files(tmp_path):
    """Of pieces alone: a file of 1 MiB is not read whole; its first and last bytes are."""
    given = {"inputs": np.zeros(2**20, np.uint8), "targets": np.zeros(2**20, np.uint8)}
    one = mapped(tmp_path, given).fingerprint

    def changed(name, index, value=1):
        array = given[name].copy()
        array[index] = value
        return mapped(tmp_path, {**given, name: array}).fingerprint

    assert changed("inputs", 0, 0) == one
    seen = {one, changed("inputs", 0), changed("inputs", -1), changed("targets", -1)}
    seen.add(
        mapped(tmp_path, {name: array.view(np.int8) for name, array in given.items()}).fingerprint
    )
    seen.add(mapped(tmp_path, {name: array[:-1] for name, array in given.items()}).fingerprint)
    seen.add(mapped(tmp_path, {name: array[:, None] for name, array in given.items()}).fingerprint)
    assert len(seen) == 7
    assert changed("inputs", 10_000) == one  # between the first piece and the second
    (tmp_path / "moved").mkdir()
    again = mapped(tmp_path, given)
    for file in tmp_path.glob("*.npy"):
        shutil.move(file, tmp_path / "moved" / file.name)
    moved = {name: tmp_path / "moved" / f"{name}.npy" for name in given}
    assert MemmapRows(moved).fingerprint == one
    with pytest.raises(FileNotFoundError):
        again.fingerprint  # noqa: B018


def test_the_fingerprint_of_other_rows_goes_into_the_datas(tmp_path):
    kinds = [decoded(), decoded(source="other"), decoded(arrays(29)), mapped(tmp_path)]
    fingerprints = {Data({"train": each, "test": arrays()}).fingerprint for each in kinds}
    fingerprints.add(Data({"train": arrays(), "test": decoded()}).fingerprint)
    wide = {**arrays(), "targets": np.zeros(ROWS)}
    fingerprints.add(Data({"train": decoded(wide), "test": arrays()}).fingerprint)
    assert len(fingerprints) == 6
    again = Data({"train": decoded(), "test": arrays()})
    assert again.fingerprint == Data({"train": decoded(), "test": arrays()}).fingerprint


# Mistakes


def test_files_that_cannot_be_mapped(tmp_path):
    file = tmp_path / "inputs.npy"
    with pytest.raises(UserError, match=r"inputs\.npy cannot be mapped"):
        MemmapRows({"inputs": file})
    file.write_bytes(b"no array")
    with pytest.raises(UserError, match=r"inputs\.npy cannot be mapped"):
        MemmapRows({"inputs": file})
    np.save(file, np.array([{}], object), allow_pickle=True)
    with pytest.raises(UserError, match=r"inputs\.npy cannot be mapped"):
        MemmapRows({"inputs": file})
    np.save(file, np.float32(3))
    with pytest.raises(UserError, match=r"inputs\.npy holds no array of rows"):
        MemmapRows({"inputs": file})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"inputs": np.float32(1), "targets": 2}, r"inputs of row 4 .* float32\[\]; .*32\[2\]"),
        ({"inputs": np.zeros(2), "targets": 2.5}, r"targets of row 4 .* float64\[\]; .* int32\[\]"),
        ({"inputs": np.zeros(2)}, "row 4 was decoded to inputs; expected inputs, targets"),
    ],
)
def test_a_row_that_is_not_as_declared(row, message):
    fields = {"inputs": ((2,), np.float32), "targets": ((), np.int32)}
    good = {"inputs": np.zeros(2), "targets": 2}
    built = DecodedRows(9, fields, lambda index: row if index == 4 else good, "test")
    with pytest.raises(UnreadableRowError, match=message):
        built.take(np.array([3, 4]))
    with pytest.raises(UserError, match=message.replace("row 4", "row 0")):
        DecodedRows(9, fields, lambda index: row, "test")


def test_a_row_that_cannot_be_decoded():
    """The first is tried at once; of another the trial must not be undone, as by a UserError."""

    def decode(index, bad=4):
        if index == bad:
            raise UserError("no such image")
        return {"inputs": 1.0}

    fields = {"inputs": ((), np.float32)}
    built = DecodedRows(9, fields, decode, "test", is_slow=False)
    assert not built.is_slow
    message = "row 4 cannot be decoded: no such image"
    with pytest.raises(UnreadableRowError, match=message) as raised:
        built.take(np.array([4]))
    assert isinstance(raised.value.__cause__, UserError)
    assert not isinstance(raised.value, UserError)
    with pytest.raises(UserError, match="row 0 cannot be decoded"):
        DecodedRows(9, fields, lambda index: decode(index, 0), "test")
    assert len(DecodedRows(0, fields, decode, "test")) == 0


# What needs all rows in memory says so; a fraction does not


def data(train):
    return Data({"train": train, "validation": arrays(2), "test": arrays(2)})


def test_a_fraction_of_other_rows_is_a_view():
    views, plain = (row_changes.train_fraction(data(each), 0.4) for each in (decoded(), arrays()))
    assert isinstance(views.splits["train"], RowsView)
    assert isinstance(plain.splits["train"], ArrayRows)
    same(views.splits["train"].take(np.arange(12)), {**plain.splits["train"]})
    assert views.notes == plain.notes


def test_a_fraction_of_very_many_rows(monkeypatch):
    """Of a split whose permutation would not fit into memory; the threshold is lowered here."""
    monkeypatch.setattr(order, "LARGEST_PERMUTATION", ROWS - 1)
    kept = row_changes.train_fraction(data(decoded()), 0.4).splits["train"]
    numbers = kept.take(np.arange(len(kept)))["targets"].tolist()
    assert len(numbers) == len(set(numbers)) == 12
    assert numbers == sorted(order.Order(ROWS, 0).take_all(12).tolist())


def test_texts_without_duplicates_need_no_arrays():
    sources = {"train": ["a", "b", "A"] * 10, "validation": ["b"], "test": []}
    built = Data(data(decoded()).splits, text=Text(str, sources, sources))
    kept = select.drop_duplicates(built).splits["train"]
    assert kept.take(np.arange(len(kept)))["targets"].tolist() == [0]


@pytest.mark.parametrize(
    ("operation", "named"),
    [
        (lambda built: select.balance(built, 0), "--balance"),
        (select.drop_duplicates, "--drop-duplicates"),
        (lambda built: row_changes.class_imbalance(built, 0.5), "class_imbalance"),
        (lambda built: batches.make_buckets(built.splits["train"], [(2, 2)], 1), "lengths"),
    ],
)
def test_what_needs_arrays_says_so(operation, named):
    with pytest.raises(UserError, match=f"{named}.* in memory; .* are DecodedRows"):
        operation(data(decoded()))


def test_of_one_class_alone_no_row_is_left_out():
    rows = {**arrays(), "targets": np.full(ROWS, 3, np.int32)}
    kept = row_changes.class_imbalance(data(rows), 0.5).splits["train"]
    np.testing.assert_array_equal(kept["inputs"], rows["inputs"])


def test_noise_of_rows_that_are_not_in_memory():
    """The same rows as of those that are, in a batch and from the source."""
    plain, views = (
        row_changes.label_noise(data(built), 0.5).splits["train"] for built in (arrays(), decoded())
    )
    every = np.arange(ROWS)
    same(views.take(every[::-1]), plain.take(every[::-1]))
    assert (views.take(every)["targets"] != every).sum() == ROWS // 2
    for index in range(ROWS):
        row = source_row(views, index)
        assert row["targets"] == plain["targets"][index]
        np.testing.assert_array_equal(row["inputs"], plain["inputs"][index])
    assert views.fingerprint != decoded().fingerprint
    assert views.is_slow
    assert (len(views), views.fields) == (ROWS, decoded().fields)


def test_rows_that_are_not_in_memory_are_described(monkeypatch):
    """As those that are; of more than may be held, the first."""
    described = [facts.describe(facts.rows_of(data(each), {})) for each in (arrays(), decoded())]
    assert described[0] == described[1]
    monkeypatch.setattr(facts, "LOOKED_AT_BYTES", 7 * 16)  # a row is three floats and an integer
    found = facts.describe(facts.rows_of(data(decoded()), {}))
    assert found["rows"]["train"] == ROWS
    assert found["looked_at"]["train"] == 7
    assert found["labels"]["train"]["rows"] == {str(number): 1 for number in range(7)}


def test_the_number_of_training_rows_is_a_fact():
    definition = catalogue.find("digits")
    scale = definition.scales["mini"]
    assert definition.facts(scale, "builtin", data(decoded()))["num_train_examples"] == ROWS


# Each rank its share


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_ranks_parts_are_the_batch(kind, ranks):
    alone = batches.TrainingQueue(arrays(), 8, 5)
    queues = [batches.TrainingQueue(kind, 8, 5, shard=(rank, ranks)) for rank in range(ranks)]
    for _ in range(9):
        parts = [next(queue) for queue in queues]
        assert {len(part["targets"]) for part in parts} == {8 // ranks}
        same(
            {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}, next(alone)
        )
        positions = [{**queue.position(), "wait_s": 0} for queue in (*queues, alone)]
        assert all(position == positions[0] for position in positions)
    for queue in queues:
        queue.close()


TEXTS = {
    "inputs": np.array([[5] * n + [0] * (12 - n) for n in [*range(1, 13)] * 4]),
    "targets": np.array([[6] * (1 + n % 3) + [0] * (4 - n % 3) for n in range(48)]),
    "number": np.arange(48),
}


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("draw", [next, lambda queue: queue.sortish(window=2, multiple=1)])
def test_the_ranks_parts_of_batches_of_text(ranks, draw):
    def queue(rank, count):
        buckets = batches.Buckets(TEXTS, [(4, 2), (8, 5), (12, 5)], 0)
        return batches.TrainingQueue(TEXTS, 4, 2, buckets=buckets, shard=(rank, count))

    alone, queues = queue(0, 1), [queue(rank, ranks) for rank in range(ranks)]
    for _ in range(20):
        parts, whole = [draw(each) for each in queues], draw(alone)
        for name, array in whole.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), array)
        positions = [{**each.position(), "wait_s": 0} for each in (*queues, alone)]
        assert all(position == positions[0] for position in positions)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [4, 8, 32])
def test_the_ranks_parts_of_an_evaluation(kind, ranks, batch_size):
    """Of 30 rows: real rows as one process alone has them, the others with weight 0."""
    whole = list(batches.once(arrays(), batch_size))
    parts = [list(batches.once(kind, batch_size, shard=(rank, ranks))) for rank in range(ranks)]
    for number, expected in enumerate(whole):
        joined = {name: np.concatenate([part[number][name] for part in parts]) for name in expected}
        np.testing.assert_array_equal(joined["weights"], expected["weights"])
        real = expected["weights"] > 0
        for name, array in expected.items():
            assert joined[name].shape == array.shape
            np.testing.assert_array_equal(joined[name][real], array[real])
        assert {len(part[number]["targets"]) for part in parts} == {batch_size // ranks}


def test_the_ranks_parts_of_an_evaluation_of_text():
    buckets = [batches.Buckets(TEXTS, [(4, 2), (8, 5), (12, 5)], 0) for _ in range(3)]
    whole = list(batches.once(TEXTS, 6, buckets[2]))
    parts = [list(batches.once(TEXTS, 6, buckets[rank], (rank, 2))) for rank in range(2)]
    for number, expected in enumerate(whole):
        real = expected["weights"] > 0
        for name, array in expected.items():
            joined = np.concatenate([part[number][name] for part in parts])
            np.testing.assert_array_equal(joined[real], array[real])
    assert buckets[0].counts == buckets[1].counts == buckets[2].counts


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ((0, 3), "batch of 8 does not divide over 3 devices; choose"),
        ((2, 2), "rank 2 is not one of 2"),
    ],
)
def test_batches_that_do_not_divide(shard, message):
    with pytest.raises(UserError, match=message):
        batches.TrainingQueue(arrays(), 8, 5, shard=shard)
    with pytest.raises(UserError, match=message):
        next(batches.once(arrays(), 8, shard=shard))


def test_a_split_without_rows():
    with pytest.raises(UserError, match="without rows"):
        batches.TrainingQueue(arrays(0), 8, 5)
    assert list(batches.once(arrays(0), 8)) == []


# Whether what a submission trains on are rows of a split that nobody has read


def test_rows_that_the_queue_handed_out_may_be_repeated(kind):
    if isinstance(kind, ArrayRows):
        pytest.skip("all rows are known")
    queue = batches.TrainingQueue(kind, 4, 1, depth=1)
    chosen = []
    selection = Selection(KnownRows(kind), queue, lambda batch: batch, lambda: (2, chosen))
    one, two = next(queue), next(queue)
    for good in (one, two, {n: np.concatenate([a, a]) for n, a in one.items()}):
        chosen[:] = [good]
        assert selection.findings() == []
    others = np.setdiff1d(np.arange(ROWS), [*one["targets"], *two["targets"]])
    chosen[:] = [{name: array[others] for name, array in arrays().items()}]
    assert selection.findings() == [OTHER_ROWS]  # never handed out, so from elsewhere
    chosen[:] = [{**one, "targets": one["targets"][::-1]}]
    assert selection.findings() == [OTHER_ROWS]
    queue.go_to(queue.position())  # what an earlier process was handed is not known
    assert selection.findings() == []
    queue.close()


# A source that is larger than any memory

SCRIPT = """
import hashlib, json, math, sys
import numpy as np
from algoperf import backends
from algoperf.data.batches import TrainingQueue
from algoperf.data.rows import DecodedRows
from algoperf.machine import hardware
from algoperf.submission import loading
from algoperf.trial import adapt, seeds
from algoperf.trial.clock import Ledger
from algoperf.trial.goal import Goal, Limits
from algoperf.trial.loop import Trial
from algoperf.workload import Data, catalogue

def decode(index):
    rng = np.random.default_rng(index)
    label = index % 10
    pixels = rng.random(64, np.float32)
    pixels[label * 6 : label * 6 + 6] += 1
    return {"inputs": pixels, "targets": np.int32(label)}

fields = {"inputs": ((64,), np.float32), "targets": ((), np.int32)}
train = DecodedRows(400_000_000, fields, decode, "computed")
data = Data({"train": train, "validation": train, "test": train})
definition = catalogue.find("digits")
backend = backends.load("pytorch")
bound = backend.workload(definition, definition.scales["mini"], "builtin", data)
path, _ = loading.locate("adamw")
loaded = loading.load(loading.inspect(path), "pytorch")
point = json.loads(sys.argv[1])
from algoperf import spec
hyperparameters = spec.make_hyperparameters(point)
functions = adapt.submission_functions(loaded, backend, bound, hyperparameters)

class Log:
    losses = []
    def scalars(self, rows):
        self.losses += [values["loss"] for _, values in rows if "loss" in values]
    def evaluation(self, times, metrics):
        pass

trial = Trial(
    backend=backend, workload=bound, functions=functions,
    queue=TrainingQueue(train, 64, 0, backend.place),
    evaluate=lambda split, params, state: {"loss": 0.0, "accuracy": 0.0},
    goal=Goal("accuracy", True, None), limits=Limits(math.inf, math.inf, 10, 20),
    ledger=Ledger(), log=Log(), seed=seeds.trial_seed(0, 0, 1), hyperparameters=hyperparameters,
)
trial.run()
print(json.dumps({
    "status": trial.status, "error": trial.error, "step": trial.state.step, "losses": Log.losses,
    "rows": bound.num_train_examples, "fingerprint": data.fingerprint,
    "wait_s": trial.ledger.data_wait_s,
    "source_bytes": len(train) * 260,
    "peak_bytes": hardware.peak_process_memory_bytes(),
}))
"""


def test_a_source_of_100_gb_trains_in_2_gib():
    """20 steps of a trial on rows that are computed when they are asked for."""
    point = adamw.DEFAULTS | {"learning_rate": 0.01}
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(point)],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    ended = json.loads(finished.stdout.splitlines()[-1])
    assert ended["error"] is None
    assert ended["step"] == 20
    assert ended["source_bytes"] >= 50e9
    assert ended["peak_bytes"] < 2 * 2**30
    assert ended["rows"] == 400_000_000
    assert ended["losses"][-1] < ended["losses"][0]
    assert ended["wait_s"] > 0
