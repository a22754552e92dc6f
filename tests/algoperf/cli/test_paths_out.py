"""Folders and files that nothing can be written to: a line for each command, before any work."""

import os
from pathlib import Path

import pytest

import algoperf
from algoperf.cli import commands
from algoperf.data.report import facts
from algoperf.errors import UserError
from algoperf.run_folder import writing
from algoperf.study.executors import local

CAMPAIGN = "campaign --workload digits --submissions nadamw --frameworks jax"
SAMPLE = "variants sample --seed 1 --per-workload 1 --workloads digits"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a file in it; work that is begun fails the test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "file").chmod(0o755)
    (tmp_path / "folder").mkdir()

    def begun(*_, **__):
        raise AssertionError("work was begun")

    for owner, name in ((local, "run"), (facts, "read"), (facts, "report")):
        monkeypatch.setattr(owner, name, begun)
    return tmp_path


@pytest.mark.parametrize("given", ["file", "file/below", "file/below/that"])
@pytest.mark.parametrize(
    "words",
    [
        f"{CAMPAIGN} --out",
        f"{CAMPAIGN} --tuning-ruleset external --out",
        "data digits --out",
        "data export digits --out",
        f"{SAMPLE} --runs",
        f"{SAMPLE} --out file/",
        f"{SAMPLE} --curves file/",
        "compare digits --frameworks jax,pytorch --out",
        "compare digits --frameworks jax,pytorch --no-run --out",
        "score folder --out",
        "run --workload digits --submission nadamw --framework jax --max-steps 1 --out",
        "run --workload ag_news --submission nadamw --framework jax --save-model",
        "variants seal file --salt",
    ],
)
def test_a_file_where_a_folder_is_needed(words, given, here, capsys):
    *words, last = words.split(" ")
    words += [last, given] if last.startswith("--") else [f"{last}{given}"]
    assert commands.main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("algoperf: ")
    assert "file" in error
    assert "another" in error or "there already" in error or "cannot be written" in error
    if "--salt" not in words and words[0] != "run":
        assert "a file, not a folder" in error
    assert (here / "file").read_text() == "mine"
    assert sorted(path.name for path in here.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("option", ["--out", "--curves"])
def test_a_folder_where_a_file_is_needed(option, here, capsys):
    assert commands.main([*SAMPLE.split(), option, "folder"]) == 2
    assert capsys.readouterr().err == f"algoperf: {option} folder: a folder; give a file\n"
    assert commands.main([*SAMPLE.split(), option, "none/x.json"]) == 2
    assert capsys.readouterr().err == f"algoperf: {option} none/x.json: there is no folder none\n"


def test_what_may_not_be_written(here, monkeypatch):
    """Permission bits do not stop root, who runs tests in a container."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=r"^--out folder: .*folder may not be written; give anot"):
        writing.check_folder("--out", Path("folder"))
    with pytest.raises(UserError, match=r"^--out folder/x/y: .*/folder may not be written"):
        writing.check_folder("--out", Path("folder/x/y"))
    with pytest.raises(UserError, match=r"^--out folder/x: .*folder may not be written"):
        writing.check_file("--out", Path("folder/x"))


def test_a_file_that_cannot_be_written_after_the_work(here, monkeypatch, capsys):
    """Its name is taken by a folder; the run folders keep what was measured."""
    (here / "out" / "curves.csv").mkdir(parents=True)
    monkeypatch.setattr(local, "run", lambda *_, **__: 0)
    assert commands.main([*CAMPAIGN.split(), "--out", "out"]) == 2
    line = "algoperf: --out out: Is a directory (out/curves.csv); give another\n"
    assert capsys.readouterr().err == line


def test_names_that_no_folder_can_have(here):
    for name in ("x" * 300, "nul\0"):
        with pytest.raises((UserError, ValueError), match=r"too long|null"):
            writing.make_folder("--out", Path(name))


def test_the_same_from_python(here):
    functions = {"jax_optimizer": len}
    for call in (
        lambda: algoperf.run("digits", functions, out="file/below"),
        lambda: algoperf.check(functions, out="file"),
        lambda: algoperf.compare("digits", frameworks=["jax", "pytorch"], out="file"),
    ):
        with pytest.raises(algoperf.UserError, match=r"^out file.*; give another folder$"):
            call()
