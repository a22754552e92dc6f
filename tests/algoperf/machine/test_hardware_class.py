"""Hardware classes: ratios and budgets worked out by hand, and every kind of file that is none."""

import copy
import dataclasses
import json
import sys

import pytest

from algoperf.errors import UserError
from algoperf.machine import class_file, hardware_class
from algoperf.machine.hardware_class import (
    Against,
    Budget,
    HardwareClass,
    Key,
    Measurement,
    Ratio,
    Spread,
)

DIGITS = Key("digits", "mini", "builtin")
AG_NEWS = Key("ag_news", "mini", "builtin")
MACHINE = {
    "hardware": {"cpu": "EPYC", "threads": 2, "accelerators": [], "system": "Linux x86_64"},
    "versions": {"python": "3.11.7", "jax": "0.10.2"},
    "environment": {},
    "library_threads": "2",
}


def measured(step_s=0.5, key=DIGITS, framework="jax", work="w1", evaluation_s=2.0):
    """The step's lowest is .9 of the median, its highest 1.2 times."""
    return Measurement(
        *key,
        framework,
        steps=50,
        batch_size=64,
        work=work,
        runs=3,
        contended=1,
        step=Spread(step_s, 0.9 * step_s, 1.2 * step_s),
        evaluation=Spread(evaluation_s, evaluation_s, evaluation_s),
        first_step=Spread(1.5, 1.0, 2.0),
    )


def of(*measurements, factors=None, machine=MACHINE, against=None, name="two-cores"):
    factors = factors or {DIGITS: 1.0}
    budgets = tuple(Budget(*key, factor, 15.0 * factor) for key, factor in factors.items())
    return HardwareClass(name, machine, "nadamw", measurements, budgets, against)


@pytest.fixture
def document():
    ratio = Ratio(*DIGITS, "jax", 2.0, 1.5, 2.5, 1.0)
    there = of(measured(), against=Against("one", "abc", (ratio,)))
    there = dataclasses.replace(there, confirmations=((ratio,),))
    return json.loads(json.dumps(class_file.to_json(there)))


@pytest.fixture
def written(tmp_path):
    def write(value):
        path = tmp_path / "hardware_class.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write


# Ratios and budgets


def test_a_ratio_and_how_far_it_may_be_off():
    (ratio,) = hardware_class.ratios([measured(1.0, evaluation_s=6.0)], of(measured(0.5)))
    # .9 / (1.2 x .5) and 1.2 / (.9 x .5)
    assert dataclasses.astuple(ratio)[4:] == pytest.approx((2.0, 1.5, 8 / 3, 3.0))
    assert (ratio.key, ratio.framework) == (DIGITS, "jax")


def test_no_ratio_without_times_of_the_same_work():
    with pytest.raises(UserError) as raised:
        hardware_class.ratios([measured(framework="pytorch")], of(measured()))
    message = "no times of digits (mini, builtin) in pytorch; it has digits (mini, builtin) in jax"
    assert message in str(raised.value)
    with pytest.raises(UserError, match=r"did other work on .* digest w1.* w2\)"):
        hardware_class.ratios([measured(work="w2")], of(measured()))


def test_a_budget_is_one_for_both_frameworks_and_goes_on_from_the_others():
    """Steps take 2 and 8 times as long: 4 in the geometric mean, on top of 1.5 there."""
    there = of(measured(0.5), measured(0.1, framework="pytorch"), factors={DIGITS: 1.5})
    ours = [measured(1.0), measured(0.8, framework="pytorch")]
    ratios = hardware_class.ratios(ours, there)
    (budget,) = hardware_class.budgets({DIGITS: 15.0}, ratios, there)
    assert budget == Budget(*DIGITS, pytest.approx(6.0), pytest.approx(90.0))


def test_budgets_keep_to_their_workload():
    there = of(measured(), measured(key=AG_NEWS), factors={DIGITS: 1.0, AG_NEWS: 2.0})
    ratios = hardware_class.ratios([measured(1.5), measured(0.25, key=AG_NEWS)], there)
    budgets = hardware_class.budgets({DIGITS: 10.0, AG_NEWS: 100.0}, ratios, there)
    assert [(each.key, each.factor, each.budget_s) for each in budgets] == [
        (DIGITS, pytest.approx(3.0), pytest.approx(30.0)),
        (AG_NEWS, pytest.approx(1.0), pytest.approx(100.0)),
    ]


