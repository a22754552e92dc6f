"""What mkdocs does beside rendering docs/: pages of other files, and a look at what they load.

README.md is the home page; CONTRIBUTING.md, CHANGELOG.md and docker/README.md are pages too. On the
page of the commands stands what their `--help` prints. A page that would load a script, a style, a
font or a picture from another host is a warning, which fails a strict build.
"""

import contextlib
import io
import logging
import os
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
DOCS = "docs"
# Pages of the site by the files that they are made of.
FROM_ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "docker/README.md": "docker.md",
}
COMMANDS = "cli.md"
COLUMNS = "88"
LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)\s]*)?\)")
LOADING = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\bsrc=[\"'](?:https?:)?//[^\"']+"
    r"|<link\b(?=[^>]*\brel=[\"'](?:stylesheet|preload|preconnect|icon|modulepreload)\b)"
    r"[^>]*?\bhref=[\"'](?:https?:)?//[^\"']+"
    r"|url\([\"']?(?:https?:)?//[^)]+",
    re.IGNORECASE,
)
log = logging.getLogger("mkdocs.hooks.algoperf")


def relink(text: str, source: str) -> str:
    """Return a file's Markdown with its links as they are from the page that the site makes of it.

    Args:
        text: The Markdown.
        source: The file, from the project's root.
    """
    page = _page(source) or source

    def on_the_site(link: re.Match[str]) -> str:
        opening, target, anchor = link.groups()
        named = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        other = _page(named)
        if other is None:
            return link[0]
        return f"{opening}{posixpath.relpath(other, posixpath.dirname(page) or '.')}{anchor or ''})"

    return LINK.sub(on_the_site, text)


def _page(source: str) -> str | None:
    """Return the site's page, or copied file, of a file of the project."""
    if source in FROM_ELSEWHERE:
        return FROM_ELSEWHERE[source]
    inside = source.removeprefix(f"{DOCS}/")
    return inside if inside != source else None


def commands_page() -> str:
    """Return the Markdown of the page of commands: what `--help` prints of each."""
    parts = ["# Commands\n\nWhat `algoperf COMMAND --help` prints.\n"]
    for words, text in _helps([]):
        name = " ".join(["algoperf", *words])
        parts.append(
            f"{'#' * min(2 + len(words[1:]), 3)} {name}\n\n```text\n{text.rstrip()}\n```\n"
        )
    return "\n".join(parts)


def _helps(words: list[str]) -> Iterator[tuple[list[str], str]]:
    printed = io.StringIO()
    with (
        mock.patch.object(sys, "path", [str(ROOT), *sys.path]),  # this checkout, installed or not
        mock.patch.dict(os.environ, COLUMNS=COLUMNS),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        from algoperf.cli import main

        main([*words, "--help"])
    text = printed.getvalue()
    yield words, text
    for name in re.findall(r"^ {4}(\w+)", text, re.MULTILINE):  # as argparse lists subcommands
        yield from _helps([*words, name])


def loaded_from_elsewhere(html: str) -> list[str]:
    """Return what a page would load from another host."""
    return [loading[0] for loading in LOADING.finditer(html)]


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not files of docs/."""
    from mkdocs.structure.files import File

    for source, page in FROM_ELSEWHERE.items():
        text = relink((ROOT / source).read_text(encoding="utf-8"), source)
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, COMMANDS, content=commands_page()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let links of docs/ to the project's other pages lead to the site's."""
    if page.file.generated_by is not None:
        return markdown
    return relink(markdown, f"{DOCS}/{page.file.src_uri}")


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Warn of what a page would load from another host."""
    for loading in loaded_from_elsewhere(output):
        log.warning("%s loads from elsewhere: %s", page.file.src_uri, loading)
    return output
