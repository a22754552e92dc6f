"""Which batches are rows of the training split: chosen ones are, changed and foreign ones not."""

import numpy as np
import pytest

from algoperf.data import provenance
from algoperf.data.batches import Buckets, TrainingQueue
from algoperf.data.provenance import FEW_DRAWN, OTHER_ROWS, Rows, Selection
from algoperf.data.tokenizers import PAD_ID
from algoperf.workload import Field


@pytest.fixture
def images():
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((100, 8)).astype(np.float32)
    return {"inputs": inputs, "targets": rng.integers(0, 10, 100).astype(np.int32)}


@pytest.fixture
def texts():
    """Rows of 3 to 12 and 2 to 6 tokens, padded on the right."""
    rng = np.random.default_rng(2)
    arrays = {}
    for key, shortest, longest in (("inputs", 3, 12), ("targets", 2, 6)):
        tokens = rng.integers(PAD_ID + 1, 1000, (60, longest)).astype(np.int32)
        lengths = rng.integers(shortest, longest + 1, 60)
        tokens[np.arange(longest) >= lengths[:, None]] = PAD_ID
        arrays[key] = tokens
    return arrays


def taken(arrays, rows):
    return {key: array[rows].copy() for key, array in arrays.items()}


def test_rows_may_be_chosen_repeated_and_joined(images, monkeypatch):
    monkeypatch.setattr(provenance, "CHUNK_ROWS", 7)
    rows = Rows(images)
    for chosen in ([3], [5, 5, 99, 0], list(range(100))[::-1]):
        assert rows.hold(taken(images, chosen))
        assert rows.hold({**taken(images, chosen), "weights": np.zeros(len(chosen))})


def test_rows_that_the_queue_changes_are_known_as_it_handed_them_out(images):
    """In training they are no rows of the split, whose inputs may have another shape and type."""

    class Halved:
        def fields(self, rows):
            return {**rows.fields, "inputs": Field((4,), np.dtype(np.float64))}

        def __call__(self, rows, drawn):
            batch = rows.take(drawn.rows[drawn.own])
            return {**batch, "inputs": batch["inputs"][:, :4].astype(np.float64) / 2}

    queue = TrainingQueue(images, 10, 0, augmentation=Halved())
    rows = Rows(images, queue)
    returned = []
    selection = Selection(rows, queue, lambda batch: batch, lambda: (1, returned[-1]))
    returned.append(next(queue))
    assert selection.findings() == []
    returned.append({**returned[-1], "inputs": returned[-1]["inputs"] + 1})
    assert selection.findings() == [OTHER_ROWS]
    assert not rows.hold(images)


@pytest.mark.parametrize("key", ["inputs", "targets"])
def test_one_changed_value_is_seen(images, key):
    batch = taken(images, [1, 2, 3])
    batch[key].reshape(-1)[-1] += 1
    assert not Rows(images).hold(batch)


def test_answers_of_other_rows_are_seen(images):
    batch = taken(images, np.arange(20))
    batch["targets"] = batch["targets"][::-1]
    assert not Rows(images).hold(batch)


@pytest.mark.parametrize(
    "batch", [None, {}, {"inputs": np.zeros((2, 8))}, {"inputs": np.zeros(3), "targets": [1]}]
)
def test_something_else_is_no_row(images, batch):
    assert not Rows(images).hold(batch)


def test_a_leading_axis_of_devices_and_another_type_do_not_matter(images):
    batch = taken(images, [4, 5, 6, 7])
    split = {key: array.reshape(2, 2, *array.shape[1:]) for key, array in batch.items()}
    assert Rows(images).hold(split)
    assert Rows(images).hold({**batch, "targets": batch["targets"].astype(np.int64)})


def test_batches_that_are_cut_to_their_bucket(texts):
    rows = Rows(texts)
    buckets = Buckets(texts, [(6, 4), (12, 6)], PAD_ID)
    queue = TrainingQueue(texts, 4, seed=1, buckets=buckets)
    widths = set()
    for _ in range(20):
        batch = next(queue)
        widths.add(batch["inputs"].shape[1])
        assert rows.hold(batch)
    assert widths == {6, 12}
    batch["inputs"][0, 0] += 1
    assert not rows.hold(batch)


# What is said of a submission


def findings(images, steps, batch, drawn=0, fetch=lambda batch: batch):
    queue = TrainingQueue(images, 8, seed=1)
    for _ in range(drawn):
        next(queue)
    return Selection(Rows(images), queue, fetch, lambda: (steps, batch)).findings()


def test_other_rows_and_few_batches(images):
    good, bad = taken(images, [1, 2]), {**taken(images, [1, 2]), "targets": np.array([10, 11])}
    assert findings(images, 20, good, drawn=20) == []
    assert findings(images, 20, bad, drawn=20) == [OTHER_ROWS]
    assert findings(images, 20, good, drawn=10) == []
    assert findings(images, 21, good, drawn=10) == [FEW_DRAWN]
    assert findings(images, 20, bad, drawn=1) == [FEW_DRAWN, OTHER_ROWS]
    assert findings(images, 0, None) == []


def test_several_batches_and_the_queue_itself(images):
    """Published ones gather a list of batches, or draw from the queue in update_params."""
    good, bad = taken(images, [1, 2]), {**taken(images, [1, 2]), "targets": np.array([10, 11])}
    assert findings(images, 2, [good, good], drawn=2) == []
    assert findings(images, 2, (good, bad), drawn=2) == [OTHER_ROWS]
    assert findings(images, 2, [], drawn=2) == [OTHER_ROWS]
    queue = TrainingQueue(images, 8, seed=1)
    seen = Selection(Rows(images), queue, lambda batch: batch, lambda: (2, queue))
    assert seen.findings() == [FEW_DRAWN]
    next(queue)
    assert seen.findings() == []


def test_a_batch_that_a_step_used_up_cannot_be_looked_at(images):
    def fetch(batch):
        raise RuntimeError("Array has been deleted")

    assert findings(images, 1, taken(images, [1]), drawn=1, fetch=fetch) == []


def test_batches_drawn_go_on_with_the_queue(images, texts):
    """13 of 8 rows are more than an epoch; rows that wait for their bucket are not drawn yet."""
    queue = TrainingQueue(images, 8, seed=1)
    for count in range(1, 14):
        next(queue)
        assert queue.batches_drawn == count
    again = TrainingQueue(images, 8, seed=1)
    again.go_to(queue.position())
    assert again.batches_drawn == 13
    buckets = Buckets(texts, [(6, 4), (9, 5), (12, 6)], PAD_ID)
    queue = TrainingQueue(texts, 4, seed=1, buckets=buckets)
    for count in range(1, 31):
        next(queue)
        assert queue.batches_drawn == count
