"""Workloads outside the tree: found by path and by entry point, run, and told apart by source."""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from algoperf.cli import commands
from algoperf.errors import UserError
from algoperf.trial import trust
from algoperf.workload import Data, catalogue, outside

ROOT = Path(__file__).resolve().parents[3]
SPIRALS = ROOT / "docs" / "examples" / "spirals"


@pytest.fixture
def copy(tmp_path):
    """`copy(name, {file: (old, new)})`: a copy of the example, edited."""

    def make(name="spirals", edits=(), below="workloads"):
        folder = tmp_path / below / name
        shutil.copytree(SPIRALS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file, (old, new) in dict(edits).items():
            text = (folder / file).read_text()
            assert old in text
            (folder / file).write_text(text.replace(old, new))
        return folder

    return make


def test_a_path_is_found_and_only_its_facts_are_run(copy):
    folder = copy(edits={"data.py": ("import numpy", "from . import counting\nimport numpy")})
    (folder / "counting.py").write_text("RUNS = []\n")
    definition = catalogue.find(str(folder))
    package = definition.package
    assert (definition.name, definition.reference) == ("spirals", str(folder))
    assert [name for name in sys.modules if name.startswith(f"{package}.")] == []
    definition.import_measures()
    assert sys.modules[f"{package}.data"].counting is sys.modules[f"{package}.counting"]
    assert catalogue.find(str(folder)).package == package
    assert sys.modules[package].WORKLOAD.initial_std is definition.initial_std  # it ran once
    assert isinstance(sys.modules[f"{package}.data"].load("builtin", {"train": 3}, 0.1), Data)


def test_folders_of_one_name_and_versions_of_one_folder_do_not_meet(copy):
    first = copy(below="a")
    second = copy(below="b", edits={"__init__.py": ("batch_size=100", "batch_size=50")})
    sizes = [catalogue.find(str(each)).scales["mini"].batch_size for each in (first, second)]
    assert sizes == [100, 50]
    shutil.copy(second / "__init__.py", first / "__init__.py")
    assert catalogue.find(str(first)).scales["mini"].batch_size == 50


def test_the_hash_is_over_names_and_bytes_of_python_files(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "b.py").write_bytes(b"2")
    (tmp_path / "parts" / "a.py").write_bytes(b"1")
    (tmp_path / "notes.txt").write_bytes(b"not read")
    expected = hashlib.sha256(b"b.py\x002\x00parts/a.py\x001\x00").hexdigest()[:16]
    assert outside.hash_of(tmp_path) == expected


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("name=", "name name="), r"/__init__.py:8: .*invalid syntax"),
        (("WORKLOAD =", "raise KeyError('no such thing')\nWORKLOAD ="), r":7: KeyError: 'no such"),
        (("WORKLOAD =", "OTHER ="), r"__init__.py: it defines no WORKLOAD"),
        (("package=__name__", "package='spirals'"), r"the package 'spirals'; write package=__n"),
        (('name="spirals"', 'name="2 spirals"'), r"name '2 spirals' is none: expected letters"),
        (
            ('name="spirals"', 'name="digits"'),
            r"name 'digits' is that of a workload of the library",
        ),
        (('name="spirals"', 'name="digits_tanh"'), r"'digits_tanh' is that of a workload"),
        (("import fan_in", "import fan_inn"), r":5: ImportError: cannot import name 'fan_inn'"),
        (
            ("from algoperf import spec", "import spirals.data"),
            r":3: No module named 'spirals'; import its own files relatively",
        ),
    ],
)
def test_a_mistake_in_the_folder_is_one_line(copy, edit, message):
    folder = copy(edits={"__init__.py": edit})
    with pytest.raises(UserError, match=message) as raised:
        catalogue.find(str(folder))
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_workload_of_another_type(tmp_path):
    (tmp_path / "__init__.py").write_text("WORKLOAD = 3\n")
    with pytest.raises(UserError, match="WORKLOAD is a int, expected a WorkloadDefinition"):
        catalogue.find(str(tmp_path))


