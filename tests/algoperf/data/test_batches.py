"""Which rows come when: every row once an epoch, once in an evaluation, whatever the batch size."""

import json
import types
from pathlib import Path

import numpy as np
import pytest

import algoperf
from algoperf import backends
from algoperf.data import batches, sortish
from algoperf.data.rows import DecodedRows, OtherTargets, RowsView
from algoperf.data.tokenizers import PAD_ID
from algoperf.submission import loading
from algoperf.trial import adapt
from algoperf.workload import ArrayRows
from algoperf.workload.rows import lengths_of

ROWS = 30


def arrays(rows=ROWS):
    return {
        "inputs": np.arange(2 * rows, dtype=np.float32).reshape(rows, 2),
        "targets": np.arange(rows, dtype=np.int32),
    }


def stream(batch_size, seed, rows_wanted):
    queue = batches.TrainingQueue(arrays(), batch_size, seed)
    drawn = [next(queue) for _ in range(-(-rows_wanted // batch_size))]
    assert {len(batch["targets"]) for batch in drawn} == {batch_size}
    for batch in drawn:  # a row stays together
        np.testing.assert_array_equal(batch["inputs"][:, 0], 2.0 * batch["targets"])
    return np.concatenate([batch["targets"] for batch in drawn])[:rows_wanted]


@pytest.mark.parametrize("batch_size", [1, 4, 7, 15, 29, 30])
def test_every_row_once_an_epoch(batch_size):
    epochs = stream(batch_size, 5, 4 * ROWS).reshape(4, ROWS)
    np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(ROWS), (4, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 4  # each in another order
    assert tuple(range(ROWS)) not in {tuple(epoch) for epoch in epochs}


def test_a_batch_larger_than_the_split_straddles_several_epochs():
    drawn = stream(70, 5, 70)
    assert np.bincount(drawn, minlength=ROWS).tolist() == [
        2 + (row in drawn[2 * ROWS :]) for row in range(ROWS)
    ]


def test_the_order_is_a_function_of_the_seed_alone():
    one = stream(7, 5, 3 * ROWS)
    np.testing.assert_array_equal(one, stream(7, 5, 3 * ROWS))
    np.testing.assert_array_equal(one, stream(30, 5, 3 * ROWS))  # not of the batch size
    assert not np.array_equal(one, stream(7, 6, 3 * ROWS))
    by_hand = [
        np.random.Generator(np.random.Philox(np.random.SeedSequence([5, epoch]))).permutation(ROWS)
        for epoch in range(3)
    ]
    np.testing.assert_array_equal(one, np.concatenate(by_hand))


def test_a_large_seed_and_zero():
    assert sorted(stream(7, 2**63 - 1, ROWS)) == sorted(stream(7, 0, ROWS)) == list(range(ROWS))


def test_iteration_placement_and_waiting_time(clock):
    def place(batch):
        clock.sleep(2.0)
        return "placed", sorted(batch)

    queue = batches.TrainingQueue(arrays(), 4, 0, place, clock)
    assert iter(queue) is queue
    assert next(queue) == ("placed", ["inputs", "targets"])
    clock.sleep(9.0)  # not in the queue
    next(queue)
    assert queue.wait_s == 4.0


def test_training_batches_do_not_share_memory_with_the_split():
    split = arrays()
    batch = next(batches.TrainingQueue(split, 4, 0))
    batch["inputs"][:] = -1
    np.testing.assert_array_equal(split["inputs"], arrays()["inputs"])


@pytest.mark.parametrize("batch_size", [1, 4, 7, 15, 29, 30, 31, 100])
def test_once_has_every_row_once_in_order(batch_size):
    drawn = list(batches.once(arrays(), batch_size))
    assert len(drawn) == -(-ROWS // batch_size)
    assert {(*batch["inputs"].shape, *batch["targets"].shape) for batch in drawn} == {
        (batch_size, 2, batch_size)
    }
    joined = {key: np.concatenate([batch[key] for batch in drawn]) for key in drawn[0]}
    np.testing.assert_array_equal(joined["targets"][:ROWS], np.arange(ROWS))
    np.testing.assert_array_equal(joined["inputs"][:ROWS], arrays()["inputs"])
    expected = np.zeros(len(drawn) * batch_size)
    expected[:ROWS] = 1
    np.testing.assert_array_equal(joined["weights"], expected)
    assert joined["weights"].dtype == np.float32
    assert set(joined["targets"][ROWS:]) <= {drawn[-1]["targets"][0]}  # fit for any model


def test_once_keeps_the_splits_own_weights():
    own = np.linspace(0.5, 1.5, ROWS, dtype=np.float32)
    split = {**arrays(), "weights": own.copy()}
    weights = np.concatenate([batch["weights"] for batch in batches.once(split, 7)])
    np.testing.assert_array_equal(weights[:ROWS], own)
    np.testing.assert_array_equal(weights[ROWS:], np.zeros(5))
    np.testing.assert_array_equal(split["weights"], own)


@pytest.mark.parametrize("batch_size", [30, 7])
def test_once_hands_out_copies(batch_size):
    """JAX may keep an array that it was given, and PyTorch writes into it."""
    split = arrays()
    for batch in batches.once(split, batch_size):
        batch["inputs"][:] = -1
    np.testing.assert_array_equal(split["inputs"], arrays()["inputs"])


# Source and target lengths of eight rows, padding 1: buckets (2, 2), (4, 2) and (4, 4).
LENGTHS = [(1, 1), (2, 2), (3, 1), (4, 2), (1, 3), (4, 4), (2, 1), (1, 2)]
BUCKETS = ((2, 2), (4, 2), (4, 4))
OF_ROW = [0, 0, 1, 1, 2, 2, 0, 0]


def token_rows():
    def rows(lengths):
        return np.array([[9] * n + [1] * (4 - n) for n in lengths], np.int32)

    targets = rows([target for _, target in LENGTHS])
    return {
        "inputs": rows([source for source, _ in LENGTHS]),
        "targets": targets,
        "weights": (targets != 1).astype(np.float32),
        "row": np.arange(8),
    }


def test_rows_belong_to_the_first_bucket_that_holds_them():
    assert batches.Buckets(token_rows(), BUCKETS, pad_id=1).of_row.tolist() == OF_ROW
    assert batches.Buckets(token_rows(), ((2, 2), (3, 3)), 1).of_row.tolist() == [
        0, 0, 1, 1, 1, 1, 0, 0,
    ]  # fmt: skip


def test_a_bucketed_queue_gives_every_row_once_an_epoch_in_batches_of_one_bucket():
    arrays = token_rows()
    queue = batches.TrainingQueue(
        arrays, 2, seed=3, buckets=batches.Buckets(arrays, BUCKETS, pad_id=1)
    )
    seen = []
    for _ in range(12):  # 24 rows: three epochs, since every bucket's size is even
        batch = next(queue)
        (bucket,) = {OF_ROW[row] for row in batch["row"]}
        source, target = BUCKETS[bucket]
        assert batch["inputs"].shape == (2, source)
        assert batch["targets"].shape == batch["weights"].shape == (2, target)
        seen += batch["row"].tolist()
    assert sorted(seen) == sorted(list(range(8)) * 3)
    again = batches.TrainingQueue(
        arrays, 2, seed=3, buckets=batches.Buckets(arrays, BUCKETS, pad_id=1)
    )
    assert [row for _ in range(12) for row in next(again)["row"]] == seen


class Marked:
    """Changes rows by the epoch that they are drawn in."""

    def fields(self, rows):
        return rows.fields

    def __call__(self, rows, drawn):
        return {**rows.take(drawn.rows[drawn.own]), "epoch": drawn.epochs[drawn.own]}


def slow_rows():
    """Those of `token_rows`, which know their lengths, as of files."""
    arrays = token_rows()
    fields = {key: (array.shape[1:], array.dtype) for key, array in arrays.items()}
    sources, targets = np.array(LENGTHS).T
    return DecodedRows(
        8,
        fields,
        lambda index: {key: array[index] for key, array in arrays.items()},
        "",
        lengths={"inputs": sources, "targets": targets},
    )


def test_slow_rows_are_changed_and_cut_and_taken_up_where_they_were_left():
    def queue(rows=None):
        rows = slow_rows() if rows is None else rows
        buckets = batches.Buckets(rows, BUCKETS, pad_id=-1)  # none of their tokens
        return batches.TrainingQueue(
            rows, 3, seed=3, buckets=buckets, augmentation=Marked(), depth=2
        )

    whole, plain = queue(), queue(ArrayRows(token_rows()))
    plain.buckets = batches.Buckets(token_rows(), BUCKETS, pad_id=1)
    seen: dict[int, int] = {}
    drawn, positions = [], []
    for _ in range(9):
        positions.append(json.loads(json.dumps(whole.position())))
        batch, other = next(whole), next(plain)
        for key, array in batch.items():
            np.testing.assert_array_equal(array, other[key])
        (bucket,) = {OF_ROW[row] for row in batch["row"]}
        assert batch["inputs"].shape == (3, BUCKETS[bucket][0])
        for row, epoch in zip(batch["row"].tolist(), batch["epoch"].tolist(), strict=True):
            assert epoch == seen.get(row, 0)  # a row that waited is of the epoch it was drawn in
            seen[row] = epoch + 1
        drawn.append(batch)
    assert whole.batches_drawn == plain.batches_drawn == 9
    assert any(position["waiting"] for position in positions)
    for start in (2, 5):
        again = queue()
        again.go_to(positions[start])
        for batch in drawn[start:]:
            taken_up = next(again)
            for key, array in batch.items():
                np.testing.assert_array_equal(taken_up[key], array)
        assert again.position() == {**whole.position(), "wait_s": again.wait_s}
        again.close()
    whole.close()


def test_chosen_rows_and_others_targets_know_their_lengths():
    rows = slow_rows()
    chosen = lengths_of(RowsView(rows, np.array([5, 0])))
    assert {key: array.tolist() for key, array in chosen.items()} == {
        "inputs": [4, 1], "targets": [4, 1],
    }  # fmt: skip
    given = lengths_of(OtherTargets(rows, np.array([4, 1, 2, 3, 4, 5, 6, 7])))
    assert given["inputs"].tolist() == [source for source, _ in LENGTHS]
    assert given["targets"].tolist() == [3, 2, 1, 2, 3, 4, 1, 2]
    assert lengths_of(ArrayRows(token_rows())) is None


def test_the_share_of_padding():
    arrays = token_rows()
    buckets = batches.Buckets(arrays, BUCKETS, pad_id=1)
    assert buckets.real_share == 1
    list(batches.once(arrays, 2, buckets))
    # Real tokens: sources 18, targets 16. Positions: 4 rows of 2 + 2, 2 of 4 + 2, 2 of 4 + 4.
    assert buckets.real_share == 34 / (16 + 12 + 16)


def test_once_in_buckets_has_every_row_once_and_fills_each_bucket():
    arrays = token_rows()
    found = list(batches.once(arrays, 3, batches.Buckets(arrays, BUCKETS, pad_id=1)))
    assert [batch["inputs"].shape for batch in found] == [(3, 2), (3, 2), (3, 4), (3, 4)]
    real = [row for batch in found for row in batch["row"][batch["weights"].any(axis=1)]]
    assert real == [0, 1, 6, 7, 2, 3, 4, 5]
    assert sum(batch["weights"].sum() for batch in found) == 16


LONG = {
    "inputs": np.array([[5] * n + [PAD_ID] * (20 - n) for n in [*range(1, 21), 3, 9, 9, 4]]),
    "targets": np.array([[6] * (1 + n % 3) + [PAD_ID] * (4 - n % 3) for n in range(24)]),
}


def sortish_queue(seed=1, size=3):
    return batches.TrainingQueue(LONG, size, seed, buckets=batches.Buckets(LONG, [(20, 5)], PAD_ID))


def test_sortish_batches_by_hand():
    """Of 12 rows drawn, the four longest inputs are together, and the next four, and the rest."""
    (chunk,) = sortish.group(np.array([7, 1, 9, 3]), 4, 0.0, np.random.default_rng(0))
    assert chunk.tolist() == [2, 0, 3, 1]
    lengths_N = np.array([5, 1, 9, 3, 8, 2, 7, 4, 6, 12, 11, 10])
    chosen = sortish.group(lengths_N, 4, 0.0, np.random.default_rng(0))
    by_length = sorted((sorted(lengths_N[rows].tolist()) for rows in chosen), reverse=True)
    assert by_length == [[9, 10, 11, 12], [5, 6, 7, 8], [1, 2, 3, 4]]
    orders = {
        tuple(sortish.group(lengths_N, 4, 0.0, np.random.default_rng(seed))[0])
        for seed in range(20)
    }
    assert len(orders) == 3  # the longest do not always come first
    noisy = sortish.group(lengths_N, 4, 100.0, np.random.default_rng(0))
    assert sorted(np.concatenate(noisy).tolist()) == list(range(12))
    assert [9, 10, 11, 12] not in [sorted(lengths_N[rows].tolist()) for rows in noisy]


@pytest.mark.parametrize(
    ("lengths", "multiple", "cut"),
    [([3, 9], 8, 16), ([3, 8], 8, 8), ([17], 8, 20), ([9], 1, 9), ([0, 0], 4, 4)],
)
def test_sortish_batches_are_cut_to_their_longest_row(lengths, multiple, cut):
    assert sortish.cut_length(np.array(lengths), multiple, 20) == cut


def test_sortish_gives_every_row_once_an_epoch_with_less_padding():
    queue = sortish_queue()
    drawn = [queue.sortish(window=4, multiple=1) for _ in range(8)]
    lengths = [(batch["inputs"] != PAD_ID).sum(1) for batch in drawn]
    expected = np.sort((LONG["inputs"] != PAD_ID).sum(1))
    np.testing.assert_array_equal(np.sort(np.concatenate(lengths)), expected)
    assert [batch["inputs"].shape[1] for batch in drawn] == [max(rows) for rows in lengths]
    plain = sortish_queue()
    for _ in range(8):
        next(plain)
    assert queue.buckets.counts[0] == plain.buckets.counts[0]  # the same tokens
    assert queue.buckets.counts[1] < 0.7 * plain.buckets.counts[1]  # in fewer positions
    assert queue.wait_s > 0
    assert queue.batches_drawn == plain.batches_drawn == 8


def test_sortish_goes_on_within_a_window():
    queue, other = sortish_queue(), sortish_queue(seed=1)
    for _ in range(3):
        queue.sortish(window=4)
    assert queue.batches_drawn == 3
    other.go_to(json.loads(json.dumps(queue.position())))
    for _ in range(6):
        one, again = queue.sortish(window=4), other.sortish(window=4)
        for key in one:
            np.testing.assert_array_equal(one[key], again[key])
    assert other.position()["ahead"] == queue.position()["ahead"]
    older = {name: value for name, value in queue.position().items() if name != "ahead"}
    sortish_queue().go_to(older)


def test_sortish_without_buckets_is_the_next_batch():
    queue, plain = (batches.TrainingQueue(arrays(), 4, 5) for _ in range(2))
    np.testing.assert_array_equal(queue.sortish()["targets"], next(plain)["targets"])


def test_the_sortish_submission_trains_on_what_the_queue_groups():
    """In the optimizer form, too, data_selection is called; it gets what it names."""
    path = Path(algoperf.__file__).parents[1] / "submissions" / "sortish.py"
    loaded = loading.load(loading.inspect(path), "pytorch")
    bound = types.SimpleNamespace(step_hint=10, loss_type=None, max_allowed_runtime_sec=1.0)
    backend = backends.load("pytorch")
    functions = adapt.submission_functions(loaded, backend, bound, None)
    queue = types.SimpleNamespace(sortish=lambda window: {"inputs": window})
    assert functions.data_selection(input_queue=queue, workload=bound, rng=None) == {"inputs": 16}
    assert functions.selects_data
