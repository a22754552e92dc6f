"""Calibration: what is measured of run folders, and which class a machine is of."""

import io
import json

import pytest
from rich.console import Console

import algoperf
from algoperf.cli import calibrate_command
from algoperf.errors import UserError
from algoperf.experiments import calibrate
from algoperf.experiments.calibrate import CalibrateRequest
from algoperf.machine import class_file
from algoperf.machine.hardware_class import Key, Spread
from algoperf.run_folder import run_log
from algoperf.study import run_plan, study

DIGITS = Key("digits", "mini", "builtin")
MACHINE = {
    "hardware": {"cpu": "EPYC", "threads": 2, "accelerators": [], "system": "Linux x86_64"},
    "versions": {"python": "3.11.7"},
}
HERE = {**MACHINE, "environment": {}, "library_threads": "2"}
FLAGS = {
    "workload": "digits",
    "scale": "mini",
    "data": "builtin",
    "framework": "jax",
    "max_steps": 11,
    "eval_every_steps": 5,
    "batch_size": 64,
    "data_fingerprint": "f1",
    "submission_hash": "s1",
    **MACHINE,
}
# Clock, evaluation and step after each evaluation: the first step takes 4 s, the others .5, .25, 2
# s; the first evaluation 3 s, the others 1, 1.5 and, with the test split, 8 s.
ROWS = [(4.0, 3.0, 1), (6.0, 4.0, 5), (7.25, 5.5, 10), (9.25, 13.5, 11)]


def write_run(folder, rows=ROWS, *, contended=False, status="complete", **flags):
    folder.mkdir(parents=True)
    header = "accumulated_submission_time,accumulated_eval_time,global_step"
    lines = [header, *(",".join(map(str, row)) for row in rows), ""]
    (folder / run_log.EVALUATIONS).write_text("\n".join(lines))
    run_log.write_json(folder / "flags_0.json", FLAGS | flags)
    result = {
        "status": status,
        "contended": contended,
        "ledger": {"first_step_s": rows[0][0]},
        "error": {"cause": "it broke"} if status == "failed" else None,
    }
    run_log.write_json(folder / run_log.RESULT, result)
    return folder


def slower(factor):
    return [(factor * clock_s, factor * evaluation_s, step) for clock_s, evaluation_s, step in ROWS]


# What a run folder says


def test_the_first_step_and_the_first_and_last_evaluation_are_left_out(tmp_path):
    folder = write_run(tmp_path / "run")
    assert calibrate.step_times_s(folder) == [0.5, 0.25, 2.0]
    assert calibrate.evaluation_times_s(folder) == [1.0, 1.5]


def test_the_only_evaluation_after_the_first_counts(tmp_path):
    folder = write_run(tmp_path / "run", ROWS[:2])
    assert calibrate.evaluation_times_s(folder) == [1.0]


def test_the_spread_is_over_runs(tmp_path):
    """Medians of runs are 0.5, 1 and 1.5 s a step; 1.25, 2.5 and 3.75 s an evaluation."""
    folders = [write_run(tmp_path / f"{n}", slower(n)) for n in (3, 1, 2)]
    result = calibrate.measurement(folders)
    assert (result.key, result.framework, result.steps, result.batch_size) == (
        DIGITS,
        "jax",
        11,
        64,
    )
    assert (result.runs, result.contended) == (3, 0)
    assert result.step == Spread(1.0, 0.5, 1.5)
    assert result.evaluation == Spread(2.5, 1.25, 3.75)
    assert result.first_step == Spread(8.0, 4.0, 12.0)


def test_contended_runs_are_left_out_unless_all_are(tmp_path):
    quiet = write_run(tmp_path / "quiet")
    busy = [write_run(tmp_path / f"{n}", slower(n), contended=True) for n in (2, 4)]
    result = calibrate.measurement([busy[0], quiet, busy[1]])
    assert (result.runs, result.contended, result.step) == (3, 2, Spread(0.5, 0.5, 0.5))
    result = calibrate.measurement(busy)
    assert (result.runs, result.contended, result.step) == (2, 2, Spread(1.5, 1.0, 2.0))


@pytest.mark.parametrize("name", calibrate.WORK)
def test_other_work_has_another_digest(name):
    assert calibrate.work_digest(FLAGS | {name: "x"}) != calibrate.work_digest(FLAGS)


