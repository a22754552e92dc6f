"""Twenty-two cheating submissions, and what each comes to; docs/trust.md has the same table.

`CHEATS` are trials of one study for each framework. A cheat that bends what is measured sets all
parameters to zero beside it: ten classes are then equally likely, and a loss other than ln 10 would
be its doing. One that bends the clock sleeps for a known time. What only a process can show by what
it says is in test_forged.py; what gets through is at the end, and does so without a flag.
"""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from algoperf.cli import commands
from algoperf.data import provenance
from algoperf.data.loading import load_data
from algoperf.machine import supervision
from algoperf.run_folder import run_log
from algoperf.workload import catalogue

HEAD = """
import gc, json, os, pathlib, subprocess, sys, threading, time
import numpy as np
KEPT = {{}}
BESIDE = pathlib.Path({beside!r})

def objects(name):
    ours = ("algoperf.", "workloads.")
    return [each for each in gc.get_objects() if type(each).__name__ == name
            and type(each).__module__.startswith(ours)]

def update_params(workload, current_param_container, model_state, batch, optimizer_state, rng,
                  global_step, hyperparameters):
    params = current_param_container
    KEPT["batch"] = batch
    cheat = globals().get(hyperparameters.cheat.replace(" ", "_"))
    changed = None if cheat is None else cheat(workload, params, global_step)
    return optimizer_state, params if changed is None else changed, model_state

def init_optimizer_state(workload, model_params, hyperparameters):
    if hyperparameters.cheat == "trains in the initialisation":
        zero(model_params)
        if is_jax:
            time.sleep(0.5)
    return {{}}

def data_selection(input_queue, hyperparameters):
    if hyperparameters.cheat != "easier batches" and hyperparameters.cheat != "silent guard":
        return next(input_queue)
    if "easy" not in KEPT:
        batch = dict(next(input_queue))
        batch["inputs"] = 0 * batch["inputs"]
        KEPT["easy"] = batch
    return KEPT["easy"]

def honest(workload, params, step):
    return zero(params)

def write_into_the_workload(workload, params, step):
    for name in ("loss_fn", "model_fn"):
        vars(workload)[name] = lambda *_, **__: 1 / 0
    try:
        workload.step_hint = 1
    except AttributeError as error:
        assert "read-only" in str(error)
    else:
        raise AssertionError
    return zero(params)

def code_of_a_metric(workload, params, step):
    from workloads.metrics.accuracy import Accuracy
    def finish(self):
        return 1.0
    Accuracy.finish.__code__ = finish.__code__
    return zero(params)

def replaced_metric(workload, params, step):
    from workloads.metrics import accuracy
    accuracy.Accuracy.finish = lambda self: 1.0
    return zero(params)

def reference_to_the_metrics(workload, params, step):
    from algoperf.trial import evaluate
    evaluate.accumulate = lambda *_, **__: {{"loss": 0.0, "accuracy": 1.0}}
    return zero(params)

def patched_clock(workload, params, step):
    KEPT.setdefault("clock", time.perf_counter)
    KEPT.setdefault("sleep", time.sleep)
    time.perf_counter = lambda: KEPT["clock"]() / 1000
    time.sleep = lambda seconds: None
    KEPT["sleep"](0.3)

def total_of_the_stopwatch(workload, params, step):
    time.sleep(0.3)
    for ledger in objects("Ledger"):
        ledger.submission._accumulated_s = -1000.0

def silent_guard(workload, params, step):
    class Nothing(list):
        def append(self, text): pass
    for guard in objects("Guard"):
        guard.flags = Nothing()
    return zero(params)

def validation_rows(workload, params, step):
    # Rows of the splits that judge, wherever they are in this process's memory.
    sizes = {sizes!r}
    arrays = [each for each in gc.get_objects() if isinstance(each, np.ndarray)]
    held = [each for each in gc.get_objects() if isinstance(each, dict)]
    arrays += [value for each in held for value in list(each.values())
               if isinstance(value, np.ndarray)]
    assert not any(len(each) in sizes for each in arrays if each.ndim), "rows"
    assert not objects("Evaluator")

def earlier_trial(workload, params, step):
    import algoperf
    assert not hasattr(algoperf, "kept"), "an earlier trial's"

def honest_again(workload, params, step):
    import algoperf
    algoperf.kept = 1

def ends_early(workload, params, step):
    from algoperf import spec
    if step == 1:
        raise spec.TrainingCompleteError
    assert step == 0, "called again"

def works_in_evaluation(workload, params, step):
    \"\"\"A process, and one that cuts itself off, each noting when it works.\"\"\"
    if step == 0:
        note = ("import sys, time\\nwith open(sys.argv[1], 'w', 1) as file:\\n"
                "    for _ in range(4000):\\n        print(time.monotonic(), file=file)\\n"
                "        time.sleep(0.0005)")
        name = f"{{BESIDE}}/{framework}_"
        subprocess.Popen([sys.executable, "-S", "-c", note, name + "child"])
        cut = "import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', *sys.argv[1:]]"
        cut += ", start_new_session=True)"
        subprocess.run([sys.executable, "-S", "-c", cut, note, name + "orphan"])
        while not os.path.exists(name + "orphan") or not os.path.getsize(name + "orphan"):
            time.sleep(0.01)
"""
TORCH = """
import torch
is_jax = False

def zero(params):
    with torch.no_grad():
        for tensor in params.parameters():
            tensor.zero_()
    return params

def answers(inputs):
    # The training row that is nearest, of those in the last batch.
    rows, targets = KEPT["batch"]["inputs"], KEPT["batch"]["targets"].long()
    return 50.0 * torch.nn.functional.one_hot(targets[torch.cdist(inputs, rows).argmin(1)], 10)

def model_of_its_own(workload, params, step):
    params.register_forward_hook(lambda module, given, logits: answers(given[0]))
    return zero(params)

def another_module(workload, params, step):
    kind = type(params)
    params.__class__ = type(kind.__name__, (kind,), {
        "forward": lambda self, inputs, *_, **__: answers(inputs) + 0 * self.head.bias})
    params.forward = params.forward
    return zero(params)

class Trains(torch.Tensor):
    def item(self):
        raise AssertionError("its code was run")
    __array__ = __float__ = item

def scalar_that_trains(workload, params, step):
    workload.metrics_logger.append_scalar_metrics({"loss": torch.zeros(()).as_subclass(Trains)}, 1)
"""
JAX = """
import jax
import jax.numpy as jnp
is_jax = True

def zero(params):
    return jax.tree.map(jnp.zeros_like, params)

def answers(inputs):
    return 50.0 * jnp.eye(10)[jnp.zeros(len(inputs), int)]

def model_of_its_own(workload, params, step):
    from flax import linen
    for kind in (linen.Module, *(type(each) for each in objects("Perceptron"))):
        kind.apply = lambda self, variables, inputs, *_, **__: answers(inputs)
    return zero(params)

def another_module(workload, params, step):
    # What evaluates in this process answers as it likes.
    from algoperf.backends import jax_backend
    jax_backend.JaxBackend.predict = lambda *_, **__: 1 / 0
    from workloads.digits import model_jax
    model_jax.Perceptron.__call__ = lambda self, inputs, *_, **__: answers(inputs)
    return zero(params)

class Trains(np.ndarray):
    def item(self):
        raise AssertionError("its code was run")
    __float__ = item

def scalar_that_trains(workload, params, step):
    workload.metrics_logger.append_scalar_metrics({"loss": np.zeros(()).view(Trains)}, 1)
"""

