"""README.md and docs/: their commands run or are marked as examples, their links lead somewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import algoperf
import scoring

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docker" / "README.md",
                 ROOT / "submissions" / "README.md", *DOCS.rglob("*.md"))
)  # fmt: skip
MARK = "# example"
# Pages whose commands run here as they stand, in their order, in one folder a page: in it lie the
# files that the page shows, and the project's own folders.
RUN_HERE = (
    "README.md",
    "docs/competition.md",
    "docs/install.md",
    "docs/leaderboard.md",
    "docs/reference_algorithms.md",
    "docs/variants.md",
    "docs/workloads.md",
)
# Commands that another part of the checks runs: its file, and what stands there.
RUN_ELSEWHERE = {
    "python3.11 -m venv .venv && . .venv/bin/activate && pip install -c constraints.txt . "
    "&& algoperf run --workload ag_news --submission nadamw": (
        ".ci/run",
        "algoperf run --workload ag_news --submission nadamw",
    ),
    "python3.11 -m venv .venv && . .venv/bin/activate && pip install -c constraints.txt "
    "-e '.[test]' && pytest": (
        ".ci/run",
        "pip install --quiet -c constraints.txt -e '.[test,docs]'",
    ),
}
PROGRAMS = (
    *("algoperf", "bash", "cd", "docker", "git", "mkdir", "mkdocs", "mypy", "pip", "pre-commit"),
    *("pytest", "python", "python3", "python3.11", "ruff", "tar", "wandb", ".ci/run"),
)
COMMAND = re.compile(rf"(\$ )?([A-Z_]+=\S+ )*({'|'.join(map(re.escape, PROGRAMS))})( |$)")
FENCED = re.compile(r"^```(\S*).*\n((?:.*\n)*?)```$", re.MULTILINE)
INDENTED = re.compile(r"(?<=\n\n) {4}.*\n(?:\n*(?: {4}.*\n))*")
LINK = re.compile(r"\]\(([^)#\s:]*)(?:#([^)\s]*))?\)")


class Block(NamedTuple):
    """A block of code of a page: the number of its first line, its language, its text."""

    line: int
    language: str
    text: str

    @property
    def is_example(self):
        return self.text.startswith(MARK)

    @property
    def commands(self):
        """Each command with the number of its line; lines that end in a backslash are joined.

        Where a line of the block has a prompt, those without are what was printed.
        """
        if self.language not in ("", "bash", "console", "sh", "shell"):
            return
        prompted = "$ " if re.search(r"^\$ ", self.text, re.MULTILINE) else ""
        joined = re.sub(r" *\\\n *", "\0", self.text)
        number = self.line
        for line in joined.splitlines():
            if line.startswith(prompted) and COMMAND.match(line):
                yield number, line.removeprefix(prompted).replace("\0", " ")
            number += 1 + line.count("\0")


def blocks(text):
    """The fenced and the indented blocks of a page, in their order."""
    found = []
    for fence in FENCED.finditer(text):
        found.append(Block(text.count("\n", 0, fence.start(2)) + 1, fence[1], fence[2]))
    outside = FENCED.sub(lambda fence: "\n" * fence[0].count("\n"), text)
    for indented in INDENTED.finditer(outside):
        code = re.sub("^ {4}", "", indented[0], flags=re.MULTILINE)
        found.append(Block(outside.count("\n", 0, indented.start()) + 1, "", code))
    return sorted(found)


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_each_command_is_run_or_marked_as_an_example(page):
    for block in blocks(read(page)):
        if block.is_example or page in RUN_HERE:
            continue
        for line, command in block.commands:
            assert command in RUN_ELSEWHERE, (
                f"{page}:{line}: nothing runs `{command}`. If it takes long or needs what is not "
                f"there, make `{MARK}` the first line of its block (more may follow: `{MARK}: 40 s "
                f"on two cores`). If it takes a second, add the page to RUN_HERE in "
                f"tests/test_docs.py, which runs the commands of its unmarked blocks. If another "
                f"test runs the very same command, name that in RUN_ELSEWHERE."
            )


def test_what_is_said_to_run_elsewhere_is_shown_and_runs_there():
    shown = {
        command for page in PAGES for block in blocks(read(page)) for _, command in block.commands
    }
    for command, (file, text) in RUN_ELSEWHERE.items():
        assert command in shown, f"no page shows `{command}` any more; take it out of RUN_ELSEWHERE"
        assert text in read(file), f"{file} no longer runs `{command}`: {text} is not in it"


@pytest.mark.parametrize("page", RUN_HERE)
def test_unmarked_commands_run_as_they_stand(page, tmp_path):
    for folder in ("docs", "submissions", "tests"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, words in (("algoperf", "-P -m algoperf"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "100"}
    ran = 0
    for block in blocks(read(page)):
        if block.language == "python" and (named := re.match(r"# (\w+\.py)\n", block.text)):
            (tmp_path / named[1]).write_text(block.text)
        if block.is_example:
            continue
        for line, command in block.commands:
            if command in RUN_ELSEWHERE:
                continue
            ended = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command],
                cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
                timeout=300,
            )  # fmt: skip
            assert ended.returncode == 0, (
                f"{page}:{line}: `{command}` ended with {ended.returncode}:\n{ended.stderr}\n"
                f"Mend it, or make `{MARK}` the first line of its block."
            )
            ran += 1
    assert ran, f"{page} has no command that runs; take it out of RUN_HERE"


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_to_files_and_headings_that_exist(page):
    """Of the files as they lie; those of the site are checked when it is built."""
    for target, anchor in LINK.findall(
        re.sub(r"```.*?```|`[^`\n]*`", "", read(page), flags=re.DOTALL)
    ):
        path = ((ROOT / page).parent / target) if target else ROOT / page
        assert path.exists(), f"{page} links to {target}"
        assert path.resolve().is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(path.read_text("utf-8")), f"{page} links to {target}#{anchor}"


def anchors(text):
    """The anchors of a page's headings, where they are the same in the site and on a forge."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE
    )
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings
    }


