"""A campaign that two machines share, one of which dies: each trial once, and none lost.

The machines are processes with names of their own: neither takes the other's locks for a sign of
life, as over a file system that keeps locks on each machine. What they run stands for `algoperf
run`: it locks the trial's folder as that does, goes on where an earlier one was killed, and says
each step that it does in a file that all share.
"""

import collections
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from algoperf.run_folder import run_log

MACHINE = """
import os, platform, sys
from algoperf.machine import claims
claims.machine_id = lambda: os.environ["TEST_MACHINE"]
platform.node = claims.machine_id
claims.STALE_S, claims.BEAT_S, claims.RELOOK_S = 4.0, 0.5, 1.0
look = claims.is_locked
claims.is_locked = lambda path: (
    look(path) and claims._owner(path).get("boot") == claims.machine_id()
)
"""
STARTER = f"""{MACHINE}
from algoperf.cli import commands
from algoperf.study.executors import executor, local
executor.POLL_S, executor.RETRY_S, local.CAN_PIN = 0.2, 1.0, False
local.PROGRAM = (sys.executable, "-P", sys.argv[1])
raise SystemExit(commands.main(sys.argv[2:]))
"""
RUN = f"""{MACHINE}
import fcntl, pathlib, time
from algoperf.errors import UserError
from algoperf.machine import supervision
from algoperf.run_folder import run_log
if "TEST_NO_LOCKS" in os.environ:
    fcntl.flock = lambda descriptor, operation: None
RESULT = {{"status": "reached", "target": {{"metric": "accuracy"}}}}
words = sys.argv[2:]
option = dict(zip(words[::2], words[1::2]))
folder = run_log.trial_folder(
    pathlib.Path(option["--out"]), option["--experiment"], option["--submission"], 0,
    option["--workload"], option["--framework"], 1,
)
try:
    with supervision.locked(folder):
        if run_log.read_result(folder) is None:
            steps = folder / "steps"
            for step in range(len(steps.read_text()) if steps.exists() else 0, 5):
                time.sleep(0.3)
                while step == 2 and (pathlib.Path(option["--out"]) / "gate").exists():
                    time.sleep(0.1)
                with steps.open("a") as file:
                    file.write(".")
                line = f"{{folder.relative_to(option['--out'])}} {{step}}\\n"
                with (pathlib.Path(option["--out"]) / "steps").open("a") as file:
                    file.write(line)
            run_log.write_json(folder / "result.json", RESULT)
except UserError as error:
    sys.stderr.write(f"algoperf: {{error}}\\n")
    sys.exit(2)
print(f"{{folder}}: reached on {{claims.machine_id()}}")
"""
NO_LOCKS = {"TEST_NO_LOCKS": "1"}  # that another machine would see
WORDS = ["--workload", "digits", "--submissions", "nadamw,adamw,momentum", "--seeds", "2"]