def test_the_machine_is_no_part_of_the_work():
    other = FLAGS | {"hardware": {"cpu": "x"}, "versions": {}, "study": 2}
    assert calibrate.work_digest(other) == calibrate.work_digest(FLAGS)


@pytest.mark.parametrize(
    ("hint", "budget_s", "steps"),
    # 5 times 6 s of a budget of 15 s for 600 steps is 1200 steps; a long step has at least ten.
    [(600, 15.0, 1200), (100, 3000.0, 10), (100, 100.0, 30), (100, 90.0, 35)],
)
def test_runs_are_as_long_on_every_machine(hint, budget_s, steps):
    assert calibrate.usual_steps(hint, budget_s) == steps


# Which class it is


def measured(tmp_path, name, factor=1.0):
    return calibrate.measurement([write_run(tmp_path / name, slower(factor))])


@pytest.fixture
def first(tmp_path):
    results = (measured(tmp_path, "first"),)
    path = tmp_path / "hardware_class.json"
    return calibrate.conclude(HERE, results, {DIGITS: 15.0}, None, "base", path).hardware_class


def conclude(tmp_path, factor, other, machine=HERE, name=None):
    results = (measured(tmp_path, f"times-{factor}", factor),)
    return calibrate.conclude(machine, results, {DIGITS: 15.0}, other, name, tmp_path / "x.json")


def test_the_first_class_stands_alone(first):
    assert (first.name, first.against, first.confirmations) == ("base", None, ())
    assert (first.machine, first.reference) == (HERE, "nadamw")
    assert first.budget(DIGITS).budget_s == 15.0


def test_measured_again_it_is_the_same_class(tmp_path, first):
    """Its times and budgets stay, so that runs of both files are pooled."""
    again = conclude(tmp_path, 1.04, first, name="ignored")
    assert again.joins
    assert (again.hardware_class.id, again.hardware_class.name) == (first.id, "base")
    assert again.hardware_class.measurements == first.measurements
    assert again.measurements[0].step.median_s == pytest.approx(0.52)
    third = conclude(tmp_path, 0.97, again.hardware_class)
    steps = [[ratio.step for ratio in ratios] for ratios in third.hardware_class.confirmations]
    assert steps == [[pytest.approx(1.04)], [pytest.approx(0.97)]]
    assert third.hardware_class.id == first.id


def test_a_slower_machine_has_longer_budgets(tmp_path, first):
    other = conclude(tmp_path, 2.0, first, name="slow")
    assert not other.joins
    assert other.hardware_class.name == "slow"
    assert other.hardware_class.budget(DIGITS).budget_s == pytest.approx(30.0)
    assert (other.hardware_class.against.name, other.hardware_class.against.id) == (
        "base",
        first.id,
    )
    # A third one is measured against the second: 1.5 times its step, 3 times the first one's.
    third = conclude(tmp_path, 3.0, other.hardware_class)
    assert third.ratios[0].step == pytest.approx(1.5)
    assert third.hardware_class.budget(DIGITS).factor == pytest.approx(3.0)


def test_other_versions_are_another_class_at_the_same_speed(tmp_path, first):
    newer = HERE | {"versions": {"python": "3.12.0"}}
    other = conclude(tmp_path, 1.01, first, newer)
    assert not other.joins
    assert other.differences == ("versions.python 3.12.0, not 3.11.7",)
    assert other.hardware_class.budget(DIGITS).factor == pytest.approx(1.01)
    assert other.hardware_class.name == "epyc-2-cores"


# The whole of it, with runs that end at once


@pytest.fixture
def trained(monkeypatch):
    """Runs end at once, a tenth slower from one to the next; the list of them."""
    runs = []

    def carry_out(self, observe):
        (number, _), *_ = self.chosen
        trial = self.trial
        runs.append((trial.workload, trial.framework, number, trial.max_steps, trial.threads))
        folder = calibrate._folder(self)
        keys = ("workload", "framework", "max_steps", "eval_every_steps")
        flags = {key: getattr(trial, key) for key in keys} | MACHINE
        write_run(folder, slower(1 + len(runs) / 10), **flags)
        return [run_log.read_result(folder)]

    monkeypatch.setattr(run_plan.RunPlan, "carry_out", carry_out)
    return runs


