"""The run folder: names, columns, and what a crash leaves of it."""

import csv
import json
import math

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from algoperf.errors import UserError
from algoperf.run_folder import run_log

# The columns of eval_measurements.csv that every folder of AlgoPerf's public logs (v0.6) has.
ALGOPERF_COLUMNS = {
    "accumulated_eval_time",
    "accumulated_logging_time",
    "accumulated_submission_time",
    "global_step",
    "preemption_count",
    "score",
    "total_duration",
}
TIMES = {
    "accumulated_submission_time": 12.5,
    "accumulated_eval_time": 3.0,
    "accumulated_logging_time": 0.25,
    "global_step": 40,
    "preemption_count": 0,
    "score": 12.5,
    "total_duration": 15.75,
}
MEASURED = {
    "train/loss": 0.5,
    "train/accuracy": 0.75,
    "train/num_examples": 500.0,
    "validation/loss": 0.625,
    "validation/accuracy": 0.7,
    "validation/num_examples": 500.0,
}
FLAGS = {
    "workload": "digits",
    "framework": "jax",
    "submission": "adamw",
    "submission_path": "/somewhere/adamw.py",
    "submission_hash": "abc",
    "submission_file_hash": "abd",
    "scale": "mini",
    "data": "builtin",
    "precision": "float32",
    "tuning_ruleset": "none",
    "eval_every_steps": None,
    "versions": {"python": "3.11"},
    "hardware": {"threads": 2},
    "batch_size": 64,
    "study": 0,
    "trial": 1,
    "target": {"metric": "accuracy", "validation": 0.97},
}


def make_log(folder):
    return run_log.TrialLog(folder, ("loss", "accuracy"), ("train", "validation", "test"))


def read(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def folder(tmp_path):
    return run_log.trial_folder(tmp_path, "mini-builtin", "adamw", 0, "digits", "jax", 1)


@pytest.fixture
def log(folder):
    return make_log(folder)


def test_folder_names(tmp_path, folder):
    """As in `<...>/baseline/study_2/librispeech_deepspeech_jax/trial_5`."""
    assert folder.relative_to(tmp_path).parts == (
        "mini-builtin",
        "adamw",
        "study_0",
        "digits_jax",
        "trial_1",
    )


def test_files_of_a_trial(log, folder, tmp_path):
    source = tmp_path / "adamw.py"
    source.write_text("DEFAULTS = {}\n")
    log.begin({"seed": 0}, {"data": {}}, {"learning_rate": 0.1})
    log.copy_source({"adamw.py": source, "helpers/more.py": source})
    log.scalars([(0, {"loss": 2.0})])
    log.evaluation(TIMES, MEASURED)
    log.result({"status": "reached"})
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("events.out.tfevents.")}
    assert len(events) == 1
    assert names - events == {
        "eval_measurements.csv",
        "measurements.csv",
        "flags_0.json",
        "hparams.json",
        "meta_data_0.json",
        "result.json",
        "submission/adamw.py",
        "submission/helpers/more.py",
    }
    assert json.loads((folder / "hparams.json").read_text()) == {"learning_rate": 0.1}
    assert run_log.read_flags(folder) == {"seed": 0}
    assert run_log.read_result(folder) == {"status": "reached"}


def test_columns_of_evaluations(log, folder):
    log.evaluation(TIMES, MEASURED)
    log.evaluation(
        {**TIMES, "global_step": 80}, {**MEASURED, "test/loss": 1.0, "test/accuracy": 0.5}
    )
    header, first, second = read(folder / "eval_measurements.csv")
    metrics = [
        f"{split}/{name}"
        for split in ("train", "validation", "test")
        for name in ("loss", "accuracy", "num_examples")
    ]
    assert set(header) == ALGOPERF_COLUMNS | set(metrics)
    row = dict(zip(header, first, strict=True))
    assert {name: float(row[name]) for name in TIMES} == TIMES
    assert {name: float(row[name]) for name in MEASURED} == MEASURED
    assert [row[f"test/{name}"] for name in ("loss", "accuracy", "num_examples")] == [""] * 3
    assert dict(zip(header, second, strict=True))["test/accuracy"] == "0.5"
    assert run_log.evaluations(folder)[0] == {**TIMES, **MEASURED}
    assert run_log.evaluations(folder)[1]["test/accuracy"] == 0.5


def test_columns_of_scalars(log, folder):
    rows = [(0, {"loss": 2.0, "gradient_norm": 1.5}), (10, {"learning_rate": 0.1, "own": 7.0})]
    log.scalars(rows)
    log.scalars([])
    assert read(folder / "measurements.csv") == [
        ["global_step", "loss", "gradient_norm", "learning_rate"],
        ["0", "2.0", "1.5", ""],
        ["10", "", "", "0.1"],
    ]


