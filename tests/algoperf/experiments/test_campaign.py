"""Campaigns: which runs there are, what is run again, and what is told of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from algoperf.cli import commands
from algoperf.data import validation_seed
from algoperf.errors import UserError
from algoperf.experiments import campaign
from algoperf.experiments.held_out.curves import CurveBook
from algoperf.experiments.held_out.screening import Curve
from algoperf.machine import class_file
from algoperf.machine.hardware_class import Budget, HardwareClass, Measurement, Spread
from algoperf.run_folder import run_log
from algoperf.study import run_plan
from algoperf.study.executors import local
from algoperf.study.request import RunRequest
from algoperf.trial import default_point


@pytest.fixture
def runs(monkeypatch):
    """Every `algoperf run` that a campaign starts writes a result at once, unless it is to fail."""
    started: list[list[str]] = []

    def run(self, command, cores):
        words = command[command.index("run") :]
        started.append(words)
        values = [word for word in words if word != "--rerun-contended"]
        option = dict(zip(values[1::2], values[2::2], strict=True))
        if option["--seed"] == "13":
            return subprocess.CompletedProcess(
                command, 1, "", "Traceback:\n  x\nOSError: no disk\n"
            )
        trials = int(option.get("--trials", 1))
        for study in range(int(option.get("--studies", 1))):
            for trial in range(1, trials + 1):
                folder = run_log.trial_folder(
                    option["--out"], option["--experiment"], option["--submission"], study,
                    option["--workload"], option["--framework"], trial,
                )  # fmt: skip
                folder.mkdir(parents=True, exist_ok=True)
                run_log.write_json(
                    folder / run_log.RESULT,
                    {"status": "reached", "target": {"validation": 0.97}},
                )
        said = [f"study {study}: reached" for study in range(int(option.get("--studies", 1)))]
        return subprocess.CompletedProcess(command, 0, "\n".join([*said, "score them", ""]), "")

    monkeypatch.setattr(local.Processes, "run", run)
    monkeypatch.setattr(run_log, "trial_folder", _trial_folder(run_log.trial_folder))
    return started


def _trial_folder(real):
    return lambda out, *rest: real(Path(out), *rest)


@pytest.fixture
def write_class(tmp_path):
    """`write_class(factor)` writes a hardware class that has digits; returns it and its path."""

    def write(factor):
        second = Spread(1.0, 1.0, 1.0)
        key = ("digits", "mini", "builtin")
        times = Measurement(*key, "jax", 50, 64, "w1", 3, 0, second, second, second)
        machine = {"hardware": {}, "versions": {}, "environment": {}, "library_threads": "1"}
        budgets = (Budget(*key, factor, 15.0 * factor),)
        known = HardwareClass("slow", machine, "nadamw", (times,), budgets)
        path = tmp_path / f"class-{factor}.json"
        run_log.write_json(path, class_file.to_json(known))
        return known, str(path)

    return write


def test_a_leaderboard_in_a_hardware_class_has_a_folder_of_its_own(tmp_path, write_class):
    known, path = write_class(2.0)
    settings = (["digits"], ["nadamw"], ["jax"], "external", 1, 1)
    (entry,) = campaign.entries(*settings, hardware_class=path)
    words = entry.command(tmp_path)
    assert entry.experiment == "leaderboard-external-class-slow"
    assert words[words.index("--hardware-class") + 1] == path
    folder = entry.folder(tmp_path, 1)
    folder.mkdir(parents=True)
    run_log.write_json(folder / run_log.RESULT, {"target": {"validation": 0.97}})
    assert not entry.has_ended(tmp_path)  # of no class
    flags = {"hardware_class": {"name": "slow", "id": known.id}}
    run_log.write_json(folder / "flags_0.json", flags)
    assert entry.has_ended(tmp_path)
    # Another class of that name: `algoperf run` says so.
    (entry,) = campaign.entries(*settings, hardware_class=write_class(3.0)[1])
    assert not entry.has_ended(tmp_path)


def test_runs_for_a_target_are_of_no_class(tmp_path, capsys):
    words = ["campaign", "--workload", "digits", "--hardware-class", "x.json"]
    assert commands.main([*words, "--out", str(tmp_path)]) == 2
    assert "--hardware-class goes with --tuning-ruleset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("external", "--steps", "50"), "--steps goes without --tuning-ruleset"),
        (("self", "--until", "validation"), "--until goes without --tuning-ruleset"),
        (("self", "--targets", "0.9"), "--targets goes without --tuning-ruleset"),
        (
            ("external", "--learning-rate-factors", "1,3"),
            "--learning-rate-factors goes without --tuning-ruleset",
        ),
        (("self", "--trials", "2"), "--trials goes with --tuning-ruleset external"),
    ],
)
def test_what_a_leaderboard_would_ignore_is_refused(words, message, runs, tmp_path, capsys):
    asked = ["campaign", "--workload", "digits", "--tuning-ruleset", *words]
    assert commands.main([*asked, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not runs
    assert not (tmp_path / "out").exists()


def test_trials_of_a_study_need_a_ruleset(runs, tmp_path, capsys):
    words = ["campaign", "--workload", "digits", "--trials", "2", "--out", str(tmp_path / "out")]
    assert commands.main(words) == 2
    assert "--trials goes with --tuning-ruleset external" in capsys.readouterr().err


def test_a_leaderboard_is_evaluated_by_steps_if_asked(runs, tmp_path):
    words = ["campaign", "--workload", "digits", "--tuning-ruleset", "external", "--trials", "1"]
    words += ["--seeds", "1", "--submissions", "nadamw", "--frameworks", "jax"]
    assert commands.main([*words, "--eval-every-steps", "7", "--out", str(tmp_path)]) == 0
    (asked,) = runs
    assert asked[asked.index("--eval-every-steps") + 1] == "7"
    assert commands.main([*words, "--out", str(tmp_path / "by_time")]) == 0
    assert "--eval-every-steps" not in runs[-1]


@pytest.mark.parametrize("make", ["study", "job"])
def test_a_result_of_other_evaluations_is_left_to_the_run(make, runs, tmp_path):
    if make == "study":
        by_time = ("digits", ["adamw"], ["jax"], "external", 1, 1)
        (task,) = campaign.entries([by_time[0]], *by_time[1:], eval_every_steps=20)
        folder = task.folder(tmp_path, 1)
    else:
        (task,) = campaign.jobs("digits", ["adamw"], ["jax"], 1, [1.0], 5, 20)
        folder = task.folder(tmp_path)
    local.run([task], tmp_path, 1, lambda text: None)
    run_log.write_json(folder / "flags_0.json", {"eval_every_steps": 20})
    assert task.has_ended(tmp_path)
    other = campaign.dataclasses.replace(task, eval_every_steps=10)
    assert not other.has_ended(tmp_path)
    local.run([other], tmp_path, 1, lambda text: None)
    assert len(runs) == 2
    assert not any(map(run_log.is_aside, folder.iterdir()))


def test_a_leaderboard_has_every_algorithm_that_its_ruleset_is_for():
    external = campaign.entries(["digits", "ag_news"], [], ["jax", "pytorch"], "external", 3, 2)
    names = {entry.submission for entry in external}
    assert {"nadamw", "adamw", "momentum", "nesterov"} <= names
    assert not any(name.endswith("self_tuning") for name in names)
    assert {entry.trials for entry in external} == {3}
    first = external[: len(external) // 4]
    assert {(entry.study, entry.workload) for entry in first} == {(0, "digits")}
    own = campaign.entries(["digits"], [], ["jax"], "self", 3, 1)
    assert {entry.submission for entry in own} == {
        *("nadamw_self_tuning", "schedule_free_self_tuning")
    }
    assert {entry.trials for entry in own} == {1}


def test_what_has_a_result_is_not_run_again(runs, tmp_path):
    todo = campaign.entries(["digits"], ["nadamw", "adamw"], ["jax"], "external", 2, 2)
    told: list[str] = []
    assert local.run(todo, tmp_path, 1, told.append) == 0
    assert told == [f"leaderboard-external: study {study}: reached" for study in (0, 0, 1, 1)]
    assert len(runs) == 4
    local.run(todo, tmp_path, 1, told.append)
    assert len(runs) == 4
    gone = run_log.trial_folder(tmp_path, "leaderboard-external", "adamw", 1, "digits", "jax", 2)
    (gone / run_log.RESULT).unlink()
    local.run(todo, tmp_path, 1, told.append)
    assert len(runs) == 5
    assert runs[-1][:5] == ["run", "--workload", "digits", "--submission", "adamw"]


def test_contended_trials_are_run_again_on_request(runs, tmp_path):
    """One of four trials is contended: only its study is run again, by `algoperf run`."""
    words = (["digits"], ["nadamw"], ["jax"], "external", 2, 2)
    todo = campaign.entries(*words)
    (job,) = campaign.jobs("digits", ["nadamw"], ["jax"], 1, [1.0], 5, 5, rerun_contended=True)
    local.run([*todo, job], tmp_path, 1, lambda text: None)
    for folder in (todo[1].folder(tmp_path, 2), job.folder(tmp_path)):
        result = run_log.read_result(folder)
        run_log.write_json(folder / run_log.RESULT, {**result, "contended": True})
    local.run(todo, tmp_path, 1, lambda text: None)
    assert len(runs) == 3
    again = campaign.entries(*words, rerun_contended=True)
    assert [entry.has_ended(tmp_path) for entry in again] == [True, False]
    assert not job.has_ended(tmp_path)
    local.run([*again, job], tmp_path, 1, lambda text: None)
    assert len(runs) == 5
    assert all("--rerun-contended" in words for words in runs[3:])
    assert run_log.read_result(job.folder(tmp_path)) is not None  # the run moves it, not this
    assert all(each.has_ended(tmp_path) for each in (*again, job))


def test_a_result_of_another_target_is_left_to_the_run(runs, tmp_path):
    (entry,) = campaign.entries(["digits"], ["adamw"], ["jax"], "external", 1, 1)
    assert entry.target == 0.97
    local.run([entry], tmp_path, 1, lambda text: None)
    assert entry.has_ended(tmp_path)
    other = campaign.dataclasses.replace(entry, target=0.95)
    local.run([other], tmp_path, 1, lambda text: None)
    assert len(runs) == 2


def test_a_failed_run_says_why_and_is_run_again(runs, tmp_path):
    (job,) = campaign.jobs("digits", ["nadamw"], ["jax"], 1, [1.0], 5, 5)
    job = campaign.dataclasses.replace(job, seed=13)
    told: list[str] = []
    for _ in range(2):
        assert local.run([job], tmp_path, 1, told.append) == 1
    assert told == ["seed-13-rate-1-steps-5-end: OSError: no disk"] * 2


def test_another_learning_rate_is_a_point_of_its_own(tmp_path):
    (job,) = campaign.jobs("digits", ["nadamw"], ["jax"], 1, [100.0], 5, 5)
    words = job.command(tmp_path)
    (point,) = json.loads((tmp_path / "nadamw-rate-100.json").read_text())
    from reference_algorithms import nadamw

    assert point == {**nadamw.DEFAULTS, "learning_rate": 100 * nadamw.DEFAULTS["learning_rate"]}
    assert words[words.index("--search-space") + 1] == str(tmp_path / "nadamw-rate-100.json")


def test_points_are_written_before_anything_runs(runs, tmp_path, monkeypatch):
    """Two processes that wrote one at the same time took each other's file away."""
    order = []
    written, started = run_log.write_json, local.Processes.run
    monkeypatch.setattr(run_log, "write_json", lambda *a: (order.append(a[0].name), written(*a)))
    monkeypatch.setattr(local.Processes, "run", lambda *a: (order.append("run"), started(*a))[1])
    todo = campaign.jobs("digits", ["nadamw"], ["jax", "pytorch"], 2, [100.0], 5, 5)
    monkeypatch.setattr(local, "_shares", lambda workers, threads: iter([None] * workers))
    assert local.run(todo, tmp_path, 2, lambda text: None) == 0
    assert order[:4] == ["nadamw-rate-100.json"] * 4
    assert set(order[4:]) == {"run", "result.json"}


