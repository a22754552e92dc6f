"""`algoperf check`: sound submissions pass, and what breaks one fails its own check alone."""

import dataclasses
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from algoperf.cli import commands
from algoperf.experiments.check import agreement, processes, verdicts
from algoperf.workload import catalogue

FOLDER = Path(__file__).with_name("broken_submissions")


@dataclasses.dataclass(frozen=True)
class Breakage:
    """`new` in place of `old` in a sound submission fails `check`, alone; `says` is in the line."""

    name: str
    source: str
    old: str
    new: str
    check: str = ""
    says: str = ""

    def sound(self, framework):
        """The sound submission that it breaks in the framework, or None."""
        if self.source in ("both", framework):
            return f"sound_{framework}.py"
        ours = self.source in ("optimizer", f"{framework} optimizer")
        return "sound_optimizer.py" if ours else None

    def write(self, framework, folder):
        source = (FOLDER / self.sound(framework)).read_text("utf-8")
        assert self.old in source, self.name
        path = folder / "mine.py"
        folder.mkdir()
        path.write_text(source.replace(self.old, self.new, 1), "utf-8")
        path.with_name("beside.py").write_text("CALLS = []\n", "utf-8")
        return path


TABLE = tomllib.loads((FOLDER / "breakages.toml").read_text("utf-8"))
BREAKAGES = [Breakage(**row) for row in TABLE["breakage"]]
NOT_AT_FAULT = [Breakage(**row) for row in TABLE["sound"]]
TEMPLATES = Path(commands.__file__).parents[2] / "submissions"
SOUND = {
    framework: [
        FOLDER / f"sound_{framework}.py",
        FOLDER / "sound_optimizer.py",
        TEMPLATES / "template.py",
        *([TEMPLATES / "template_full.py"] if framework == "jax" else []),
    ]
    for framework in ("jax", "pytorch")
}
FRAMEWORKS = ("jax", "pytorch")
CASES = [
    pytest.param(framework, breakage, id=f"{framework}: {breakage.name}")
    for framework in FRAMEWORKS
    for breakage in BREAKAGES
    if breakage.sound(framework)
]


class Checked:
    """Verdicts on many submissions, by path, on one workload, from one process."""

    def __init__(self, folder, name="digits"):
        self.folder = folder
        self.prepared = [processes.prepare(catalogue.find(name), folder)]

    def run(self, framework, paths):
        found = []
        requests = [processes.request(path, framework, self.prepared) for path in paths]
        processes.run(requests, self.folder, found.append)
        each = len(verdicts.OF_A_FRAMEWORK) + len(verdicts.OF_A_WORKLOAD)
        assert len(found) == each * len(paths)
        return {path: found[each * k : each * (k + 1)] for k, path in enumerate(paths)}


def written(breakages, framework, folder):
    """The files of broken submissions."""
    paths = enumerate(breakages)
    return {each: each.write(framework, folder / f"{framework}-{k}") for k, each in paths}


@pytest.fixture(scope="module")
def on_breakages(request, tmp_path_factory):
    """The verdicts on the breakages whose tests were selected, by (framework, breakage)."""
    folder = tmp_path_factory.mktemp("breakages")
    checked, found = Checked(folder), {}
    selected = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    for framework in FRAMEWORKS:
        cases = [
            params["breakage"]
            for params in selected
            if params.get("framework") == framework and "breakage" in params
        ]
        paths = written(cases, framework, folder)
        # What loads the other framework gets a process of its own.
        alone = [paths[each] for each in cases if each.check == verdicts.IMPORTS]
        together = [path for path in paths.values() if path not in alone]
        for batch in (together, *([path] for path in alone)):
            by_path = checked.run(framework, batch)
            names = {path: each for each, path in paths.items()}
            found |= {(framework, names[path]): each for path, each in by_path.items()}
    return found


@pytest.fixture(scope="module")
def on_sound(tmp_path_factory):
    """The verdicts on what is not at fault, by (framework, name of a breakage or a file)."""
    folder = tmp_path_factory.mktemp("sound")
    checked, found = Checked(folder), {}
    for framework in FRAMEWORKS:
        harmless = [each for each in NOT_AT_FAULT if each.source == framework]
        paths = {path: each.name for each, path in written(harmless, framework, folder).items()} | {
            path: path.name for path in SOUND[framework]
        }
        by_path = checked.run(framework, list(paths))
        found |= {(framework, paths[path]): each for path, each in by_path.items()}
    return found


