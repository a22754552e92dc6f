"""Disks that fill up, turn read-only or vanish, and files that come back damaged: what was measured
stays, one line says what is wrong, and the same command goes on.

The disks are small tmpfs, mounted in a mount namespace of their own; where that is not allowed,
these tests are skipped.
"""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from algoperf.run_folder import run_log, writing
from algoperf.run_folder.checkpoint import Checkpoints
from algoperf.trial import preservation

pytestmark = pytest.mark.slow
STEPS = 24
# Where a file for every step is on the disk, there is no room left at that step.
SUBMISSION = """
import contextlib, os, pathlib, shutil

import torch

from algoperf import spec

DISK = pathlib.Path(os.environ.get("DISK", "nowhere"))
FAULTS = dict(word.split(":") for word in os.environ.get("FAULTS", "").split())


def take_space():
    with contextlib.suppress(OSError), (DISK / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def take_names():
    (DISK / "names").mkdir(exist_ok=True)
    with contextlib.suppress(OSError):
        for number in range(10**6):
            (DISK / "names" / str(number)).touch()


def give_names():
    shutil.rmtree(DISK / "names")


def remove_runs():
    shutil.rmtree(DISK / "runs")


def init_optimizer_state(model_params):
    return torch.optim.SGD(model_params.parameters(), 0.1, momentum=0.9)


def data_selection(input_queue):
    return next(input_queue)


def update_params(workload, current_param_container, model_state, batch, optimizer_state,
                  global_step, rng):
    if str(global_step) in FAULTS:
        globals()[FAULTS[str(global_step)]]()
    optimizer_state.zero_grad()
    logits, _ = workload.model_fn(
        current_param_container, batch, model_state, spec.ForwardPassMode.TRAIN, rng, True
    )
    loss = workload.loss_fn(batch["targets"], logits)
    (loss["summed"] / loss["n_valid_examples"]).backward()
    optimizer_state.step()
    return optimizer_state, current_param_container, model_state
"""


