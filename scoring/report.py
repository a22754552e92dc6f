"""The `score` command: from paths to what is printed and written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from algoperf import spec
from scoring import tables
from scoring.leaderboard import Leaderboard, build_leaderboard
from scoring.pools import make_pools
from scoring.runs import LAYOUT, Finding, find_submissions, load_runs

if TYPE_CHECKING:
    from rich.console import Console


def score_command(
    paths: Sequence[str | Path], out: Path | None, as_json: bool, console: "Console"
) -> int:
    """Score what lies below `paths`, print it, write tables and plots to `out`; return 0.

    Raises UserError for a path that is missing or holds no runs, and for an unwritable `out`.
    """
    for path in paths:
        if not find_submissions(path):
            raise spec.UserError(f"no runs in {path}; expected {LAYOUT} at any depth below it")
    runs, findings = load_runs(*paths)
    if not runs:
        given = ", ".join(str(path) for path in paths)
        raise spec.UserError(f"no trials in {given}; expected {LAYOUT} at any depth below it")
    pools, notes = make_pools(runs)
    findings += notes
    boards = []
    for pool in pools:
        board, notes = build_leaderboard(pool)
        boards.append(board)
        findings += notes
    written = _write_all(boards, findings, out) if out else []
    if as_json:
        text = json.dumps(tables.to_json(boards, findings), indent=2, default=str)
        console.out(text, highlight=False)
    else:
        _show(boards, findings, written, console)
    return 0


def _show(
    boards: Sequence[Leaderboard],
    findings: Sequence[Finding],
    written: Sequence[Path],
    console: "Console",
) -> None:
    for board in boards:
        if board.targets:
            console.print(tables.to_table(board))
    if not any(board.targets for board in boards):
        console.print("nothing to score: see the findings")
    for finding in findings:
        console.print(f"finding: {finding}", markup=False, highlight=False, soft_wrap=True)
    if written:
        console.print(
            f"wrote {len(written)} files to {written[0].parent}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _write_all(boards: Sequence[Leaderboard], findings: Sequence[Finding], out: Path) -> list[Path]:
    from scoring import plots

    try:
        out.mkdir(parents=True, exist_ok=True)
        written = tables.write_csv(boards, out)
        listed = out / "findings.json"
        text = json.dumps(tables.to_json([], findings)["findings"], indent=2)
        listed.write_text(f"{text}\n", encoding="utf-8")
        written.append(listed)
        for board, slug in zip(boards, plots.file_slugs(boards), strict=True):
            written += plots.write_plots(board, out, slug)
    except OSError as error:
        raise spec.UserError(
            f"cannot write to {out} ({error.strerror}); give --out a folder that can be written"
        ) from error
    return written