# What each comes to: the status, and a text of its flags or of what failed it, None for no flag.
# '*' is any flag: what the trainer sees of itself is a second line, that a cheat may silence.
CHEATS = {
    "honest": ("complete", None),
    "write into the workload": ("complete", None),
    "model of its own": ("complete", None),
    "another module": ("complete", "*"),
    "code of a metric": ("complete", None),
    "replaced metric": ("complete", "workloads.metrics.accuracy.Accuracy.finish was replaced"),
    "reference to the metrics": ("complete", "algoperf.trial.evaluate.accumulate was replaced"),
    "patched clock": ("complete", "time.sleep was replaced"),
    "total of the stopwatch": ("complete", "the trainer's own clock differs by "),
    "easier batches": ("complete", provenance.OTHER_ROWS),
    "silent guard": ("complete", None),
    "scalar that trains": ("failed", "the logged 'loss' is a Trains"),
    "validation rows": ("complete", None),
    "honest again": ("complete", None),
    "earlier trial": ("complete", None),
    "ends early": ("complete", None),
    "trains in the initialisation": ("failed", "init_optimizer_state changed the parameters"),
    "works in evaluation": ("complete", None),
}
ZEROED = [
    *("honest", "write into the workload", "model of its own", "another module"),
    *("code of a metric", "replaced metric", "reference to the metrics", "silent guard"),
]
STEPS = 2


