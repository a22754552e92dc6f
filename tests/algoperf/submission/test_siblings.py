"""How a submission's own modules are found, by whatever name it imports them."""

import importlib.util
import math
import os
import signal
import sys

import pytest

import algoperf
import reference_algorithms
from algoperf.submission import loading, siblings, submission_source
from algoperf.submission.siblings import Imports
from reference_algorithms import muon

FULL = """
def init_optimizer_state(workload, model_params, model_state, hyperparameters, rng): ...
def update_params(batch=None): return {returned}
"""


@pytest.fixture
def team(tmp_path, monkeypatch, loading_taken_back):
    """A submission's folder inside a repository's."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "repository" / "submissions" / "self_tuning" / "mine"
    folder.mkdir(parents=True)
    return folder


def write(path, source):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return path


def updated(folder, imports, returned):
    path = write(folder / "submission.py", imports + FULL.format(returned=returned))
    loaded = loading.load(loading.inspect(path), "jax")
    return loaded.functions["update_params"](), loaded


@pytest.mark.parametrize(
    ("imports", "returned"),
    [
        ("from submissions.self_tuning.mine.helper import x", "x"),
        ("from submissions.self_tuning.mine import helper", "helper.x"),
        ("import submissions.self_tuning.mine.helper as h", "h.x"),
        ("import submissions.self_tuning.mine.helper", "submissions.self_tuning.mine.helper.x"),
        ("from submissions_algorithms_v0_5.team.mine.helper import x", "x"),
        ("from reference_algorithms.somewhere.mine.helper import x", "x"),
        ("from . import helper", "helper.x"),
        ("from .helper import x", "x"),
        ("import helper", "helper.x"),
    ],
)
def test_every_way_to_import_a_file_of_ones_own(team, imports, returned):
    write(team / "helper.py", "x = 7")
    value, loaded = updated(team, imports, returned)
    assert value == 7
    assert set(loaded.source_files) == {"submission.py", "helper.py"}


def test_inside_functions_and_from_one_helper_to_the_next(team):
    write(team / "parts" / "outer.py", "from submissions.self_tuning.mine.parts.inner import x")
    write(team / "parts" / "inner.py", "from .deep import x")
    write(team / "parts" / "deep.py", "x = 3")
    source = FULL.format(returned="late()") + (
        "def late():\n    from submissions.self_tuning.mine.parts import outer\n"
        "    return outer.x\n"
    )
    path = write(team / "submission.py", source)
    loaded = loading.load(loading.inspect(path), "jax")
    assert loaded.functions["update_params"]() == 3
    assert set(loaded.source_files) == {
        *("submission.py", "parts/outer.py", "parts/inner.py", "parts/deep.py")
    }


def test_a_renamed_folder_is_found_by_the_end_of_the_name(team):
    other = team.parents[3] / "renamed"
    write(other / "parts" / "helper.py", "x = 5")
    value, loaded = updated(other, "from submissions.old.mine.parts.helper import x", "x")
    assert value == 5
    assert set(loaded.source_files) == {"submission.py", "parts/helper.py"}


def test_a_shared_file_above_the_folder_belongs_to_the_submission(team):
    write(team.parent / "shared" / "helper.py", "x = 2")
    value, loaded = updated(team, "from submissions.self_tuning.shared.helper import x", "x")
    assert value == 2
    assert set(loaded.source_files) == {"submission.py", "outside/shared/helper.py"}
    before = submission_source.source_hash(team / "submission.py")
    write(team.parent / "shared" / "helper.py", "x = 3")
    assert submission_source.source_hash(team / "submission.py") != before


def test_a_package_of_the_name_of_a_reference_algorithm(team, monkeypatch):
    """`reference_algorithms.muon` is a module of ours, where the submission has a folder."""
    # Both are put back afterwards: `from reference_algorithms import muon` reads the attribute.
    monkeypatch.setattr(reference_algorithms, "muon", muon)
    monkeypatch.delitem(sys.modules, "reference_algorithms.muon")
    folder = team / "muon" / "pytorch"
    write(folder / "helper.py", "x = 6")
    imports = "from reference_algorithms.muon.pytorch.helper import x"
    assert updated(folder, imports, "x")[0] == 6


def test_a_helper_beside_the_file_that_imports_it(team):
    """As if its folder were on the path; what is installed comes first."""
    source = "import json, inner\nimport optax\nfrom utils.deep import y\nx = inner.x + y"
    write(team / "parts" / "outer.py", source)
    write(team / "parts" / "inner.py", "x = 4")
    write(team / "parts" / "utils" / "deep.py", "y = 5")
    write(team / "parts" / "optax.py", "1 / 0")
    assert updated(team, "from parts.outer import x", "x")[0] == 9


def test_another_folder_of_the_same_top_level_name_is_not_entered(team):
    """As when run from the root of a clone that has a `submissions` folder of its own."""
    cwd = team.parents[3]
    write(cwd / "submissions" / "self_tuning" / "mine" / "helper.py", "x = 'the wrong one'")
    write(team / "helper.py", "x = 'ours'")
    assert updated(team, "from submissions.self_tuning.mine.helper import x", "x")[0] == "ours"


@pytest.mark.parametrize("name", ["optax.contrib", "rich.console", "os.path", "algoperf.spec"])
def test_installed_packages_keep_their_modules(team, name):
    last = name.partition(".")[2]
    write(team / f"{last}.py", "raise ImportError('taken for an installed module')")
    beside = siblings.Beside(team / "submission.py", [name])
    assert list(beside.places(Imports(frozenset({name})), team / "submission.py")) == []
    assert beside.find_spec(name, ["elsewhere"]) is None


HIDDEN = ("scoring", "workloads", "algoperf", "reference_algorithms", "statistics", "datasets")


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize(
    ("imports", "returned"),
    [
        ("import {name}", "{name}.x"),
        ("from {name} import x", "x"),
        ("import {name} as helper", "helper.x"),
        ("from {name} import *", "x"),
        ("def late():\n    import {name}\n    return {name}.x", "late()"),
        ("import through", "through.helper.x"),
    ],
)
def test_a_neighbour_of_a_name_that_we_import_wins_for_the_submission_alone(
    team, name, imports, returned
):
    before = sys.modules.get(name)
    write(team / f"{name}.py", "x = 7")
    write(team / "through.py", f"import {name} as helper")
    value, loaded = updated(team, imports.format(name=name), returned.format(name=name))
    assert value == 7
    assert set(loaded.source_files) >= {"submission.py", f"{name}.py"}
    assert sys.modules.get(name) is before
    assert importlib.util.find_spec(name).origin != str(team / f"{name}.py")


@pytest.mark.parametrize("name", ["scoring", "workloads", "statistics", "datasets"])
def test_a_package_beside_it_of_such_a_name(team, name):
    write(team / name / "__init__.py", "from .deep import y")
    write(team / name / "deep.py", f"import {name}.deeper as deeper; y = deeper.y")
    write(team / name / "deeper.py", "y = 3")
    imports = f"import {name}.deep\nfrom {name} import deeper"
    value, loaded = updated(team, imports, f"{name}.deep.y + {name}.y + deeper.y")
    assert value == 9
    names = {f"{name}/__init__.py", f"{name}/deep.py", f"{name}/deeper.py"}
    assert set(loaded.source_files) == {"submission.py", *names}
    assert not hasattr(sys.modules.get(name), "y")


def test_such_a_neighbour_changes_the_hash(team):
    path = write(team / "submission.py", "import scoring" + FULL.format(returned="1"))
    before = submission_source.source_hash(path)
    write(team / "scoring.py", "x = 1")
    after = submission_source.source_hash(path)
    write(team / "scoring.py", "x = 2")
    assert len({before, after, submission_source.source_hash(path)}) == 3


def test_what_such_a_neighbour_does_not_hide(team):
    """The contract's modules, the frameworks, and what Python itself is built of."""
    names = frozenset({"algoperf.spec", "numpy", "jax", "torch", "sys", "builtins", "datasets"})
    for name in names:
        write(team / f"{name.partition('.')[0]}.py", "x = 7")
    (team / "datasets.py").unlink()
    write(team / "datasets" / "rows.jsonl", "{}")  # a folder of data
    path = team / "submission.py"
    assert list(siblings.Beside(path).places(Imports(names), path)) == []
    value, loaded = updated(team, "import sys, algoperf.spec", "(sys, algoperf.spec)")
    assert value == (sys, sys.modules["algoperf.spec"])
    assert set(loaded.source_files) == {"submission.py"}


