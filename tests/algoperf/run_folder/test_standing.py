"""How a trial stands, by its run folder."""

import pytest

from algoperf.machine import supervision
from algoperf.run_folder import run_log, standing
from algoperf.run_folder.standing import Standing


def test_from_waiting_to_ended(tmp_path):
    folder = tmp_path / "trial_1"
    assert standing.standing(folder) is Standing.WAITING
    with supervision.locked(folder):
        assert standing.standing(folder) is Standing.RUNNING
        run_log.write_json(folder / "flags_0.json", {})
        assert standing.standing(folder) is Standing.RUNNING
    assert standing.standing(folder) == "interrupted"
    run_log.write_json(folder / run_log.RESULT, {"status": "failed"})
    assert standing.standing(folder) is Standing.ENDED


def test_a_result_between_the_two_looks_is_seen(tmp_path, monkeypatch):
    def end(folder):
        run_log.write_json(folder / run_log.RESULT, {"status": "reached"})
        return False

    monkeypatch.setattr(supervision, "is_locked", end)
    assert standing.standing(tmp_path) is Standing.ENDED


def test_who_looks_keeps_nobody_out(tmp_path, monkeypatch):
    """The look takes the lock for a moment, which is not taken for a process at work."""
    flock, seen = supervision.fcntl.flock, []

    def meanwhile(descriptor, operation):
        if operation & supervision.fcntl.LOCK_EX and not seen:
            seen.append(operation)
            raise BlockingIOError
        flock(descriptor, operation)

    monkeypatch.setattr(supervision.fcntl, "flock", meanwhile)
    with supervision.locked(tmp_path):
        assert seen
        assert supervision.is_locked(tmp_path)
    assert not supervision.is_locked(tmp_path)


@pytest.mark.parametrize("name", ["trial_1", "trial_1/none"])
def test_what_is_no_folder_is_not_locked(tmp_path, name):
    (tmp_path / "trial_1").touch()
    assert supervision.is_locked(tmp_path / name) is False
