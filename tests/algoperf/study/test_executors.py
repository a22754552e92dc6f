"""Tasks as jobs: orders on disk, a cluster that is a list, and what is asked of SLURM and Ray."""

import dataclasses
import json
import os
import signal
import sys
import threading
import types
from pathlib import Path

import pytest

from algoperf.cli import commands
from algoperf.errors import UserError
from algoperf.machine import supervision
from algoperf.machine.supervision import InterruptedRunError
from algoperf.run_folder import run_log
from algoperf.study import run_plan, status, trial_tasks
from algoperf.study.executors import cluster, executor, job, orders, ray_cluster, slurm
from algoperf.study.executors.ray_cluster import RayCluster
from algoperf.study.executors.slurm import Slurm
from algoperf.study.request import RunRequest

pytestmark = pytest.mark.usefixtures("usual_handlers")

# Stands for `algoperf run EXPERIMENT FOLDER CODE`.
RUN = """
import os, pathlib, signal, sys, time
_, name, folder, code = sys.argv[1:]
folder = pathlib.Path(folder)
folder.mkdir(parents=True, exist_ok=True)
if code == "waits":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    (folder / "begun").touch()
    time.sleep(60)
if code == "taken" and not (folder / "tried").exists():
    (folder / "tried").touch()
    print("algoperf: x: another process works on this trial; wait", file=sys.stderr)
    sys.exit(2)
(folder / "cores").write_text(str(len(os.sched_getaffinity(0))))
if code in ("0", "taken"):
    (folder / "result.json").write_text('{"status": "reached"}')
    print(f"{name}: reached")
else:
    print("Traceback\\nOSError: no disk", file=sys.stderr)
sys.exit(0 if code == "taken" else int(code))
"""


@dataclasses.dataclass(frozen=True)
class Task:
    experiment: str
    code: str = "0"

    def command(self, out):
        return ["run", self.experiment, str(self.folders(out)[0]), self.code]

    def folders(self, out):
        return [out / self.experiment / "x" / "study_0" / "digits_jax" / "trial_1"]

    def has_ended(self, out):
        return (self.folders(out)[0] / "result.json").exists()

    def prepare(self, out):
        pass


class Listed:
    """A cluster whose jobs run when a test lets them."""

    name = "listed"
    threads = 1

    def __init__(self):
        self.queue, self.orders, self.looks, self.each_look = [], [], 0, lambda: None

    def submit(self, order):
        assert order.path.exists()  # so that a starter that dies now has left it
        self.orders.append(order)
        self.queue += [(order, index) for index in range(len(order.tasks))]

    def alive(self, listed):
        self.looks += 1
        self.each_look()
        names = {order.name for order in listed}
        return {(order.name, index) for order, index in self.queue if order.name in names}

    def commands(self, listed):
        return "look"

    def carry_out(self):
        order, index = self.queue.pop(0)
        return job.carry_out(str(order.path), index)


@pytest.fixture
def listed(tmp_path, monkeypatch):
    (tmp_path / "run.py").write_text(RUN)
    monkeypatch.setattr(job, "PROGRAM", (sys.executable, "-S", str(tmp_path / "run.py")))
    monkeypatch.setattr(cluster, "POLL_S", 0.0)
    monkeypatch.setattr(executor, "RETRY_S", 1.0)
    return Listed()


def test_each_task_is_a_job_and_its_end_is_told(tmp_path, listed):
    todo, lines = [Task("a"), Task("b", "1"), Task("c")], []
    listed.each_look = lambda: listed.queue and listed.carry_out()
    assert cluster.run(listed, todo, tmp_path / "out", lines.append) == 1
    assert lines == [
        "submitted: 3 jobs; look",
        "a: reached",
        "b/x/study_0/digits_jax/trial_1: OSError: no disk",
        "c: reached",
    ]
    assert len(listed.orders) == 1  # one array
    assert not list((tmp_path / "out" / orders.FOLDER).iterdir())
    cores = {path.read_text() for path in (tmp_path / "out").rglob("cores")}
    assert cores == {"1"}
    lines.clear()
    assert cluster.run(listed, [todo[0], todo[2]], tmp_path / "out", lines.append) == 0
    assert lines == []  # They have ended.


def test_the_same_command_finds_the_jobs_of_a_starter_that_died(tmp_path, listed):
    out, todo = tmp_path / "out", [Task("a"), Task("b"), Task("c")]
    looks = []

    def die():
        looks.append(1)
        if len(looks) == 2:
            raise MemoryError

    listed.each_look = die
    with pytest.raises(MemoryError):
        cluster.run(listed, todo[:2], out, lambda line: None)
    assert len(listed.queue) == 2
    (order,) = orders.read_all(out)
    assert order.content["executor"] == "listed"
    assert [task["experiment"] for task in order.tasks] == ["a", "b"]
    assert listed.carry_out() == 0  # one ends while nobody looks
    lines = []
    before = len(looks)

    def go_on():
        looks.append(1)
        if len(looks) > before + 1 and listed.queue:  # the first look is who is there
            listed.carry_out()

    listed.each_look = go_on
    assert cluster.run(listed, todo, out, lines.append) == 0
    assert lines[:2] == ["1 jobs of before go on", "submitted: 1 jobs; look"]  # b; c
    assert [len(each.tasks) for each in listed.orders] == [2, 1]
    assert all(task.has_ended(out) for task in todo)


