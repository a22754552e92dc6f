"""`algoperf compare`: which runs there are, what is run again, and mistakes in what was asked."""

import dataclasses
import itertools
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import algoperf
from algoperf.cli import commands
from algoperf.data import validation_seed
from algoperf.errors import UserError
from algoperf.experiments.compare import request
from algoperf.machine import hardware
from algoperf.run_folder import run_log
from algoperf.study import run_plan, study
from algoperf.study.executors import local
from algoperf.study.request import RunRequest
from algoperf.submission import search_space

GOAL = {"metric": "accuracy", "higher_is_better": True, "validation": 0.97, "test": None}
COMPARE = ("compare", "digits", "--max-steps", "31", "--eval-every-steps", "10")


def test_runs_are_ordinary_ones_trial_by_trial(asked, tmp_path):
    words = "--techniques", "full,tanh", "--frameworks", "jax,pytorch", "--trials", "2"
    found = asked(tmp_path, *words, "--seed", "7", "--run-options", "--no-checkpoint --keep-going")
    assert [(run.arm.label, run.trial) for run in found.runs] == [
        (label, trial)
        for trial in (1, 2)
        for label in ("full jax", "full pytorch", "tanh jax", "tanh pytorch")
    ]
    folder = tmp_path / "mini-builtin" / "nadamw" / "study_0" / "digits_tanh_pytorch" / "trial_2"
    assert found.runs[-1].folder == folder
    command = found.runs[-1].command(tmp_path)
    assert command[:3] == ["run", "--no-checkpoint", "--keep-going"]
    options = dict(itertools.pairwise(command))
    given = {"--workload": "digits_tanh", "--framework": "pytorch", "--seed": "7"}
    given |= {"--until": "end", "--max-steps": "31", "--trials": "2", "--trial-range": "2:2"}
    assert options.items() >= given.items()


def test_all_runs_are_on_the_rows_of_one_secret(tmp_path):
    text = "a text for tests, known to all"
    secret = validation_seed.derive(text)
    run = RunRequest("ag_news", "nadamw", validation_seed=secret)
    asked = request.CompareRequest(run, frameworks=["jax", "pytorch"], out=tmp_path)
    plan = request.make(asked)
    assert plan.standard_input == text
    for each in plan.runs:
        assert each.experiment == f"mini-builtin-validation-{secret.short}"
        words = each.command(tmp_path)
        assert words[words.index("--validation-seed") + 1] == "-"
    assert text not in repr(plan)
    other = dataclasses.replace(run, validation_seed=None, experiment=plan.runs[0].experiment)
    for one, commitment in ((run, secret.commitment), (other, None)):
        made = run_plan.make(one)
        settings = study.asked_settings(made.trial, made.outline)
        assert settings.get("validation_commitment") == commitment


def test_lengths_and_sizes(asked, tmp_path):
    found = asked(tmp_path, "--batch-sizes", "32,64,32")
    assert [run.arm.label for run in found.runs] == ["batch 32 jax", "batch 64 jax"]
    assert [run.experiment for run in found.runs] == [
        "mini-builtin-batch-32",
        "mini-builtin-batch-64",
    ]
    found = asked(tmp_path, "--batch-sizes", "32,64", lengths=())
    assert (found.max_steps, found.eval_every_steps) == (600, 30)  # the step hint; a twentieth


def test_what_devices_divide(asked, tmp_path):
    """With none of it as the first row; how many devices there are is an option of each run."""
    words = ("--shards", "none,optimizer", "--frameworks", "pytorch", "--submissions", "adamw,lion")
    found = asked(tmp_path, *words, "--run-options=--devices 2")
    assert [run.arm.label for run in found.runs] == [
        "shard none adamw pytorch",
        "shard none lion pytorch",
        "shard optimizer adamw pytorch",
        "shard optimizer lion pytorch",
    ]
    assert [run.experiment for run in found.runs[::2]] == [
        "mini-builtin-shard-none",
        "mini-builtin-shard-optimizer",
    ]
    requests = [run.request for run in found.runs[::2]]
    assert [(each.shard, each.devices) for each in requests] == [("none", 2), ("optimizer", 2)]


MINE = """
from reference_algorithms import adamw
DEFAULTS = {**adamw.DEFAULTS, "betas": (0.9, 0.99)}
def torch_optimizer(params, hyperparameters, info): ...
"""


