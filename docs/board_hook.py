"""What mkdocs makes of docs/leaderboard/board.tar.xz: tables on the page, and the whole report.

The file is one of `algoperf pack`. It is scored as `algoperf score` does it, in each framework
alone and, where there are two, together. The page of the leaderboard gets its tables in place of
MARK, and the site the report and the CSV files of each, so that both always follow from the file.
Without the file the page is as it is written.
"""

import contextlib
import html
import logging
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
FILE, PAGE = "leaderboard/board.tar.xz", "leaderboard.md"
FOLDER = "leaderboard/board"  # of the site
UP = "../"  # from there to the file
MARK = "<!-- the board -->"
TITLES = {"pytorch": "PyTorch", "jax": "JAX", None: "Both frameworks together"}
SHOWN = ("performance_profile", "rank_intervals", "speedups")  # plots on the page
log = logging.getLogger("mkdocs.hooks.board")


def build(file: Path, out: Path) -> tuple[str, list[Path]]:
    """Score a packed board, and write the report, the tables and the plots of each framework.

    Args:
        file: The packed board.
        out: An empty folder to write to.

    Returns:
        The Markdown for the page, with links that begin at the folder that `out` becomes, and the
        files.
    """
    with mock.patch.object(sys, "path", [str(ROOT), *sys.path]):  # this checkout, installed or not
        from scoring import report
        from scoring.reading.runs import read_runs

    # A path from the project's root, as a reader gives it: it stands on the page.
    with contextlib.chdir(file.resolve().parents[2]):
        given = Path(*file.resolve().parts[-3:])
        frameworks = sorted({run.framework for run in read_runs(given)[0]}, reverse=True)
        chosen: list[str | None] = [*frameworks, *([None] if len(frameworks) > 1 else [])]
        parts: list[str] = []
        written: list[Path] = []
        for framework in chosen:
            folder = out / (framework or "both")
            command = f"algoperf score {given}"
            command += f" --framework {framework}" if framework and len(chosen) > 1 else ""
            options = report.Options(out=folder, framework=framework, command=command)
            scored = report.score([given], options)
            files = report.write(scored, options)
            written += files
            parts += _section(scored.summaries, TITLES[framework], command, files, folder.name)
    parts.append(f"The runs are in [{file.name}]({UP}{file.name}), a file of `algoperf pack`.\n")
    return "\n".join(parts), written


def _section(
    summaries: Sequence[Any], title: str, command: str, files: Sequence[Path], folder: str
) -> Iterator[str]:
    """Yield the lines of the page about one framework, or both."""
    from scoring.output import export, tables

    yield f"## {title}\n\n`{command}` gives"
    names = sorted(path.name for path in files)
    data = ", ".join(f"[{name}]({folder}/{name})" for name in names if name.endswith(".csv"))
    yield f"**[the whole report]({folder}/report.html)**, {data}.\n"
    for summary in (each for each in summaries if each.board.targets):
        if len(summaries) > 1:
            yield f"### {_text(summary.board.title)}\n"
        rows = [export.score_values(summary, index) for index in range(len(summary.board.rows))]
        yield from _table(
            ["#", "submission", "score (95 %)", "places", "P(1st)", "reached", "in steps"],
            [
                [
                    row["rank"],
                    row["submission"],
                    _ranged(row["score"], row["score_low"], row["score_high"], 4),
                    _ends(row["rank_low"], row["rank_high"], 0),
                    _number(row["p_first"], 2),
                    f"{row['workloads_reached']}/{row['workloads']}",
                    _number(row["steps_score"], 4),
                ]
                for row in rows
            ],
        )
        if row := next((row for row in rows if row["not_estimable"]), None):
            yield f"95 %, places and chances are not estimable: {_text(row['not_estimable'])}.\n"
        if summary.agreement is not None:
            yield "Which workloads tell the order, and what targets separate:\n"
            yield from _table(
                ["workload", "others (95 %)", "suite", "reached", "spread", "core-hours", "target"],
                [
                    [
                        one.workload,
                        _ranged(one.with_others.tau, one.with_others.low, one.with_others.high, 2),
                        _number(one.with_suite.tau, 2),
                        f"{one.reached}/{one.submissions}",
                        _number(one.spread, 2),
                        tables.hours(one.core_hours),
                        one.separates,
                    ]
                    for one in summary.agreement.orders
                ],
            )
        for line in tables.agreement_told(summary):
            yield f"{_text(line)}\n"
    for name in names:
        if name.endswith(".png") and name.startswith(SHOWN):
            yield f"![{name.removesuffix('.png').replace('_', ' ')}]({folder}/{name})\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |\n|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(_text(str(cell)) for cell in row)} |"
    yield ""


def _text(text: str) -> str:
    """Return a text as Markdown that shows it, whatever characters it has."""
    marked = html.escape(text, quote=False)
    return "".join(f"&#{ord(each)};" if each in "|*_`[]~\\" else each for each in marked)


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{decimals}f}"


def _ends(low: float | None, high: float | None, decimals: int) -> str:
    ends = [_number(each, decimals) for each in (low, high)]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _ranged(value: float | None, low: float | None, high: float | None, decimals: int) -> str:
    """Return a value with the range in which it is uncertain, if that is known."""
    ends = _ends(low, high, min(decimals, 3))
    return _number(value, decimals) + ("" if ends == "-" else f" ({ends})")


_made: dict[str, str] = {}  # the Markdown of the page that is being built


def on_files(files: Any, config: Any) -> Any:
    """Add the report, the tables and the plots of the board, if there is one."""
    from mkdocs.structure.files import File

    file = Path(config.docs_dir) / FILE
    _made.clear()
    if not file.is_file():
        return files
    with tempfile.TemporaryDirectory() as out:
        text, written = build(file, Path(out))
        for path in written:
            is_shown = path.suffix == ".png" and path.name.startswith(SHOWN)
            if path.suffix in (".html", ".csv") or is_shown:
                name = f"{FOLDER}/{path.relative_to(out).as_posix()}"
                files.append(File.generated(config, name, content=path.read_bytes()))
    _made[PAGE] = text.replace("](", f"]({FOLDER}/").replace(f"{FOLDER}/{UP}", "leaderboard/")
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Put the tables of the board on its page."""
    text = _made.get(page.file.src_uri)
    if text is None:
        return markdown
    if MARK not in markdown:
        log.warning("%s has no %r to put the board in place of", PAGE, MARK)
    return markdown.replace(MARK, text)