def test_a_job_that_is_gone_without_a_word_is_told_and_submitted_by_the_next_command(
    tmp_path, listed
):
    out, lines = tmp_path / "out", []
    listed.each_look = listed.queue.clear  # cancelled
    assert cluster.run(listed, [Task("a")], out, lines.append) == 1
    assert "its job was cancelled or lost" in lines[-1]
    assert listed.looks == cluster.LOOKS
    listed.each_look = lambda: listed.queue and listed.carry_out()
    assert cluster.run(listed, [Task("a")], out, lines.append) == 0


def test_a_signal_ends_the_starter_and_leaves_the_jobs(tmp_path, listed):
    lines = []
    listed.each_look = lambda: signal.raise_signal(signal.SIGTERM)
    with pytest.raises(InterruptedRunError):
        cluster.run(listed, [Task("a")], tmp_path / "out", lines.append)
    assert lines[-1] == "1 jobs go on, and the same command finds them: look"
    assert len(listed.queue) == 1


def test_a_cluster_that_does_not_answer_loses_no_job(tmp_path, listed):
    answers = []

    def alive(asked):
        answers.append(1)
        if len(answers) == 9:
            listed.carry_out()
        return

    listed.alive = alive
    lines = []
    assert cluster.run(listed, [Task("a")], tmp_path / "out", lines.append) == 0, lines
    assert len(answers) == 9
    assert lines[1:] == ["a: reached"]


def test_a_task_that_another_process_has_is_waited_for(tmp_path, listed):
    out, lines = tmp_path / "out", []
    (folder,) = Task("a").folders(out)
    with supervision.locked(folder):
        held = threading.Event()

        def look(seconds):
            if listed.looks == 0 and not held.is_set():
                held.set()
                run_log.write_json(folder / "result.json", {"status": "reached"})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cluster.time, "sleep", look)
            assert cluster.run(listed, [Task("a")], out, lines.append) == 0
    assert lines == ["a/x/study_0/digits_jax/trial_1: ended by another process"]
    assert listed.orders == []


def order_of(tmp_path, *tasks, threads=1):
    out = tmp_path / "out"
    return orders.write("listed", {task: task.command(out) for task in tasks}, out, threads)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_job_that_is_asked_to_stop_saves_and_says_nothing(tmp_path, listed, number):
    order = order_of(tmp_path, Task("a", "waits"))
    begun = tmp_path / "out" / "a/x/study_0/digits_jax/trial_1" / "begun"

    def send():
        while not begun.exists():
            pass
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    assert job.carry_out(str(order.path), 0) == 75
    thread.join()
    assert order.outcome(0) is None


def test_a_job_that_cannot_begin_says_why(tmp_path, listed):
    order = order_of(tmp_path, Task("a"), threads=len(os.sched_getaffinity(0)) + 1)
    assert job.carry_out(str(order.path), 0) == 2
    assert "this process may use only" in order.outcome(0)["line"]
    assert job.carry_out(str(order.path), 5) == 2


def test_the_jobs_that_squeue_lists():
    assert slurm.jobs("algoperf-1|0\nalgoperf-1|12\nalgoperf-2|N/A\n\n") == {
        ("algoperf-1", 0),
        ("algoperf-1", 12),
        ("algoperf-2", 0),
    }


def test_what_is_asked_of_sbatch():
    asked = Slurm(2, 3, 10, 1.5, 1, {"partition": "long"}).parameters("algoperf-1")
    assert asked == {
        "job_name": "algoperf-1",
        "time": 10,
        "cpus_per_task": 2,
        "signal_delay_s": 120,
        "additional_parameters": {"requeue": True, "partition": "long"},
        "srun_args": ["--cpus-per-task=2"],
        "array_parallelism": 3,
        "mem": "1536M",
        "gpus_per_node": 1,
    }
    assert Slurm(time_limit_min=1).parameters("x")["signal_delay_s"] == 30


@pytest.mark.parametrize(
    ("code", "state", "calls"),
    [
        (75, "RUNNING", ["show job 7_2", "requeue 7_2"]),
        (75, "CANCELLED", ["show job 7_2"]),
        (75, "PREEMPTED", ["show job 7_2"]),
        (1, "RUNNING", []),
        (0, "RUNNING", []),
    ],
)
def test_a_job_that_saved_queues_itself_again_unless_it_is_cancelled(
    tmp_path, monkeypatch, code, state, calls
):
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\necho JobState={state} Reason=x\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setattr(job, "carry_out", lambda path, index: code)
    assert slurm.carry_out("order", 0) == code
    listed_calls = tmp_path / "calls"
    assert (listed_calls.read_text().splitlines() if listed_calls.exists() else []) == calls