@pytest.mark.parametrize(("framework", "breakage"), CASES)
def test_a_breakage_fails_its_own_check_alone(on_breakages, framework, breakage):
    found = on_breakages[framework, breakage]
    failed = {verdict.check: verdict.reason for verdict in found if verdict.status == "failed"}
    assert list(failed) == [breakage.check], failed
    assert breakage.says in failed[breakage.check]
    assert "\n" not in failed[breakage.check]
    skipped = [verdict for verdict in found if verdict.status == "skipped"]
    assert all(verdict.reason for verdict in skipped)


def not_ok(found):
    """The reasons of all verdicts but 'ok', by check; none may be 'failed'."""
    assert not [verdict for verdict in found if verdict.status == "failed"]
    return {verdict.check: verdict.reason for verdict in found if verdict.status != "ok"}


def test_what_is_not_at_fault_passes(on_sound):
    found = {each.name: on_sound[each.source, each.name] for each in NOT_AT_FAULT}
    skipped = {name: not_ok(each) for name, each in found.items()}
    assert skipped["ends early"].pop("saves") == "training ended before step 6"
    assert all(list(each) == ["self-tuning"] for each in skipped.values())
    by_check = {verdict.check: verdict.reason for verdict in found["swaps"]}
    assert "training after prepare_for_eval moves by" in by_check["evaluation"]
    assert by_check["name"] == "get_batch_size: digits 64, another name KeyError"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_sound_submissions_and_the_templates_pass(on_sound, framework):
    external = {"self-tuning": "it has a search space, for external tuning"}
    assert not_ok(on_sound[framework, f"sound_{framework}.py"]) == external
    assert not_ok(on_sound[framework, "sound_optimizer.py"]) == {}
    no_space = {"search space": "no search space"}
    assert not_ok(on_sound[framework, "template.py"]) == no_space
    if framework == "jax":
        assert not_ok(on_sound[framework, "template_full.py"]) == external


def test_the_process_ends_in_a_check(tmp_path):
    """What was said before stands; the check that it was at fails, and the rest is skipped."""
    checked = Checked(tmp_path)
    exits = Breakage("exits", "pytorch", "    scale = 1.0\n", "    __import__('os')._exit(7)\n")
    path = exits.write("pytorch", tmp_path / "exits")
    found = checked.run("pytorch", [path])[path]
    by_status = {verdict.check: verdict.status for verdict in found}
    assert by_status["loads"] == by_status["functions"] == "ok"
    assert by_status["initialises"] == "failed"
    assert set(list(by_status.values())[3:]) == {"skipped"}
    assert {verdict.reason for verdict in found[2:]} == {"the process ended with exit code 7"}