def test_workloads_run_in_turn_and_the_file_is_read_again(tmp_path, trained):
    out = tmp_path / "out"
    request = CalibrateRequest(["digits", "ag_news", "digits"], repeats=2, out=out)
    notes = []
    done = calibrate.calibrate(request, notes.append)
    hints = {"digits": 1200, "ag_news": 5 * round(6.0 * steps_of("ag_news"))}
    pairs = [(name, framework) for name in hints for framework in ("jax", "pytorch")]
    assert trained == [(*pair, repeat, hints[pair[0]], None) for repeat in (0, 1) for pair in pairs]
    assert notes[0] == "digits jax run 1 of 2: 0.55 s a step, 1.38 s an evaluation"
    # Of digits in jax, the runs 1 and 5: .5 s a step times 1.1 and 1.5.
    assert done.measurements[0].step == Spread(*map(pytest.approx, (0.65, 0.55, 0.75)))
    read = class_file.read(out / "hardware_class.json")
    assert read == done.hardware_class
    assert [(each.workload, each.budget_s) for each in read.budgets] == [
        ("digits", 15.0),
        ("ag_news", run_plan_scale("ag_news").budget_s),
    ]
    assert read.machine["hardware"] == MACHINE["hardware"]


def run_plan_scale(name):
    from algoperf.workload import catalogue

    return catalogue.find(name).scales["mini"]


def steps_of(name):
    scale = run_plan_scale(name)
    return scale.step_hint / scale.budget_s


def test_the_runs_of_another_class_are_repeated(tmp_path, trained):
    request = CalibrateRequest(["digits"], ["jax"], steps=40, repeats=1, out=tmp_path / "a")
    calibrate.calibrate(request, lambda _: None)
    against = str(tmp_path / "a" / "hardware_class.json")
    request = CalibrateRequest(["digits"], ["jax"], against=against, out=tmp_path / "b")
    calibrate.calibrate(request, lambda _: None)
    assert [steps for _, _, _, steps, _ in trained] == [40] * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workloads": ["ag_news"]}, "has no times of ag_news (mini, builtin) in jax; it has"),
        ({"frameworks": ["pytorch"]}, "has no times of digits (mini, builtin) in pytorch"),
        ({"steps": 50}, "measured digits (mini, builtin) in jax over 40 steps; leave --steps out"),
    ],
)
def test_what_another_class_has_not_measured_is_told_before_anything_runs(
    tmp_path, trained, changes, message
):
    request = CalibrateRequest(["digits"], ["jax"], steps=40, repeats=1, out=tmp_path / "a")
    calibrate.calibrate(request, lambda _: None)
    trained.clear()
    against = str(tmp_path / "a" / "hardware_class.json")
    given = {"workloads": ["digits"], "frameworks": ["jax"]} | changes
    request = CalibrateRequest(**given, against=against, out=tmp_path / "b")
    with pytest.raises(UserError) as raised:
        calibrate.calibrate(request, lambda _: None)
    assert message in str(raised.value)
    assert not trained


def test_a_finished_calibration_is_not_overwritten(tmp_path, trained):
    request = CalibrateRequest(["digits"], ["jax"], repeats=1, out=tmp_path)
    calibrate.calibrate(request, lambda _: None)
    with pytest.raises(UserError, match=r"is there; give another --out, and --against .*json to"):
        calibrate.calibrate(request, lambda _: None)
    assert len(trained) == 1


def test_a_reference_that_fails_gives_no_class(tmp_path, monkeypatch):
    def carry_out(self, observe):
        return [{"status": "failed", "error": {"cause": "it broke"}}]

    monkeypatch.setattr(run_plan.RunPlan, "carry_out", carry_out)
    request = CalibrateRequest(["digits"], ["jax"], steps=40, repeats=1, out=tmp_path)
    with pytest.raises(UserError, match="nadamw did not train 40 steps: it broke"):
        calibrate.calibrate(request, lambda _: None)
    assert not (tmp_path / "hardware_class.json").exists()


def test_runs_of_two_machines_make_no_class(tmp_path):
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", hardware={"cpu": "other"})]
    with pytest.raises(UserError, match=r"b: of another machine \(hardware\.accelerators .*cpu"):
        calibrate._machine(folders, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workloads": []}, "workloads names nothing"),
        ({"frameworks": []}, "frameworks names nothing"),
        ({"steps": 4}, "steps is 4, expected a whole number of at least 5"),
        ({"repeats": 0}, "repeats is 0, expected a whole number of at least 1"),
        ({"name": "a b"}, "name 'a b' of a class: expected letters"),
    ],
)
def test_what_cannot_be_asked(changes, message):
    with pytest.raises(UserError, match=message):
        CalibrateRequest(**{"workloads": ["digits"]} | changes)


