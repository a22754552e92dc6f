"""`algoperf compare`: which runs there are, what is run again, and mistakes in what was asked."""

import itertools
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from algoperf.cli import commands
from algoperf.errors import UserError
from algoperf.experiments.compare import request
from algoperf.machine import hardware
from algoperf.study.executors import local

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


def test_lengths_and_sizes(asked, tmp_path):
    found = asked(tmp_path, "--batch-sizes", "32,64,32")
    assert [run.arm.label for run in found.runs] == ["batch 32 jax", "batch 64 jax"]
    assert [run.experiment for run in found.runs] == [
        "mini-builtin-batch-32",
        "mini-builtin-batch-64",
    ]
    found = asked(tmp_path, "--batch-sizes", "32,64", lengths=())
    assert (found.max_steps, found.eval_every_steps) == (600, 30)  # the step hint; a twentieth


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
        ("digits --techniques ,", "--techniques: ',' names nothing"),
        ("digits --frameworks jax,tensorflow", "unknown framework 'tensorflow' (one of: jax,"),
        ("digits --batch-sizes 16,x", "--batch-sizes: 'x' is not a whole number of at least 1"),
        ("digits --batch-sizes 16,0", "--batch-sizes: '0' is not a whole number of at least 1"),
        ("digist --batch-sizes 16,32", "unknown workload 'digist'; did you mean digits?"),
        ("digits", "nothing to compare: give two or more"),
        ("digits --techniques tanh --frameworks jax", "nothing to compare: give two or more"),
        ("digits --techniques full,tanh --batch-sizes 16", "--techniques with --batch-sizes"),
        ("digits_tanh --techniques full,noisy", "--techniques: digits_tanh is a variant itself"),
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