def test_an_algorithm_without_a_learning_rate_has_no_multiples(tmp_path):
    name = "schedule_free_self_tuning"
    (job,) = campaign.jobs("digits", [name], ["jax"], 1, [100.0], 5, 5)
    with pytest.raises(UserError, match=rf"{name} has no learning_rate in its DEFAULTS"):
        job.command(tmp_path)


MINE = """
DEFAULTS: dict = {"learning_rate": 0.5, "betas": (0.9, 0.99)}
def torch_optimizer(params, hyperparameters, info): ...
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with a submission's file, and with a folder of one that has a name of ours."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine.py", "algorithms/own/submission.py", "adamw/submission.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MINE)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "name"),
    [("mine.py", "mine"), ("algorithms/own", "own"), ("algorithms/own/submission.py", "own")],
)
def test_a_file_or_a_folder_has_a_row_by_its_name(mine, given, name, ended, monkeypatch, capsys):
    """Its runs reach 0.96 at step 11 and 0.975 at step 21; JAX it does not serve."""
    from algoperf.cli import commands

    started = []

    def run(self, command, cores):
        option = dict(zip(command[-20::2], command[-19::2], strict=True))
        started.append(option)
        ended(
            Path(option["--out"]), framework=option["--framework"], submission=name,
            experiment=option["--experiment"], target={"metric": "accuracy"},
        )  # fmt: skip
        printed = "digits: reached\n  seconds: 3\nruns are in out\n"
        return subprocess.CompletedProcess(command, 0, printed, "")

    monkeypatch.setattr(local.Processes, "run", run)
    words = ["campaign", "--workload", "digits", "--submissions", given, "--seeds", "2"]
    words += ["--steps", "31", "--targets", "0.97", "--workers", "1"]
    words += ["--learning-rate-factors", "0.5"]
    for _ in range(2):
        assert commands.main(words) == 0
        printed = capsys.readouterr().out.splitlines()
        assert printed[-1] == (f"target 0.97: {name} pytorch x0.5: 2 of 2 reached, steps [21, 21]")
    path = mine / given if given.endswith(".py") else mine / given / "submission.py"
    assert [each["--submission"] for each in started] == [str(path)] * 2
    assert json.loads((mine / "campaign" / f"{name}-rate-0.5.json").read_text()) == [
        {"learning_rate": 0.25}
    ]
    rows = (mine / "campaign" / "curves.csv").read_text().splitlines()
    assert rows[3] == f"digits,{name},pytorch,0.5,0,complete,21,0.975"
    assert len(rows) == 1 + 2 * 4


def test_a_leaderboard_takes_files_too(mine):
    (entry,) = campaign.entries(["digits"], ["mine.py"], ["jax", "pytorch"], "external", 2, 1)
    assert (entry.submission, entry.framework) == ("mine", "pytorch")
    words = entry.command(mine)
    assert words[words.index("--submission") + 1] == str(mine / "mine.py")
    folder = mine / "leaderboard-external" / "mine" / "study_0" / "digits_pytorch" / "trial_2"
    assert entry.folder(mine, 2) == folder


def test_all_reference_algorithms_are_ours_whatever_lies_here(mine):
    import reference_algorithms

    for todo in (
        campaign.jobs("digits", [], ["jax"], 1, [1.0], 5, 5),
        campaign.entries(["digits"], [], ["jax"], "external", 1, 1),
    ):
        sources = {each.submission: each.source for each in todo}
        assert sources["adamw"] == str(reference_algorithms.path("adamw"))
        assert sources["nadamw"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--submissions mine.py,algorithms/own,./mine.py", "mine is named twice"),
        ("--submissions adamw,adamw/submission.py", "adamw is named twice"),
        ("--submissions mine.py,other/mine.py", "two submissions are named mine"),
        ("--submissions mine", "unknown submission 'mine'; did you mean the file mine.py?"),
        ("--submissions mine.py --frameworks jax", "does not serve jax; it serves: pytorch"),
        ("--submissions ,", "names nothing"),
        ("--workload , --tuning-ruleset external", "--workload names nothing"),
        ("--submissions algorithms", "a folder without a submission.py"),
        ("--submissions mine.py --frameworks ,", "names nothing"),
        ("--submissions mine.py --learning-rate-factors 1,-1", "not numbers above 0"),
        ("--submissions mine.py --learning-rate-factors nan", "not numbers with commas"),
        ("--submissions mine.py --targets inf", "not numbers with commas"),
        (
            "--submissions bare.py --learning-rate-factors 2",
            "bare has no learning_rate in its DEFAULTS",
        ),
    ],
)
@pytest.mark.parametrize("ruleset", ["", " --tuning-ruleset external"])
def test_submissions_that_cannot_be_run(mine, words, message, ruleset, capsys):
    from algoperf.cli import commands

    if "bare" in words and ruleset:
        return  # a leaderboard has no factors
    for name in ("other/mine.py", "bare.py"):
        (mine / name).parent.mkdir(exist_ok=True)
        (mine / name).write_text(MINE.replace("learning_rate", "rate"))
    try:
        code = commands.main(["campaign", "--workload", "digits", *f"{words}{ruleset}".split()])
    except SystemExit as end:
        code = end.code
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1)
    assert message in error


def test_steps_to_a_target_by_seed():
    def rows(seed, values):
        fixed = {"submission": "a", "framework": "jax", "learning_rate_factor": 1.0, "seed": seed}
        return [{**fixed, "step": 10 * step, "value": value} for step, value in enumerate(values)]

    table = [*rows(0, [0.1, 0.6, 0.4, 0.7]), *rows(1, [0.1, 0.2]), *rows(2, [0.1, 0.1, 0.5])]
    assert campaign.steps_to(table, 0.5, True) == {"a jax x1": [10, None, 20]}
    assert campaign.steps_to(table, 0.1, False) == {"a jax x1": [0, 0, 0]}
    assert campaign.table(table, [0.5], True) == [
        "target 0.5: a jax x1: 2 of 3 reached, steps [10, 20]"
    ]


def test_a_framework_that_there_is_not(capsys):
    from algoperf.cli import commands

    assert (
        commands.main(["campaign", "--workload", "digits", "--frameworks", "jax,tensorflow"]) == 2
    )
    assert "unknown framework 'tensorflow' (one of: jax, pytorch)" in capsys.readouterr().err


def test_a_leaderboard_of_a_suite_is_to_be_scored_by_it(runs, tmp_path, capsys):
    from algoperf.cli import commands

    target = {"mini": {"builtin": {"validation": 0.97, "provenance": "by hand"}}}
    drawn = {"base": "digits", "changes": {"width": 2.0}, "targets": target}
    path = tmp_path / "my suite.json"
    path.write_text(json.dumps({"format": 1, "variants": {"digits_d0": drawn}}))
    words = ["--workload", "digits,digits_d0", "--suite", str(path), "--tuning-ruleset", "self"]
    words += ["--submissions", "nadamw", "--frameworks", "jax", "--seeds", "1"]
    out = str(tmp_path / "out")
    assert commands.main(["campaign", *words, "--out", out]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.endswith(f"score them with: algoperf score {out} --suite '{path}'")


@pytest.mark.parametrize(
    ("result", "starts_over"),
    [
        (None, False),  # It was stopped.
        ({"status": "failed", "error": {"outside": True}}, False),  # It was killed.
        ({"status": "failed", "error": {"outside": False}}, True),
    ],
)
def test_a_run_that_was_stopped_goes_on_from_its_checkpoint(tmp_path, result, starts_over):
    (job,) = campaign.jobs("digits", ["adamw"], ["jax"], 1, [1.0], 20, 10)
    folder = job.folder(tmp_path)
    (folder / "checkpoints").mkdir(parents=True)
    if result is not None:
        run_log.write_json(folder / run_log.RESULT, result)
    job.prepare(tmp_path)
    assert (folder / "checkpoints").exists() != starts_over
    assert (folder / "interrupted_0/checkpoints").exists() == starts_over


SECRETS = [None, "a text for tests, known to all", "another text for tests, known"]


def test_runs_of_another_secret_are_others(runs, tmp_path):
    """Their rows are; the secret itself stands in no command."""
    seeds = [None if secret is None else validation_seed.derive(secret) for secret in SECRETS]
    todo = [
        campaign.jobs("ag_news", ["adamw"], ["jax"], 1, [1.0], 5, 5, validation_seed=seed)[0]
        for seed in seeds
    ]
    assert len({job.folder(tmp_path) for job in todo}) == len(todo)
    for job, seed in zip(todo, seeds, strict=True):
        words = job.command(tmp_path)
        assert ("--validation-seed" in words) == (seed is not None)
        assert not any(str(secret) in " ".join(words) for secret in SECRETS)
    entries = [
        campaign.entries(["ag_news"], ["adamw"], ["jax"], "self", 1, 1, validation_seed=seed)[0]
        for seed in seeds
    ]
    for seed in seeds:
        commitment = {} if seed is None else {"validation_commitment": seed.commitment}
        for entry in entries:
            folder = entry.folder(tmp_path, 1)
            folder.mkdir(parents=True, exist_ok=True)
            target = {"target": {"validation": entry.target}}
            run_log.write_json(
                folder / run_log.RESULT, {"status": "reached", **target, **commitment}
            )
        assert [entry.has_ended(tmp_path) for entry in entries] == [each is seed for each in seeds]


def test_a_secret_goes_to_the_standard_input_of_each_run():
    code = "import sys; print('-'.join([*sys.argv[1:], sys.stdin.read()]))"
    processes = local.Processes(SECRETS[1])
    ended = [processes.run([sys.executable, "-c", code, str(run)], None) for run in range(2)]
    assert [each.stdout for each in ended] == [f"{run}-{SECRETS[1]}\n" for run in range(2)]


def test_the_point_of_a_submission_is_asked_without_the_secret(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(default_point, "_answer", lambda plan, _: asked.append(plan) or {})
    request = RunRequest("ag_news", "adamw", out=tmp_path, validation_seed=f"text:{SECRETS[1]}")
    plan = run_plan.make(request).trial
    assert plan.validation_seed == validation_seed.derive(SECRETS[1]).rows_seed
    default_point.default_point(plan)
    assert json.loads(asked[0])["validation_seed"] is None
    assert str(plan.validation_seed) not in asked[0] + repr(plan) + json.dumps(plan.settings())


def test_curves_of_another_secret_are_others(tmp_path):
    curve = Curve([1, 2], [0.1, 0.2], [2.0, 1.0], is_finite=True)
    book = CurveBook(tmp_path / "curves.json")
    jobs = [
        campaign.Job("ag_news", "nadamw", "jax", 0, 1.0, 2, 1, validation_seed=seed)
        for seed in (None, *map(validation_seed.derive, SECRETS[1:]))
    ]
    book.add([(jobs[0], {}, curve), (jobs[1], {}, curve)])
    again = CurveBook(tmp_path / "curves.json")
    assert [again.find(job, {}) is not None for job in jobs] == [True, True, False]
