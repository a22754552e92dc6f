"""The order of rows: a permutation for each seed and epoch, in memory or computed."""

import numpy as np
import pytest

from algoperf.data import order
from algoperf.data.order import LARGEST_PERMUTATION, Order, permuted

KEYS = np.array([3, 2**63, 5, 2**64 - 1, 7, 11], np.uint64)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17, 64, 65, 1000, 4096, 4097, 70_000])
def test_every_index_comes_once(count):
    sent = permuted(np.arange(count), count, KEYS)
    assert sent.dtype == np.int64
    np.testing.assert_array_equal(np.sort(sent), np.arange(count))


@pytest.mark.parametrize(("count", "bits"), [(1000, (5, 5)), (300, (5, 4))])
def test_a_permutation_worked_out_with_whole_numbers(count, bits):
    """The network and the walk again, an index at a time and without NumPy's arithmetic."""

    def spread(value):
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
        return value ^ (value >> 31)

    def send(index):
        while True:
            left, right = divmod(index, 2 ** bits[1])
            for number, key in enumerate(KEYS.tolist()):
                mixed = spread((right + key) % 2**64) % 2 ** bits[number % 2]
                left, right = right, left ^ mixed
            index = left * 2 ** bits[1] + right
            if index < count:
                return index

    expected = [send(index) for index in range(count)]
    assert permuted(np.arange(count), count, KEYS).tolist() == expected
    assert sorted(expected) == list(range(count))
    assert spread(1) == 0x5692161D100B05E5  # as splitmix64 finishes 1 elsewhere


def test_parts_of_an_epoch_are_those_of_the_whole():
    count = 2**32 + 3
    indices = np.array([0, 1, 2**31, 2**32, count - 1, 1])
    sent = permuted(indices, count, KEYS)
    assert sent.tolist() == [int(permuted(each[None], count, KEYS)[0]) for each in indices]
    assert len(set(sent.tolist())) == 5
    assert sent.min() >= 0
    assert sent.max() < count


def test_large_splits_are_shuffled_without_memory(monkeypatch):
    """Seen on a split of 1000 rows, for which the threshold is lowered."""
    monkeypatch.setattr(order, "LARGEST_PERMUTATION", 999)
    monkeypatch.setattr(order, "BLOCK", 64)

    def epochs(seed, most):
        rows = Order(1000, seed)
        taken = np.concatenate([rows.take_all(most) for _ in range(-(-3000 // most))])[:3000]
        return taken.reshape(3, 1000)

    one = epochs(5, 7)
    keys = np.random.SeedSequence([5, 1]).generate_state(6, np.uint64)  # those of epoch 1
    np.testing.assert_array_equal(one[1], permuted(np.arange(1000), 1000, keys))
    np.testing.assert_array_equal(np.sort(one, 1), np.tile(np.arange(1000), (3, 1)))
    np.testing.assert_array_equal(one, epochs(5, 1000))
    np.testing.assert_array_equal(one, epochs(5, 2500))
    everything = [*map(tuple, one), *map(tuple, epochs(6, 7)), tuple(range(1000))]
    assert len(set(everything)) == 7
    for epoch in (*one, *epochs(6, 7)):
        # Of a random permutation about one row in 1000 stays, and about half of the pairs rise.
        assert (epoch == np.arange(1000)).sum() < 8
        assert 440 < (np.diff(epoch) > 0).sum() < 560


def test_rows_go_everywhere(monkeypatch):
    """Over 400 epochs, each of 8 rows comes first about 50 times (standard deviation 6.6)."""
    monkeypatch.setattr(order, "LARGEST_PERMUTATION", 1)
    rows, firsts = Order(8, 1), []
    for epoch in range(400):
        rows.go_to(epoch, 0)
        firsts.append(int(rows.take(1)[0]))
    counts = np.bincount(firsts, minlength=8)
    assert counts.min() > 50 - 4 * 6.6
    assert counts.max() < 50 + 4 * 6.6


def test_four_billion_rows_take_no_memory():
    rows = Order(4_000_000_000, 0)
    rows.go_to(2, 3_999_999_990)
    taken = rows.take_all(64)
    assert rows.at == (3, 54)
    assert taken.max() > 2**31
    rows.go_to(3, 0)
    np.testing.assert_array_equal(taken[10:], rows.take(54))
    assert LARGEST_PERMUTATION == 2**26  # runs that are saved go on in the order they began


def test_the_position_at_an_epochs_end():
    rows = Order(10, 0)
    rows.take_all(10)
    assert rows.at == (0, 10)
    rows.take_all(1)
    assert rows.at == (1, 1)


@pytest.mark.parametrize("largest", [LARGEST_PERMUTATION, 1])
def test_rows_given_back_come_again(monkeypatch, largest):
    """512 taken of 100 rows are 12 in epoch 5; 180 fewer are 332, which are 32 in epoch 3."""
    monkeypatch.setattr(order, "LARGEST_PERMUTATION", largest)
    rows = Order(100, 0)
    taken = rows.take_all(512)
    rows.give_back(180)
    assert rows.at == (3, 32)
    np.testing.assert_array_equal(rows.take_all(180), taken[332:])
    assert rows.at == (5, 12)
    for count, at in ((0, (5, 12)), (12, (5, 0)), (100, (4, 0)), (1, (3, 99)), (399, (0, 0))):
        rows.give_back(count)
        assert rows.at == at
    np.testing.assert_array_equal(rows.take_all(512), taken)


def test_no_row_comes_before_the_first():
    rows = Order(10, 0)
    rows.take_all(25)
    with pytest.raises(ValueError, match="before its beginning"):
        rows.give_back(26)
    assert rows.at == (2, 5)


def test_a_saved_position_before_its_epoch_is_that_of_an_earlier_one():
    """As versions wrote it that gave back over several epochs: 4 of 100 less 68 are 332."""
    rows, expected = Order(100, 0), Order(100, 0).take_all(400)[332:]
    rows.go_to(4, -68)
    assert rows.at == (3, 32)
    np.testing.assert_array_equal(rows.take_all(68), expected)