def test_a_path_that_is_none(tmp_path):
    with pytest.raises(UserError, match=r"nothing: no such folder"):
        catalogue.find(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"no __init__\.py in it, which would define WORKLOAD"):
        catalogue.find(str(tmp_path))
    (tmp_path / "file.py").touch()
    with pytest.raises(UserError, match=r"file\.py: is a file, expected a folder"):
        catalogue.find(str(tmp_path / "file.py"))


def test_a_word_is_a_name_first(copy, monkeypatch):
    folder = copy()
    copy("digits", edits={"__init__.py": ("WORKLOAD =", "raise KeyError\nWORKLOAD =")})
    monkeypatch.chdir(folder.parent)
    assert catalogue.find("digits").package == "workloads.digits"
    assert catalogue.find("spirals").reference == str(folder)
    with pytest.raises(UserError, match="unknown workload 'spiral'"):
        catalogue.find("spiral")
    with pytest.raises(UserError, match="KeyError"):
        catalogue.find("./digits")


VARIANT = (
    'sources=("builtin",),',
    'sources=("builtin",), variants={"noisy": Variant({"label_noise": 0.2})},',
)


def test_a_variant_of_a_path(copy):
    folder = copy(edits={"__init__.py": VARIANT})
    text = (folder / "__init__.py").read_text()
    (folder / "__init__.py").write_text(text.replace("Target,", "Target, Variant,"))
    noisy = catalogue.find(f"{folder}:noisy")
    assert (noisy.name, noisy.base, noisy.reference) == (
        "spirals_noisy",
        "spirals",
        f"{folder}:noisy",
    )
    assert noisy.scales["mini"].row_changes == {"label_noise": 0.2}
    assert catalogue.find(noisy.reference).outside == noisy.outside
    with pytest.raises(UserError, match="unknown variant of spirals 'noise'; did you mean noisy"):
        catalogue.find(f"{folder}:noise")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """`installed(name, module, source)`: a package with an entry point for workloads."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))

    def make(name, value):
        information = site / f"{name}_package-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Name: {name}-package\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[{outside.GROUP}]\n{name} = {value}\n")
        return site

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] == "our_package"]:
        del sys.modules[name]


def test_entry_points_are_workloads_and_a_broken_one_hides_no_other(installed, copy, capsys):
    site = installed("spirals", "our_package.spirals")
    installed("hollow", "our_package.nothing")
    copy("spirals", below="site/our_package")
    (site / "our_package" / "__init__.py").touch()
    definition = catalogue.find("spirals")
    folder = site / "our_package" / "spirals"
    assert (definition.package, definition.reference) == ("our_package.spirals", "spirals")
    assert definition.outside.source_hash == outside.hash_of(folder)
    with pytest.raises(UserError, match=r"hollow \(entry point our_package.nothing\) cannot be lo"):
        catalogue.find("hollow")
    assert commands.main(["workloads"]) == 0
    printed = capsys.readouterr()
    assert "spirals: three noisy spirals" in printed.out
    assert "digits: handwritten digits" in printed.out
    assert printed.err.startswith("algoperf: workload hollow (entry point")
    with pytest.raises(UserError, match=r"unknown workload 'spirls'.*hollow, spirals"):
        catalogue.find("spirls")


def test_what_an_entry_point_names_has_its_name(installed, copy):
    site = installed("circles", "our_package.spirals:WORKLOAD")
    copy("spirals", below="site/our_package")
    (site / "our_package" / "__init__.py").touch()
    with pytest.raises(UserError, match="has the name 'spirals'; give both the same"):
        catalogue.find("circles")


QUICK = {"__init__.py": ("validation=0.97", "validation=0.01")}  # reached at the first evaluation


def run(folder, out, framework, submission="adamw"):
    words = ["run", "--workload", str(folder), "--submission", str(submission)]
    return commands.main([*words, "--framework", framework, "--out", str(out)])


def result_of(out, framework, submission="adamw"):
    (path,) = out.glob(f"*/{submission}/study_0/spirals_{framework}/trial_1/result.json")
    return json.loads(path.read_text())


def flags_of(out, framework):
    (path,) = out.glob(f"*/*/study_0/spirals_{framework}/trial_1/flags_0.json")
    return json.loads(path.read_text())


def test_it_runs_goes_on_elsewhere_and_is_scored_without_its_folder(copy, tmp_path, capsys):
    out, folder = tmp_path / "runs", copy(edits=QUICK)
    for framework in ("jax", "pytorch"):
        assert run(folder, out, framework) == 0
        result = result_of(out, framework)
        assert (result["workload"], result["status"]) == ("spirals", "reached")
        flags = flags_of(out, framework)
        assert flags["workload_hash"] == outside.hash_of(folder)
        assert flags["workload_folder"] == str(folder)
    moved = folder.rename(tmp_path / "moved")
    capsys.readouterr()
    assert run(moved, out, "jax") == 0
    assert "done before (reached), skipped" in capsys.readouterr().err
    (moved / "data.py").write_text((moved / "data.py").read_text() + "# another version\n")
    assert run(moved, out, "jax") == 2
    assert "holds another configuration (workload_hash" in capsys.readouterr().err
    shutil.rmtree(moved)
    assert commands.main(["score", str(out)]) == 0
    # In a pool each: the tests' cache of compiled programs is a setting that moves JAX's clock.
    assert len(re.findall("spirals +adamw", capsys.readouterr().out)) == 2


def test_a_model_that_is_missing_is_named_where_a_run_needs_it(copy, tmp_path, capsys):
    folder = copy()
    (folder / "model_torch.py").unlink()
    assert run(folder, tmp_path / "runs", "pytorch") == 2
    assert "no model_torch.py, which a run in pytorch needs; it has a model in jax" in (
        capsys.readouterr().err
    )


CHEAT = """
import sys