@pytest.mark.parametrize("name", ["algoperf", "scoring"])
def test_a_main_file_of_such_a_name_does_not_import_itself(team, name):
    source = f"import {name}\nfrom algoperf import spec" + FULL.format(returned=f"{name}")
    loaded = loading.load(loading.inspect(write(team / f"{name}.py", source)), "jax")
    assert loaded.outline.name == name
    assert loaded.functions["update_params"]() is sys.modules[name]


def test_a_submission_in_the_root_of_a_clone_imports_ours(team):
    for name in ("algoperf", "reference_algorithms"):
        write(team / name / "__init__.py", "raise ImportError('of the clone')")
    imports = "import algoperf, reference_algorithms\nfrom algoperf import spec"
    value, loaded = updated(team, imports, "(algoperf, reference_algorithms)")
    assert value == (sys.modules["algoperf"], sys.modules["reference_algorithms"])
    assert set(loaded.source_files) == {"submission.py"}


def test_such_a_neighbour_and_a_name_that_numpy_removed(team):
    write(team / "scoring.py", "import numpy as np\nx = np.trapz([1, 1], [0, 7])")
    source = "import numpy\nfrom scoring import x" + FULL.format(returned="(x, numpy.Inf)")
    path = write(team / "submission.py", source)
    loaded = loading.load(loading.inspect(path), "pytorch")
    assert loaded.functions["update_params"]() == (7, math.inf)


