"""`algoperf check --workload`: its gates pass the documented example and find each breakage."""

import collections
import dataclasses
import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from algoperf.cli import commands
from algoperf.data.loading import load_data
from algoperf.errors import UserError
from algoperf.experiments.check import gates, parity, workload_child, workload_gates
from algoperf.experiments.check.gates import GateError, NotApplicableError
from algoperf.workload import Data, catalogue

ROOT = Path(__file__).resolve().parents[4]
SPIRALS = ROOT / "docs" / "examples" / "spirals"
CONV_NORM = ROOT / "tests" / "workloads" / "conv_norm"
COUNTS = {"any": 5, "jax": 11, "pytorch": 11, "both": 8}  # lines of a whole check


@pytest.fixture
def edited(tmp_path):
    """`edited({file: [(old, new), ...]})`: a copy of the example with mistakes in it."""

    def make(edits):
        folder = tmp_path / "spirals"
        shutil.copytree(SPIRALS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file, changes in edits.items():
            text = (folder / file).read_text()
            for old, new in changes:
                assert old in text
                text = text.replace(old, new)
            (folder / file).write_text(text)
        return folder

    return make


def test_the_command_prints_a_line_for_each_gate(capsys):
    assert commands.main(["check", "--workload", str(SPIRALS)]) == 0
    *lines, summary = capsys.readouterr().out.splitlines()
    assert summary == "32 ok, 0 failed, 3 skipped"
    assert collections.Counter(line.split()[0] for line in lines) == COUNTS
    assert "both     spirals  same training   ok" in lines
    assert "pytorch  spirals  traced rate     skipped  nothing is traced" in lines
    reason = "its rows are the same for everybody"
    assert f"any      spirals  validation seed skipped  {reason}" in lines


def verdicts_on(folder, skipped=()):
    """The verdicts by status, in this process."""
    verdicts = []
    asked = {"reference": str(folder), "scale": "mini", "source": "builtin"}
    asked |= {"source_kind": "builtin", "skipped": dict(skipped)}
    workload_child.check(asked, verdicts.append)
    assert collections.Counter(verdict.framework for verdict in verdicts) == COUNTS
    return {
        status: [verdict for verdict in verdicts if verdict.status == status]
        for status in ("ok", "failed", "skipped")
    }


def test_a_workload_with_batch_norm_passes():
    verdicts = verdicts_on(CONV_NORM)
    assert not verdicts["failed"]
    assert "same statistics" in {verdict.check for verdict in verdicts["ok"]}


@pytest.mark.parametrize(
    ("edits", "where", "reason"),
    [
        (
            {"__init__.py": [('"accuracy"', '"acuracy"')]},
            "any metrics",
            "unknown metric of workload spirals 'acuracy'; did you mean accuracy? (one of: "
            "accuracy, mean_average_precision, perplexity, pseudo_perplexity, ssim, wer, "
            "wer_as_published)",
        ),
        (
            {"model_torch.py": [("hidden_1", "layer_1")]},
            "both same parameters",
            "only the model in jax has hidden_1/bias, hidden_1/kernel; only the model in pytorch "
            "has layer_1/bias, layer_1/kernel",
        ),
        (
            {"model_torch.py": [("self.training))", "self.training))[:, None]")]},
            "pytorch logits",
            "logits have the shape (4, 1, 3) for targets of (4,); expected one axis more, of "
            "classes",
        ),
    ],
)
def test_a_mistake_is_one_line(edited, edits, where, reason):
    (verdict,) = verdicts_on(edited(edits))["failed"]
    assert f"{verdict.framework} {verdict.check}" == where
    assert verdict.reason == reason


def test_rows_that_do_not_load_fail_alone(edited):
    folder = edited({"data.py": [("np.sqrt(", "np.sqr(")]})
    verdicts = verdicts_on(folder)
    (verdict,) = verdicts["failed"]
    assert (verdict.framework, verdict.check, verdicts["ok"]) == ("any", "loads", [])
    assert verdict.reason.startswith(
        f"workload {folder}/data.py:16: AttributeError: module 'numpy'"
    )


def test_one_framework_is_checked_alone_and_says_so(edited, capsys):
    folder = edited({})
    (folder / "model_torch.py").unlink()
    verdicts = verdicts_on(folder, {"pytorch": "no model_torch.py in the folder"})
    assert (len(verdicts["ok"]), len(verdicts["failed"])) == (15, 0)
    reasons = {verdict.framework: verdict.reason for verdict in verdicts["skipped"]}
    assert reasons == {
        "any": "its rows are the same for everybody",
        "pytorch": "no model_torch.py in the folder",
        "both": "compares the frameworks: no model_torch.py in the folder",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "check takes a submission, or --workload FOLDER to check a workload"),
        (["--workload", "digits", "--workloads", "lm"], "--workloads goes with a submission"),
        (["adamw", "--scale", "mini"], "--scale goes with --workload alone"),
        (["--workload", "digits", "--scale", "fulll"], "unknown scale of digits 'fulll'"),
        (["--workload", "./nothing"], "workload nothing: no such folder"),
        (["adamw", "--workloads", ""], "--workloads names no workload"),
    ],
)
def test_a_mistake_in_what_is_asked(words, message, capsys):
    assert commands.main(["check", *words]) == 2
    assert capsys.readouterr().err.startswith(f"algoperf: {message}")


