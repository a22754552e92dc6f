"""Variants as data: rows changed by the count, names found, suites read, draws and verdicts by
hand.
"""

import json

import numpy as np
import pytest

from algoperf.cli import commands
from algoperf.data import row_changes
from algoperf.errors import UserError
from algoperf.experiments.held_out import draw, sample, screening, seal
from algoperf.experiments.held_out.screening import Curve
from algoperf.workload import Data, Text, axes, catalogue, registry


def data(labels, text=None):
    """Training rows whose input is their number; two rows each of validation and test."""
    count = len(labels)
    train = {"inputs": np.arange(count)[:, None], "targets": np.array(labels, np.int32)}
    other = {"inputs": np.arange(2)[:, None], "targets": np.zeros(2, np.int32)}
    return Data({"train": train, "validation": other, "test": other}, text=text)


def train(changed):
    return changed.splits["train"]["inputs"][:, 0].tolist(), changed.splits["train"]["targets"]


def test_a_fraction_keeps_rows_in_their_order():
    kept, targets = train(row_changes.train_fraction(data([0, 1] * 20), 0.25))
    assert len(kept) == 10
    assert kept == sorted(kept)
    assert [row % 2 for row in kept] == targets.tolist()
    assert train(row_changes.train_fraction(data([0, 1] * 20), 0.25))[0] == kept


def test_noise_passes_targets_on_in_a_ring():
    texts = Text(
        decode=lambda rows: [],
        sources={"train": [f"source {row}" for row in range(10)]},
        references={"train": [f"target {row}" for row in range(10)], "test": ["a", "b"]},
    )
    changed = row_changes.label_noise(data(range(10), texts), 0.4)
    numbers, targets = train(changed)
    assert numbers == list(range(10))
    assert sorted(targets) == numbers  # none is lost
    moved = [row for row in numbers if targets[row] != row]
    assert len(moved) == 4
    assert changed.text.references["train"] == [f"target {target}" for target in targets]
    assert changed.text.references["test"] == ["a", "b"]
    assert changed.text.sources == texts.sources


def test_weights_of_noisy_targets_go_with_them():
    made = data(range(4))
    weighted = {**made.splits["train"], "weights": np.arange(4.0)}
    made = Data({**made.splits, "train": weighted})
    changed = row_changes.label_noise(made, 1.0).splits["train"]
    assert changed["weights"].tolist() == changed["targets"].tolist()
    assert (changed["targets"] != np.arange(4)).all()


def test_imbalance_falls_from_class_to_class():
    """100 rows each of classes 0, 1 and 2, at the rates 1, sqrt(0.25) and 0.25."""
    kept, targets = train(row_changes.class_imbalance(data([0, 1, 2] * 100), 0.25))
    assert np.bincount(targets).tolist() == [100, 50, 25]
    assert [row % 3 for row in kept] == targets.tolist()


@pytest.mark.parametrize("name", registry.names())
def test_named_variants_differ_and_keep_their_budget(name):
    base = catalogue.find(name)
    assert len(base.variants) >= 3
    for variant, given in base.variants.items():
        found = catalogue.find(f"{name}_{variant}")
        assert (found.name, found.base, found.variants) == (f"{name}_{variant}", name, {})
        assert dict(found.changes) == dict(given.changes)
        axes.check(variant, given.changes)
        for scale_name, scale in found.scales.items():
            of_base = base.scales[scale_name]
            assert scale.budget_s == of_base.budget_s
            assert scale.targets == given.targets.get(scale_name, {})


def test_near_names_are_told():
    with pytest.raises(UserError, match="did you mean ag_news_post_ln"):
        catalogue.find("ag_news_post_l")
    with pytest.raises(UserError, match="unknown workload 'digits_'"):
        catalogue.find("digits_")


def test_a_variant_that_changes_nothing_anywhere_is_a_mistake():
    with pytest.raises(UserError, match=r"digits has nothing that .*norm_place.* would change"):
        axes.vary(catalogue.find("digits"), "digits_pre", {"norm_place": "post"}, {})


def test_real_rows_have_the_change_too():
    mini = catalogue.find("xsum_pre_ln").scales["mini"]
    assert mini.model["style"].norm_place == "pre"
    assert mini.real.model["style"].norm_place == "pre"
    length = axes.changed(catalogue.find("xsum").scales["mini"], {"source_length": 0.5})
    assert length.buckets == ((28, 16), (32, 24))
    assert length.data["max_source"] == 32


SUITE = {
    "format": 1,
    "variants": {
        "digits_s7_0": {
            "base": "digits",
            "changes": {"activation": "tanh", "width": 0.5},
            "targets": {"mini": {"builtin": {"validation": 0.9, "provenance": "by hand"}}},
        }
    },
}


def write(path, **changes):
    path.write_text(json.dumps({**SUITE, **changes}))
    return str(path)