def test_a_missing_helper_is_named(team):
    with pytest.raises(loading.UserError, match=r"submission\.py:1: ModuleNotFoundError: .*old"):
        updated(team, "from submissions.old.mine.missing import x", "x")


@pytest.mark.parametrize("second", ["parts.kinds", "submissions.self_tuning.mine.parts.kinds"])
def test_a_file_that_is_imported_by_two_names_is_one_module(team, second):
    """So a class that a helper compares with is the one that the main file made."""
    write(team / "parts" / "kinds.py", "class Kind: ...")
    write(
        team / "parts" / "rule.py", "import kinds\ndef fits(kind): return type(kind) is kinds.Kind"
    )
    imports = f"from parts.rule import fits\nfrom {second} import Kind"
    fits, loaded = updated(team, imports, "fits(Kind())")
    assert fits
    assert loaded.module.Kind.__module__ == "kinds"


def test_a_file_that_is_still_being_imported_has_a_module_for_each_name(team):
    """As in plain Python: a module that is not whole lacks what the second import asks of it."""
    write(team / "parts" / "kinds.py", "import rule\nx = rule.x")
    write(team / "parts" / "rule.py", "x = 5\nimport kinds\ny = kinds.x")
    value, _ = updated(team, "import parts.kinds, rule", "(parts.kinds.x, rule.y)")
    assert value == (5, 5)


STEPPERS = """
from typing import Any, NamedTuple


class State(NamedTuple):
    steps: Any


def jax_steps(rate):
    import jax
    import optax

    def update(gradients, state, params=None):
        scaled = jax.tree.map(lambda each: -rate * each / (1 + 0.1 * state.steps), gradients)
        return scaled, State(state.steps + 1)

    return optax.GradientTransformation(lambda params: State(jax.numpy.zeros(())), update)


def torch_steps(params, rate):
    import torch

    class Steps(torch.optim.SGD):
        def step(self):
            super().step()
            for group in self.param_groups:
                group["lr"] *= 0.9

    return Steps(params, lr=rate)
"""
STEPPED = """
import scoring
from statistics import RATE

DEFAULTS = {"rate": RATE}


def jax_optimizer(hyperparameters):
    return scoring.jax_steps(hyperparameters.rate)


def torch_optimizer(params, hyperparameters):
    import workloads

    return workloads.torch_steps(params.tensors(), hyperparameters.rate)
"""


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_such_neighbours_are_checked_run_and_resumed(tmp_path, framework):
    """The state in JAX is an instance of the neighbour's class."""
    write(tmp_path / "scoring.py", STEPPERS)
    write(tmp_path / "workloads.py", "from scoring import *")
    write(tmp_path / "statistics.py", "RATE = 0.1")
    path = write(tmp_path / "mine.py", STEPPED)
    found = algoperf.check(path, framework=framework, workloads=["digits"])
    assert found.passed, found.frame().to_string()

    def stop(plan, event):
        if event["event"] == "evaluation" and event["step"] == 10:
            os.kill(os.getpid(), signal.SIGINT)

    length = {"framework": framework, "max_steps": 30, "eval_every_steps": 10}
    (whole,) = algoperf.run("digits", path, out=tmp_path / "whole", **length)
    with pytest.raises(KeyboardInterrupt):
        algoperf.run("digits", path, out=tmp_path / "stopped", observe=stop, **length)
    (resumed,) = algoperf.run("digits", path, out=tmp_path / "stopped", **length)
    assert resumed.evaluations()["preemption_count"].max() == 1
    assert resumed.details["parameters_crc32"] == whole.details["parameters_crc32"]
    kept = {file.name for file in (whole.folder / "submission").iterdir()}
    assert kept == {"mine.py", "scoring.py", "statistics.py", "workloads.py"}