def test_several_submissions_are_run_in_the_framework_that_all_serve(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "submission.py").write_text(MINE.replace("torch", "jax"))
    found = asked(tmp_path, "--submissions", "mine.py,adamw", "--trials", "2")
    assert [(run.arm.label, run.trial) for run in found.runs] == [
        (label, trial) for trial in (1, 2) for label in ("mine pytorch", "adamw pytorch")
    ]
    folder = tmp_path / "mini-builtin" / "mine" / "study_0" / "digits_pytorch" / "trial_1"
    assert found.runs[0].folder == folder
    assert "--search-space" not in found.runs[0].words
    found = asked(tmp_path, "--submissions", "muon,adamw", "--frameworks", "pytorch,jax")
    assert [arm.label for arm in found.arms] == [
        *("muon pytorch", "muon jax", "adamw pytorch", "adamw jax")
    ]
    with pytest.raises(UserError, match=r"no framework .* \(mine: pytorch; other: jax\)"):
        asked(tmp_path, "--submissions", "mine.py,other")
    with pytest.raises(UserError, match=r"mine\.py does not serve jax; it serves: pytorch"):
        asked(tmp_path, "--submissions", "mine.py,adamw", "--frameworks", "jax")


def test_a_learning_rate_is_the_point_of_every_trial(asked, tmp_path, monkeypatch):
    """A space of one value each, from which the trial of any study draws that value."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    words = "--submissions", "mine.py,adamw", "--learning-rates", "0.003,1e20", "--trials", "2"
    found = asked(tmp_path, *words)
    assert [run.arm.label for run in found.runs[:4]] == [
        *("mine rate 0.003 pytorch", "mine rate 1e+20 pytorch"),
        *("adamw rate 0.003 pytorch", "adamw rate 1e+20 pytorch"),
    ]
    assert [run.experiment for run in found.runs[:2]] == [
        *("mini-builtin-rate-0.003", "mini-builtin-rate-1e20")
    ]
    first, again = found.runs[0], found.runs[4]
    assert not (tmp_path / "learning-rates").exists()
    option = dict(itertools.pairwise(again.command(tmp_path)))
    assert first.space == again.space
    assert option["--trials"] == "2"
    file = option["--search-space"]
    assert file == str(tmp_path / "learning-rates" / "mine-pytorch-0.003.json")
    space = search_space.read(file)
    assert space.size is None
    assert {search_space.point(space, 0, 0, trial)["learning_rate"] for trial in range(3)} == {
        0.003
    }
    assert space.names == ("learning_rate",)  # DEFAULTS fill in the rest


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("DEFAULTS = {'learning_rate': '1e-3'}", r"its learning_rate is '1e-3', not a number"),
        ("DEFAULTS = {'rate': 1}", r"mine has no learning_rate in its DEFAULTS, so it cannot"),
        ("DEFAULTS = {}\n1 / 0", r"mine\.py:3: ZeroDivisionError: division by zero"),
        ("DEFAULTS = {}\nimport os; os._exit(3)", r"ran its file ended with code 3"),
        ("DEFAULTS = {}\nprint('{\"point\": 1}')", r"mine has no learning_rate in its DEF"),
    ],
)
def test_submissions_whose_rate_is_not_known(asked, tmp_path, source, message):
    path = tmp_path / "mine.py"
    path.write_text(f"def torch_optimizer(params): ...\n{source}\n")
    with pytest.raises(UserError, match=message) as raised:
        asked(tmp_path, "--submission", str(path), "--learning-rates", "1,2")
    assert "\n" not in str(raised.value)


def test_numbers_are_shown_short_but_whole():
    values = (1.0, 1e10, 0.003, 1e-5, 0.1 + 0.2, 1234567.5, 32, "mine")
    assert list(map(request.setting_text, values)) == [
        *("1", "1e+10", "0.003", "1e-05", "0.30000000000000004", "1234567.5", "32", "mine")
    ]


def test_the_full_form_has_its_whole_point_at_another_rate(asked, tmp_path):
    path = tmp_path / "full.py"
    path.write_text(
        "import torch\nDEFAULTS = dict(learning_rate=0.1, beta=0.9)\n"
        "SEARCH_SPACE = {'learning_rate': {'feasible_points': [1]}}\n"
        "def init_optimizer_state(workload): ...\ndef update_params(batch): ...\n"
    )
    found = asked(tmp_path, "--submission", str(path), "--learning-rates", "1,2")
    assert json.loads(found.runs[1].space) == {
        "learning_rate": {"feasible_points": [2.0]},
        "beta": {"feasible_points": [0.9]},
    }


def test_runs_of_another_rate_are_not_taken(asked, tmp_path, ended):
    words = "--learning-rates", "0.003,0.01"
    digest = search_space.parse({"learning_rate": {"feasible_points": [0.01]}}, "").digest
    rate = "mini-builtin-rate-0.003"
    folder = ended(tmp_path, experiment=rate, flags={"search_space": digest})
    with pytest.raises(UserError, match=r"holds another configuration \(search_space: "):
        asked(tmp_path, *words)
    right = search_space.parse({"learning_rate": {"feasible_points": [0.003]}}, "").digest
    flags = run_log.read_json(folder / "flags_0.json") | {"search_space": right}
    run_log.write_json(folder / "flags_0.json", flags)
    assert [run.has_ended(tmp_path) for run in asked(tmp_path, *words).runs] == [True, False]


def torch_optimizer(params, hyperparameters):
    import torch

    return torch.optim.SGD(params.tensors(), lr=hyperparameters.learning_rate)


def test_functions_and_modules_and_names_side_by_side_from_python(tmp_path):
    from reference_algorithms import lion

    mine = {"torch_optimizer": torch_optimizer, "DEFAULTS": {"learning_rate": 0.1}}
    asked = {"may_run": False, "out": tmp_path, "learning_rates": [0.1, 1]}
    given = {"one": mine, "two": mine, "lion": lion, "adamw": "adamw"}
    frame = algoperf.compare("digits", submissions=given, **asked).frame()
    assert frame["submission"].tolist() == [name for name in given for _ in range(2)]
    assert frame["learning_rate"].tolist() == [0.1, 1.0] * 4
    assert set(frame["framework"]) == {"pytorch"}
    other = {**mine, "DEFAULTS": {"learning_rate": 0.2}}
    with pytest.raises(UserError, match=r"two submissions are named notebook, .*; rename one"):
        algoperf.compare("digits", submissions=[mine, other], **asked)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"submissions": "mine.py"}, "submissions is 'mine.py', expected a list"),
        ({"submissions": []}, "--submissions names nothing"),
        ({"submissions": ["adamw", len]}, "a submission has no 'len'; it has: jax_opt"),
        ({"learning_rates": 0.1}, "--learning-rates is 0.1, expected a list"),
        ({"learning_rates": "0.1,1"}, "--learning-rates is '0.1,1', expected a list"),
        ({"learning_rates": [0.1, "1"]}, "--learning-rates: '1' is not a finite number"),
        ({"learning_rates": [0.1, True]}, "--learning-rates: True is not a finite number"),
        ({"learning_rates": [0.1, -1]}, "--learning-rates: -1 is not a finite number above 0"),
        ({"learning_rates": [1, 2], "search_space": "x"}, "--learning-rates with --search-space"),
        ({"techniques": "full"}, "--techniques is 'full', expected a list"),
        ({"frameworks": ["jax", "pytorch"], "trials": 0}, "trials is 0, expected a whole"),
        ({"frameworks": ["jax", "pytorch"], "workers": 0}, "workers is 0, expected a whole"),
        ({"frameworks": ["jax", "pytorch"], "threads": 1.5}, "threads is 1.5, expected a"),
    ],
)
def test_mistakes_from_python(options, message, tmp_path):
    with pytest.raises(UserError) as raised:
        algoperf.compare("digits", out=tmp_path, **options)
    assert str(raised.value).startswith(message)


def test_names_of_techniques():
    variants = {"adapters": None, "lora": None, "prompt": None}
    news = types.SimpleNamespace(name="news", base=None, variants=variants)
    names = request.technique_names(news, ["full", "lora", "adapter", "adapters"])
    assert names == ["full", "lora", "adapters"]
    with pytest.raises(UserError, match=r"technique of news 'loar'; did you mean lora\? \(one of"):
        request.technique_names(news, ["loar"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "digits --techniques full,tanhh",
            "unknown technique of digits 'tanhh'; did you mean tanh?",
        ),
        ("digits --techniques ,", "--techniques names nothing"),
        ("digits --frameworks jax,tensorflow", "unknown framework 'tensorflow' (one of: jax,"),
        ("digits --batch-sizes 16,x", "--batch-sizes: 'x' is not a whole number of at least 1"),
        ("digits --batch-sizes 16,0", "--batch-sizes: '0' is not a whole number of at least 1"),
        ("digist --batch-sizes 16,32", "unknown workload 'digist'; did you mean digits?"),
        ("digits", "nothing to compare: give two or more"),
        ("digits --techniques tanh --frameworks jax", "nothing to compare: give two or more"),
        ("digits --techniques full,tanh --batch-sizes 16", "--techniques with --batch-sizes"),
        ("digits --shards none,both", "unknown --shards 'both'"),
        ("digits --shards none,optimizer", "--shard optimizer divides it among devices"),
        ("digits --shards none,optimizer --batch-sizes 8,16", "--batch-sizes with --shards"),
        (
            "digits --shards none,optimizer --run-options=--shard=parameters",
            "--shards with --shard parameters: every row has its own; leave it out",
        ),
        ("digits_tanh --techniques full,noisy", "--techniques: digits_tanh is a variant itself"),
        ("digits --batch-sizes 16,32 --trials 0", "'0' is not a whole number of at least 1"),
        ("digits --batch-sizes 16,32 --target nan", "--target nan is not a finite number"),
        ("digits --submissions ,", "--submissions names nothing"),
        ("digits --submissions adamw", "nothing to compare: give two or more"),
        ("digits --submissions adamw,adamw", "--submissions: adamw is named twice"),
        ("digits --submissions adamw,a/no.py", "submission a/no.py: no such file"),
        ("digits --submissions adamw,adamv", "unknown submission 'adamv'; did you mean adamw"),
        ("digits --submissions adamw,muon --submission lion", "--submission with --submissions"),
        ("digits --submissions adamw,muon --techniques full", "--techniques with --submissions"),
        ("digits --submissions adamw,muon --batch-sizes 8", "--batch-sizes with --submissions"),
        ("digits --learning-rates 1e-3", "nothing to compare: give two or more"),
        ("digits --learning-rates 1e-3,0.001", "--learning-rates: 0.001 is named twice"),
        ("digits --learning-rates 1e-3,nan", "'1e-3,nan' is not numbers with commas"),
        ("digits --learning-rates 1e-3,1e999", "'1e-3,1e999' is not numbers with commas"),
        ("digits --learning-rates 1e-3,0", "'1e-3,0' is not numbers above 0"),
        ("digits --learning-rates=-1,1", "'-1,1' is not numbers above 0"),
        ("digits --learning-rates 1e-3;1", "is not numbers with commas between"),
        (
            "digits --learning-rates 1e-3,1 --run-options=--tuning-ruleset=external",
            "--learning-rates with --tuning-ruleset: every run has a point of its own already",
        ),
        (
            "digits --submissions adamw,schedule_free_self_tuning --learning-rates 1e-3",
            "submission schedule_free_self_tuning has no learning_rate in its DEFAULTS",
        ),
        ("digits --batch-sizes 16,32 --submission adamww", "unknown submission 'adamww'"),
        ("digits --batch-sizes 16,32 --run-options=--seed=4", "--seed=4 cannot be given for all"),
        ("digits --batch-sizes 16,32 --run-options=--nope", "unrecognized arguments: --nope"),
        ("digits --batch-sizes 16,32 --data hub", "unknown data for digits 'hub'"),
        ("digits --batch-sizes 16,32 --scale ful", "unknown scale of digits 'ful'"),
    ],
)
def test_mistakes_get_one_line(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = commands.main(["compare", *words.split()])
    except SystemExit as ended:
        code = ended.code
    error = capsys.readouterr().err
    assert code == 2
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"max_steps": 50}, "max_steps: 50, now 31"),
        ({"target": GOAL | {"validation": 0.5}}, "target.validation: 0.5, now 0.97"),
    ],
)
def test_a_folder_that_other_settings_made(flags, told, tmp_path, capsys, ended):
    ended(tmp_path, flags=flags)
    words = [*COMPARE, "--out", str(tmp_path), "--frameworks", "jax,pytorch", "--no-run"]
    assert commands.main(words) == 2
    assert f"digits_jax: holds another configuration ({told}); use" in capsys.readouterr().err


def test_a_folder_that_takes_no_files(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    words = "--out", str(tmp_path / "file"), "--frameworks", "jax,pytorch", "--no-run"
    assert commands.main([*COMPARE, *words]) == 2
    error = capsys.readouterr().err
    assert error == f"algoperf: --out {words[1]}: a file, not a folder; give another folder\n"


def test_another_machine_may_show_what_has_ended_but_not_go_on(tmp_path, capsys, ended, undrawn):
    ended(tmp_path)
    ended(tmp_path, framework="pytorch", flags={"hardware": {"cpu": "another", "threads": 2}})
    words = [*COMPARE, "--out", str(tmp_path), "--frameworks", "jax,pytorch", "--no-run"]
    assert commands.main(words) == 0
    printed = capsys.readouterr().out
    assert "a processor, 4 threads | another, 2 threads" in printed
    assert "these ran on different machines: their times are not comparable" in printed
    assert commands.main([*words, "--trials", "2"]) == 0  # nothing is run here
    assert commands.main([*words[:-1], "--trials", "2"]) == 2
    assert "holds another configuration (hardware.cpu: " in capsys.readouterr().err


@pytest.fixture
def started(monkeypatch, ended, undrawn):
    """Every `algoperf run` that is started, as (framework, trial); it writes its folder at once."""
    found = []
    machine = this_machine()
    monkeypatch.setattr(hardware, "describe", lambda: dict(machine["hardware"]))

    def run(self, command, cores):
        words = command[command.index("run") :]
        option = dict(itertools.pairwise(words))
        found.append((option["--framework"], int(option["--trials"])))
        ended(Path(option["--out"]), option["--workload"], *found[-1], flags=machine)
        return types.SimpleNamespace(returncode=0, stdout="done\n", stderr="")

    monkeypatch.setattr(local.Processes, "run", run)
    return found


def this_machine():
    threads = {"threads": 1} if local.CAN_PIN else {}
    return {"hardware": {**hardware.describe(), **threads}, "versions": hardware.versions()}


def test_nothing_is_run_twice(tmp_path, started, capsys):
    words = [*COMPARE, "--out", str(tmp_path), "--frameworks", "jax,pytorch", "--threads", "1"]
    assert commands.main([*words, "--dry-run"]) == 0
    assert "2 runs, 2 to run, 1 threads each" in capsys.readouterr().out
    assert started == []
    assert not list(tmp_path.iterdir())
    assert commands.main(words) == 0
    assert started == [("jax", 1), ("pytorch", 1)]
    assert commands.main([*words, "--trials", "2"]) == 0
    assert started[2:] == [("jax", 2), ("pytorch", 2)]
    assert commands.main([*words, "--seeds", "2"]) == 0
    assert len(started) == 4
    capsys.readouterr()
    assert commands.main([*words, "--trials", "2", "--dry-run"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in listed[:-1]] == ["done  "] * 4
    assert listed[-1] == "4 runs, 0 to run, 1 threads each"


def test_a_failed_run_is_run_again(asked, tmp_path, started, ended):
    found = asked(tmp_path, "--frameworks", "jax,pytorch")
    folder = ended(tmp_path, status="failed", error={"cause": "no", "traceback": ""})
    jax, torch = found.runs
    assert (jax.folder, jax.has_ended(tmp_path)) == (folder, False)
    assert not torch.has_ended(tmp_path)
    assert "--retry-failed" in jax.command(tmp_path)
    ended(tmp_path, framework="pytorch", status="diverged")
    assert torch.has_ended(tmp_path)


def test_cores_are_shared_among_workers(monkeypatch):
    monkeypatch.setattr(local, "CAN_PIN", True)
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: {1, 3, 5, 7, 9}, raising=False)
    assert list(local._shares(2, 2)) == [{1, 3}, {5, 7}]
    assert list(local._shares(3, 1)) == [{1}, {3}, {5}]
    with pytest.raises(UserError, match=r"--workers 3 with 2 threads each: .* only 5 cores"):
        local._shares(3, 2)


@pytest.mark.slow
def test_frameworks_agree_on_digits(tmp_path):
    words = ["digits", "--frameworks", "jax,pytorch", "--max-steps", "30", "--out", "c", "--json"]
    command = [sys.executable, "-P", "-m", "algoperf", "compare", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (told,) = found["agreement"]
    assert told["same_rows"]
    assert told["step_0"] < 1e-6
    assert told["first_steps"] < 1e-5
    assert told["validation_loss"] < 1e-5
    for row in found["rows"]:
        (result,) = (tmp_path / "c").glob(
            f"*/nadamw/study_0/digits_{row['framework']}/*/result.json"
        )
        own = json.loads(result.read_text())
        measured = {name: each and each["median"] for name, each in row["measures"].items()}
        assert row["statuses"] == {"complete": 1}
        assert measured["steps"] == 30
        assert measured["metric"] == own["final"]["validation/accuracy"]
        assert measured["total_s"] == own["ledger"]["wall_s"]
        assert measured["step_s"] > 0
        assert measured["first_step_s"] == own["ledger"]["first_step_s"] > 0
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert json.loads(again.stdout)["rows"] == found["rows"]
    assert again.stderr == ""
