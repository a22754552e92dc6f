"""report.html: one self-contained page about leaderboards, for a browser without a network.

The template, the style and the script are the files page.* beside this module, and the files that
the template includes. Names, findings and hyperparameters come from untrusted folders: the template
escapes everything that is not `svg.Markup`, and the page's own content security policy lets no
other script run and nothing be fetched.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from scoring.analysis.analysis import Analysis
from scoring.output.page import charts, content
from scoring.output.page.svg import Markup
from scoring.reading.trials import Finding

TITLE = "AlgoPerf scores"
COVERAGE_NOTE = (
    "On made boards of known truth (two submissions on three and on seven workloads, with three "
    "studies of which none, 30 and 50 % missed), the pooled 95 % interval held the expected score "
    "in 93 to 98 % of cases; smaller boards are refused as not estimable (docs/scoring.md has the "
    "table, what is covered less, and the command). Those studies were "
    "independent and their log times normal, which real ones need not be. Intervals over studies "
    "say nothing about other workloads, other hardware or other implementations of a method; the "
    "coverage of those over workloads was not measured. A submission that never reached a target "
    "is drawn as one that never will."
)


def write_page(
    analyses: Sequence[Analysis], findings: Sequence[Finding], command: str, path: Path
) -> Path:
    """Write the page about leaderboards to a file.

    Args:
        analyses: The leaderboards and their statistics.
        findings: The findings to list.
        command: The command line that the page names as its origin.
        path: The file to write.

    Returns:
        `path`.
    """
    text = render(analyses, findings, command)
    # Characters that UTF-8 cannot encode, such as parts of undecodable file names, become '?'.
    path.write_bytes(text.encode("utf-8", "replace"))
    return path


def render(analyses: Sequence[Analysis], findings: Sequence[Finding], command: str) -> str:
    """Return the page about leaderboards as HTML text; the arguments are those of `write_page`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _file("page.js")
    most = max((len(analysis.board.rows) for analysis in analyses), default=0)
    facts: dict[str, Any] = {
        "title": TITLE,
        "style": Markup(f"{_file('page.css')}\n{charts.palette_css(most)}"),
        "script": Markup(script),
        "policy": _policy(script),
        "pools": [content.pool(analysis, number) for number, analysis in enumerate(analyses)],
        "findings": content.findings(findings),
        "coverage": COVERAGE_NOTE,
        "command": command,
    }
    return environment.get_template("page.html").render(facts)


def _file(name: str) -> str:
    return resources.files("scoring.output.page").joinpath(name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Return a content security policy under which only this script runs and nothing is fetched."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