def test_what_a_submission_raises_to_leave_and_what_it_leaves_behind(tmp_path, capfd):
    """The check that it was at fails with the cause; a thread that never ends is not waited for."""
    forever = "__import__('threading').Thread(target=__import__('threading').Event().wait).start()"
    sources = {
        "leaves": ("    scale = 1.0\n", "    raise KeyboardInterrupt('own')\n"),
        "while it is loaded": ("CALLS = []", "raise GeneratorExit('own')"),
        "stays": ("CALLS = []", f"CALLS = []\n{forever}"),
    }
    checked = Checked(tmp_path)
    paths = {
        name: Breakage(name, "pytorch", *change).write("pytorch", tmp_path / name)
        for name, change in sources.items()
    }
    found = checked.run("pytorch", list(paths.values()))
    failed = {
        name: [(each.check, each.reason) for each in found[path] if each.status == "failed"]
        for name, path in paths.items()
    }
    assert failed == {
        "leaves": [("updates", "update_params raised KeyboardInterrupt: own (mine.py:36)")],
        "while it is loaded": [("loads", "GeneratorExit: own")],
        "stays": [],
    }
    assert "Traceback" not in capfd.readouterr().err


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--framework", "pytorch", "--workloads", "digits"]
    assert commands.main(["check", "momentum", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pytorch           loads           ok"
    assert lines[-1] == "16 ok, 0 failed, 0 skipped"
    broken = next(each for each in BREAKAGES if each.name == "nan").write(
        "pytorch", tmp_path / "folder"
    )
    broken.rename(tmp_path / "folder" / "submission.py")
    assert commands.main(["check", "folder", *words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["submission"], found["failed"]) == ("folder", 1)
    failed = [check for check in found["checks"] if check["status"] == "failed"]
    assert failed == [
        {
            "framework": "pytorch",
            "workload": "digits",
            "check": "finite",
            "status": "failed",
            "reason": "hidden_0/kernel has values that are not finite after 12 steps",
        }
    ]


TWO_MINDS = """
DEFAULTS = {"learning_rate": 0.03}


def jax_optimizer(hyperparameters):
    import optax

    return optax.sgd(hyperparameters.learning_rate)


def torch_optimizer(params, hyperparameters):
    import torch

    matrices = params.tensors(lambda parameter: parameter.is_matrix or parameter.is_output)
    return torch.optim.SGD(matrices, hyperparameters.learning_rate)
"""


def test_frameworks_that_do_different_things(tmp_path):
    """Descent leaves out the hidden biases in one of the two."""
    path = tmp_path / "mine.py"
    path.write_text(TWO_MINDS)
    found = {
        (verdict.framework, verdict.check): verdict
        for verdict in processes.check(str(path), names=["digits"])
    }
    failed = {key: each.reason for key, each in found.items() if each.status == "failed"}
    assert list(failed) == [("both", "agrees")]
    assert failed["both", "agrees"].startswith("hidden_0/bias moves in jax alone; after 4 steps")
    assert failed["both", "agrees"].endswith("/bias (1.0e+00)")
    assert found["jax", "moves"].reason == ""
    assert found["pytorch", "moves"].reason == (
        "not moved: hidden_0/bias, hidden_1/bias (2 of 6 parameters); torch_optimizer gives no "
        "optimizer hidden_0/bias, hidden_1/bias (2 of 6 parameters), which will not train"
    )


def updates(folder, framework, early):
    first = {"first/a": np.zeros(2, np.float32), "first/b": np.full(1, 3.0, np.float32)}
    early = {f"early/{name}": np.array(value, np.float32) for name, value in early.items()}
    np.savez(agreement.file(folder, framework, "digits"), **first, **early)


@pytest.mark.parametrize(
    ("other", "problem", "says"),
    [
        # The longer update is (3, 4) and 0, so of length 5.
        ([3.0, 4.0], "", "differ by 0.0e+00 of their size, most in a (0.0e+00)"),
        ([3.0, 3.8], "", "differ by 4.0e-02 of their size, most in a (4.0e-02)"),
        ([3.0, 0.0], "", "differ by 8.0e-01 of their size, which is more than rounding, most in a"),
        ([0.3, 0.0], "the frameworks do different things; ", "differ by 9.7e-01 of their size"),
        ([0.0, 0.0], "a moves in jax alone; ", "differ by 1.0e+00 of their size"),
    ],
)
def test_how_far_two_frameworks_differ(tmp_path, other, problem, says):
    updates(tmp_path, "jax", {"a": [3.0, 4.0], "b": [3.0]})
    updates(tmp_path, "pytorch", {"a": other, "b": [3.0]})
    found = agreement.verdict(tmp_path, "digits", ["jax", "pytorch"])
    assert (found.framework, found.check) == ("both", "agrees")
    assert found.status == ("failed" if problem else "ok")
    assert found.reason.startswith(f"{problem}after 4 steps the updates {says}")


def test_updates_within_rounding_agree_and_missing_ones_are_not_compared(tmp_path):
    updates(tmp_path, "jax", {"a": [0.0, 0.0], "b": [3.000001]})
    found = agreement.verdict(tmp_path, "digits", ["jax", "pytorch"])
    assert (found.status, found.reason) == ("skipped", "needs 4 updates in pytorch")
    updates(tmp_path, "pytorch", {"a": [0.0, 0.0], "b": [3.0]})
    assert agreement.verdict(tmp_path, "digits", ["jax", "pytorch"]).status == "ok"


def test_a_file_that_does_not_parse(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def jax_optimizer(:\n")
    assert commands.main(["check", str(tmp_path / "mine.py")]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == ["loads", "FAILED"]
    assert "mine.py:1: invalid syntax" in first
    assert last == "0 ok, 1 failed, 0 skipped"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["adamww"], "unknown submission 'adamww'; did you mean adamw"),
        (
            ["adamw", "--workloads", "digits,digit"],
            "unknown workload 'digit'; did you mean digits?",
        ),
        (["adamw", "--framework", "torch"], "unknown framework 'torch'; did you mean pytorch?"),
        (["adamw", "--workloads", ""], "--workloads names no workload"),
    ],
)
def test_a_mistake_in_what_was_asked(capsys, words, says):
    assert commands.main(["check", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err


def test_a_framework_that_it_does_not_serve(capsys):
    path = str(FOLDER / "sound_jax.py")
    assert commands.main(["check", path, "--framework", "pytorch"]) == 2
    assert "does not serve pytorch; it serves: jax" in capsys.readouterr().err