import optax

for name, module in list(sys.modules.items()):
    if name.startswith("algoperf_workload_") and name.endswith(".data"):
        module.load = lambda *given, _load=module.load, **settings: _load(*given, **settings)

DEFAULTS = {"learning_rate": 1e-3}


def jax_optimizer(params, hyperparameters):
    return optax.sgd(hyperparameters.learning_rate)
"""


def test_a_submission_that_replaces_what_loads_its_rows_is_flagged(copy, tmp_path):
    (tmp_path / "cheat.py").write_text(CHEAT)
    folder, out = copy(edits=QUICK), tmp_path / "runs"
    assert run(folder, out, "jax", tmp_path / "cheat.py") == 0
    package = catalogue.find(str(folder)).package
    assert result_of(out, "jax", "cheat")["flags"] == [f"{package}.data.load was replaced"]


def test_other_modules_are_not_watched(copy):
    definition = catalogue.find(str(copy()))
    definition.import_measures()
    name = f"{definition.package}.data.load"
    assert name in trust.definitions([definition.package])
    assert name not in trust.definitions()


def test_a_source_that_changes_between_trials_is_refused(copy):
    definition = catalogue.find(str(copy()))
    outside.check_unchanged(definition, definition.outside.source_hash)
    with pytest.raises(UserError, match="its files were changed after the run was started"):
        outside.check_unchanged(definition, "another")


def test_an_error_of_its_model_is_blamed_on_its_line(copy):
    folder = copy(edits={"model_torch.py": ("nn.Linear(2, width)", "nn.Linear(2, widht)")})
    definition = catalogue.find(str(folder))
    settings = {"width": 4, "classes": 3}
    where = r"model_torch\.py:13: NameError: name 'widht'"
    with pytest.raises(UserError, match=where), outside.blaming(definition):
        definition.build_model("torch", settings)
    definition = catalogue.find(str(SPIRALS))
    told = f"workload {SPIRALS}: TypeError: .*unexpected keyword argument 'depth'"
    with pytest.raises(UserError, match=told), outside.blaming(definition):
        definition.build_model("torch", {"depth": 4})
    # What none of its files has a part in goes on as it is.
    with pytest.raises(KeyError), outside.blaming(definition):
        raise KeyError
