"""Who holds a run folder, here and on other machines, which are made up; time is the files'."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from algoperf.errors import UserError
from algoperf.machine import claims, supervision

OTHER = {"host": "elsewhere", "boot": "another", "process": 7, "replaced": [], "beats": 3}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "trial_1").mkdir()
    return tmp_path / "trial_1"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(claims, "RELOOK_S", 0.0)


def path_of(folder, number=1):
    return folder.with_name(f".{folder.name}.claim-{number}")


def left_by(folder, owner, age_s, number=1):
    """A claim whose holder does not lock it, and gave its last sign of life so long ago."""
    path = path_of(folder, number)
    path.write_text(json.dumps(owner))
    now_s = path.stat().st_mtime
    os.utime(path, (now_s - age_s, now_s - age_s))
    return path


def test_a_claim_names_its_holder_and_goes_with_it(folder):
    claimed = claims.claim(folder)
    owner = json.loads(path_of(folder).read_text())
    assert owner["process"] == os.getpid()
    assert owner["host"] == os.uname().nodename
    assert (owner["beats"], owner["replaced"]) == (1, [])
    assert claims.claim(folder) == ""
    assert claims.holder(folder) == os.uname().nodename
    claimed.release()
    assert claims.holder(folder) is None
    assert [path.name for path in folder.parent.iterdir()] == ["trial_1"]


def test_the_claim_of_another_machine_holds_while_it_gives_signs_of_life(folder):
    """Its lock may be one that is kept on that machine alone."""
    left_by(folder, OTHER, claims.STALE_S - 5)
    assert claims.claim(folder) == "elsewhere"
    assert claims.holder(folder) == "elsewhere"
    assert supervision.is_locked(folder)
    with pytest.raises(UserError, match=r"works on this trial \(on elsewhere\); wait"):  # noqa: SIM117
        with supervision.locked(folder):
            pass
    left_by(folder, OTHER, claims.STALE_S + 5)
    assert claims.holder(folder) is None
    claimed = claims.claim(folder)
    assert json.loads(path_of(folder, 2).read_text())["replaced"] == [1]
    assert not path_of(folder, 1).exists()
    claimed.release()


def test_a_sign_of_life_during_the_second_look_counts(folder, monkeypatch):
    """The file server may have stood still."""
    path = left_by(folder, OTHER, claims.STALE_S + 5)
    looks = []

    def meanwhile(seconds):
        looks.append(seconds)
        path.write_text(json.dumps({**OTHER, "beats": 4}))

    monkeypatch.setattr(claims.time, "sleep", meanwhile)
    assert claims.claim(folder) == "elsewhere"
    assert looks == [claims.RELOOK_S]


def test_what_a_dead_process_of_this_machine_left_holds_nothing(folder):
    left_by(folder, {**OTHER, "boot": claims.machine_id()}, 0)
    assert claims.holder(folder) is None
    claimed = claims.claim(folder)
    assert path_of(folder, 2).exists()
    claimed.release()


def test_what_was_left_before_this_machine_was_started_anew_is_another_machine_s(folder):
    left_by(folder, {**OTHER, "host": os.uname().nodename, "boot": "before"}, 1)
    assert claims.claim(folder) == os.uname().nodename


def test_a_claim_that_is_not_written_yet_holds(folder):
    """Its holder has created it, and has not come to locking it."""
    path_of(folder).touch()
    assert claims.claim(folder) == ""
    assert claims.holder(folder) is not None


def test_a_locked_claim_holds_however_old(folder):
    path = left_by(folder, OTHER, 10 * claims.STALE_S)
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert claims.claim(folder) == "elsewhere"
        assert claims.holder(folder) == "elsewhere"


def test_whoever_finds_another_claim_beside_its_own_gives_way(folder, monkeypatch):
    """Both saw the same dead one; the other was quicker, and has removed it."""
    left_by(folder, OTHER, claims.STALE_S + 5, number=4)
    real = claims._claims
    seen = []

    def quicker(asked):
        listed = real(asked)
        if not seen:
            seen.append(listed)
            left_by(folder, {**OTHER, "host": "quicker"}, 0, number=1)
        return listed

    monkeypatch.setattr(claims, "_claims", quicker)
    assert claims.claim(folder) == "quicker"
    assert set(seen[0]) == {4}
    assert not path_of(folder, 5).exists()
    assert path_of(folder, 1).exists()


def test_of_many_who_claim_at_once_at_most_one_holds_it(folder):
    left_by(folder, OTHER, claims.STALE_S + 5, number=3)
    ready, claimed = threading.Barrier(8), []

    def take():
        ready.wait()
        claimed.append(claims.claim(folder))

    for _ in range(20):
        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        holding = [each for each in claimed if not isinstance(each, str)]
        assert len(holding) <= 1
        for each in holding:
            each.release()
        claimed.clear()


def test_the_holder_gives_signs_of_life_and_sees_who_has_taken_over(folder, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_S", 0.01)
    lost, known = threading.Event(), []

    def tell(who):
        known.append(who)
        lost.set()

    claimed = claims.claim(folder, tell)
    while json.loads(path_of(folder).read_text())["beats"] < 3:
        pass
    left_by(folder, {**OTHER, "replaced": [9]}, 0, number=2)  # It replaced another one.
    assert not lost.wait(0.1)
    left_by(folder, {**OTHER, "replaced": [1]}, 0, number=2)
    assert lost.wait(30)
    assert known == ["elsewhere"]
    claimed.release()


def test_a_process_whose_claim_was_taken_over_leaves(folder):
    code = (
        "import sys, pathlib, time; from algoperf.machine import claims, supervision\n"
        "claims.BEAT_S = 0.05\n"
        "with supervision.locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            left_by(folder, {**OTHER, "replaced": [1]}, 0, number=2)
            assert process.wait(60) == 75
            assert "elsewhere works on this trial now" in process.stderr.read()
        finally:
            process.kill()


def test_a_folder_that_takes_no_file_is_held_by_its_own_lock(folder, monkeypatch):
    real = os.open

    def full(path, flags, *mode):
        if flags & os.O_CREAT:
            raise OSError(28, "No space left on device")
        return real(path, flags, *mode)

    monkeypatch.setattr(claims.os, "open", full)
    with supervision.locked(folder):
        assert supervision.is_locked(folder)
        assert [path.name for path in folder.parent.iterdir()] == ["trial_1"]


def test_without_locks_others_go_by_the_beat(folder, monkeypatch):
    def none(descriptor, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(claims.fcntl, "flock", none)
    claimed = claims.claim(folder)
    assert claims.holder(folder) is not None
    assert claims.claim(folder) == os.uname().nodename
    path = path_of(folder)
    old_s = path.stat().st_mtime - claims.STALE_S - 5
    os.utime(path, (old_s, old_s))
    assert claims.holder(folder) is None
    claimed.release()


def test_all_of_several_folders_or_none(tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    for each in folders:
        each.mkdir()
    with supervision.locked_all(folders) as are_free:
        assert are_free
        assert all(map(supervision.is_locked, folders))
    code = (
        "import sys, pathlib; from algoperf.machine import supervision\n"
        "with supervision.locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folders[1])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        with supervision.locked_all(folders) as are_free:
            assert not are_free
            assert not supervision.is_locked(folders[0])
        process.send_signal(signal.SIGKILL)
    assert Path(folders[0]).is_dir()