class Study:
    """One study whose trials cheat in a way each."""

    def __init__(self, folder: Path, framework: str, cheats: list[str], more: str = "") -> None:
        self.folder, self.framework, self.cheats = folder, framework, cheats
        sizes = {len(splits()["validation"]["targets"]), len(splits()["test"]["targets"])}
        head = HEAD.format(beside=str(folder), sizes=sizes, framework=framework)
        (folder / "cheat.py").write_text(head + (JAX if framework == "jax" else TORCH) + more)
        (folder / "space.json").write_text(json.dumps([{"cheat": cheat} for cheat in cheats]))
        words = ["run", "--workload", "digits", "--submission", str(folder / "cheat.py")]
        words += ["--framework", framework, "--search-space", str(folder / "space.json")]
        words += ["--max-steps", str(STEPS), "--eval-every-steps", "1", "--until", "end"]
        words += ["--trials", str(len(cheats)), "--out", str(folder / "runs")]
        self.code = commands.main(words)

    def trial(self, cheat: str) -> Path:
        study = self.folder / f"runs/mini-builtin/cheat/study_0/digits_{self.framework}"
        return study / f"trial_{1 + self.cheats.index(cheat)}"

    def result(self, cheat: str) -> dict:
        result = run_log.read_result(self.trial(cheat))
        assert result is not None, cheat
        return result


def splits():
    definition = catalogue.find("digits")
    return load_data(definition, definition.scales["mini"], "builtin").splits


@pytest.fixture(scope="module", params=["jax", "pytorch"])
def study(request, tmp_path_factory):
    return Study(tmp_path_factory.mktemp("cheats"), request.param, list(CHEATS))


def test_every_cheat_of_the_page_is_here():
    page = (Path(__file__).parents[3] / "docs/trust.md").read_text()
    assert [name for name in CHEATS if "honest" not in name and f"`{name}`" not in page] == []


@pytest.mark.slow
def test_what_each_comes_to(study):
    expectations = dict(CHEATS)
    if study.framework == "jax":  # Arrays of JAX do not change; a copy that is trained takes time.
        expectations["trains in the initialisation"] = ("complete", None)
    for cheat, (status, expected) in expectations.items():
        result = study.result(cheat)
        error = result["error"] or {"cause": ""}
        assert result["status"] == status, (cheat, error)
        texts = [*result["flags"], error["cause"]]
        if expected is None:
            assert result["flags"] == [], cheat
        elif expected.startswith("the trainer's own clock"):
            # Beside other work two clocks may differ, which is marked instead.
            assert result["contended"] or any(expected in text for text in texts), texts
        elif expected != "*":
            assert any(expected in text for text in texts), (cheat, texts)


@pytest.mark.slow
def test_no_metric_is_bent(study):
    """All parameters are zero: the loss is ln 10, and one class is answered for all rows."""
    counts = {name: np.bincount(splits()[name]["targets"]) for name in ("validation", "test")}
    for cheat in ZEROED:
        final = study.result(cheat)["final"]
        for split, count in counts.items():
            assert final[f"{split}/loss"] == pytest.approx(math.log(10), abs=1e-5), cheat
            assert final[f"{split}/accuracy"] == pytest.approx(count[0] / count.sum(), abs=1e-6)


@pytest.mark.slow
def test_no_time_is_bent(study):
    """Each sleeps .3 s in each of two steps, whatever its process's clock and stopwatch say."""
    for cheat in ("patched clock", "total of the stopwatch"):
        result = study.result(cheat)
        assert result["ledger"]["submission_s"] >= 0.3 * STEPS, cheat
        rows = run_log.evaluations(study.trial(cheat))
        assert rows[-1]["accumulated_submission_time"] >= 0.3 * STEPS
    if study.framework == "jax":  # .5 s, of which .1 s and a little are free
        assert study.result("trains in the initialisation")["ledger"]["charged_s"] > 0.3


@pytest.mark.slow
def test_an_early_end_is_followed_by_one_evaluation(study):
    rows = run_log.evaluations(study.trial("ends early"))
    assert [row["global_step"] for row in rows] == [1, 1]


@pytest.mark.slow
def test_what_a_trainer_started_rests_with_it(study):
    """By its own notes, a child that works all the time did not between clock and clock."""
    result = study.result("works in evaluation")
    evaluation_s = result["ledger"]["evaluation_s"] / STEPS
    for name in ("child", "orphan"):
        text = (study.folder / f"{study.framework}_{name}").read_text()
        times = [float(line) for line in text.splitlines()[:-1]]
        longest_s = max(np.diff(times), default=math.inf)
        assert longest_s > 0.5 * evaluation_s