def test_the_first_class_has_the_workloads_own_budgets():
    assert hardware_class.budgets({DIGITS: 15.0}) == (Budget(*DIGITS, 1.0, 15.0),)


@pytest.mark.parametrize(
    ("step", "same"), [(1.0, True), (1.049, True), (1.051, False), (0.953, True), (0.951, False)]
)
def test_one_class_is_within_5_percent_either_way(step, same):
    ratios = [Ratio(*DIGITS, "jax", each, each, each, 9.0) for each in (1.0, step)]
    assert hardware_class.is_same(copy.deepcopy(MACHINE), ratios, of(measured())) is same


@pytest.mark.parametrize("part", ["hardware", "versions", "environment"])
def test_another_machine_is_no_member_whatever_its_times(part):
    other = copy.deepcopy(MACHINE)
    other[part]["jax"] = "0.11"
    assert not hardware_class.is_same(other, [], of(measured()))


def test_what_two_machines_differ_in_is_named():
    other = copy.deepcopy(MACHINE)
    other["hardware"] |= {"threads": 1, "accelerators": ["H200"]}
    other["environment"]["XLA_FLAGS"] = "x"
    other["library_threads"] = "1"
    assert hardware_class.differences(other, MACHINE) == [
        "environment.XLA_FLAGS x, not none",
        "hardware.accelerators ['H200'], not none",
        "hardware.threads 1, not 2",
        "library_threads 1, not 2",
    ]
    assert hardware_class.differences(MACHINE, copy.deepcopy(MACHINE)) == []


# Its name, id and description


@pytest.mark.parametrize(
    ("hardware", "name"),
    [
        ({"cpu": "AMD EPYC", "threads": 2, "accelerators": []}, "amd-epyc-2-cores"),
        ({"cpu": "x", "threads": 8, "accelerators": ["NVIDIA H200"] * 2}, "2x-nvidia-h200"),
        ({"cpu": "®", "threads": "®", "accelerators": []}, "cores"),
    ],
)
def test_the_usual_name_can_be_a_folders(hardware, name):
    assert hardware_class.usual_name({"hardware": hardware}) == name
    assert hardware_class.check_name(name) == name


def test_a_name_that_cannot_be():
    with pytest.raises(UserError, match="name 'a/b' of a class: expected letters"):
        hardware_class.check_name("a/b")


def test_the_id_is_that_of_all_but_confirmations():
    first = of(measured())
    confirmed = dataclasses.replace(first, confirmations=((Ratio(*DIGITS, "jax", 1, 1, 1, 1),),))
    assert first.id == of(measured()).id == confirmed.id
    assert len({first.id, of(measured(0.51)).id, of(measured(), name="b").id}) == 3


def test_this_machine_with_fewer_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    for name in ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XLA_FLAGS", "--a")
    here = hardware_class.describe(1)
    assert here["hardware"]["threads"] == 1
    assert here["library_threads"] == "1"
    assert here["environment"]["XLA_FLAGS"] == "--a"
    assert here["versions"]["python"] == sys.version.split()[0]
    assert hardware_class.describe()["library_threads"] == "3"


def test_what_a_trial_records():
    there = of(measured(), factors={DIGITS: 2.0})
    step = {"median_s": 0.5, "low_s": 0.45, "high_s": 0.6}
    assert there.recorded(DIGITS, "jax") == {"budget_factor": 2.0, "work": "w1", "step": step}
    assert there.recorded(DIGITS, "pytorch") == {"budget_factor": 2.0}


# The file