def test_the_readme_is_short_and_in_the_order_of_a_first_hour():
    text = read("README.md")
    assert len(text.splitlines()) <= 120
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        *("Install and run", "Write a submission", "Score", "Compare"),
        *("What is in the box", "Where to read on"),
    ]


def test_every_page_is_in_the_navigation_of_the_site():
    navigation = read("mkdocs.yml").partition("\nnav:")[2]
    listed = re.findall(r"^ +- [^:\n]+: (\w+\.md)", navigation, re.MULTILINE)
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.glob("*.md")}
    hooks = load_hooks()
    made = {*hooks.FROM_ELSEWHERE.values(), hooks.COMMANDS}
    assert sorted(listed) == sorted(pages | made), "list each page of docs/ under nav in mkdocs.yml"


def test_the_api_page_has_every_public_name():
    listed = {
        name.rpartition(".")[2]
        for name in re.findall(r"^::: (\S+)", read("docs/api.md"), re.MULTILINE)
    }
    assert {*algoperf.__all__, *scoring.__all__} <= listed


def test_the_api_page_names_what_exists():
    for name in re.findall(r"^::: (\S+)", read("docs/api.md"), re.MULTILINE):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_the_glossary_has_the_terms_of_the_commands():
    terms = set(re.findall(r"^### (.*)$", read("docs/glossary.md"), re.MULTILINE))
    assert terms >= {
        *("Trial", "Study", "Ruleset", "Point", "Experiment", "Pool", "Campaign", "Suite"),
        *("Variant", "Workload", "Submission", "Target", "Budget", "Step hint"),
    }


def load_hooks():
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_commands_has_each_with_its_options():
    text = load_hooks().commands_page()
    headings = re.findall(r"^##+ (.*)$", text, re.MULTILINE)
    assert headings[:3] == ["algoperf", "algoperf run", "algoperf status"]
    assert "algoperf variants seal" in headings
    assert "--eval-every-steps" in text
    assert len(headings) == len(set(headings)) == text.count("usage: algoperf")


@pytest.mark.parametrize(
    ("text", "source", "expected"),
    [
        ("[a](docs/run.md#options)", "README.md", "[a](run.md#options)"),
        ("![p](docs/profile.png)", "README.md", "![p](profile.png)"),
        ("[c](CONTRIBUTING.md)", "README.md", "[c](contributing.md)"),
        ("[d](../docs/run.md)", "docker/README.md", "[d](run.md)"),
        ("[c](../CONTRIBUTING.md#checks)", "docs/run.md", "[c](contributing.md#checks)"),
        ("[r](run.md)", "docs/scoring.md", "[r](run.md)"),
        ("[x](https://example.org/docs/run.md)", "README.md", "[x](https://example.org/docs/run.md)"),
        ("[l](LICENSE)", "README.md", "[l](LICENSE)"),
    ],
)  # fmt: skip
def test_links_of_pages_from_elsewhere_are_those_of_the_site(text, source, expected):
    assert load_hooks().relink(text, source) == expected


@pytest.mark.parametrize(
    ("html", "count"),
    [
        ('<script src="https://example.org/a.js"></script>', 1),
        ("<link rel='stylesheet' href='//example.org/a.css'>", 1),
        ('<link href="https://example.org/f" rel="preconnect">', 1),
        ("<style>@font-face { src: url(https://example.org/a.woff) }</style>", 1),
        ('<img alt="" src="http://example.org/a.png">', 1),
        ('<a href="https://example.org">there</a><img src="../a.png"><script src="a.js">', 0),
        ('<link rel="canonical" href="https://example.org/">', 0),
    ],
)  # fmt: skip
def test_what_a_page_would_load_from_elsewhere_is_seen(html, count):
    assert len(load_hooks().loaded_from_elsewhere(html)) == count