# What is printed


def shown(parser, *words, note=lambda _: None):
    arguments = parser.parse_args(["calibrate", *words])
    console = Console(file=io.StringIO(), width=200)
    assert calibrate_command.run(arguments, "algoperf calibrate", console, note) == 0
    return console.file.getvalue()


def test_what_is_printed(tmp_path, trained, parser):
    words = ["--workloads", "digits", "--frameworks", "jax", "--repeats", "1", "--steps", "40"]
    text = shown(parser, *words, "--name", "base", "--out", str(tmp_path / "a"))
    first = class_file.read(tmp_path / "a" / "hardware_class.json")
    assert "digits    jax           40     1  0.55 (0.55-0.55)  1.38 (1.38-1.38)" in text
    assert f"a new class: base ({first.id}); its budgets are the workloads' own" in text
    against = ["--against", str(tmp_path / "a" / "hardware_class.json")]
    words = [*words[:6], *against, "--name", "slow", "--out", str(tmp_path / "b")]
    text = shown(parser, *words)  # The second run: 1.2 over 1.1.
    assert "digits    jax        1.091  1.091-1.091        1.09" in text
    assert "digits       15   1.091     16.36" in text
    assert f"another class than base ({first.id}): devices and versions are equal, but" in text
    assert "but a step of digits in jax takes 1.091 times what it took in that class" in text
    words[words.index("--against") + 1] = str(tmp_path / "b" / "hardware_class.json")
    words[-1] = str(tmp_path / "c")
    trained.clear()
    trained.append("a run before")
    text = shown(parser, *words)  # 1.2 again
    assert "the same class: slow" in text
    assert "digits       15   1.091     16.36" in text


def test_contended_runs_are_told(tmp_path):
    folder = write_run(tmp_path / "run", contended=True)
    results = (calibrate.measurement([folder]),)
    done = calibrate.conclude(HERE, results, {DIGITS: 15.0}, None, None, tmp_path / "x.json")
    assert calibrate_command.lines(done)[0].startswith("contended: in 1 of 1 runs others used")


def test_json(tmp_path, trained, parser):
    notes = []
    words = ("--workloads", "digits", "--json", "--out", str(tmp_path))
    text = shown(parser, *words, note=notes.append)
    assert notes[-2].startswith("a new class: epyc-2-cores")
    assert json.loads(text) == json.loads((tmp_path / "hardware_class.json").read_text())


def test_the_folder_of_a_run_is_that_of_its_study(tmp_path):
    request = CalibrateRequest(["digits"], ["jax"], repeats=2, out=tmp_path)
    (_, plan), (_, second) = calibrate._plans(request, None, "")
    assert calibrate._folder(second).parts[-3:] == ("study_1", "digits_jax", "trial_1")
    assert calibrate._folder(plan) == study.trial_folder(plan.trial, plan.outline)
    assert (plan.trial.until, plan.trial.checkpoints, plan.trial.eval_every_steps) == (
        "end",
        False,
        240,
    )


def test_from_python(tmp_path, trained):
    """The runs take 1.1 and 1.2 times as long: the second class has 12/11 of the first one's."""
    options = {"frameworks": ["jax"], "repeats": 1}
    first = algoperf.calibrate("digits", name="base", out=str(tmp_path / "a"), **options)
    assert (first.name, first.joins) == ("base", False)
    assert first.id == class_file.read(first.path).id
    second = algoperf.calibrate(["digits"], against=first.path, out=tmp_path / "b", **options)
    (row,) = second.frame().to_dict("records")
    assert (row["workload"], row["framework"], row["runs"]) == ("digits", "jax", 1)
    assert (row["step_s"], row["evaluation_low_s"]) == pytest.approx((0.6, 1.5))
    assert (row["step_ratio"], row["factor"]) == pytest.approx((12 / 11, 12 / 11))
    assert row["budget_s"] == pytest.approx(15 * 12 / 11)
    assert first.frame()["step_ratio"].isna().all()
    with pytest.raises(algoperf.UserError, match="unknown option 'framework'"):
        algoperf.calibrate("digits", framework="jax")


def test_a_folder_that_cannot_be_is_told_before_anything_runs(tmp_path, trained):
    (tmp_path / "file").touch()
    request = CalibrateRequest(["digits"], out=tmp_path / "file" / "out")
    with pytest.raises(UserError, match="--out"):
        calibrate.calibrate(request, lambda _: None)
    assert not trained
