"""Finding, reading and loading a submission's file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import reference_algorithms
from algoperf.errors import UserError
from algoperf.submission import loading, submission_source

ROOT = Path(__file__).resolve().parents[3]
FORM = """
DEFAULTS = {"rate": 0.1}

def jax_optimizer(hyperparameters):
    return hyperparameters.rate
"""


@pytest.fixture
def folder(tmp_path, monkeypatch, loading_taken_back):
    """A working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, source):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return path


def load(path, framework="jax"):
    return loading.load(loading.inspect(path), framework)


def test_a_bare_name_is_a_reference_algorithm(folder):
    for given in ("nadamw", "nadamw.py"):
        path, found = loading.locate(given)
        assert path == reference_algorithms.path("nadamw")
        assert found == "reference algorithm nadamw"


def test_a_file_in_the_working_folder_comes_before_a_reference_algorithm(folder):
    own = write(folder / "nadamw.py", FORM)
    path, found = loading.locate("nadamw.py")
    assert (path, found) == (own, "file nadamw.py")
    assert loading.locate("./nadamw.py")[0] == own
    assert loading.locate("nadamw") == (
        reference_algorithms.path("nadamw"),
        "reference algorithm nadamw",
    )


def test_a_folder_of_the_name_is_no_file(folder):
    (folder / "nadamw").mkdir()
    assert loading.locate("nadamw")[1] == "reference algorithm nadamw"
    own = write(folder / "nadamw" / "submission.py", FORM)
    assert loading.locate("nadamw")[0] == own
    assert loading.inspect(own).name == "nadamw"


def test_a_folder_without_a_submission_says_so(folder):
    (folder / "empty").mkdir()
    for given in ("empty", "./empty", str(folder / "empty")):
        with pytest.raises(UserError, match=r"empty: a folder without a submission\.py$"):
            loading.locate(given)


def test_outline_of_the_forms(folder):
    path = write(folder / "a.py", FORM + "SEARCH_SPACE = [{'rate': 1}]\nopen('ran', 'w')\n")
    outline = loading.inspect(path)
    assert (outline.name, outline.is_full_form, outline.frameworks) == ("a", False, ("jax",))
    assert outline.search_space == [{"rate": 1}]
    assert not (folder / "ran").exists()
    for imports, frameworks in {
        "import optax": ("jax",),
        "from torch import nn": ("pytorch",),
        "import numpy": ("jax", "pytorch"),
    }.items():
        source = imports + "\ndef init_optimizer_state(): ...\ndef update_params(): ...\n"
        outline = loading.inspect(write(folder / "b.py", source))
        assert (outline.is_full_form, outline.frameworks) == (True, frameworks)


def test_the_framework_is_the_one_that_is_served_and_jax_where_both_are(folder):
    both = FORM + "def torch_optimizer(): ...\n"
    torch = FORM.replace("jax_optimizer", "torch_optimizer")
    for source, chosen in ((both, "jax"), (FORM, "jax"), (torch, "pytorch")):
        outline = loading.inspect(write(folder / "a.py", source))
        assert loading.choose_framework(outline, None) == chosen


FULL = "def init_optimizer_state(): ...\ndef update_params(): ...\n"


@pytest.mark.parametrize(
    ("imports", "frameworks"),
    [
        ("import torch, optax", ("pytorch",)),
        ("import torch, optax, jax", ("jax", "pytorch")),
        ("import optax", ("jax",)),
    ],
)
def test_optax_beside_torch_is_for_its_schedules(folder, imports, frameworks):
    path = write(folder / "a.py", f"{imports}\n{FULL}")
    assert loading.inspect(path).frameworks == frameworks


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_a_framework_s_folder_is_named_by_the_one_above(folder, framework):
    path = write(folder / "sam" / framework / "submission.py", FULL)
    write(folder / "sam" / "tuning_search_space.json", '{"lr": {"feasible_points": [1]}}')
    outline = loading.inspect(path)
    assert (outline.name, outline.self_tunes) == ("sam", False)
    files = set(submission_source.source_files(path))
    assert files == {"submission.py", "tuning_search_space.json"}
    assert loading.inspect(write(folder / "mine" / "submission.py", FULL)).name == "mine"
    assert loading.inspect(write(folder / "jax" / "b.py", FULL)).name == "b"


def test_names_that_jax_removed_are_supplied_where_they_are_mentioned(folder):
    source = f"import jax, jax.numpy as jnp\n{FULL}x = jax.tree_map(lambda v: 2 * v, [1])"
    loaded = load(write(folder / "a.py", source))
    assert (loaded.module.x, loaded.contract.older) == ([2], False)
    clipped = f"import jax.numpy as jnp\n{FULL}x = jnp.clip(jnp.ones(1), a_min=3)"
    assert load(write(folder / "b.py", clipped)).module.x.tolist() == [3]
    import jax

    assert load(write(folder / "c.py", f"import jax\n{FULL}")).module.jax is jax


def test_algoperf_s_workloads_have_stand_ins(folder):
    source = (
        "import algoperf.workloads.wmt.wmt_jax.workload as wmt\n"
        "from algoperf.workloads.mnist import workload, MnistWorkload\n"
        f"{FULL}is_one = isinstance(3, (wmt.WmtWorkload, MnistWorkload))"
    )
    module = load(write(folder / "a.py", source)).module
    assert not module.is_one
    assert module.wmt.WmtWorkload is module.wmt.WmtWorkload
    assert not hasattr(module.wmt, "__all__")
    with pytest.raises(TypeError, match="MnistWorkload is a workload of AlgoPerf's, which is not"):
        module.MnistWorkload()


