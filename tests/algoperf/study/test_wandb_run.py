"""A trial as a run of W&B's: what is sent, by a fake; and W&B offline, where it is installed."""

import csv
import importlib
import importlib.util
import json
import os
import struct
import subprocess
import sys
from types import SimpleNamespace

import pytest

from algoperf.cli import commands
from algoperf.errors import UserError
from algoperf.run_folder import run_log
from algoperf.study import wandb_run

needs_wandb = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None,
    reason="wandb is not installed (pip install 'algoperf[wandb]')",
)
PLAN = SimpleNamespace(
    workload="digits", framework="jax", study=0, trial=2, experiment="mini-builtin"
)


class FakeRun:
    def __init__(self, options):
        self.options = options
        self.id = options["id"] or "drawn"
        self.logged, self.summary, self.exit_code = [], {}, None

    def log(self, values, step):
        self.logged.append((step, dict(values)))

    def finish(self, exit_code):
        self.exit_code = exit_code


class FakeWandb:
    """The part of wandb that is used."""

    Settings = SimpleNamespace

    def __init__(self, mode="offline", has_account=False):
        self.runs = []
        self._settings = SimpleNamespace(mode=mode, project=None)
        self.login = lambda prompt, verify: has_account or prompt

    def setup(self):
        return SimpleNamespace(settings=self._settings)

    def init(self, **options):
        self.runs.append(FakeRun(options))
        return self.runs[-1]


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.fixture
def log(tmp_path):
    made = run_log.TrialLog(tmp_path / "trial_2", ("loss",), ("validation",))
    made.begin({"submission": "mine", "batch_size": 8}, {}, None)
    return made


def follow(log):
    follows = wandb_run.WandbRun()
    follows.begin(PLAN, log.folder)
    follows.event({"event": "start", "step": 0, "clock_s": 0.0})
    return follows


def evaluate(follows, step, loss, clock_s):
    metrics = {"validation/loss": loss}
    follows.event({"event": "evaluation", "step": step, "clock_s": clock_s, "metrics": metrics})


def test_what_is_sent(wandb, log):
    follows = follow(log)
    log.scalars([(1, {"loss": 4.0, "learning_rate": 0.5}), (2, {"loss": 3.0})])
    evaluate(follows, 2, 3.5, 1.25)
    log.scalars([(3, {"loss": 2.0})])
    follows.event({"event": "progress", "step": 3, "clock_s": 1.5})
    assert follows.end({"status": "reached", "steps": 3, "error": None}) == {}
    (run,) = wandb.runs
    assert run.options["config"] == {"submission": "mine", "batch_size": 8}
    assert run.options["name"] == "mine digits jax study 0 trial 2"
    assert (run.options["project"], run.options["group"]) == ("algoperf", "mini-builtin")
    assert (run.options["dir"], run.options["resume"]) == (str(log.folder), None)
    assert run.logged == [
        (1, {"training/loss": 4.0, "training/learning_rate": 0.5}),
        (2, {"training/loss": 3.0}),
        (2, {"validation/loss": 3.5, "submission_clock_s": 1.25}),
        (3, {"training/loss": 2.0}),
    ]
    assert (run.summary, run.exit_code) == ({"status": "reached", "steps": 3}, 0)


def test_a_trial_that_goes_on_stays_one_run_and_sends_no_step_twice(wandb, log):
    """Its second process goes back to a checkpoint at step 2, and does step 3 again.

    The scalars of a step come with the next one, after an evaluation there.
    """
    follows = follow(log)
    log.scalars([(1, {"loss": 4.0}), (2, {"loss": 3.0})])
    sizes = log.sizes()
    log.scalars([(3, {"loss": 2.5})])
    evaluate(follows, 4, 2.25, 2.0)
    assert follows.end(None) == {}
    assert wandb.runs[0].exit_code == 1
    log.go_back(sizes)
    follows = follow(log)
    log.scalars([(3, {"loss": 2.5}), (4, {"loss": 2.0})])
    evaluate(follows, 4, 2.25, 3.0)
    evaluate(follows, 6, 2.0, 4.0)
    follows.end({"status": "complete"})
    first, second = wandb.runs
    assert second.options["id"] == first.id == "drawn"
    assert second.options["resume"] == "allow"
    assert [(step, *values) for step, values in first.logged] == [
        *((step, "training/loss") for step in (1, 2, 3)),
        (4, "validation/loss", "submission_clock_s"),
    ]
    assert [(step, *values) for step, values in second.logged] == [
        (4, "training/loss"),
        (6, "validation/loss", "submission_clock_s"),
    ]


def test_a_trial_that_failed_is_a_failed_run(wandb, log):
    follow(log).end({"status": "failed"})
    assert wandb.runs[0].exit_code == 1


def test_a_mistake_leaves_no_folder(wandb, log):
    follows = follow(log)
    assert (log.folder / "wandb").is_dir()
    log.discard()
    (log.folder / "wandb" / "late").mkdir(parents=True)  # W&B's service may write once more
    follows.end(None)
    assert wandb.runs[0].exit_code == 1
    assert not any(log.folder.iterdir())


def test_a_process_that_did_not_start_has_no_run(wandb, log):
    follows = wandb_run.WandbRun()
    follows.begin(PLAN, log.folder)
    assert follows.end({"status": "failed"}) == {}
    assert wandb.runs == []