def test_a_suite_s_variants_are_found(tmp_path):
    found = catalogue.find("digits_s7_0", write(tmp_path / "suite.json"))
    mini = found.scales["mini"]
    assert (mini.model["width"], mini.model["style"].activation) == (64, "tanh")
    assert mini.targets["builtin"].validation == 0.9
    with pytest.raises(UserError, match=r"digits_s7_1.*did you mean digits_s7_0"):
        catalogue.find("digits_s7_1", write(tmp_path / "suite.json"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, 'no suite; expected an object with "format": 1'),
        ({"variants": []}, '"variants" is not an object'),
        ({"variants": {"v": {"changes": {}}}}, 'v: expected an object with "base"'),
        ({"variants": {"v": {"base": "digit", "changes": {}}}}, "did you mean digits"),
        ({"variants": {"v": {"base": "digits"}}}, "v/changes: expected an object of axes"),
        (
            {"variants": {"v": {"base": "digits", "changes": {"widht": 2.0}}}},
            "v/changes: unknown axis 'widht'; did you mean width",
        ),
        (
            {"variants": {"v": {"base": "digits", "changes": {"width": 3.0}}}},
            "v/changes: width is 3.0, expected one of 0.5, 2.0",
        ),
        (
            {"variants": {"v": {"base": "digits", "changes": {"tied_embeddings": 0}}}},
            "tied_embeddings is 0, expected one of False",
        ),
        (
            {"variants": {"digits": {"base": "digits", "changes": {"width": 2.0}}}},
            "no name for a variant",
        ),
        (
            {"variants": {"v": {**SUITE["variants"]["digits_s7_0"], "targets": {"mini": 3}}}},
            "v/targets: expected",
        ),
    ],
)
def test_a_suite_with_a_mistake_is_refused(tmp_path, changes, said):
    with pytest.raises(UserError) as raised:
        catalogue.read_suite(write(tmp_path / "suite.json", **changes))
    assert said in str(raised.value)
    assert str(raised.value).startswith(f"{tmp_path / 'suite.json'}:")


@pytest.mark.parametrize(
    "value", ["0.9", True, None, float("nan"), float("inf"), pytest.param(10**309, id="1e309")]
)
def test_a_target_is_a_number(tmp_path, value):
    targets = {"mini": {"builtin": {"validation": value, "provenance": "by hand"}}}
    drawn = {"digits_s7_0": {**SUITE["variants"]["digits_s7_0"], "targets": targets}}
    with pytest.raises(UserError, match=f"digits_s7_0/targets: expected .* {value!r}"):
        catalogue.read_suite(write(tmp_path / "suite.json", variants=drawn))


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "suite.json").write_text("{")
    with pytest.raises(UserError, match="no JSON"):
        catalogue.read_suite(tmp_path / "suite.json")
    with pytest.raises(UserError, match="cannot be read"):
        catalogue.read_suite(tmp_path / "none.json")


DRAWN = [
    {"dropout": 0.1},
    {"dropout": 0.1, "norm": "rms"},
    {"norm": "rms", "train_fraction": 0.5, "output_scale": 0.25},
]


def test_draws_are_what_they_were():
    """Written down once: a draw never changes, on any machine."""
    scale = catalogue.find("digits").scales["mini"]
    assert [draw.draw("digits", scale, 7, attempt, 1, 3) for attempt in range(3)] == DRAWN


def test_draws_have_the_number_of_axes_and_are_in_the_table():
    base = catalogue.find("ag_news")
    scale = base.scales["mini"]
    sizes = set()
    for attempt in range(60):
        changes = draw.draw("ag_news", scale, 3, attempt, 2, 3)
        axes.check("drawn", changes)
        axes.vary(base, "ag_news_drawn", changes, {})
        sizes.add(len(changes))
    assert sizes == {2, 3}


def test_no_combination_is_screened_twice():
    request = sample.Request(7, ["digits"], 5, 1, 1)
    found = [changes for _, changes in sample.draws(request, catalogue.find("digits"))]
    assert len(found) < 5 * sample.MOST_DRAWS
    assert all(changes not in found[:place] for place, changes in enumerate(found))


def curve(*values, finite=True, losses=None):
    steps = [10 * (place + 1) for place in range(len(values))]
    return Curve(steps, values, losses or [1.0 - value for value in values], finite)


GOOD, BETTER, BEST = curve(0.1, 0.5, 0.6), curve(0.1, 0.6, 0.7), curve(0.1, 0.7, 0.7)
FLAT, LOST = curve(0.1, 0.1, 0.2), curve(0.1, 0.9, 0.9, finite=False)


