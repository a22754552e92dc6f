"""On how many devices a trial has trained: by hand."""

import pytest

from algoperf.errors import UserError
from algoperf.run_folder import device_history, run_log
from algoperf.run_folder.checkpoint import Checkpoints

TWO = {"framework": "pytorch", "devices": 2}
CHANGED = {
    **TWO,
    "devices": 1,
    "devices_by_step": [{"from_step": 0, "devices": 2}, {"from_step": 10, "devices": 1}],
}


def pairs(history):
    return [(each["from_step"], each["devices"]) for each in history]


@pytest.mark.parametrize(
    ("flags", "step", "devices", "expected"),
    [
        (TWO, 10, 1, [(0, 2), (10, 1)]),
        (TWO, 10, 2, [(0, 2)]),
        (TWO, 0, 1, [(0, 1)]),  # Nothing was trained before.
        (CHANGED, 15, 4, [(0, 2), (10, 1), (15, 4)]),
        (CHANGED, 15, 1, [(0, 2), (10, 1)]),
        # From an older checkpoint, or the same one: what came after it counts no more.
        (CHANGED, 10, 4, [(0, 2), (10, 4)]),
        (CHANGED, 10, 2, [(0, 2)]),
        (CHANGED, 5, 1, [(0, 2), (5, 1)]),
        # One device of PyTorch's is what there is without the option; in JAX it may be any.
        ({"framework": "pytorch"}, 5, 1, [(0, None)]),
        ({"framework": "jax"}, 5, 1, [(0, None), (5, 1)]),
    ],
)
def test_what_came_before_a_checkpoint_counts(flags, step, devices, expected):
    assert pairs(device_history.after(flags, step, devices)) == expected


def test_it_is_recorded_and_taken_back():
    history = device_history.after(TWO, 10, 1)
    recorded = device_history.recorded({**TWO, "devices": 1, "seed": 3}, history)
    assert recorded == {**CHANGED, "seed": 3}
    assert device_history.as_begun(recorded) == {**TWO, "seed": 3}
    assert device_history.as_begun({"seed": 3}) == {"seed": 3}


def test_in_words():
    assert device_history.text(device_history.of(CHANGED)) == "2 devices, from step 10 on 1"
    assert device_history.text(device_history.of({"devices": 1})) == "1 device"


def test_no_two_histories_are_pooled():
    histories = [
        *(device_history.after(TWO, step, devices) for step, devices in ((10, 1), (11, 1))),
        *(device_history.after(CHANGED, 15, devices) for devices in (1, 2)),
        [{"from_step": 0, "devices": 1}],
        [{"from_step": 0, "devices": 2}],
    ]
    pools = [
        run_log.with_hashes(device_history.recorded(TWO, history))["pool"] for history in histories
    ]
    assert pools[0] == pools[2]
    assert all(pool != pools[0] for pool in (pools[1], *pools[3:]))
    assert pools[-1] == {"devices": 2}


def written(folder, number, flags):
    folder.mkdir(parents=True, exist_ok=True)
    run_log.write_json(folder / f"flags_{number}.json", {"submission": "s", **flags})


def check(folder, flags, may_change=False):
    before, flags = run_log.read_flags(folder), {"submission": "s", **flags}
    run_log.check_same_as_begun(folder, flags, may_change_devices=may_change)
    device_history.check_unchanged(folder, before, may_change)


def test_a_trial_changes_only_where_it_may(tmp_path):
    trials = tmp_path / "study_0" / "digits_pytorch"
    first, second = trials / "trial_1", trials / "trial_2"
    written(first, 0, {**TWO, "seed": 0})
    one = {**TWO, "devices": 1}
    with pytest.raises(UserError, match=r"devices: 2, now 1.*by --devices N --change-devices"):
        check(first, one)
    with pytest.raises(UserError, match=r"\(seed: 0, now 1\); use another .* or --out$"):
        check(first, {**one, "seed": 1}, may_change=True)
    check(first, one, may_change=True)
    # A trial that has not begun is like those that are there, which began on two.
    with pytest.raises(UserError, match="devices: 2, now 1"):
        check(second, one, may_change=True)
    written(first, 1, CHANGED)
    check(second, TWO)
    check(first, one, may_change=True)
    check(first, TWO, may_change=True)
    for flags in (one, TWO):
        with pytest.raises(UserError, match=r"devices.*--change-devices"):
            check(first, flags)


def test_the_newest_of_more_than_ten_configurations_is_read(tmp_path):
    for number in range(11):
        written(tmp_path, number, {"number": number})
    assert run_log.read_flags(tmp_path)["number"] == 10


def of_processes(folder, count, step, at_s=0.0):
    """Write a checkpoint of so many processes."""
    document = {"processes": count, "position": {"step": step, "clock_s": at_s, "queue": {}}}
    for rank in reversed(range(count)):
        document["position"]["queue"] = {"wait_s": float(rank)}
        Checkpoints(folder, rank, count).write(step, {}, document)


def steps_of(folder, count):
    return [document["position"]["step"] for _, document in Checkpoints(folder, 0, count).read()]


def test_each_checkpoint_counts_that_all_its_own_processes_have(tmp_path):
    of_processes(tmp_path, 4, 10)
    of_processes(tmp_path, 2, 20)
    # Whoever looks, with however many processes.
    assert steps_of(tmp_path, 1) == steps_of(tmp_path, 4) == [20, 10]
    (part,) = (tmp_path / "checkpoints_rank_3").iterdir()
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    assert steps_of(tmp_path, 2) == [20]
    part.write_bytes(content)
    newest = sorted((tmp_path / "checkpoints_rank_1").iterdir())[-1]
    newest.unlink()
    assert steps_of(tmp_path, 2) == [10]


def test_parts_of_two_checkpoints_of_a_step_are_none_of_one(tmp_path):
    """As where the second was never finished: their measured times differ."""
    of_processes(tmp_path, 2, 10, at_s=1.0)
    document = {"processes": 2, "position": {"step": 10, "clock_s": 2.0, "queue": {}}}
    (old,) = (tmp_path / "checkpoints_rank_1").iterdir()
    old.unlink()
    Checkpoints(tmp_path, 1, 2).write(10, {}, document)
    assert steps_of(tmp_path, 2) == []


def test_what_trains_no_more_leaves_nothing(tmp_path):
    of_processes(tmp_path, 4, 10)
    of_processes(tmp_path, 2, 20)
    assert len(list(tmp_path.iterdir())) == 4  # The older one is kept as a whole.
    of_processes(tmp_path, 2, 30)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoints",
        "checkpoints_rank_1",
    ]
    of_processes(tmp_path, 4, 40)
    Checkpoints(tmp_path).clear()
    assert list(tmp_path.iterdir()) == []
