"""What goes wrong in a trial ends that trial, is written down, and ends nothing else."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from algoperf.cli import commands
from algoperf.machine import resources, stopping
from algoperf.run_folder import run_log
from algoperf.submission.blame import cause_of
from algoperf.trial import assemble, process, result
from algoperf.trial.clock import Ledger
from algoperf.trial.plan import TrialPlan

FAULTY = """
import os, signal
{imports}

def check(hyperparameters, where):
    if hyperparameters.fault == where:
        raise RuntimeError(f"broken on purpose in {{where}}")

def init_optimizer_state(hyperparameters):
    check(hyperparameters, "init_optimizer_state")
    return {{}}

def data_selection(input_queue, hyperparameters, global_step):
    if global_step == 2:
        check(hyperparameters, "data_selection")
    return next(input_queue)

def update_params(
    workload, current_param_container, model_state, hyperparameters, optimizer_state, global_step
):
    params = current_param_container
    if hyperparameters.fault == "recovers" and global_step in (1, 2):
        params = with_bias(params, (-float("inf"), 0.0)[global_step - 1])
    if global_step == 2:
        check(hyperparameters, "update_params")
        match hyperparameters.fault:
            case "nan":
                params = with_head(params, lambda kernel: kernel * float("nan"))
            case "hidden":
                params = with_bias(params, -float("inf"))
            case "shape":
                params = with_head(params, lambda kernel: kernel[:, :5])
            case "type":
                params = with_head(params, to_half)
            case "missing":
                params = {missing}
            case "loss":
                workload.metrics_logger.append_scalar_metrics({{"loss": float("inf")}}, global_step)
            case "memory":
                raise MemoryError
            case "donated":
                use_up(params)
                raise RuntimeError("broken on purpose in donated")
            case "exhausted":
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")
            case "exit":
                os._exit(7)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "interpreter exit":
                raise SystemExit(3)
            case "interrupt":
                raise KeyboardInterrupt
            case "input":
                input()
            case "tuple":
                return params
    return optimizer_state, params, model_state

def prepare_for_eval(optimizer_state, current_param_container, model_state, hyperparameters):
    check(hyperparameters, "prepare_for_eval")
    return optimizer_state, current_param_container, model_state
"""
JAX = (
    FAULTY.format(imports="import jax\nimport jax.numpy as jnp", missing="None")
    + """
def with_head(params, change):
    return {**params, "head": {**params["head"], "kernel": change(params["head"]["kernel"])}}

def use_up(params):
    jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)(params)

def with_bias(params, value):  # what minus infinity there does, the rectifier hides
    layer = params["hidden_0"]
    return {**params, "hidden_0": {**layer, "bias": layer["bias"].at[0].set(value)}}

def to_half(kernel):
    return kernel.astype(jnp.float16)
"""
)
TORCH = (
    FAULTY.format(imports="import torch", missing="None")
    + """
def with_head(params, change):
    (head,) = [each for name, each in params.named_modules() if name == "head"]
    head.weight = torch.nn.Parameter(change(head.weight.detach()))
    return params

def with_bias(params, value):
    params.hidden_0.bias.data[0] = value
    return params

def to_half(kernel):
    return kernel.half()