def test_only_whole_new_rows_are_read(log):
    assert run_log.scalars(log.folder) == ([], 0)
    log.scalars([(1, {"loss": 4.0})])
    path = log.folder / run_log.SCALARS
    with path.open("a") as file:
        file.write("2,3")  # torn
    rows, end = run_log.scalars(log.folder)
    assert rows == [{"global_step": 1.0, "loss": 4.0}]
    with path.open("a") as file:
        file.write(".5,,0.1\n")
    rows, end = run_log.scalars(log.folder, end)
    assert rows == [{"global_step": 2.0, "loss": 3.5, "learning_rate": 0.1}]
    assert run_log.scalars(log.folder, end) == ([], path.stat().st_size)


@pytest.mark.parametrize(
    ("mode", "has_account", "is_refused"),
    [("online", False, True), ("online", True, False), ("offline", False, False)],
)
def test_an_account_is_needed_only_to_send(monkeypatch, mode, has_account, is_refused):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(mode, has_account))
    monkeypatch.setattr("algoperf.study.companions.need", lambda *_: None)
    if not is_refused:
        return wandb_run.check()
    with pytest.raises(UserError, match="run `wandb login`, or set WANDB_MODE=offline"):
        wandb_run.check()
    return None


# A file of W&B's: a header of 7 bytes, then the log format of LevelDB, whose blocks have 32 KiB and
# whose pieces have a checksum (4 bytes), a length (2), a kind (1: whole; 2, 3, 4: first, middle and
# last of several) and so many bytes.
BLOCK, PIECE = 32768, struct.Struct("<IHB")


def records(path):
    """The records of a W&B file, as its protocol buffers."""
    kinds = importlib.import_module("wandb.proto.wandb_internal_pb2")
    content, at, whole = path.read_bytes(), 7, b""
    while at + PIECE.size <= len(content):
        if BLOCK - at % BLOCK < PIECE.size:  # no room for a piece: padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = PIECE.unpack_from(content, at)
        at += PIECE.size
        whole += content[at : at + length]
        at += length
        if kind in (1, 4):
            yield kinds.Record.FromString(whole)
            whole = b""


def read(folder):
    """Of each W&B run below: (its id, configuration, rows by step, summary, exit code)."""
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        config, rows, summary, run_id, code = {}, {}, {}, None, None
        for record in records(path):
            match record.WhichOneof("record_type"):
                case "run":
                    run_id = record.run.run_id
                    config |= {
                        each.key: json.loads(each.value_json) for each in record.run.config.update
                    }
                case "history":
                    row = {
                        each.key or ".".join(each.nested_key): json.loads(each.value_json)
                        for each in record.history.item
                    }
                    rows.setdefault(int(row.pop("_step")), {}).update(row)
                case "summary":
                    summary |= {
                        each.key or ".".join(each.nested_key): json.loads(each.value_json)
                        for each in record.summary.update
                    }
                case "exit":
                    code = record.exit.exit_code
        yield run_id, config, rows, summary, code


def run(folder, *words, kill_at=None):
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_CACHE_DIR": str(folder / "cache")}
    environment |= {} if kill_at is None else {"ALGOPERF_KILL_AT": kill_at}
    base = ["--workload", "digits", "--submission", "adamw", "--framework", "pytorch", "--wandb"]
    base += ["--max-steps", "30", "--eval-every-steps", "10"]
    return subprocess.run(
        [sys.executable, "-P", "-m", "algoperf", "run", *base, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@needs_wandb
@pytest.mark.slow
def test_offline_a_killed_trial_goes_on_as_the_same_run(tmp_path):
    assert run(tmp_path, kill_at="checkpoint kept#2").returncode == 1
    ended = run(tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "goes on from step 10" in ended.stderr
    (folder,) = tmp_path.glob("runs/*/adamw/study_0/*/trial_1")
    result = run_log.read_result(folder)
    assert (result["flags"], result["status"]) == ([], "complete")
    (first_id, config, rows, _, first_code), (second_id, _, more, summary, code) = read(folder)
    assert first_id == second_id
    assert (first_code, code) == (1, 0)
    assert config["config_hash"] == result["config_hash"]
    assert (max(rows), min(more), max(more)) == (10, 10, 30)  # the scalars of step 10 come late
    assert not set(rows[10]) & set(more[10]) - {"_runtime", "_timestamp"}
    for file, own, name in (
        ("measurements.csv", "loss", "training/loss"),
        ("eval_measurements.csv", "validation/loss", "validation/loss"),
    ):
        with (folder / file).open(newline="") as lines:
            written = {int(row["global_step"]): float(row[own]) for row in csv.DictReader(lines)}
        sent = {step: row[name] for step, row in (*rows.items(), *more.items()) if name in row}
        assert sent == pytest.approx(written)
        assert len(sent) > 2
    assert summary["status"] == "complete"
    assert summary["steps"] == 30


@needs_wandb
@pytest.mark.slow
def test_the_folder_is_no_finding(tmp_path):
    assert run(tmp_path).returncode == 0
    assert any(tmp_path.glob("runs/**/*.wandb"))
    words = [sys.executable, "-P", "-m", "algoperf", "score", "runs"]
    scored = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert scored.returncode == 0
    assert "wandb" not in scored.stdout + scored.stderr


@pytest.mark.slow
def test_a_failure_of_wandb_ends_no_trial(tmp_path, monkeypatch, wandb, capsys):
    monkeypatch.setattr("algoperf.study.companions.need", lambda *_: None)
    monkeypatch.delattr(FakeWandb, "init")
    words = ["run", "--workload", "digits", "--submission", "adamw", "--framework", "pytorch"]
    words += ["--max-steps", "4", "--eval-every-steps", "2", "--wandb", "--out", str(tmp_path)]
    assert commands.main(words) == 0
    said, complaints = capsys.readouterr()
    assert "complete after" in said
    assert complaints.count("--wandb failed and is left out: AttributeError") == 1
