"""Checkpoints: whole or not there; a trial that goes on is the trial that would have been."""

import errno
import json
import resource
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

import reference_algorithms
from algoperf import errors
from algoperf.data.batches import Buckets, TrainingQueue
from algoperf.run_folder import run_log
from algoperf.run_folder.checkpoint import PARTIAL, Checkpoints
from algoperf.trial import assemble, preservation
from algoperf.trial.clock import PARTS, Ledger
from algoperf.trial.loop import State
from algoperf.trial.plan import TrialPlan

ARRAYS = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "count": np.array(7, np.int32),  # without axes, and to stay so
    "flags": np.array([True, False]),
    "odd name/'": np.array([], np.float16),
}


def files(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_what_is_read_is_what_was_written(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    document = {"step": 3, "nested": [1.1, None, {"a": float("inf")}]}
    size = checkpoints.write(3, ARRAYS, document)
    ((arrays, read),) = checkpoints.read()
    assert read == document
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (arrays[name].shape, arrays[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(arrays[name], array)
    (name,) = files(tmp_path)
    assert (tmp_path / "checkpoints" / name).stat().st_size == size


def test_an_array_is_read_when_it_is_asked_for(tmp_path):
    """Not all are in memory at a time: those of a large model would be half of it."""
    checkpoints = Checkpoints(tmp_path)
    whole = {name: np.full(2**21, number, np.float32) for number, name in enumerate("abcd")}
    checkpoints.write(1, whole, {"step": 1})
    tracemalloc.start()
    arrays, _ = next(checkpoints.read())
    assert tracemalloc.get_traced_memory()[1] < 2**22  # a chunk of the checksum or two
    assert arrays["c"][0] == 2
    assert 2**23 <= tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert (len(arrays), list(arrays)) == (4, list("abcd"))
    with pytest.raises(KeyError):
        arrays["e"]


def test_the_newest_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (9, 10, 100):
        checkpoints.write(step, ARRAYS, {"step": step})
    assert [document["step"] for _, document in checkpoints.read()] == [100, 10]
    checkpoints.clear()
    assert list(checkpoints.read()) == []
    assert not (tmp_path / "checkpoints").exists()


def test_a_checkpoint_cut_anywhere_gives_way_to_the_older(tmp_path):
    Checkpoints(tmp_path).write(1, ARRAYS, {"step": 1})
    Checkpoints(tmp_path).write(2, ARRAYS, {"step": 2})
    newest = tmp_path / "checkpoints" / files(tmp_path)[-1]
    whole = newest.read_bytes()
    for damaged in [whole[:size] for size in range(0, len(whole), 37)] + [
        whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]
    ]:
        newest.write_bytes(damaged)
        checkpoints = Checkpoints(tmp_path)
        assert [document["step"] for _, document in checkpoints.read()] == [1]
        assert checkpoints.damaged == [newest.name]


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(1, ARRAYS, {"step": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("algoperf.run_folder.checkpoint.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(2, ARRAYS, {"step": 2})
    assert [document["step"] for _, document in checkpoints.read()] == [1]
    assert len(files(tmp_path)) == 1


def test_a_file_that_the_system_refuses_is_an_error_of_the_system(tmp_path):
    """safetensors has an exception of its own for it, which is no OSError."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(1, ARRAYS, {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            checkpoints.write(2, ARRAYS, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.EFBIG
    assert [document["step"] for _, document in checkpoints.read()] == [1]
    assert len(files(tmp_path)) == 1


def test_what_a_kill_left_half_written_goes(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(1, ARRAYS, {"step": 1})
    for name in (PARTIAL, ".tmpA1b2C3"):  # the second is safetensors' own
        (tmp_path / "checkpoints" / name).write_bytes(bytes(1000))
    checkpoints.write(2, ARRAYS, {"step": 2})
    assert len(files(tmp_path)) == 2
    assert checkpoints.damaged == []


# The order of the data


def rows():
    lengths = np.random.default_rng(0).integers(1, 9, 50)
    tokens = (np.arange(8) < lengths[:, None]).astype(np.int32)
    return {"inputs": tokens, "targets": tokens, "row": np.arange(50)}


@pytest.mark.parametrize("lengths", [(), ((4, 4), (8, 8))])
def test_the_queue_goes_on_where_it_was(lengths):
    def queue():
        arrays = rows()
        buckets = Buckets(arrays, lengths, 0) if lengths else None
        return TrainingQueue(arrays, 7, seed=5, buckets=buckets)

    first, second = queue(), queue()
    for _ in range(19):  # over two epochs
        next(first)
    second.go_to(json.loads(json.dumps(first.position())))
    for _ in range(12):
        one, other = next(first), next(second)
        assert one["row"].tolist() == other["row"].tolist()
        assert one["inputs"].shape == other["inputs"].shape
    if lengths:
        assert first.buckets.real_share == second.buckets.real_share


# The clock


def test_the_clock_goes_on(clock):
    first = Ledger(clock)
    for part in PARTS:
        with getattr(first, part).running():
            clock.sleep(2)
    first.data_wait_s, first.first_step_s = 0.5, 1.5
    clock.sleep(1)
    saved = json.loads(json.dumps(first.totals()))
    clock.sleep(1000)  # nobody works on it
    second = Ledger(clock)
    second.go_on(saved)
    with second.submission.running():
        clock.sleep(3)
    totals = second.totals()
    assert (totals["submission_s"], totals["evaluation_s"]) == (5, 2)
    assert (totals["wall_s"], totals["other_s"]) == (2 * len(PARTS) + 1 + 3, 1)
    assert (totals["data_wait_s"], totals["first_step_s"]) == (0.5, 1.5)
    second.forgive(4)
    totals = second.totals()
    assert (totals["submission_s"], totals["recompilation_s"]) == (1, 6)
    assert totals["other_s"] == 1


# A trial


class Log:
    folder = "the folder"

    def sizes(self):
        return {"rows": 3}

    def go_back(self, sizes):
        self.went_back = sizes


class Backend:
    compiled = 0.0

    def compiled_s(self):
        return self.compiled


def keeper(tmp_path, clock, *, every_s=100.0, asked=lambda: False, said=None, backend=None):
    said = [] if said is None else said
    return preservation.Preservation(
        Checkpoints(tmp_path), Log(), backend or Backend(), every_s, asked, said.append, clock
    )


def fake_trial(step=4, **state):
    where = {"step": step}
    now = State(
        params={"w": np.full(2, step, np.float32)},
        model_state=None,
        optimizer_state=state.get("optimizer_state", {"m": np.zeros(2)}),
        step=step,
    )
    return SimpleNamespace(
        state=now,
        give_up_state=lambda: now,
        position=lambda: where,
        went_on=[],
        go_on=lambda *arguments: where.update(on=arguments),
        where=where,
    )


def test_a_trial_is_saved_when_the_last_checkpoint_is_old(tmp_path, clock):
    saves = keeper(tmp_path, clock, every_s=100.0)
    ledger = Ledger(clock)
    saves.after_step(ledger)
    assert not saves.is_due()
    clock.sleep(100)
    assert saves.is_due()
    saves.save(fake_trial())
    assert not saves.is_due()
    clock.sleep(100)
    assert not saves.is_due()  # nothing happened since: it would be saved for ever, without a step
    saves.after_step(ledger)
    assert saves.is_due()
    asked = keeper(tmp_path, clock, asked=lambda: True)
    assert asked.is_due()
    assert asked.must_stop()


def test_recompilation_is_forgiven_up_to_what_was_charged(tmp_path, clock):
    backend = Backend()
    first = keeper(tmp_path, clock, backend=backend)
    ledger = Ledger(clock)

    def step(saves, compiled_s):
        saves.is_due()
        with ledger.submission.running():
            clock.sleep(compiled_s + 1)
            backend.compiled += compiled_s
            saves.after_step(ledger)

    backend.compiled += 50  # evaluation's, before the first step: nobody is charged
    step(first, 8)
    step(first, 0)
    assert ledger.submission.elapsed_s == 10
    first.save(fake_trial())
    second = keeper(tmp_path, clock, backend=backend)
    log = run_log.TrialLog(tmp_path / "log", (), ())
    log.holds = lambda sizes: sizes == {"rows": 3}
    second.go_on(fake_trial(0), preservation.find(Checkpoints(tmp_path), log))
    step(second, 6)
    assert (ledger.submission.elapsed_s, ledger.recompilation.elapsed_s) == (11, 6)
    step(second, 6)  # 2 of what was charged before are left
    assert (ledger.submission.elapsed_s, ledger.recompilation.elapsed_s) == (16, 8)
    step(second, 1)
    assert (ledger.submission.elapsed_s, ledger.recompilation.elapsed_s) == (18, 8)


def test_a_trial_goes_on_from_what_was_saved(tmp_path, clock):
    saves = keeper(tmp_path, clock)
    saves.save(fake_trial(4, optimizer_state={"m": np.arange(2.0), "f": len}))
    log = run_log.TrialLog(tmp_path / "log", (), ())
    assert preservation.find(Checkpoints(tmp_path), log) is None  # its rows are not there
    log.holds = lambda sizes: True
    fresh = fake_trial(0, optimizer_state={"m": np.zeros(2), "f": len})
    again = keeper(tmp_path, clock)
    again.go_on(fresh, preservation.find(Checkpoints(tmp_path), log))
    state, position = fresh.where["on"]
    assert state.step == 4 == position["step"]
    np.testing.assert_array_equal(state.params["w"], [4, 4])
    np.testing.assert_array_equal(state.optimizer_state["m"], [0, 1])
    assert state.optimizer_state["f"] is len
    assert again._log.went_back == {"rows": 3}


def test_another_submission_is_told_that_the_checkpoint_does_not_fit(tmp_path, clock):
    keeper(tmp_path, clock).save(fake_trial(4, optimizer_state={"f": len}))
    log = run_log.TrialLog(tmp_path / "log", (), ())
    log.holds = lambda sizes: True
    saved = preservation.find(Checkpoints(tmp_path), log)
    with pytest.raises(errors.UserError, match=r"does not fit the submission .* --no-checkpoint"):
        keeper(tmp_path, clock).go_on(fake_trial(0, optimizer_state={"f": max}), saved)


def test_what_cannot_be_saved_is_said_once_and_the_run_goes_on(tmp_path, clock):
    said = []
    saves = keeper(tmp_path, clock, every_s=1.0, said=said)
    saves.save(fake_trial(optimizer_state={"m": {1, 2}}))
    saves.save(fake_trial(optimizer_state={"m": {1, 2}}))
    (line,) = said
    assert "optimizer_state/m is a set, which cannot be saved" in line
    saves.after_step(Ledger(clock))
    clock.sleep(10)
    assert not saves.is_due()


def test_a_full_disk_is_said_once_and_tried_again(tmp_path, clock, monkeypatch):
    said = []
    saves = keeper(tmp_path, clock, said=said)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("algoperf.run_folder.checkpoint.os.fsync", full)
        saves.save(fake_trial(1))
        saves.save(fake_trial(2))
    assert said == ["a checkpoint could not be written (No space left on device); the run goes on"]
    saves.save(fake_trial(3))
    assert len(files(tmp_path)) == 1


@pytest.mark.usefixtures("loading_taken_back")
def test_a_process_that_ended_before_it_saved_is_an_interruption_too(tmp_path):
    plan = TrialPlan(
        "digits", "mini", "builtin", "builtin", "pytorch", str(reference_algorithms.path("adamw")),
        str(tmp_path), "mini-builtin", 0, 1, 3, max_steps=5, eval_every_steps=1,
    )  # fmt: skip

    def begin(asked=lambda: False):
        return assemble.assemble(plan, Ledger(), lambda *_, **__: None, asked)

    first = begin(asked=lambda: True)
    first.trial.run()
    assert (first.trial.interrupted, first.trial.preemptions) == (True, 0)
    begin()
    third = begin()
    assert third.trial.preemptions == 2
    assert third.trial.state.step == first.trial.state.step
    assert len(list(third.log.folder.glob("meta_data_*.json"))) == 3


# The files of a run folder


def test_rows_after_a_checkpoint_are_cut(tmp_path):
    log = run_log.TrialLog(tmp_path, ("loss",), ("validation",))
    log.evaluation(dict.fromkeys(run_log.TIMES, 1.0), {"validation/loss": 2.0})
    sizes = log.sizes()
    assert list(sizes) == ["eval_measurements.csv"]
    assert log.holds(sizes)
    before = (tmp_path / "eval_measurements.csv").read_text()
    log.evaluation(dict.fromkeys(run_log.TIMES, 2.0), {"validation/loss": 1.0})
    log.scalars([(3, {"loss": 1.0})])
    log.go_back(sizes)
    assert (tmp_path / "eval_measurements.csv").read_text() == before
    assert not (tmp_path / "measurements.csv").exists()  # it was not there either
    for damaged in (before[:-1], before[:-1] + "x", ""):
        (tmp_path / "eval_measurements.csv").write_text(damaged)
        assert not log.holds(sizes)