"""
)
FAULTS = {
    "init_optimizer_state": (
        "failed",
        0,
        "RuntimeError: broken on purpose in init_optimizer_state",
    ),
    "data_selection": ("failed", 2, "RuntimeError: broken on purpose in data_selection"),
    "update_params": ("failed", 2, "RuntimeError: broken on purpose in update_params"),
    "prepare_for_eval": ("failed", 1, "RuntimeError: broken on purpose in prepare_for_eval"),
    "shape": (
        "failed",
        3,
        "update_params changed the parameters: head/kernel was float32",
    ),
    "type": ("failed", 3, "update_params changed the parameters: head/kernel was float32"),
    "missing": ("failed", None, ""),
    "tuple": ("failed", None, "TypeError: update_params returned dict, expected"),
    "memory": ("failed", 2, "out of memory (MemoryError"),
    "exhausted": ("failed", 2, "out of memory (RuntimeError: RESOURCE_EXHAUSTED"),
    "exit": ("failed", 1, "the trial's process ended with exit code 7 and no result"),
    "killed": ("failed", 1, "the trial's process was ended by SIGKILL"),
    "interpreter exit": ("failed", 1, "SystemExit: 3 (faulty.py:"),
    "interrupt": ("failed", 1, "KeyboardInterrupt (faulty.py:"),
    "input": ("failed", 2, "EOFError: EOF when reading a line (faulty.py:"),
    "nan": ("diverged", 3, None),
    "donated": ("failed", 2, "RuntimeError: broken on purpose in donated"),
    "hidden": ("diverged", 3, None),
    "recovers": ("complete", 3, None),  # with --keep-going
    "loss": ("diverged", 3, None),
    "none": ("complete", 3, None),
}
IN_THE_DEFAULT_RUN = ("init_optimizer_state", "update_params", "prepare_for_eval", "shape")
IN_THE_DEFAULT_RUN += ("exhausted", "exit", "interpreter exit", "interrupt", "input", "killed")
IN_THE_DEFAULT_RUN += ("nan", "none")


class Study:
    """One study whose trials have a fault each; the last has none."""

    def __init__(self, folder: Path, framework: str, faults, *more: str):
        self.folder, self.framework, self.faults = folder, framework, faults
        source = JAX if framework == "jax" else TORCH
        (folder / "faulty.py").write_text(source)
        (folder / "faults.json").write_text(json.dumps([{"fault": fault} for fault in faults]))
        options = ("--max-steps", "3", "--eval-every-steps", "3", "--trials", str(len(faults)))
        self.words = ["run", "--workload", "digits", "--submission", f"{folder}/faulty.py"]
        self.words += ["--framework", framework, "--search-space", f"{folder}/faults.json"]
        self.words += [*options, "--out", f"{folder}/runs", *more]
        self.code = commands.main(self.words)

    def trial(self, fault):
        study = self.folder / "runs/mini-builtin/faulty/study_0" / f"digits_{self.framework}"
        return study / f"trial_{1 + self.faults.index(fault)}"

    def result(self, fault):
        return run_log.read_result(self.trial(fault))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("faults"), "jax", list(IN_THE_DEFAULT_RUN))


def check(study, fault):
    status, steps, cause = FAULTS[fault]
    if study.framework == "pytorch" and cause is not None:
        cause = cause.replace("head/kernel was ", "head.weight was torch.")
    result = study.result(fault)
    assert result["status"] == status
    assert steps is None or result["steps"] == steps
    flags = json.loads((study.trial(fault) / "flags_0.json").read_text())
    assert flags["submission"] == result["submission"] == "faulty"
    assert json.loads((study.trial(fault) / "hparams.json").read_text()) == {"fault": fault}
    assert (study.trial(fault) / "submission/faulty.py").is_file()
    assert 0.02 < result["resources"]["cpu_s"] < 600  # it has started a process at the least
    assert set(result["resources"]) == {*resources.MEASURED, "cores", "sources"}
    if cause is None:
        assert result["error"] is None
        return
    assert result["error"]["cause"].startswith(cause)
    if "(faulty.py:" in cause:
        assert 'faulty.py", line' in result["error"]["traceback"]
    if "on purpose" in cause:
        assert 'faulty.py", line' in result["error"]["traceback"]
        assert result["error"]["traceback"].rstrip().endswith(f"on purpose in {fault}")


@pytest.mark.parametrize("fault", IN_THE_DEFAULT_RUN)
def test_a_fault_is_written_down(study, fault):
    check(study, fault)


def test_the_study_goes_on_and_says_so(study):
    assert study.code == 1
    assert study.result("none")["status"] == "complete"
    assert len({study.result(fault)["seed"] for fault in ("nan", "none", "shape")}) == 3


def test_what_was_measured_before_the_end_is_kept(study):
    for fault in ("exit", "interrupt", "killed", "update_params", "none"):
        with (study.trial(fault) / "eval_measurements.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["global_step"] for row in rows][:1] == ["1"]
        final = study.result(fault)["final"]
        assert final["validation/accuracy"] == float(rows[-1]["validation/accuracy"])


def test_ended_trials_are_skipped_whatever_their_end(study, capsys):
    """But for the one that a signal ended, which may have come from outside."""
    again = study.trial("killed")

    def times():
        paths = (path for path in study.folder.rglob("trial_*/*") if path.parent != again)
        return {path: path.stat().st_mtime_ns for path in paths}

    before = times()
    assert commands.main(study.words) == 1
    assert capsys.readouterr().err.count("done before") == len(study.faults) - 1
    assert times() == before
    assert study.result("killed")["error"]["outside"]
    assert (again / "flags_1.json").is_file()
    for fault in ("exit", "update_params", "shape"):
        assert not study.result(fault)["error"].get("outside")


@pytest.mark.slow
def test_the_rarer_faults(tmp_path):
    rare = [fault for fault in FAULTS if fault not in (*IN_THE_DEFAULT_RUN, "recovers")]
    study = Study(tmp_path, "jax", rare)
    for fault in rare:
        check(study, fault)
    check_hidden(study.result("hidden"))


@pytest.mark.slow
def test_faults_in_pytorch(tmp_path):
    faults = ["init_optimizer_state", "shape", "type", "missing", "nan", "hidden", "killed", "none"]
    study = Study(tmp_path, "pytorch", faults)
    assert study.code == 1
    for fault in faults:
        check(study, fault)
    check_hidden(study.result("hidden"))


def check_hidden(result):
    """Only the parameters show it, at step 3 of the evaluations 1 and 3."""
    assert result["not_finite"] == {"parameters": {"first_step": 3, "last_step": 3, "times": 1}}
    assert 1.0 < result["final"]["validation/loss"] < 3.0


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_a_submission_that_recovers_may_go_on(tmp_path, framework, capsys):
    study = Study(tmp_path, framework, ["recovers"], "--keep-going", "--eval-every-steps", "1")
    check(study, "recovers")
    seen = {"parameters": {"first_step": 2, "last_step": 2, "times": 1}}
    assert study.result("recovers")["not_finite"] == seen
    assert "  not finite: parameters, 1 times from step 2 to 2\n" in capsys.readouterr().out
    flags = json.loads((study.trial("recovers") / "flags_0.json").read_text())
    assert flags["keep_going"] is True


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), "out of memory (MemoryError)"),
        (RuntimeError("CUDA out of memory. Tried to"), "out of memory (RuntimeError: CUDA out of"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory (Runtime"),
        (ValueError("first line\nsecond"), "ValueError: first line"),
        (KeyError("a"), "KeyError: 'a'"),
    ],
)
def test_cause(error, cause):
    assert cause_of(error).startswith(cause)
    assert "\n" not in cause_of(error)


def write(folder, source):
    path = folder / "mine.py"
    path.write_text(source)
    return path


def run(folder, *words):
    path = folder / "mine.py"
    base = ["run", "--workload", "digits", "--submission", str(path), "--framework", "jax"]
    return commands.main([*base, "--max-steps", "1", "--out", str(folder / "runs"), *words])


def result_of(folder, framework="jax"):
    study = folder / f"runs/mini-builtin/mine/study_0/digits_{framework}"
    return run_log.read_result(study / "trial_1")


def test_optimizer_that_cannot_be_made(tmp_path, capsys):
    write(tmp_path, "DEFAULTS = {}\ndef jax_optimizer():\n    return 1 / 0\n")
    assert run(tmp_path) == 1
    assert result_of(tmp_path)["status"] == "failed"
    assert result_of(tmp_path)["error"]["cause"] == (
        "ZeroDivisionError: division by zero (mine.py:3)"
    )
    said = capsys.readouterr().out
    assert "the result.json of each has its error's traceback" in said
    assert "score them with" not in said


def test_what_leaves_while_the_file_is_imported_is_named_with_its_line(tmp_path, capfd):
    write(tmp_path, "import sys\nDEFAULTS = {}\ndef jax_optimizer(): ...\nsys.exit('bye')\n")
    assert run(tmp_path) == 2
    assert capfd.readouterr().err.endswith("mine.py:4: SystemExit: bye\n")
    broken = "import torch\ntorch.set_default_dtype(torch.float64)\nDEFAULTS = {}\n"
    write(
        tmp_path, broken + "def torch_optimizer(params): return torch.optim.SGD(params.tensors())"
    )
    # The model was made before the file was run.
    assert run(tmp_path, "--framework", "pytorch") == 0
    result = result_of(tmp_path, "pytorch")
    assert (result["status"], result["flags"]) == ("complete", [])


def test_death_while_the_file_is_imported(tmp_path, capsys):
    write(tmp_path, "import os\nDEFAULTS = {}\ndef jax_optimizer(): ...\nos._exit(9)\n")
    assert run(tmp_path) == 1
    result = result_of(tmp_path)
    assert result["error"]["cause"] == "the trial's process ended with exit code 9 and no result"
    assert (
        "digits jax mine study 0 trial 1: failed before its first eval" in capsys.readouterr().out
    )
    write(tmp_path, "DEFAULTS = {}\ndef jax_optimizer(): ...\n")
    assert run(tmp_path) == 2  # its flags are there, so that other source is not taken for it
    assert "holds another submission named 'mine'" in capsys.readouterr().err


def test_a_mistake_that_shows_late_does_not_stand_in_the_way_of_its_mending(tmp_path, capsys):
    body = "def jax_optimizer(hyperparameters):\n    import optax\n    return optax.sgd(0.1)\n"
    write(tmp_path, 'DEFAULTS = {"rate": 0.1}\n' + body)
    assert run(tmp_path) == 2
    assert "nobody reads hyperparameter 'rate'" in capsys.readouterr().err
    write(tmp_path, "DEFAULTS = {}\n" + body)
    assert run(tmp_path) == 0


@pytest.mark.slow
def test_a_hyperparameter_that_only_a_schedule_reads_is_read(tmp_path):
    body = "def jax_optimizer(hyperparameters):\n    import optax\n"
    body += "    return optax.sgd(lambda step: hyperparameters.rate / (1 + step))\n"
    write(tmp_path, 'DEFAULTS = {"rate": 0.1}\n' + body)
    assert run(tmp_path) == 0


def test_prints_and_threads_of_a_submission_do_no_harm(tmp_path, capsys):
    body = 'import threading, time, sys\nprint(\'{"event": "result", "result": 3}\')\n'
    body += "threading.Thread(target=time.sleep, args=(600,)).start()\n"
    body += "DEFAULTS = {}\ndef jax_optimizer():\n    import optax\n    return optax.sgd(0.1)\n"
    write(tmp_path, body)
    started_at_s = time.perf_counter()
    assert run(tmp_path, "--json") == 0
    assert time.perf_counter() - started_at_s < 400
    (result,) = json.loads(capsys.readouterr().out)
    assert result["status"] == "complete"


ENDLESS = """
import os, pathlib, time
from algoperf import spec