def test_a_submission_is_checked_on_a_folder(capsys):
    words = ["check", "adamw", "--framework", "jax", "--workload", str(SPIRALS), "--json"]
    assert commands.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert {each["workload"] for each in told["checks"]} == {"", "spirals"}
    assert (told["submission"], told["failed"]) == ("adamw", 0)


def subject(data=None, secret=("builtin", None), **changes):
    definition = catalogue.find(str(SPIRALS))
    scale = definition.scales["mini"]
    rows = load_data(definition, scale, "builtin")
    changed = dataclasses.replace(definition, **changes)
    return workload_gates.Subject(changed, scale, data or rows, lambda: rows, *secret)


def splits(**arrays):
    usual = {
        "inputs": np.zeros((200, 2), np.float32),
        "targets": np.zeros(200, np.int32),
    }
    return Data(dict.fromkeys(("train", "validation", "test"), usual | arrays))


MINI = catalogue.find(str(SPIRALS)).scales["mini"]


@pytest.mark.parametrize(
    ("gate", "asked", "message"),
    [
        (
            workload_gates.data,
            lambda: subject(splits(targets=np.zeros(9))),
            "differ in their numbers of rows",
        ),
        (
            workload_gates.data,
            lambda: subject(splits(inputs=np.zeros((200, 2)))),
            "train/inputs is float64; use 32 bits",
        ),
        (
            workload_gates.data,
            lambda: subject(splits(inputs=np.full((200, 2), np.nan, np.float32))),
            "train/inputs is not finite",
        ),
        (workload_gates.data, lambda: subject(splits()), "a second time, the rows are others"),
        (workload_gates.data, lambda: subject(Data({"train": {}})), r"splits \['train'\]"),
        (
            workload_gates.scales,
            lambda: subject(scales={"full": MINI}),
            "no scale 'mini'",
        ),
        (
            workload_gates.scales,
            lambda: subject(scales={"mini": dataclasses.replace(MINI, budget_s=0.1)}),
            "mini: budget_s 0.1, eval_every_s 0.1",
        ),
        (
            workload_gates.scales,
            lambda: subject(sources=("hub",)),
            "default_source 'builtin' is none of",
        ),
        (
            workload_gates.metrics,
            lambda: subject(target_metric="perplexity"),
            "unknown target metric of workload spirals 'perplexity'",
        ),
    ],
)
def test_facts_and_rows_that_are_wrong(gate, asked, message):
    with pytest.raises((GateError, UserError), match=message):
        gate(asked())


SEEDED = (
    ("noise: float)", "noise: float, validation_seed: int = 1)"),
    (
        "_points(generator, count, noise) for split",
        "_points(SEEDED, count, noise) for split",
    ),
)


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        ("np.random.default_rng([split != 'train' and validation_seed, len(split)])", None),
        ("np.random.default_rng([len(split)])", "validation rows are not others by the seed"),
        ("np.random.default_rng([validation_seed])", "train rows are not the same by the seed"),
        (
            "np.random.default_rng([split == 'validation' and validation_seed, len(split)])",
            "test rows are not others by the seed",
        ),
    ],
)
def test_rows_that_a_secret_draws(edited, generator, message):
    edits = [(old, new.replace("SEEDED", generator)) for old, new in SEEDED]
    definition = catalogue.find(str(edited({"data.py": edits})))
    scale = definition.scales["mini"]
    load = functools.partial(load_data, definition, scale, "builtin")
    asked = workload_gates.Subject(
        definition, scale, load(), load, "builtin", functools.partial(load, 2**255)
    )
    if message is None:
        workload_gates.secret_rows(asked)
    else:
        with pytest.raises(GateError, match=message):
            workload_gates.secret_rows(asked)


def unit_of(folder, **changes):
    """The example in PyTorch."""
    definition = dataclasses.replace(catalogue.find(str(folder)), **changes)
    scale = definition.scales["mini"]
    rows = gates.first_rows(load_data(definition, scale, "builtin"))
    return workload_gates.bind(definition, scale, "builtin", rows, "pytorch")