def test_functions_get_the_arguments_that_they_name_and_no_others(folder):
    source = """
DEFAULTS = {}
def jax_optimizer(info, params=None, verbose=False): return ("made", info, params, verbose)
def eval_params(**everything): return sorted(everything)
def learning_rate(): return 3
"""
    functions = load(write(folder / "a.py", source)).functions
    made = functions["jax_optimizer"](params=1, hyperparameters=2, info=3)
    assert made == ("made", 3, 1, False)
    named = functions["eval_params"](params=1, optimizer_state=2, hyperparameters=3, info=4)
    assert named == ["hyperparameters", "info", "optimizer_state", "params"]
    assert functions["learning_rate"](step=1, hyperparameters=2, info=3) == 3


def test_modules_beside_the_file_can_be_imported_early_and_late(folder):
    source = (
        FORM
        + """
import early_helper
from helper_package import inner
from submissions import early as from_namespace

def learning_rate():
    import late_helper
    from submissions import late
    return [early_helper.x, inner.x, from_namespace.x, late_helper.x, late.x]
"""
    )
    away = folder / "away"
    for number, name in enumerate(
        (
            "early_helper",
            "helper_package/inner",
            "submissions/early",
            "late_helper",
            "submissions/late",
        )
    ):
        write(away / f"{name}.py", f"x = {number}")
    write(away / "helper_package/__init__.py", "")
    write(folder / "early_helper.py", "raise ImportError('the working folder is not searched')")
    path_before = list(sys.path)
    loaded = load(write(away / "a.py", source))
    assert loaded.functions["learning_rate"]() == [0, 1, 2, 3, 4]
    assert sys.path == path_before
    assert {name for name in loaded.source_files if name.endswith(".py")} == {
        *("a.py", "early_helper.py", "late_helper.py"),
        *("helper_package/__init__.py", "helper_package/inner.py"),
        *("submissions/early.py", "submissions/late.py"),
    }


def test_siblings_do_not_break_the_harness(folder):
    for name in ("statistics", "scoring", "tensorboard", "datasets", "colorsys", "workloads"):
        write(folder / f"{name}.py", "raise ImportError('a sibling took the place of ' + __name__)")
    write(folder / "xml" / "__init__.py", "raise ImportError('a sibling took the place of xml')")
    load(write(folder / "a.py", FORM))
    sys.modules.pop("statistics", None)
    import colorsys
    import statistics
    import xml.dom.minidom

    import tensorboard

    import scoring

    for module in (statistics, colorsys, xml.dom.minidom, scoring, tensorboard):
        assert not Path(module.__file__).is_relative_to(folder)


def test_what_lives_below_the_folder_without_being_beside_is_not_its_source(folder):
    inside = "venv/lib/python3/site-packages/installed_thing"
    write(folder / inside / "__init__.py", "x = 1")
    source = FORM + f"import sys; sys.path.append({str((folder / inside).parent)!r})\n"
    path = write(folder / "a.py", source + "import installed_thing\n")
    try:
        assert set(load(path).source_files) == {"a.py"}
    finally:
        sys.path.remove(str((folder / inside).parent))


def test_source_hash_covers_every_file_and_not_the_place(folder, tmp_path_factory):
    path = write(folder / "a.py", FORM + "def learning_rate():\n    import b\n")
    write(folder / "b.py", "import c")
    write(folder / "c.py", "")
    write(folder / "unrelated.py", "")
    seen = [submission_source.source_hash(path)]
    for name, source in {
        "c.py": "x = 1",
        "b.py": "import c\n",
        "a.py": path.read_text() + "\n",
    }.items():
        write(folder / name, source)
        seen.append(submission_source.source_hash(path))
    assert len(set(seen)) == 4
    write(folder / "unrelated.py", "x = 1")
    assert submission_source.source_hash(path) == seen[-1]
    other = tmp_path_factory.mktemp("other")
    for name in ("a.py", "b.py", "c.py"):
        write(other / name, (folder / name).read_text())
    assert submission_source.source_hash(other / "a.py") == seen[-1]


def test_a_sibling_that_does_not_parse_is_the_siblings_fault(folder):
    write(folder / "b.py", "x = (\n")
    with pytest.raises(UserError, match=r"a\.py:6: SyntaxError: "):
        load(write(folder / "a.py", FORM.rstrip() + "\nimport b\n"))


@pytest.mark.parametrize("as_module", [False, True])
def test_run_from_the_clones_root(tmp_path, as_module):
    """The clone's own `submissions` folder stands in nobody's way there."""
    source = FORM.replace("return hyperparameters.rate", "import submissions.mine\n    1 / 0")
    write(tmp_path / "a.py", source + "from submissions import mine\nprint(mine.x, hyper)\n")
    write(tmp_path / "submissions/mine.py", "x = 'found'")
    start = ["-m", "algoperf"] if as_module else ["-c", "from algoperf.cli import main; main()"]
    words = ["run", "--workload", "digits", "--submission", str(tmp_path / "a.py")]
    ended = subprocess.run(
        [sys.executable, *start, *words, "--out", str(tmp_path / "runs")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "NameError: name 'hyper' is not defined" in ended.stderr
    assert "No module" not in ended.stderr
