"""What `algoperf status` reads from run folders that are written here by hand."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from algoperf.cli import commands
from algoperf.errors import UserError
from algoperf.machine import claims, supervision
from algoperf.run_folder import run_log
from algoperf.study import status

TARGET = {"metric": "accuracy", "validation": 0.97, "higher_is_better": True}
COMMAND = "algoperf run --workload digits --submission nadamw"
PLANNED = [
    {
        "experiment": "mini-builtin",
        "submission": "nadamw",
        "workload": "digits",
        "framework": "jax",
        "studies": 1,
        "first": 1,
        "last": 5,
    }
]


def write(out, trial, *, rows=(), result=None, flags=None, planned=PLANNED, saved=False):
    """One trial's folder; `rows` are step, clock, wall time and accuracy of its evaluations."""
    folder = run_log.trial_folder(out, "mini-builtin", "nadamw", 0, "digits", "jax", trial)
    folder.mkdir(parents=True)
    settings = {"target": TARGET, "budget_s": 15.0, "max_steps": None, **(flags or {})}
    run_log.write_json(folder / "flags_0.json", settings)
    run_log.write_json(folder / "meta_data_0.json", {"command": COMMAND, "planned": planned})
    columns = "accumulated_submission_time,total_duration,global_step,validation/accuracy\n"
    lines = [f"{clock_s},{wall_s},{step},{value}\n" for step, clock_s, wall_s, value in rows]
    (folder / run_log.EVALUATIONS).write_text(columns + "".join(lines))
    if saved:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints/step_000000020_00000000.safetensors").touch()
    if result is not None:
        whole = {"steps": 40, "time_to_target_s": None, "error": None}
        ledger = {"submission_s": 4.0, "wall_s": 12.0}
        run_log.write_json(
            folder / run_log.RESULT, {**settings, **whole, "ledger": ledger, **result}
        )
    return folder


def ended(out, trial, state="reached", planned=PLANNED, **changes):
    rows = [(40, 4.0, 6.0, 0.98)]
    return write(out, trial, rows=rows, planned=planned, result={"status": state, **changes})


@pytest.fixture
def study(tmp_path):
    """Two trials that ended, one that goes on, one that was interrupted, one that waits."""
    out = tmp_path / "runs"
    ended(out, 1, time_to_target_s=4.0)
    ended(out, 2, "budget")
    running = write(out, 3, rows=[(1, 0.5, 1.0, 0.1), (20, 5.0, 10.0, 0.9), (30, 5.5, 11.0, 0.8)])
    write(out, 4, rows=[(1, 1.0, 1.5, 0.1), (20, 10.0, 15.0, 0.5)], saved=True)
    with supervision.locked(running):
        yield out


def test_what_ran_runs_and_waits_and_how_long(study):
    trials = status.read(study)
    assert [(trial.trial, trial.state) for trial in trials] == [
        (1, "reached"),
        (2, "budget"),
        (3, "running"),
        (4, "interrupted"),
        (5, "waiting"),
    ]
    running, interrupted, waiting = trials[2:]
    assert (running.step, running.clock_s, running.value) == (30, 5.5, 0.9)
    # Of 15 s of the clock 9.5 are left, at two seconds of wall time each; 5 at 1.5; then a trial
    # like the two that ended, of 12 s.
    assert (running.left_s, interrupted.left_s, waiting.left_s) == (19.0, 7.5, 12.0)
    assert status.left_s(trials) == 38.5
    assert status.counts(trials) == {
        **dict.fromkeys(("reached", "budget", "running", "interrupted", "waiting"), 1)
    }
    assert (interrupted.note, interrupted.command) == ("goes on from its checkpoint", COMMAND)
    assert not waiting.folder.exists()


@pytest.mark.parametrize("below", ["", "mini-builtin", "mini-builtin/nadamw/study_0/digits_jax"])
def test_any_folder_above_the_trials_will_do(study, below):
    assert len(status.read(study / below)) == 5


def test_a_trial_alone(study):
    (trial,) = status.read(study / "mini-builtin/nadamw/study_0/digits_jax/trial_2")
    assert trial.group == ("mini-builtin", "nadamw", "digits", "jax")