@pytest.mark.parametrize(
    ("edit", "gate", "message"),
    [
        (
            ("dropout_rate, self.training", "0.5, True"),
            workload_gates.evaluation,
            "another seed: the values differ",
        ),
        (("dropout_rate,", "0.5,"), workload_gates.dropout, "training at dropout 0"),
        (("dropout_rate,", "dropout_rate / 1e6,"), workload_gates.dropout, "changes logits by"),
        (("classes)", "classes - 1)"), workload_gates.logits, "target 2 of 2 classes"),
        (
            ("return self.head(", "return torch.nan * self.head("),
            workload_gates.logits,
            "not finite",
        ),
        (("self.head", "self.last"), workload_gates.output_layer, "of the output layer 'head'"),
    ],
)
def test_a_model_that_is_wrong(edited, edit, gate, message):
    unit = unit_of(edited({"model_torch.py": [edit]}))
    with pytest.raises(GateError, match=message):
        gate(unit)


def test_a_model_without_dropout_is_not_asked(edited):
    unit = unit_of(edited({"model_torch.py": [("dropout_rate,", "0.0,")]}))
    with pytest.raises(NotApplicableError, match="the model has no dropout"):
        workload_gates.dropout(unit)


def test_what_the_binding_gives_is_compared(monkeypatch):
    unit = unit_of(SPIRALS)
    monkeypatch.setattr(unit.bound, "step_hint", 7)
    with pytest.raises(GateError, match="step_hint is 7, not 300"):
        workload_gates.facts(unit)
    monkeypatch.undo()
    workload_gates.facts(unit)
    unit = unit_of(SPIRALS, initial_std=lambda name, shape, model: 1.0)
    wrong = dataclasses.replace(unit.definition, initial_std=lambda name, shape, model: 2.0)
    with pytest.raises(GateError, match=r"standard deviation .*, not 2"):
        workload_gates.initial_values(dataclasses.replace(unit, definition=wrong))


def pair_of(folder, steps=3):
    definition = catalogue.find(str(folder))
    scale = definition.scales["mini"]
    rows = gates.first_rows(load_data(definition, scale, "builtin"))
    return parity.bind(definition, scale, "builtin", rows, steps)


@pytest.mark.parametrize(
    ("edit", "gate", "message"),
    [
        (
            ("nn.Linear(2, width)", "nn.Linear(3, width)"),
            parity.parameters,
            r"hidden_0/kernel has the shape \(2, 64\) in jax and, in that layout, \(3, 64\) in pyt",
        ),
        (
            ("torch.relu(self.hidden_0(point_B2))", "torch.tanh(self.hidden_0(point_B2))"),
            parity.logits,
            "logits differ by .* of the largest, allowed 0.0001",
        ),
        (
            ("torch.relu(self.hidden_1(hidden))", "torch.relu(self.hidden_1(hidden.detach()))"),
            parity.gradients,
            "NoneType",
        ),
    ],
)
def test_models_that_differ(edited, edit, gate, message):
    pair = pair_of(edited({"model_torch.py": [edit]}))
    with pytest.raises((GateError, AttributeError), match=message):
        gate(pair)


def test_losses_that_part_and_values_that_are_not_carried_over(monkeypatch):
    pair = pair_of(SPIRALS)
    start = pair.torch.workload.init_model_fn

    def other(rng):
        return start((rng[0] + 1, rng[1]))

    monkeypatch.setattr(pair.torch.workload, "init_model_fn", other)
    with pytest.raises(GateError, match="after 0 steps of adamw the loss is"):
        parity.training(pair)
    with pytest.raises(GateError, match="/kernel at the start: the values differ"):
        parity.initial_values(pair)
    monkeypatch.undo()
    back = pair.torch.workload.to_neutral
    monkeypatch.setattr(
        pair.torch.workload,
        "to_neutral",
        lambda module: {name: value + np.float32(1e-7) for name, value in back(module).items()},
    )
    with pytest.raises(GateError, match="over to pytorch and back: the values differ"):
        parity.converter(pair)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1.0, 2.0], [1.0, 2.0003]), ([1.0, np.nan], [1.0, 2.0]), ([1.0], [1.0, 2.0])],
)
def test_close_is_as_close_as_asked(values, expected):
    values, expected = np.array(values), np.array(expected)
    with pytest.raises(GateError, match="it: "):
        gates.expect_close(values, expected, "it", rtol=1e-4)
    gates.expect_close(expected, expected * 1.00009, "it", rtol=1e-4)


def test_equal_is_bit_for_bit():
    one = np.array([1.0, np.nan], np.float32)
    gates.expect_equal(one.copy(), one, "it")
    for other in (np.nextafter(one, np.float32(2)), one.astype(np.float64)):
        with pytest.raises(GateError, match="it: the values differ"):
            gates.expect_equal(other, one, "it")