def test_nan_and_infinity_stay_what_they_are(log, folder):
    log.evaluation(TIMES, {**MEASURED, "train/loss": math.nan, "validation/loss": math.inf})
    (row,) = run_log.evaluations(folder)
    assert math.isnan(row["train/loss"])
    assert row["validation/loss"] == math.inf


def test_an_evaluation_is_on_the_disk_before_the_next_step(log, folder):
    log.evaluation(TIMES, MEASURED)  # and the file is not closed by us
    assert (folder / "eval_measurements.csv").read_bytes().endswith(b"\n")
    assert len(run_log.evaluations(folder)) == 1


@pytest.mark.parametrize("kept", [1, 10, 30, -1])
def test_a_torn_last_line_is_cut_before_the_next_row(log, folder, kept):
    log.evaluation(TIMES, MEASURED)
    path = folder / "eval_measurements.csv"
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines(keepends=True)[-1][:kept])
    assert run_log.evaluations(folder) == [{**TIMES, **MEASURED}]
    make_log(folder).evaluation({**TIMES, "global_step": 80}, MEASURED)
    assert [row["global_step"] for row in run_log.evaluations(folder)] == [40, 80]
    assert len(path.read_bytes().splitlines()) == 3


def test_a_row_torn_in_its_last_number_is_no_row(log, folder):
    """It has all the columns, but 297 examples read 29."""
    log.evaluation(TIMES, MEASURED)
    log.evaluation(
        TIMES, {**MEASURED, "test/loss": 1.0, "test/accuracy": 1.0, "test/num_examples": 297.0}
    )
    path = folder / "eval_measurements.csv"
    path.write_bytes(path.read_bytes()[: -len("7.0\n")])
    assert run_log.evaluations(folder) == [{**TIMES, **MEASURED}]


@pytest.mark.parametrize("left", [b"", b"accumulated_sub"])
def test_a_torn_header_is_written_again(log, folder, left):
    (folder / "eval_measurements.csv").write_bytes(left)
    assert run_log.evaluations(folder) == []
    log.evaluation(TIMES, MEASURED)
    assert run_log.evaluations(folder) == [{**TIMES, **MEASURED}]


def test_a_header_alone_and_no_file_have_no_rows(log, folder):
    assert run_log.evaluations(folder) == []
    log.evaluation(TIMES, MEASURED)
    path = folder / "eval_measurements.csv"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert run_log.evaluations(folder) == []


def test_tensorboard_reads_what_was_written(log, folder):
    log.scalars([(0, {"loss": 2.0, "own": 7.0}), (10, {"loss": 1.0, "gradient_norm": math.nan})])
    log.evaluation(TIMES, MEASURED)
    (path,) = folder.glob("events.out.tfevents.*")
    found = {
        (event.step, value.tag): value.tensor.float_val[0]
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    }
    assert math.isnan(found.pop((10, "training/gradient_norm")))
    assert found == pytest.approx(
        {
            (0, "training/loss"): 2.0,
            (0, "training/own"): 7.0,
            (10, "training/loss"): 1.0,
            (40, "accumulated_submission_time"): 12.5,
            **{(40, name): value for name, value in MEASURED.items()},
        }
    )


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.json"
    with pytest.raises(TypeError):
        run_log.write_json(path, {"a": 1, "b": {1, 2}})
    assert list(tmp_path.iterdir()) == []
    run_log.write_json(path, {"b": 1, "a": None})
    with pytest.raises(TypeError):
        run_log.write_json(path, {"a": 1, "b": object()})
    assert json.loads(path.read_text()) == {"b": 1, "a": None}
    assert [child.name for child in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("content", ["", '{"status": "rea', "[1]", "\x00"])
def test_a_result_that_is_no_object_is_no_result(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    assert run_log.read_result(tmp_path) is None
    assert run_log.read_flags(tmp_path) is None


# What trials of one folder share


def write_flags(folder, **changed):
    folder.mkdir(parents=True)
    run_log.write_json(folder / "flags_0.json", run_log.with_hashes({**FLAGS, **changed}))


def check(folder, **changed):
    run_log.check_same_configuration(folder, run_log.with_hashes({**FLAGS, **changed}))


def sibling(folder, study=0, workload="digits_jax", trial=1):
    return folder.parents[2] / f"study_{study}" / workload / f"trial_{trial}"


def test_an_empty_folder_takes_anything(folder):
    check(folder, batch_size=1)


@pytest.mark.parametrize(
    "changed", [{"trial": 2}, {"study": 1}, {"submission_path": "/elsewhere/adamw.py"}]
)
def test_trials_of_one_configuration_share_a_folder(folder, changed):
    write_flags(folder)
    check(sibling(folder, study=1, trial=2), **changed)


@pytest.mark.parametrize("where", [{"trial": 2}, {"study": 1}, {"study": 3, "trial": 4}])
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"batch_size": 32}, "batch_size: 64, now 32"),
        ({"scale": "full"}, 'scale: "mini", now "full"'),
        ({"target": {"metric": "accuracy", "validation": 0.9}}, "target.validation: 0.97, now 0.9"),
        ({"eval_every_steps": 5}, "eval_every_steps: null, now 5"),
        ({"hardware": {"threads": 3}}, "hardware.threads: 2, now 3"),
    ],
)
def test_another_configuration_is_refused(folder, where, changed, told):
    write_flags(folder)
    with pytest.raises(UserError, match="holds another configuration") as caught:
        check(sibling(folder, **where), **changed)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", sorted(run_log.WHERE_CHOSEN - run_log.BY_WORKLOAD - run_log.PER_TRIAL)
)
def test_a_choice_that_only_one_of_two_runs_made_is_another_configuration(folder, name):
    """Such a setting is recorded only where it was asked for."""
    write_flags(folder, **{name: "chosen"})
    with pytest.raises(UserError, match=f'\\({name}: "chosen", now null\\)'):
        check(sibling(folder, trial=2))
    check(sibling(folder, trial=2), **{name: "chosen"})
    write_flags(sibling(folder, workload="ag_news_jax"))
    with pytest.raises(UserError, match=f'\\({name}: null, now "chosen"\\)'):
        check(sibling(folder, workload="ag_news_jax", trial=2), **{name: "chosen"})