def test_the_table_fits_in_80_columns(study, capsys):
    assert commands.main(["status", str(study)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 or "go on with" in lines[-1]
    assert lines[0] == "nadamw on digits in jax (mini-builtin)"
    rows = [line.split() for line in lines if line.strip()[:1] == "0"]
    assert rows == [
        ["0", "1", "reached", "40", "4.0", "of", "15", "0.9800"],
        ["0", "2", "missed", "40", "4.0", "of", "15", "0.9800"],
        ["0", "3", "running", "30", "5.5", "of", "15", "0.9000", "19", "s"],
        ["0", "4", "interrupted", "20", "10.0", "of", "15", "0.5000", "8", "s"],
        ["0", "5", "waiting", "12", "s"],
    ]
    assert "  study 0 trial 4: goes on from its checkpoint" in lines
    assert lines[-2:] == [
        "5 trials: 1 reached, 1 missed, 1 running, 1 interrupted, 1 waiting; about 38 s left, one "
        "after the other, less where targets are reached",
        f"go on with: {COMMAND}",
    ]


def test_as_json(study, capsys):
    assert commands.main(["status", str(study), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["left_s"] == 38.5
    assert described["counts"]["waiting"] == 1
    assert [trial["state"] for trial in described["trials"]][3:] == ["interrupted", "waiting"]
    assert described["trials"][0]["time_to_target_s"] == 4.0


def test_a_run_limited_in_steps_has_the_pace_of_its_steps(tmp_path):
    rows = [(10, 2.0, 5.0, 0.5), (20, 4.0, 9.0, 0.5)]
    write(tmp_path, 1, rows=rows, flags={"max_steps": 50}, planned=[])
    (trial,) = status.read(tmp_path)
    assert (trial.budget_s, trial.max_steps, trial.left_s) == (None, 50, 12.0)  # 30 x 0.2 s x 2
    assert trial.note == "no checkpoint: starts over"


def test_an_older_folder_and_one_that_began_again(tmp_path):
    """Without a plan nothing waits; the tenth beginning is newer than the ninth."""
    folder = write(tmp_path, 1, planned=None, rows=[(1, 0.5, 1.0, 0.1)])
    assert len(status.read(tmp_path)) == 1
    for number in (2, 9, 10):
        planned = [{**PLANNED[0], "last": number}]
        run_log.write_json(folder / f"meta_data_{number}.json", {"planned": planned})
    assert len(status.read(tmp_path)) == 10


def test_what_is_kept_of_earlier_trials_is_none(tmp_path):
    folder = ended(tmp_path, 1)
    run_log.set_aside(folder, "replaced")
    run_log.write_json(folder / "flags_0.json", {"target": TARGET, "budget_s": 15.0})
    states = [trial.state for trial in status.read(tmp_path)]
    assert states == ["interrupted"]


def damage_result(folder):
    (folder / run_log.RESULT).write_text("{")


def damage_flags(folder):
    (folder / run_log.RESULT).unlink()
    (folder / "flags_0.json").write_text("[]")


def damage_rows(folder):
    (folder / run_log.EVALUATIONS).write_bytes(b"global_step,x\n\xff\xfe,2\n")


def damage_status(folder):
    damaged = json.loads((folder / run_log.RESULT).read_text()) | {"status": "done"}
    run_log.write_json(folder / run_log.RESULT, damaged)


def damage_types(folder):
    run_log.write_json(folder / run_log.RESULT, {"status": "reached", "budget_s": [], "target": 3})


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (damage_result, "result.json is not whole"),
        (damage_flags, "no flags_<n>.json that is whole"),
        (damage_rows, "cannot be read (UnicodeDecodeError: "),
        (damage_status, "unknown status 'done'"),
        (damage_types, "cannot be read (AttributeError: "),
        (empty, "no files"),
    ],
)
def test_a_damaged_folder_is_one_line(tmp_path, capsys, damage, note):
    damage(write(tmp_path, 1, planned=[], result={"status": "reached"}))
    write(tmp_path, 2, planned=[], result={"status": "failed", "error": {"cause": "KeyError: 'x'"}})
    assert commands.main(["status", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    about = [line for line in lines if line.startswith("  study 0 trial ")]
    assert about[0].startswith(f"  study 0 trial 1: {note}")
    assert about[1:] == ["  study 0 trial 2: KeyError: 'x'"]
    assert lines[-1] == "2 trials: 1 failed, 1 damaged"


def test_a_trial_that_has_just_begun_is_running(tmp_path):
    folder = write(tmp_path, 1, planned=[])
    for path in folder.iterdir():
        path.unlink()
    with supervision.locked(folder):
        (trial,) = status.read(tmp_path)
    assert (trial.state, trial.note, trial.left_s) == ("running", "starts", None)


def test_looking_writes_nothing_and_does_not_hinder_a_run(tmp_path, monkeypatch):
    folder = ended(tmp_path, 1, planned=[])
    before = {path: path.stat() for path in tmp_path.rglob("*")}
    status.read(tmp_path)
    after = {path: path.stat() for path in tmp_path.rglob("*")}
    assert {path: (s.st_mtime_ns, s.st_size) for path, s in after.items()} == {
        path: (s.st_mtime_ns, s.st_size) for path, s in before.items()
    }
    # A run that begins while `status` looks waits for that moment.

    looking = os.open(folder, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(claims.time, "sleep", lambda _: os.close(looking))
    with supervision.locked(folder):
        assert supervision.is_locked(folder)
    assert not supervision.is_locked(folder)


def test_where_nothing_is(tmp_path, capsys):
    with pytest.raises(UserError, match="no trial of a run is below it"):
        status.read(tmp_path)
    assert commands.main(["status", str(tmp_path / "no")]) == 2
    assert capsys.readouterr().err == f"algoperf: status {tmp_path}/no: no such folder\n"
    (tmp_path / "file").touch()
    assert commands.main(["status", str(tmp_path / "file")]) == 2


def test_no_framework_is_loaded(study):
    code = (
        "import sys; from algoperf.cli import main; main(['status', sys.argv[1]]); "
        "print('LOADED', *sys.modules)"
    )
    root = str(Path(__file__).parents[3])
    words = [sys.executable, "-c", code, str(study)]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, cwd=root).stdout
    loaded = {name.partition(".")[0] for name in shown.partition("LOADED ")[2].split()}
    assert "5 trials" in shown
    assert not loaded & {"jax", "jaxlib", "flax", "optax", "torch", "pandas", "sklearn", "scipy"}