def start(tmp_path, machine, *words, **environment):
    (tmp_path / "run.py").write_text(RUN)
    program = [sys.executable, "-c", STARTER, str(tmp_path / "run.py"), "campaign", *words]
    return subprocess.Popen(
        program,
        env={**os.environ, "TEST_MACHINE": machine, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def trials(out):
    """How often each of the trials did each of its steps."""
    return collections.Counter((out / "steps").read_text().splitlines())


def die(machine):
    """All processes of a machine end at once."""
    for process in [*psutil.Process(machine.pid).children(recursive=True), machine]:
        process.send_signal(signal.SIGKILL)
    machine.communicate()


def wait_until(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not come")


@pytest.mark.slow
def test_two_machines_share_a_campaign_of_which_one_dies(tmp_path):
    out = tmp_path / "shared"
    first = start(tmp_path, "alpha", *WORDS, "--workers", "1", "--out", str(out), **NO_LOCKS)
    wait_until((out / "campaign.json").exists)
    second = start(tmp_path, "beta", "--join", str(out), "--workers", "1", **NO_LOCKS)
    held = []

    def is_at_work():
        """The second has done steps of a trial, which has not ended."""
        held[:] = [
            path
            for path in out.glob("*/*/*/*/.trial_1.claim-1")
            if '"host": "beta"' in path.read_text() and (path.parent / "trial_1" / "steps").exists()
        ]
        return len(held) == 1 and len(list(out.glob("*/*/*/*/trial_1/result.json"))) >= 2

    wait_until(is_at_work)
    die(second)
    (claim,) = held
    assert run_log.read_result(claim.parent / "trial_1") is None
    lines, _ = first.communicate(timeout=120)
    assert first.returncode == 0 or "Traceback" not in lines, lines
    ended = sorted(out.glob("*/*/*/*/trial_1/result.json"))
    assert len(ended) == 12
    done = {str(path.parent.relative_to(out)) for path in ended}
    assert trials(out) == {f"{trial} {step}": 1 for trial in done for step in range(5)}
    assert not list(out.glob("*/*/*/*/.*claim*"))
    taken = str(claim.parent.relative_to(out))
    assert f"{taken}/trial_1: reached on alpha" in lines
    elsewhere = lines.count("ended by another process")
    assert lines.count("reached on alpha") + elsewhere == 12
    assert elsewhere >= 1


def test_a_starter_that_is_killed_leaves_its_run_to_the_same_command(tmp_path):
    out = tmp_path / "out"
    words = ["--workload", "digits", "--submissions", "nadamw", "--frameworks", "jax"]
    words += ["--seeds", "1", "--workers", "1", "--out", str(out)]
    out.mkdir()
    (out / "gate").touch()
    first = start(tmp_path, "alpha", *words)
    wait_until(lambda: list(out.glob("*/*/*/*/trial_1/steps")))
    first.kill()
    first.wait()  # Its run still has its output.
    (out / "campaign.json").unlink()
    again = start(tmp_path, "alpha", *words)
    wait_until((out / "campaign.json").exists)
    time.sleep(0.5)
    (out / "gate").unlink()
    lines, _ = again.communicate(timeout=60)
    first.stdout.close()
    assert "digits_jax/trial_1: ended by another process" in lines
    assert sorted(trials(out).values()) == [1] * 5


def test_what_was_recorded_is_read_where_the_folder_is_seen_at_another_place(tmp_path):
    from algoperf.experiments import joining

    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (here / "mine.py").write_text("")
    outside = tmp_path / "outside.py"
    outside.write_text("")
    usual = dict.fromkeys(joining.SETTINGS)
    given = {**usual, "workload": "digits", "submissions": ["adamw", str(here / "mine.py")]}
    given["submissions"].append(str(outside))
    joining.record(here, given, None)
    here.rename(there)
    read = joining.settings(there)
    assert read == {
        **usual,
        "workload": "digits",
        "submissions": ["adamw", str(there / "mine.py"), str(outside)],
    }
    outside.unlink()
    with pytest.raises(joining.UserError, match=r"outside\.py is not on this machine"):
        joining.settings(there)


def test_a_campaign_that_cannot_be_joined(tmp_path, capsys):
    from algoperf.cli import commands

    def said(*words):
        assert commands.main(["campaign", *words]) == 2
        return capsys.readouterr().err

    assert "campaign needs --workload, or --join DIR" in said()
    assert "no campaign was begun there" in said("--join", str(tmp_path))
    assert "leave out --seeds" in said("--join", str(tmp_path), "--seeds", "5")
    assert "leave out --out" in said("--join", str(tmp_path), "--out", "there")
    (tmp_path / "campaign.json").write_text('{"workload": "digits"}')
    assert "campaign.json has no 'suite'" in said("--join", str(tmp_path))
    secret = "text:sixteen characters"
    words = ["--workload", "digits", "--submissions", "adamw", "--seeds", "1"]
    Path(tmp_path / "campaign.json").unlink()
    from algoperf.data import validation_seed
    from algoperf.experiments import joining

    parsed = vars(commands.parser.campaign_defaults()) | {"workload": words[1]}
    joining.record(tmp_path, parsed, validation_seed.resolve(secret))
    assert "sixteen" not in (tmp_path / "campaign.json").read_text()
    assert "drawn by a secret; give" in said("--join", str(tmp_path))
    other = "text:another seventeen chars"
    assert "not the secret" in said("--join", str(tmp_path), "--validation-seed", other)