class Disk:
    """A tmpfs that only the commands given to `run` see at `path`; the tests see it at `seen`."""

    def __init__(self, path: Path, options: str):
        self.path = path
        mount = 'mount -t tmpfs -o "$0" tmpfs "$1" && echo mounted && exec cat'
        for way in (["--mount"], ["--user", "--map-root-user", "--mount"]):
            self._holder = subprocess.Popen(
                ["unshare", *way, "sh", "-c", mount, options, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            if self._holder.stdout.readline() == "mounted\n":
                break
            refusal = self._holder.communicate()[1].strip()
        else:
            pytest.skip(f"a tmpfs cannot be mounted here: {refusal}")
        self._enter = ["nsenter", f"--target={self._holder.pid}", "--mount"]
        if "--user" in way:
            self._enter += ["--user", "--preserve-credentials"]
        self.seen = Path(f"/proc/{self._holder.pid}/root{path}")

    def remount(self, how):
        words = ["mount", "-o", f"remount,{how}", str(self.path)]
        subprocess.run([*self._enter, *words], check=True)

    def run(self, *arguments, **environment):
        return run(self.path, *arguments, before=self._enter, **environment)

    def end(self):
        self._holder.communicate()  # the end of its input is its end, and the disk's


@pytest.fixture
def make_disk(tmp_path):
    disks = []

    def make(options):
        (tmp_path / "disk").mkdir()
        disks.append(Disk(tmp_path / "disk", options))
        return disks[-1]

    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("there is no unshare or nsenter")
    yield make
    for disk in disks:
        disk.end()


@pytest.fixture(scope="module")
def submission(tmp_path_factory):
    path = tmp_path_factory.mktemp("submission") / "filling.py"
    path.write_text(SUBMISSION)
    return path


def run(disk, submission, before=(), **environment):
    """Run the command with its runs on the disk; return (code, output, complaints)."""
    words = ["--workload", "digits", "--framework", "pytorch", "--submission", str(submission)]
    words += ["--max-steps", str(STEPS), "--eval-every-steps", "1", "--out", f"{disk}/runs"]
    ended = subprocess.run(
        [*before, sys.executable, "-P", "-m", "algoperf", "run", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "DISK": str(disk), **environment},
        timeout=500,
    )
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stdout, ended.stderr


def folder_of(disk):
    return disk / "runs/mini-builtin/filling/study_0/digits_pytorch/trial_1"


def rows(disk):
    """The whole rows of the evaluations, without their clocks."""
    path = folder_of(disk) / run_log.EVALUATIONS
    lines = path.read_text().splitlines(keepends=True)
    clocks = ("accumulated", "score", "total_duration", "preemption_count")
    return [
        {name: value for name, value in row.items() if not name.startswith(clocks)}
        for row in csv.DictReader(line for line in lines if line.endswith("\n"))
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, submission):
    """The rows of a run to which nothing happens."""
    disk = tmp_path_factory.mktemp("undisturbed")
    code, _, complaints = run(disk, submission)
    assert code == 0, complaints
    assert len(rows(disk)) == STEPS
    return rows(disk)


@pytest.fixture(scope="module")
def killed(tmp_path_factory, submission):
    """A run of two checkpoints, of steps 19 and 20, that was killed after the second."""
    disk = tmp_path_factory.mktemp("killed")
    code, said, _ = run(disk, submission, ALGOPERF_KILL_AT="checkpoint kept#20")
    assert code == 1
    assert "was ended by SIGKILL" in said
    return disk


def check_goes_on(ended, disk, undisturbed):
    code, said, complaints = ended
    assert code == 0, complaints
    assert "complete after " in said
    assert rows(disk) == undisturbed
    assert not (folder_of(disk) / "checkpoints").exists()
    assert run_log.read_result(folder_of(disk))["status"] == "complete"


def check_unwritable(ended, disk, reason):
    code, said, complaints = ended
    assert code == writing.UNWRITABLE
    assert said == ""
    assert complaints.splitlines()[-1] == (
        f"algoperf: {folder_of(disk)} cannot be written ({reason}); what was written before is "
        "intact, and the same command goes on with it"
    )


# Full


def test_full_at_checkpoints_and_at_the_result(make_disk, submission, undisturbed):
    """A file more than the disk has room for: rows still fit, new files do not."""
    disk = make_disk("size=64m,nr_inodes=60")
    faults = "8:take_names 12:give_names 20:take_names"
    ended = disk.run(submission, FAULTS=faults)
    check_unwritable(ended, disk.path, "No space left on device")
    said = "a checkpoint could not be written (No space left on device); the run goes on"
    assert ended[2].count(said) == 1
    assert rows(disk.seen) == undisturbed
    names = sorted(path.name for path in (folder_of(disk.seen) / "checkpoints").iterdir())
    assert [name[:14] for name in names] == ["step_000000019", "step_000000020"]
    assert not list(folder_of(disk.seen).glob("*result*"))
    shutil.rmtree(disk.seen / "names")
    ended = disk.run(submission)
    check_goes_on(ended, disk.seen, undisturbed)
    assert "goes on from step 20" in ended[2]


def test_full_at_a_row(make_disk, submission, undisturbed):
    disk = make_disk("size=64m")
    ended = disk.run(submission, FAULTS="10:take_space")
    check_unwritable(ended, disk.path, "No space left on device")
    measured = rows(disk.seen)
    assert 10 <= len(measured) < STEPS
    assert measured == undisturbed[: len(measured)]
    assert not (folder_of(disk.seen) / "result.json").exists()
    (disk.seen / "filler").unlink()
    ended = disk.run(submission)
    check_goes_on(ended, disk.seen, undisturbed)
    assert "goes on from step 10" in ended[2]


# Read-only, and gone


def test_read_only(make_disk, submission, undisturbed, killed):
    disk = make_disk("size=64m")
    shutil.copytree(killed / "runs", disk.seen / "runs")
    disk.remount("ro")
    before = {path: path.read_bytes() for path in disk.seen.rglob("*") if path.is_file()}
    check_unwritable(disk.run(submission), disk.path, "Read-only file system")
    assert {path: path.read_bytes() for path in disk.seen.rglob("*") if path.is_file()} == before
    disk.remount("rw")
    check_goes_on(disk.run(submission), disk.seen, undisturbed)
    disk.remount("ro")
    code, said, complaints = disk.run(submission)
    assert (code, "done before (complete), skipped" in complaints) == (0, True)
    assert "complete after" in said


def test_a_folder_that_vanishes(tmp_path, submission, undisturbed):
    ended = run(tmp_path, submission, FAULTS="10:remove_runs")
    check_unwritable(ended, tmp_path, "No such file or directory")
    assert not (tmp_path / "runs").exists()
    check_goes_on(run(tmp_path, submission), tmp_path, undisturbed)


# Damaged


def test_a_checkpoint_truncated_at_every_page(killed, tmp_path):
    """The older one is used, whole; without it, none."""
    shutil.copytree(folder_of(killed), tmp_path / "trial")
    log = run_log.TrialLog(tmp_path / "trial", (), ())
    older, newer = sorted((tmp_path / "trial/checkpoints").iterdir())
    whole = newer.read_bytes()
    (arrays, document), (arrays_before, document_before) = Checkpoints(log.folder).read()
    # They are read as they are asked for, and the newer file is about to be damaged.
    arrays, arrays_before = dict(arrays), dict(arrays_before)
    assert (document["position"]["step"], document_before["position"]["step"]) == (20, 19)
    assert len(whole) > 100_000
    truncated = [whole[:size] for size in range(0, len(whole), 4096)]
    lost = [start + bytes(len(whole) - len(start)) for start in truncated]  # as after a power cut
    for damaged in truncated + lost:
        newer.write_bytes(damaged)
        checkpoints = Checkpoints(log.folder)
        saved = preservation.find(checkpoints, log)
        assert saved.document == document_before
        assert saved.arrays.keys() == arrays_before.keys() == arrays.keys()
        assert all((saved.arrays[name] == arrays_before[name]).all() for name in arrays_before)
        assert checkpoints.damaged == [newer.name]
    older.write_bytes(older.read_bytes()[:4096])
    checkpoints = Checkpoints(log.folder)
    assert preservation.find(checkpoints, log) is None
    assert checkpoints.damaged == [newer.name, older.name]


def test_a_damaged_checkpoint_and_a_damaged_tail(killed, tmp_path, submission, undisturbed):
    shutil.copytree(killed / "runs", tmp_path / "runs")
    newest = sorted((folder_of(tmp_path) / "checkpoints").iterdir())[-1]
    os.truncate(newest, 8 * 4096)
    with (folder_of(tmp_path) / run_log.EVALUATIONS).open("ab") as file:
        file.write(bytes(100) + b"\n1.5,")  # nothing, a line's end, and half a row
    ended = run(tmp_path, submission)
    assert f"checkpoint {newest.name} is damaged and not used" in ended[2]
    assert "goes on from step 19" in ended[2]
    check_goes_on(ended, tmp_path, undisturbed)


def test_lost_rows(killed, tmp_path, submission, undisturbed):
    """No checkpoint stands for rows that are not there."""
    shutil.copytree(killed / "runs", tmp_path / "runs")
    path = folder_of(tmp_path) / run_log.EVALUATIONS
    os.truncate(path, path.stat().st_size // 2)
    left = path.read_bytes()
    ended = run(tmp_path, submission)
    assert "was interrupted; what it left is in" in ended[2]
    check_goes_on(ended, tmp_path, undisturbed)
    assert (folder_of(tmp_path) / "interrupted_0" / run_log.EVALUATIONS).read_bytes() == left