def test_another_configuration_of_another_workload_is_no_matter(folder):
    write_flags(folder)
    check(sibling(folder, workload="ag_news_jax"), workload="ag_news", batch_size=32)


@pytest.mark.parametrize("where", [{"trial": 2}, {"workload": "ag_news_jax"}, {"study": 1}])
@pytest.mark.parametrize("key", ["submission_hash", "submission_file_hash"])
def test_another_submission_of_that_name_is_refused(folder, where, key):
    write_flags(folder)
    with pytest.raises(UserError, match="holds another submission named 'adamw'"):
        check(sibling(folder, **where), **{key: "xyz"})


def test_flags_are_compared_as_json(folder):
    """A tuple comes back as a list."""
    write_flags(folder, versions={"numpy": (2, 1)})
    check(sibling(folder, trial=2), versions={"numpy": (2, 1)})


def test_a_part_of_the_flags_can_be_checked(folder):
    write_flags(folder)
    run_log.check_same_configuration(sibling(folder, trial=2), {"batch_size": 64})
    with pytest.raises(UserError, match="holds another configuration"):
        run_log.check_same_configuration(sibling(folder, trial=2), {"batch_size": 65})


def test_a_folder_begun_without_a_setting(tmp_path, folder):
    """Any trial of the submission on that workload counts, of other workloads none."""
    other = run_log.trial_folder(tmp_path, "mini-builtin", "adamw", 0, "ag_news", "jax", 1)
    second = run_log.trial_folder(tmp_path, "mini-builtin", "adamw", 1, "digits", "jax", 2)
    for where in (other, second):
        make_log(where).begin(FLAGS, {}, None)
    assert run_log.begun_without(folder, "eval_share")
    assert not run_log.begun_without(folder, "scale")
    (second / "flags_0.json").unlink()
    assert not run_log.begun_without(folder, "eval_share")


def test_hashes():
    whole = run_log.with_hashes(FLAGS)
    assert whole["pool"] == {name: FLAGS[name] for name in run_log.POOLED if name in FLAGS}
    started = run_log.with_hashes({**FLAGS, "pretrained": "weights"})  # a pool of its own
    assert started["pool"] == {**whole["pool"], "pretrained": "weights"}
    assert {"scale", "data", "precision", "tuning_ruleset", "hardware"} < set(whole["pool"])
    same = run_log.with_hashes({**FLAGS, "trial": 9, "study": 4, "submission_path": "elsewhere"})
    assert same["config_hash"] == whole["config_hash"]
    assert run_log.with_hashes({**FLAGS, "batch_size": 1})["config_hash"] != whole["config_hash"]


def test_set_aside(log, folder):
    assert run_log.set_aside(folder) is None
    for number in range(3):
        log.begin({"number": number}, {}, None)
        log.copy_source({})
        aside = run_log.set_aside(folder)
        assert aside == folder / f"interrupted_{number}"
        assert run_log.read_flags(aside) == {"number": number}
        assert run_log.read_flags(folder) is None
    assert sorted(path.name for path in folder.iterdir()) == [f"interrupted_{n}" for n in range(3)]
    check(sibling(folder, trial=2))  # what was set aside binds nobody


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match=r"not writable \(.+\); choose another --out"):
        make_log(tmp_path / "runs" / "trial_1")
