"""How a submission's own modules are found, by whatever name it imports them."""

import sys

import pytest

from algoperf.submission import loading, siblings, submission_source
from algoperf.submission.siblings import Imports

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
    monkeypatch.delitem(sys.modules, "reference_algorithms.muon", raising=False)
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
    beside = siblings.Beside(team, [name])
    assert list(beside.places(Imports(frozenset({name})), team / "submission.py")) == []
    assert beside.find_spec(name, ["elsewhere"]) is None


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
