"""Runs in a hardware class: their budgets, what they record, and what is refused."""

import json

import pytest

from algoperf.errors import UserError
from algoperf.machine import class_file, hardware_class
from algoperf.machine.hardware_class import Budget, HardwareClass, Key, Measurement, Spread
from algoperf.run_folder import run_log
from algoperf.study import run_plan, study
from algoperf.study.request import RunRequest
from algoperf.trial import assemble, choices
from algoperf.workload import catalogue

DIGITS = Key("digits", "mini", "builtin")
STEP = Spread(0.5, 0.4, 0.6)


def write_class(path, machine=None, factor=2.0, step=STEP):
    times = Measurement(*DIGITS, "jax", 50, 64, "w1", 3, 0, step, step, step)
    there = HardwareClass(
        "slow",
        hardware_class.describe() if machine is None else machine,
        "nadamw",
        (times,),
        (Budget(*DIGITS, factor, 15.0 * factor),),
    )
    run_log.write_json(path, class_file.to_json(there))
    return there


@pytest.fixture
def make(tmp_path):
    """`make(...)` is the plan of a run of nadamw on digits in the class of a file."""
    path = tmp_path / "class.json"
    there = write_class(path)

    def plan(**given):
        usual = {"workload": "digits", "submission": "nadamw", "hardware_class": str(path)}
        return run_plan.make(RunRequest(**usual | {"out": tmp_path / "runs"} | given))

    plan.path, plan.there = path, there
    return plan


def test_a_run_says_and_records_its_class_and_its_budget(make):
    plan = make()
    assert (
        f"hardware class slow ({make.there.id}): the budget of digits is 30 s, 2 times its own of "
        "15 s" in plan.notes
    )
    assert plan.trial.experiment == "mini-builtin-class-slow"
    named = {"name": "slow", "id": make.there.id}
    flags = run_log.with_hashes(study.asked_settings(plan.trial, plan.outline))
    assert flags["hardware_class"] == flags["pool"]["hardware_class"] == named
    without = run_log.with_hashes(
        study.asked_settings(make(hardware_class=None).trial, plan.outline)
    )
    assert "hardware_class" not in without["pool"]


@pytest.mark.parametrize(("ruleset", "budget_s"), [(None, 30.0), ("self", 45.0)])
def test_the_trial_ends_at_the_budget_of_the_class(make, ruleset, budget_s):
    """What the submission is told, the flags and the end are of one budget."""
    plan = make(tuning_ruleset=ruleset)
    trial = type(plan.trial).from_json(plan.trial.to_json())  # as its process reads it
    subject = assemble.look_up(trial)
    assert subject.scale.budget_s == 30.0  # which the workload is made of
    limits = choices.limits(trial, subject.scale)
    assert limits.budget_s == budget_s
    goal = choices.goal(trial, subject.definition, subject.scale)
    flags = choices.flags(trial, plan.outline, "f1", 64, goal, subject.scale, limits)
    assert flags["budget_s"] == budget_s
    step = {"median_s": 0.5, "low_s": 0.4, "high_s": 0.6}
    assert flags["class_times"] == {"budget_factor": 2.0, "work": "w1", "step": step}


def test_without_a_class_a_budget_is_the_workloads_own(make):
    trial = make(hardware_class=None).trial
    assert assemble.look_up(trial).scale == catalogue.find("digits").scales["mini"]
    assert (trial.budget_factor, trial.hardware_class, trial.class_times) == (1.0, None, {})
    assert trial.experiment == "mini-builtin"


def test_a_framework_without_times_has_the_budget_alone(make):
    trial = make(framework="pytorch").trial
    assert trial.class_times == {"budget_factor": 2.0}


def test_a_variant_takes_the_factor_of_its_base(make):
    (name, *_) = catalogue.find("digits").variants
    name = f"digits_{name}" if not name.startswith("digits") else name
    trial = make(workload=name).trial
    assert (trial.base_workload, trial.budget_factor) == ("digits", 2.0)


def test_a_run_that_is_not_of_the_class_is_refused(make):
    machine = hardware_class.describe()
    machine["hardware"] = machine["hardware"] | {"cpu": "another"}
    machine["versions"] = machine["versions"] | {"jax": "0.0"}
    there = write_class(make.path, machine)
    with pytest.raises(UserError) as raised:
        make()
    message = str(raised.value)
    assert message.startswith(
        f"--hardware-class {make.path}: this run is not of class {there}: hardware.cpu "
    )
    assert "not another; versions.jax" in message
    assert "not 0.0; give what the class has" in message
    assert "\n" not in message


def test_the_cores_of_a_run_are_compared(make):
    machine = hardware_class.describe(1)
    write_class(make.path, machine)
    assert make(threads=1).trial.budget_factor == 2.0
    machine = hardware_class.describe()
    cores = machine["hardware"]["threads"]
    write_class(make.path, machine | {"hardware": machine["hardware"] | {"threads": cores + 1}})
    with pytest.raises(UserError, match=f"hardware.threads {cores}, not {cores + 1}; give"):
        make()


def test_a_workload_that_was_not_measured_is_told(make):
    with pytest.raises(UserError) as raised:
        make(workload="ag_news")
    assert "slow" in str(raised.value)
    assert "has no budget of ag_news (mini, builtin); it has digits (mini, builtin)" in str(
        raised.value
    )


def test_a_file_that_is_no_class(make, tmp_path):
    with pytest.raises(UserError, match="no hardware class"):
        make(hardware_class=str(write(tmp_path / "other.json")))


def write(path):
    path.write_text(json.dumps({"a": 1}))
    return path


def test_a_folder_holds_runs_of_one_class(make, tmp_path):
    plan = make(experiment="mine")
    folder = study.trial_folder(plan.trial, plan.outline)
    flags = run_log.with_hashes(study.asked_settings(plan.trial, plan.outline))
    run_log.TrialLog(folder, (), ()).begin(flags, {}, None)
    run_log.check_same_configuration(folder, flags)
    for other in (make(experiment="mine", hardware_class=None), _in_another(make)):
        settings = study.asked_settings(other.trial, other.outline)
        with pytest.raises(UserError, match=r"holds another configuration .*hardware_class"):
            run_log.check_same_configuration(folder, settings)


def _in_another(make):
    write_class(make.path, factor=3.0)
    return make(experiment="mine")
