"""A real SLURM and a real Ray, where they are installed: a study, a preemption, the same results.

SLURM is the one that `sbatch` reaches, or else, for the administrator of a machine that has
Debian's slurm-wlm and munge, one of a single node that is started for the test.
"""

import contextlib
import csv
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from algoperf.run_folder import run_log

pytestmark = pytest.mark.slow
WORDS = "--workload digits --submission nadamw --framework pytorch --studies 3 --threads 1"
WORDS += " --max-steps 3000 --eval-every-steps 100 --until end"
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser=root
SlurmctldPort={port}
SlurmdPort={next_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=2,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=2000 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def asked(*command):
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return ended.stdout if ended.returncode == 0 else ""


def wait_until(condition, seconds=400):
    for _ in range(seconds * 5):
        if condition():
            return
        time.sleep(0.2)
    pytest.fail("it did not come")


@pytest.fixture
def slurm(tmp_path_factory, monkeypatch):
    """SLURM, or a reason to skip."""
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("submitit is not installed: pip install 'algoperf[slurm]'")
    if shutil.which("sbatch") is None:
        pytest.skip("there is no sbatch on this machine")
    if asked("sinfo", "--noheader"):
        yield
        return
    if os.getuid() != 0 or None in map(shutil.which, ("slurmctld", "slurmd", "munged")):
        pytest.skip("sbatch reaches no SLURM, and none can be started here")
    with contextlib.ExitStack() as stack:
        folder = tmp_path_factory.mktemp("slurm")
        for each in (folder, *folder.parents[:2]):
            each.chmod(0o711)  # munge wants its socket to be reachable
        for name in ("munge", "state", "spool"):
            (folder / name).mkdir()
        (folder / "munge").chmod(0o755)
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            second.bind(("127.0.0.1", 0))
            ports = first.getsockname()[1], second.getsockname()[1]
        text = CONFIGURATION.format(
            folder=folder,
            host=socket.gethostname().split(".")[0],
            port=ports[0],
            next_port=ports[1],
            cores=os.cpu_count(),
        )
        (folder / "slurm.conf").write_text(text)
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        munge = [f"--{name}-file={folder}/munge/{name}" for name in ("key", "pid", "log", "seed")]
        socket_words = [f"--socket={folder}/munge/socket", "--foreground"]
        for command in (["munged", *munge, *socket_words], ["slurmctld", "-D"], ["slurmd", "-D"]):
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            time.sleep(0.5)
        wait_until(lambda: "idle" in asked("sinfo", "--noheader", "--format=%T"), 30)
        yield
        asked("scancel", "--user", "root")
        wait_until(lambda: not asked("squeue", "--noheader"), 60)


def start(out, *words):
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "algoperf", "run", *WORDS.split(), "--out", str(out), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def folder_of(out, study):
    return run_log.trial_folder(out, "mini-builtin", "nadamw", study, "digits", "pytorch", 1)


def curve(out, study):
    """The metrics of a trial by step: nothing of its times, nor how often it was interrupted."""
    with (folder_of(out, study) / run_log.EVALUATIONS).open(newline="") as file:
        return [
            (row["global_step"], {name: value for name, value in row.items() if "/" in name})
            for row in csv.DictReader(file)
        ]


def rows(out, study):
    path = folder_of(out, study) / run_log.EVALUATIONS
    return path.read_text().count("\n") if path.exists() else 0


def check_same_as_local(out, tmp_path):
    """Each trial once, with a local run's values to the last bit."""
    local = start(tmp_path / "local")
    lines, _ = local.communicate(timeout=900)
    assert local.returncode == 0, lines
    for study in range(3):
        assert run_log.read_result(folder_of(out, study))["status"] == "complete"
        assert len(curve(out, study)) == 31
        assert curve(out, study) == curve(tmp_path / "local", study)


def interruptions(out, study):
    return len(list(folder_of(out, study).glob("flags_*.json"))) - 1


def test_slurm(tmp_path, slurm):
    out = tmp_path / "out"
    words = ["--executor", "slurm", "--time-limit-min", "10", "--memory-gb", "0.9"]
    first = start(out, *words, "--workers", "1")
    wait_until(lambda: rows(out, 0) >= 3)
    first.kill()  # its jobs stay
    first.communicate()
    (order,) = (out / ".jobs").glob("algoperf-*.json")
    listed = asked("squeue", "--noheader", "--array", "--format=%i %t", f"--name={order.stem}")
    by_state = dict(line.split()[::-1] for line in listed.splitlines() if line.split()[1] == "R")
    job = by_state["R"]
    # Once it is sent, scancel tries for a minute to send it to the array's other jobs as well.
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(["scancel", "--signal=USR1", job], check=False, timeout=3)
    wait_until(lambda: asked("squeue", "--noheader", "--format=%t", "-j", job).strip() == "PD")
    assert run_log.read_result(folder_of(out, 0)) is None
    again = start(out, *words, "--workers", "1")
    for _ in range(300):  # It may not start for two minutes otherwise.
        asked("scontrol", "update", f"JobId={job}", "StartTime=now")
        with contextlib.suppress(subprocess.TimeoutExpired):
            again.wait(1)
            break
    lines, _ = again.communicate(timeout=60)
    assert again.returncode == 0, lines
    assert "jobs of before go on" in lines
    assert "submitted" not in lines
    assert [interruptions(out, study) for study in range(3)] == [1, 0, 0]
    check_same_as_local(out, tmp_path)


def test_a_job_that_slurm_cancels_does_not_come_again(tmp_path, slurm):
    out = tmp_path / "out"
    words = ["--executor", "slurm", "--trial-range", "1:1", "--study-range", "0:0"]
    first = start(out, *words)
    wait_until(lambda: rows(out, 0) >= 3)
    (order,) = (out / ".jobs").glob("algoperf-*.json")
    asked("scancel", f"--name={order.stem}")
    lines, _ = first.communicate(timeout=120)
    assert first.returncode == 1
    assert "its job was cancelled or lost" in lines
    assert run_log.read_result(folder_of(out, 0)) is None
    again = start(out, *words)
    lines, _ = again.communicate(timeout=900)
    assert again.returncode == 0, lines
    assert interruptions(out, 0) == 1
    assert len(curve(out, 0)) == 31


@pytest.fixture
def ray(monkeypatch):
    """The address of a Ray of one machine, or a reason to skip."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'algoperf[ray]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scripts = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
    head = [*scripts, "start", "--head", f"--port={port}", "--node-ip-address=127.0.0.1"]
    head += ["--num-cpus=1", "--include-dashboard=false", "--disable-usage-stats"]
    subprocess.run(head, check=True, capture_output=True, timeout=120)
    yield f"127.0.0.1:{port}"
    own = [process for process in psutil.process_iter() if is_of_ray(process, str(port))]
    for process in own:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(own, 10)
    for process in alive:
        process.kill()


def is_of_ray(process, port):
    """Whether a process is one of the Ray that has this port: all of them are told it."""
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        return any("ray" in word for word in words) and any(port in word for word in words)
    return False


def jobs_of(order, index):
    """The processes that run a job, by the arguments that they were started with."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[-2:] == [str(order), str(index)]:
                processes.append(process)
    return processes


def test_ray(tmp_path, ray):
    out = tmp_path / "out"
    words = ["--executor", "ray", "--ray-address", ray]
    first = start(out, *words)
    wait_until(lambda: rows(out, 0) + rows(out, 1) + rows(out, 2) >= 3)
    first.kill()  # its actors stay
    first.communicate()
    (order,) = Path(out / ".jobs").glob("algoperf-*.json")
    (study,) = [each for each in range(3) if rows(out, each)]
    (job,) = jobs_of(order.resolve(), study)
    job.send_signal(signal.SIGUSR1)
    wait_until(lambda: not job.is_running())
    assert run_log.read_result(folder_of(out, study)) is None
    again = start(out, *words)
    lines, _ = again.communicate(timeout=400)
    assert again.returncode == 0, lines
    assert "3 jobs of before go on" in lines
    assert "submitted" not in lines
    assert sum(interruptions(out, each) for each in range(3)) == interruptions(out, study) == 1
    check_same_as_local(out, tmp_path)