def test_what_is_written_is_read(written, document):
    read = class_file.read(written(document))
    assert json.loads(json.dumps(class_file.to_json(read))) == document
    assert (read.name, read.id, read.against.id) == ("two-cores", document["id"], "abc")
    assert read.measurement(DIGITS, "jax") == measured()
    assert read.measurement(DIGITS, "pytorch") is None
    assert read.budget(DIGITS).budget_s == 15.0
    assert read.budget(AG_NEWS) is None
    assert str(read) == f"two-cores ({document['id']})"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", 'no hardware class; expected an object with "format": 1'),
        ("{}", 'no hardware class; expected an object with "format": 1'),
        ('{"format": 2}', "format 2 is not known here, 1 is; calibrate anew"),
    ],
)
def test_a_file_of_something_else(written, text, message):
    with pytest.raises(UserError) as raised:
        class_file.read(written(text))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: cannot be read \(No such file"):
        class_file.read(tmp_path / "none.json")


NO_NUMBER = "expected a finite number above 0"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["name"], 3, "name is 3, expected a text"),
        (["name"], "a b", "name is 'a b', expected letters"),
        (["machine"], [], "machine is list, expected an object"),
        (["machine", "versions"], "x", "machine.versions is 'x', expected an object"),
        (["machine", "library_threads"], 2, "machine.library_threads is 2, expected a text"),
        (["reference"], None, "reference is None, expected a text"),
        (["measurements"], {}, "measurements is dict, expected a list"),
        (["measurements"], [], "measurements is empty, expected at least one"),
        (["measurements", 0], "x", "measurements[0] is 'x', expected an object"),
        (["measurements", 0, "scale"], "", "measurements[0].scale is '', expected a text"),
        (["measurements", 0, "steps"], 0, "measurements[0].steps is 0, expected a whole number"),
        (["measurements", 0, "runs"], True, "measurements[0].runs is True, expected a whole"),
        (["measurements", 0, "contended"], 4, "measurements[0].contended is 4, expected at most"),
        (["measurements", 0, "step"], 1, "measurements[0].step is 1, expected an object"),
        (
            ["measurements", 0, "step", "low_s"],
            "1",
            f"measurements[0].step.low_s is '1', {NO_NUMBER}",
        ),
        (
            ["measurements", 0, "step", "low_s"],
            0.0,
            f"measurements[0].step.low_s is 0.0, {NO_NUMBER}",
        ),
        (
            ["measurements", 0, "step", "high_s"],
            float("inf"),
            f"measurements[0].step.high_s is inf, {NO_NUMBER}",
        ),
        (
            ["measurements", 0, "evaluation", "low_s"],
            3.0,
            "measurements[0].evaluation is not low_s <= median_s <= high_s",
        ),
        (["budgets"], None, "budgets is None, expected a list"),
        (["budgets"], [], "budgets has 0 entries of digits (mini, builtin), expected one"),
        (["budgets", 0, "factor"], float("nan"), f"budgets[0].factor is nan, {NO_NUMBER}"),
        (["budgets", 0, "factor"], True, f"budgets[0].factor is True, {NO_NUMBER}"),
        (["against"], 1, "against is 1, expected an object"),
        (["against", "id"], 1, "against.id is 1, expected a text"),
        (["against", "ratios", 0, "low"], -1, f"against.ratios[0].low is -1, {NO_NUMBER}"),
        (["confirmations"], None, "confirmations is None, expected a list"),
        (["confirmations", 0], 1, "confirmations[0] is 1, expected a list"),
        (["confirmations", 0, 0, "step"], None, f"confirmations[0].step is None, {NO_NUMBER}"),
    ],
)
def test_a_damaged_entry_is_named(written, document, place, value, message):
    *way, last = place
    inside = document
    for name in way:
        inside = inside[name]
    inside[last] = value
    path = written(document)
    with pytest.raises(UserError) as raised:
        class_file.read(path)
    assert str(raised.value).startswith(f"{path}: {message}")
    assert "\n" not in str(raised.value)


def test_an_entry_twice(written, document):
    document["measurements"] *= 2
    with pytest.raises(UserError, match=r"measurements\[1\] is of digits .* in jax a second time"):
        class_file.read(written(document))
    document["measurements"] = document["measurements"][:1]
    document["budgets"] *= 2
    with pytest.raises(UserError, match=r"budgets has 2 entries of digits \(mini, builtin\)"):
        class_file.read(written(document))


def test_a_file_that_was_edited(written, document):
    """The id is of what was measured: a budget that somebody has raised is none."""
    document["budgets"][0]["factor"] = 3.0
    with pytest.raises(UserError, match="was changed since it was measured: its id is"):
        class_file.read(written(document))