@pytest.mark.parametrize(
    ("grid", "reason"),
    [
        ({0.3: [BEST] * 3, 1.0: [GOOD] * 3}, None),
        ({0.3: [GOOD] * 3, 1.0: [BEST] * 3}, "not different: the base's best"),
        ({0.3: [FLAT] * 3, 1.0: [curve(0.1, 0.1, 0.1)] * 3}, "not trainable: 0 of 3"),
        ({0.3: [LOST] * 3, 1.0: [LOST] * 3}, "not trainable: 0 of 3"),
        ({0.3: [LOST, BEST, BEST], 1.0: [FLAT] * 3}, "not trainable: 0 of 3"),  # 1.0 is its best
        (
            {0.3: [curve(0.1, 0.9, 0.9), GOOD, GOOD], 1.0: [GOOD, BETTER, BETTER]},
            "not different: x 0.3 beats x 1 in 1 of 3 seeds",
        ),
        (  # means of 0.4 + 0.012 / 3 and 0.4
            {0.3: [curve(0.1, 0.512, 0.6)] * 3, 1.0: [GOOD] * 3},
            "not different: the base's best learning rate (x 1) is 0.0040 worse than x 0.3",
        ),
        ({0.3: [curve(0.1, 0.518, 0.6)] * 3, 1.0: [GOOD] * 3}, None),
    ],
)
def test_screening(grid, reason):
    base = {0.3: [GOOD] * 3, 1.0: [BETTER] * 3}
    found = screening.why_not(grid, base)
    assert (found is None) == (reason is None)
    assert reason is None or found.startswith(reason)


@pytest.mark.parametrize(
    ("first", "usual", "is_ruled_out"),
    [
        (BETTER, BEST, True),
        (BEST, BEST, True),
        (BEST, BETTER, False),
        (LOST, BETTER, True),
        (LOST, LOST, True),
        (BEST, LOST, False),
    ],
)
def test_the_first_seed_rules_out_only_what_the_second_cannot_mend(first, usual, is_ruled_out):
    base = {0.3: [GOOD] * 2, 1.0: [BETTER] * 2}
    found = screening.why_not_at_once({0.3: [first], 1.0: [usual]}, base)
    assert (found is not None) == is_ruled_out
    if is_ruled_out:  # whatever the second seed gives, with two
        for second in (BEST, FLAT, LOST):
            assert screening.why_not({0.3: [first, second], 1.0: [usual, FLAT]}, base) is not None


def test_a_target_is_what_all_runs_but_one_reach_in_three_quarters_of_the_hint():
    runs = [curve(0.0, 0.5, level, 0.99) for level in (0.8, 0.71259, 0.9, 0.6)]
    assert screening.target(runs, step_hint=40) == 0.712  # second from below at step 30, cut
    runs[3] = curve(0.75, 0.5, 0.6, 0.99)  # its best by then came early
    assert screening.target(runs, step_hint=40) == 0.75


def test_any_changed_byte_of_a_sealed_suite_is_caught(tmp_path):
    path, salt = tmp_path / "suite.json", tmp_path / "suite.json.salt"
    write(path)
    commitment = seal.seal(path, salt)
    assert seal.verify(path, salt, commitment)
    assert seal.verify(path, salt, f" {commitment.upper()}\n")
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert not seal.verify(path, salt, commitment)
    for other in (content + b"\n", content[:-1], b""):
        path.write_bytes(other)
        assert not seal.verify(path, salt, commitment)
    path.write_bytes(content)
    salt.write_text("00" * 32)
    assert not seal.verify(path, salt, commitment)


COMMITMENT = "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7"


def test_a_commitment_is_hmac_sha256(tmp_path):
    """As computed by openssl: `dgst -sha256 -mac HMAC` with a key of 32 bytes 0x0b."""
    (tmp_path / "suite.json").write_bytes(b"Hi There")
    (tmp_path / "salt").write_text("0b" * 32)
    assert seal.verify(tmp_path / "suite.json", tmp_path / "salt", COMMITMENT)


def test_what_is_no_commitment_is_told(tmp_path, capsys):
    write(tmp_path / "suite.json")
    words = ["variants", "verify", str(tmp_path / "suite.json"), "--commitment", COMMITMENT[:-1]]
    with pytest.raises(SystemExit, match="2"):
        commands.main(words)
    assert "63 characters, not the 64 hexadecimal digits" in capsys.readouterr().err


def test_a_suite_is_sealed_once(tmp_path):
    path, salt = tmp_path / "suite.json", tmp_path / "salt"
    write(path)
    seal.seal(path, salt)
    kept = salt.read_text()
    with pytest.raises(UserError, match="salt is there already"):
        seal.seal(path, salt)
    assert salt.read_text() == kept
    salt.write_text("no salt")
    with pytest.raises(UserError, match="no salt of 32 bytes"):
        seal.verify(path, salt, "00")
    salt.write_text(kept)
    with pytest.raises(UserError, match="cannot be read"):
        seal.verify(tmp_path / "none.json", salt, "00")
