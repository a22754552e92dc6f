"""Classes made equal, duplicates left out: which training rows stay, and what the notes say."""

import numpy as np
import pytest

from algoperf.data import select
from algoperf.data.loading import load_data
from algoperf.errors import UserError
from algoperf.workload import Data, Text, catalogue


def numbered(labels, inputs=None):
    """Data whose training inputs tell the rows apart, unless they are given."""
    rows = np.arange(len(labels)) if inputs is None else np.array(inputs)
    splits = {
        "train": {"inputs": rows[:, None], "targets": np.array(labels, np.int32)},
        "validation": {"inputs": np.array([[7]]), "targets": np.array([1], np.int32)},
        "test": {"inputs": np.array([[8], [8]]), "targets": np.array([1, 1], np.int32)},
    }
    return Data(splits, model={"vocab_size": 9}, notes={"kept": True})


LABELS = [0, 0, 0, 0, 0, 2, 2, 2, 1, 1, 0, 2]


def test_balance():
    data = numbered(LABELS)
    balanced = select.balance(data, seed=0)
    train = balanced.splits["train"]
    rows = train["inputs"][:, 0]
    assert np.bincount(train["targets"]).tolist() == [2, 2, 2]
    assert rows.tolist() == sorted(set(rows.tolist()))  # each once, in order
    assert train["targets"].tolist() == [LABELS[row] for row in rows]
    assert balanced.notes == {
        "kept": True,
        "balance": {"seed": 0, "dropped": {"0": 4, "1": 0, "2": 2}},
    }
    for split in ("validation", "test"):
        assert balanced.splits[split] is data.splits[split]
    assert balanced.model == data.model
    assert len(data.splits["train"]["targets"]) == 12
    assert data.notes == {"kept": True}
    assert select.balance(data, seed=0).fingerprint == balanced.fingerprint != data.fingerprint
    assert len({select.balance(data, seed=seed).fingerprint for seed in range(8)}) > 4


def test_balance_draws_every_row_of_a_class():
    chosen = [
        row
        for seed in range(40)
        for row in select.balance(numbered(LABELS), seed).splits["train"]["inputs"][:, 0]
    ]
    assert set(chosen) == set(range(12))


def test_only_classes_can_be_balanced():
    data = numbered(LABELS)
    for targets in (np.zeros(12, np.float32), np.zeros((12, 2), np.int32)):
        train = {**data.splits["train"], "targets": targets}
        with pytest.raises(UserError, match="--balance"):
            select.balance(Data({**data.splits, "train": train}), seed=0)


def test_drop_duplicates_of_arrays():
    data = numbered([0, 1, 2, 3, 4, 5, 6], inputs=[3, 7, 3, 4, 8, 3, 7])
    kept = select.drop_duplicates(data)
    assert kept.splits["train"]["inputs"][:, 0].tolist() == [3, 4]
    assert kept.splits["train"]["targets"].tolist() == [0, 3]
    assert kept.notes["drop_duplicates"] == {"repeated": 2, "in_other_splits": 3}
    assert kept.splits["test"] is data.splits["test"]  # with its own duplicate


def test_drop_duplicates_of_texts():
    data = numbered([0, 0, 0, 0], inputs=[5, 5, 5, 5])
    sources = {"train": ["A b.", "c", "a  B", "D!"], "validation": ["d"], "test": ["e", "e"]}
    references = {"train": ["r0", "r1", "r2", "r3"], "validation": ["v"], "test": ["t", "u"]}
    data = Data(data.splits, text=Text(str, sources, references))
    kept = select.drop_duplicates(data)
    assert kept.text.sources["train"] == ["A b.", "c"]
    assert kept.text.references["train"] == ["r0", "r1"]
    assert kept.text.references["test"] == references["test"]
    assert kept.text.decode is str
    assert len(kept.splits["train"]["targets"]) == 2
    assert data.text.sources == sources
    assert kept.notes["drop_duplicates"] == {"repeated": 1, "in_other_splits": 1}


def test_rows_of_several_texts_are_not_compared():
    data = numbered([0, 0])
    sources = {"train": ["a|b", "a"], "validation": ["c"], "test": ["d", "e"]}
    data = Data(data.splits, text=Text(str, sources, sources, separator="|"))
    with pytest.raises(UserError, match="hold several texts each; algoperf data counts repeated"):
        select.drop_duplicates(data)


def test_no_row_is_left():
    with pytest.raises(UserError, match="leaves no training row"):
        select.drop_duplicates(numbered([0, 0], inputs=[7, 8]))


def test_digits_have_nothing_to_drop():
    definition = catalogue.find("digits")
    data = load_data(definition, definition.scales["mini"], "builtin")
    assert select.drop_duplicates(data).fingerprint == data.fingerprint
    assert np.ptp(np.bincount(select.balance(data, 0).splits["train"]["targets"])) == 0


def test_bad_rows_can_be_skipped_where_the_loader_can():
    xsum, digits = catalogue.find("xsum"), catalogue.find("digits")
    scale = select.skip_bad_rows(xsum, xsum.scales["mini"])
    assert scale.data == {**xsum.scales["mini"].data, "skip_bad_rows": True}
    with pytest.raises(UserError, match="digits refuses bad rows"):
        select.skip_bad_rows(digits, digits.scales["mini"])