def init_optimizer_state():
    pathlib.Path(__file__).with_name("pid").write_text(str(os.getpid()))

def update_params(optimizer_state, current_param_container, model_state, global_step):
    if pathlib.Path(__file__).with_name("enough").exists():
        raise spec.TrainingCompleteError
    time.sleep(0.02)
    return optimizer_state, current_param_container, model_state
"""


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition, timeout_s=90):
    end_s = time.perf_counter() + timeout_s
    while not condition():
        assert time.perf_counter() < end_s
        time.sleep(0.05)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a run whose starting process was killed in the middle, and what followed."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "endless.py").write_text(ENDLESS)
    words = ["run", "--workload", "digits", "--submission", "endless.py", "--framework", "jax"]
    parent = subprocess.Popen([sys.executable, "-m", "algoperf", *words], cwd=folder)
    trial = folder / "runs/mini-builtin/endless/study_0/digits_jax/trial_1"
    rows = trial / "eval_measurements.csv"
    try:
        wait_until(lambda: rows.is_file() and rows.read_bytes().count(b"\n") >= 4)
        child = int((folder / "pid").read_text())
        assert alive(child)
        before = rows.read_text()
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    died_at_s = time.perf_counter()
    wait_until(lambda: not alive(child), 20)
    return trial, before, time.perf_counter() - died_at_s


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_trial_dies_with_its_starter(killed):
    trial, before, took_s = killed
    assert took_s < 10
    after = (trial / "eval_measurements.csv").read_text()
    assert after.startswith(before)
    time.sleep(1)
    assert (trial / "eval_measurements.csv").read_text() == after, "an orphan is left writing"


def test_rows_of_a_killed_run_are_there_and_score(killed, capsys):
    trial, _, _ = killed
    assert not (trial / "result.json").exists()
    rows = run_log.evaluations(trial)
    assert len(rows) >= 3
    assert [row["global_step"] for row in rows] == sorted({row["global_step"] for row in rows})
    assert all(0 < row["validation/accuracy"] < 0.97 for row in rows)
    with (trial / "eval_measurements.csv").open("a") as file:
        file.write("1.5,0.2")  # as a torn last line would look
    assert len(run_log.evaluations(trial)) == len(rows)
    assert commands.main(["score", str(trial.parents[3])]) == 0
    assert "endless" in capsys.readouterr().out


def test_an_interrupted_trial_is_set_aside_and_run_again(killed, monkeypatch, capsys):
    trial, before, _ = killed
    folder = trial.parents[5]
    monkeypatch.chdir(folder)
    (folder / "enough").touch()
    words = ["run", "--workload", "digits", "--submission", "endless.py", "--framework", "jax"]
    flags = run_log.read_flags(trial)
    assert commands.main([*words, "--no-checkpoint"]) == 0
    assert "was interrupted; what it left is in" in capsys.readouterr().err
    assert (trial / "interrupted_0/eval_measurements.csv").read_text().startswith(before)
    assert run_log.read_flags(trial / "interrupted_0") == flags
    assert run_log.read_result(trial)["status"] == "complete"
    assert len(run_log.evaluations(trial)) == 1


@pytest.mark.parametrize("is_asked", [False, True])
def test_an_error_that_follows_a_signal_is_not_recorded(monkeypatch, is_asked):
    """The signal may have ended a child of the submission's that the step waited for."""
    written, stops = [], stopping.Stops()
    trial = SimpleNamespace(
        limits=SimpleNamespace(budget_s=None, max_steps=None),
        ledger=Ledger(),
        state=SimpleNamespace(step=3),
        last_loss=None,
        referee=SimpleNamespace(predicted=None),
        interrupted=False,
        status=None,
    )
    assembled = SimpleNamespace(
        trial=trial,
        flags={"target": {}},
        submitted=SimpleNamespace(point=None, point_source="its DEFAULTS"),
        referee=SimpleNamespace(step=3, last_loss=None, predicted=None),
        log=SimpleNamespace(folder="folder", result=written.append),
        checkpoints=SimpleNamespace(clear=lambda: None),
    )

    def fail(assembled):
        assert not stops.are_asked
        if is_asked:
            stops.remember()
        trial.status = "failed"

    monkeypatch.setattr(assemble, "assemble", lambda *_: assembled)
    monkeypatch.setattr(assemble, "run", fail)
    monkeypatch.setattr(result, "of", lambda assembled: {"status": assembled.trial.status})
    plan = TrialPlan(*["x"] * 8, study=0, trial=1, seed=0)
    code = process._run(plan, trial.ledger, process.Events(io.StringIO()), stops)
    assert code == (75 if is_asked else 0)
    assert written == ([] if is_asked else [{"status": "failed"}])


def test_progress_is_told_of_a_trial_that_has_started():
    """Before, there is no position that could be shown."""
    stream = io.StringIO()
    events, watched = process.Events(stream), process.Watched(Ledger())
    process._report(events, watched, "progress")
    process._report(events, watched, "note", text="loading")
    referee = SimpleNamespace(step=3, last_loss=0.5, predicted=None)
    watched.attend(referee, lambda: 4)
    process._report(events, watched, "progress")
    process._report(events, watched, "start", budget_s=1.0)
    process._report(events, watched, "progress")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["note", "start", "progress"]
    assert (lines[2]["step"], lines[2]["loss"], lines[2]["clock_s"]) == (4, 0.5, 0.0)