def test_a_pause_holds_whoever_cuts_itself_off(tmp_path):
    """A child, and a grandchild in a session of its own whose parent has ended, and one that is
    continued by another.
    """
    script = f"""
import os, signal, subprocess, sys, time
sys.path.insert(0, {str(Path(supervision.__file__).parents[2])!r})
from algoperf.machine import supervision
supervision.adopt_orphans()
cut = "import subprocess, sys; print(subprocess.Popen(['sleep', '60'], start_new_session=True,"
cut += "stdout=subprocess.DEVNULL).pid)"
child = subprocess.Popen(["sleep", "60"])
orphan = int(subprocess.run([sys.executable, "-S", "-c", cut], stdout=subprocess.PIPE).stdout)
pause = supervision.Pause(lambda: supervision.descendants(os.getpid()), first=child.pid)

def states():
    for _ in range(100):
        texts = [open(f"/proc/{{each}}/stat").read().rpartition(")")[2].split()[0]
                 for each in (child.pid, orphan)]
        if texts in (["T", "T"], ["S", "S"]):
            break
        time.sleep(0.01)
    return "".join(texts)

print(states(), end=" ")
pause.begin()
print(states(), end=" ")
pause.end()
print(states(), end=" ")
supervision.kill(supervision.descendants(os.getpid()))
"""
    done = subprocess.run([sys.executable, "-c", script],
                          capture_output=True, text=True, check=False, cwd=tmp_path,
                          env=None)  # fmt: skip
    assert done.stdout.split() == ["SS", "TT", "SS"], done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the others have no such switch")
def test_another_process_cannot_read_what_refuses_it(tmp_path):
    """The memory of a referee, for a process of the same user that is no administrator's."""
    script = f"""
import ctypes, os, sys
sys.path.insert(0, {str(Path(supervision.__file__).parents[2])!r})
from algoperf.machine import supervision
supervision.refuse_to_be_read()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), os.stat("/proc/self/mem").st_uid)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          check=False, cwd=tmp_path)  # fmt: skip
    assert done.stdout.split() == ["0", "0"], done.stderr  # PR_GET_DUMPABLE; root's


# What gets through, without a flag, and is said so on the page.

THROUGH = """
import torch
WEIGHTS = {}

def learns(workload, params, step):
    with torch.no_grad():
        for tensor in params.parameters():
            tensor.mul_(0.5)
    torch.save(params.state_dict(), BESIDE / "kept.pt")

def on_disk(workload, params, step):
    kept = torch.load(BESIDE / "kept.pt")
    shapes = [list(value.shape_tuple) for value in workload.param_shapes.values()]
    if shapes == [list(value.shape) for value in kept.values()]:
        params.load_state_dict(kept)

def public_rows(workload, params, step):
    (BESIDE / "targets.json").write_text(json.dumps(ROWS["test"]["targets"].tolist()))

def made_while_loading(workload, params, step):
    with torch.no_grad():
        params.head.weight.zero_()
        params.head.bias.copy_(WEIGHTS["bias"])

def load():
    # While this file is imported no clock runs, and below a limit nothing tells of it.
    from algoperf.data.loading import load_data
    from algoperf.workload import catalogue
    definition = catalogue.find("digits")
    rows = load_data(definition, definition.scales["mini"], "builtin").splits
    counts = np.bincount(rows["train"]["targets"], minlength=10)
    WEIGHTS["bias"] = torch.log(torch.tensor(counts / counts.sum())).float()
    return rows

ROWS = load()
"""


@pytest.mark.slow
def test_what_gets_through(tmp_path):
    """Weights kept on disk between trials, of a workload that is known by its shapes; rows of
    built-in data, which whoever has the library can make; what is learnt while the file is
    imported; a guard that is silenced. No flag tells of them.
    """
    names = ["learns", "on disk", "public rows", "made while loading"]
    names += ["silent guard"]
    study = Study(tmp_path, "pytorch", names, THROUGH)
    results = {name: study.result(name) for name in names}
    assert {name: result["flags"] for name, result in results.items()} == {
        name: [] for name in names
    }
    first, second = results["learns"]["final"], results["on disk"]["final"]
    assert second["validation/loss"] == first["validation/loss"]
    seen = json.loads((tmp_path / "targets.json").read_text())
    assert seen == splits()["test"]["targets"].tolist()
    counts_C = np.bincount(splits()["train"]["targets"])
    entropy = -np.sum(counts_C * np.log(counts_C / counts_C.sum())) / counts_C.sum()
    final = results["made while loading"]["final"]
    assert final["train/loss"] == pytest.approx(entropy, abs=1e-2)  # of some of its rows