def test_a_cluster_of_ray_that_has_no_room_is_told():
    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0, "memory": 2.0 * 2**30}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0, "memory": 1e12}},
    ]
    ray = types.SimpleNamespace(nodes=lambda: nodes)
    RayCluster(2, 1.5)._check(ray)
    for wanted in (RayCluster(3), RayCluster(1, 3.0), RayCluster(1, None, 1)):
        with pytest.raises(UserError, match="none of the cluster's 1 machines has"):
            wanted._check(ray)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--executor local --gpus 1", "--gpus goes with --executor slurm or ray, not local"),
        ("--time-limit-min 5", "--time-limit-min goes with --executor slurm, not local"),
        ("--executor ray --time-limit-min 5", "--time-limit-min goes with --executor slurm"),
        ("--executor slurm --ray-address auto", "--ray-address goes with --executor ray, not"),
        ("--executor ray --workers 2", "--workers goes with --executor local or slurm"),
        ("--workers 2", "--workers goes with --executor slurm"),
        ("--executor slurm --overwrite", "--overwrite goes with --executor local"),
        (
            "--executor slurm --validation-seed text:sixteen-characters",
            "--validation-seed goes with --executor local",
        ),
    ],
)
def test_options_that_do_not_go_together(tmp_path, capsys, words, message):
    command = "run --workload ag_news --submission adamw --out"
    assert commands.main([*command.split(), str(tmp_path / "out"), *words.split()]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["partition", "=long", "a b=c", "partition="])
def test_an_option_of_sbatch_that_is_none(capsys, text):
    with pytest.raises(SystemExit):
        commands.main(["run", "--workload", "x", "--submission", "y", "--sbatch", text])
    assert f"{text!r} is not NAME=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "module"), [("slurm", slurm), ("ray", ray_cluster)])
def test_what_is_not_installed_names_its_extra(tmp_path, capsys, monkeypatch, name, module):
    real = module.importlib.util.find_spec

    def find(asked):
        return None if asked in ("submitit", "ray") else real(asked)

    monkeypatch.setattr(module.importlib.util, "find_spec", find)
    command = f"run --workload digits --submission adamw --executor {name} --out"
    assert commands.main([*command.split(), str(tmp_path / "out")]) == 2
    assert f"algoperf[{name}]" in capsys.readouterr().err


def test_the_trials_of_a_run_as_tasks(tmp_path):
    request = RunRequest(
        "digits", "nadamw", tuning_ruleset="external", studies=2, trial_range="2:3", out=tmp_path
    )
    plan = run_plan.make(request)
    tasks = trial_tasks.tasks(plan)
    assert [(task.study, task.trial) for task in tasks] == [(0, 2), (0, 3), (1, 2), (1, 3)]
    assert len(set(tasks)) == 4
    words = tasks[2].command(tmp_path)
    assert words[:1] == ["run"]
    assert words[words.index("--trial-range") + 1] == "2:2"
    assert words[words.index("--study-range") + 1] == "1:1"
    (folder,) = tasks[2].folders(tmp_path)
    assert folder == tmp_path / "mini-builtin/nadamw/study_1/digits_jax/trial_2"
    again = run_plan.make(dataclasses.replace(tasks[2].request))
    assert list(again.chosen) == [(1, 2)]
    assert not tasks[2].has_ended(tmp_path)
    folder.mkdir(parents=True)
    run_log.write_json(folder / run_log.RESULT, {"status": "reached"})
    assert [task.has_ended(tmp_path) for task in tasks] == [False, False, True, False]
    assert trial_tasks.results(tasks, tmp_path) == [{"status": "reached"}]


def test_status_tells_of_jobs_that_wait(tmp_path):
    out = tmp_path / "out"
    order = order_of(tmp_path, Task("a"), Task("b"))
    orders.write_outcome(order.path, 1, 0, "b: reached")
    (trial,) = status.read(out)
    assert (trial.experiment, trial.submission, trial.workload) == ("a", "x", "digits")
    assert (trial.state, trial.note) == (status.WAITING, f"a job of listed ({order.name})")
    assert not json.loads(Path(order.path).read_text())["folder"].startswith("~")


def test_a_job_waits_for_another_process_that_has_its_trial(tmp_path, listed):
    order = order_of(tmp_path, Task("a", "taken"))
    assert job.carry_out(str(order.path), 0) == 0
    assert order.outcome(0)["line"] == "a: reached"
    assert list(tmp_path.rglob("tried"))
