"""Copies of a submission: to start from one, and with the best point as its DEFAULTS."""

import ast
import json
from pathlib import Path

import pytest

import reference_algorithms
from algoperf.cli import commands
from algoperf.errors import UserError
from algoperf.submission import copies, loading, search_space

POINT = {"rate": 0.12345678901234568, "kind": "ä'\"", "flag": True, "none": None, "steps": 3}


def value_of(text):
    """What the module's DEFAULTS is once it has been run."""
    space = {}
    exec(compile(text, "copy", "exec"), space)
    return space


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("DEFAULTS = {'rate': 1}\nOTHER = 2\n", ["OTHER = 2"]),
        (
            "DEFAULTS: dict = {\n  'rate': 1,\n  'kind': 'ö'}; OTHER = 2  # ü\n",
            ["; OTHER = 2  # ü"],
        ),
        ("A = 'ü'; DEFAULTS = dict(rate=1); B = 3\n", ["A = 'ü'; ", "; B = 3"]),
        ("import collections as DEFAULTS\n", ["import collections as DEFAULTS"]),
        ("A = DEFAULTS = {'rate': 1}\n", ["A = DEFAULTS = {'rate': 1}"]),
        ("DEFAULTS = {}\nDEFAULTS['rate'] = 1\n", ["DEFAULTS['rate'] = 1"]),
        ("DEFAULTS = {'rate': 1}\nDEFAULTS.update(rate=2)\n", ["DEFAULTS.update(rate=2)"]),
        ("if True:\n    DEFAULTS = {'rate': 1}\n", ["    DEFAULTS = {'rate': 1}"]),
        ("def f():\n    DEFAULTS = 1\nDEFAULTS = {}", ["def f():\n    DEFAULTS = 1\n"]),
        ("X = 1\r\nDEFAULTS = {}\r\nY = 2\r\n", ["X = 1\r\n", "\r\nY = 2\r\n"]),
        ("", []),
    ],
)
def test_the_point_is_what_the_module_has_in_the_end(source, kept):
    text = copies.with_defaults(source, POINT)
    assert value_of(text)["DEFAULTS"] == POINT
    for part in kept:
        assert part in text


def test_a_plain_assignment_is_replaced_where_it_stands():
    text = copies.with_defaults("DEFAULTS = {'rate': 1}\nRATES = [DEFAULTS['rate']]\n", {"rate": 5})
    assert value_of(text)["RATES"] == [5]
    assert copies.with_defaults("DEFAULTS = {'rate': 1}\n", {"rate": 5}).count("DEFAULTS") == 1
    assert copies.with_defaults("DEFAULTS = {'rate': 1}\n", {}) == "DEFAULTS = {}\n"


def test_the_encoding_of_the_file_stays(tmp_path):
    source, target = tmp_path / "a.py", tmp_path / "b.py"
    source.write_bytes("# coding: latin-1\nNAME = 'é'\nDEFAULTS = {}\n".encode("latin-1"))
    copies.write_with_defaults(source, target, {"rate": 2})
    tree = ast.parse(target.read_bytes())
    assert [ast.literal_eval(node.value) for node in tree.body] == ["é", {"rate": 2}]
    with pytest.raises(UserError, match="File exists"):
        copies.write_with_defaults(source, target, {})


@pytest.mark.parametrize("name", reference_algorithms.names())
def test_every_algorithm_can_be_copied(tmp_path, monkeypatch, name):
    """The copy is the same algorithm, with the same space, in the same frameworks."""
    monkeypatch.chdir(tmp_path)
    (copy,) = copies.copy_algorithm(name, None)
    original, copied = loading.inspect(reference_algorithms.path(name)), loading.inspect(copy)
    assert copy == Path(f"my_{name}.py")
    assert copy.read_bytes() == original.path.read_bytes()
    assert (copied.name, copied.frameworks) == (f"my_{name}", original.frameworks)
    space = search_space.beside(copied.path, copied.search_space)
    assert space == search_space.beside(copied.path, original.search_space)


def test_a_space_beside_an_algorithm_is_copied_too(tmp_path, monkeypatch):
    folder = tmp_path / "algorithms"
    folder.mkdir()
    (folder / "adamw.py").write_text("DEFAULTS = {}\n")
    (folder / search_space.FILE_NAME).write_text('{"rate": {"feasible_points": [1]}}')
    monkeypatch.setattr(reference_algorithms, "path", lambda name: folder / f"{name}.py")
    target = tmp_path / "mine"
    target.mkdir()
    assert copies.copy_algorithm("adamw", target) == [
        target / "my_adamw.py",
        target / search_space.FILE_NAME,
    ]
    assert json.loads((target / search_space.FILE_NAME).read_text()) == {
        "rate": {"feasible_points": [1]}
    }
    (target / "my_adamw.py").unlink()
    with pytest.raises(
        UserError, match=r"tuning_search_space\.json: exists and is not overwritten"
    ):
        copies.copy_algorithm("adamw", target)
    assert not (target / "my_adamw.py").exists()  # all or nothing


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["adamw", "--copy", "there.py"], "--copy there.py: exists and is not overwritten"),
        (["adamw", "--copy", "mine.txt"], "--copy mine.txt: expected a file that ends in .py"),
        (["adamw", "--copy", "no/mine.py"], "--copy no/mine.py: there is no folder no"),
        (["adamv", "--copy"], "unknown submission 'adamv'; did you mean adamw"),
        (["adamv"], "unknown submission 'adamv'; did you mean adamw"),
        (["--copy", "mine.py"], "--copy needs the name of one submission"),
        (["adamw", "--copy", "--json"], "--json is for the list"),
    ],
)
def test_a_copy_that_cannot_be(tmp_path, monkeypatch, capsys, words, part):
    monkeypatch.chdir(tmp_path)
    Path("there.py").touch()
    assert commands.main(["submissions", *words]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"algoperf: {part}")
    assert line.count("\n") == 1
    assert sorted(Path().iterdir()) == [Path("there.py")]


def test_the_command_copies_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert commands.main(["submissions", "muon", "--copy"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "my_muon.py\n"
    assert "algoperf run --workload digits --submission my_muon.py" in shown.err
    assert commands.main(["submissions", "muon"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["muon", "jax,", "pytorch"]
    assert lines[1].endswith("algoperf submissions muon --copy")


def test_a_copy_must_load_where_it_will_be(tmp_path):
    (tmp_path / "mine.py").write_text("import helper\nDEFAULTS = {}\n")
    (tmp_path / "helper.py").touch()
    other = tmp_path / "other"
    other.mkdir()
    copies.check_copies_alone("--save-best", tmp_path / "mine.py", tmp_path / "best.py")
    with pytest.raises(UserError, match=r"imports helper\.py from its folder; name a file in"):
        copies.check_copies_alone("--save-best", tmp_path / "mine.py", other / "best.py")
    nadamw = reference_algorithms.path("nadamw")
    copies.check_copies_alone("--save-best", nadamw, other / "best.py")  # imports the package
