"""The `score` command: from paths to what is printed and written."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from algoperf import errors
from scoring.analysis.analysis import Analysis, Summary, analyse, summarise
from scoring.analysis.leaderboard import Leaderboard, build_leaderboards
from scoring.analysis.oddities import find_oddities
from scoring.analysis.statistics import METHODS, RESAMPLES
from scoring.benchmarks.benchmark import RULESETS, find_benchmark
from scoring.benchmarks.suites import read_suite
from scoring.output import export, tables
from scoring.reading.runs import LAYOUT, find_submissions, read_runs
from scoring.reading.trials import Finding, TrialRun
from scoring.rules.rules import BY_THE_RULES, find_rules

if TYPE_CHECKING:
    from rich.console import Console

DONE, STRICT_FAILURE = 0, 1


@dataclasses.dataclass(frozen=True)
class Options:
    """What `algoperf score` can be asked for; docs/scoring.md explains each.

    `command` is what the page says it was made by.
    """

    out: Path | None = None
    as_json: bool = False
    rules: str = BY_THE_RULES.name
    tuning_ruleset: str | None = None
    targets: str | None = None
    suite: str | None = None
    held_out: bool = True
    exclude: tuple[str, ...] = ()
    reference: str | None = None
    interval: str = METHODS[0]
    resamples: int = RESAMPLES
    strict: bool = False
    command: str = "algoperf score"


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """The leaderboards of every pool of runs, with intervals, and what was odd on the way."""

    summaries: Sequence[Summary]
    findings: Sequence[Finding]


def score(paths: Sequence[str | Path], options: Options | None = None) -> Scored:
    """Score what lies below `paths`.

    Raises:
        UserError: A path is missing or holds no runs, or an option names nothing.
    """
    options = options or Options()
    boards, findings = make_boards(paths, options)
    summaries = [
        summarise(
            board,
            reference=options.reference,
            method=options.interval,
            resamples=options.resamples,
        )
        for board in boards
        if board.rows
    ]
    return Scored(summaries, findings)


def score_command(
    paths: Sequence[str | Path], console: "Console", options: Options | None = None
) -> int:
    """Score what lies below `paths`, print it and write what was asked for; return an exit code.

    Raises:
        UserError: As `score`, or `options.out` cannot be written.
    """
    options = options or Options()
    scored = score(paths, options)
    full = options.out is not None or options.as_json
    analyses = _analyses(scored, options) if full else []
    written = _write_all(analyses, scored.findings, options) if options.out else []
    if options.as_json:
        text = json.dumps(export.to_json(analyses, scored.findings), indent=2, default=str)
        console.out(text, highlight=False)
    else:
        _show(scored.summaries, scored.findings, written, console)
    damaged = any(finding.damage for finding in scored.findings)
    return STRICT_FAILURE if options.strict and damaged else DONE


def write(scored: Scored, options: Options) -> list[Path]:
    """Write CSV files, plots and the page to `options.out`; return the files."""
    return _write_all(_analyses(scored, options), scored.findings, options)


def _analyses(scored: Scored, options: Options) -> list[Analysis]:
    return [analyse(summary, resamples=options.resamples) for summary in scored.summaries]


def make_boards(
    paths: Sequence[str | Path], options: Options
) -> tuple[list[Leaderboard], list[Finding]]:
    """The leaderboards of every pool below `paths`, and every finding on the way there."""
    rules = find_rules(options.rules)
    if options.tuning_ruleset not in (None, *RULESETS):
        raise errors.UserError(
            f"unknown tuning ruleset {options.tuning_ruleset!r}; one of: {', '.join(RULESETS)}"
        )
    benchmark = None if options.targets is None else find_benchmark(options.targets)
    suite = None if options.suite is None else read_suite(options.suite)
    for path in paths:
        if not find_submissions(path):
            raise errors.UserError(f"no runs in {path}; expected {LAYOUT} at any depth below it")
    runs, findings = read_runs(*paths)
    if not runs:
        given = ", ".join(str(path) for path in paths)
        raise errors.UserError(f"no trials in {given}; expected {LAYOUT} at any depth below it")
    runs = exclude(runs, options.exclude)
    scored, notes = build_leaderboards(
        runs,
        rules,
        benchmark,
        tuning_ruleset=options.tuning_ruleset,
        suite=suite,
        held_out=options.held_out,
    )
    findings += notes
    for board, of_board in scored:
        findings += of_board + find_oddities(row.entry for row in board.rows)
    boards = [board for board, _ in scored]
    return boards, findings


def exclude(runs: Sequence[TrialRun], names: Sequence[str]) -> list[TrialRun]:
    """The runs of other submissions than `names` (name, or experiment/name).

    Raises UserError for a name that no run bears, and where nothing is left.
    """
    known = {run.submission for run in runs}
    known_with_experiment = {f"{run.experiment}/{run.submission}" for run in runs}
    for name in names:
        if name not in known | known_with_experiment:
            raise errors.UserError(
                f"no submission {name!r} to exclude; one of: {', '.join(sorted(known))}"
            )
    kept = [
        run
        for run in runs
        if not {run.submission, f"{run.experiment}/{run.submission}"} & set(names)
    ]
    if not kept:
        raise errors.UserError("every submission is excluded: nothing is left to score")
    return kept


def _show(
    summaries: Sequence[Summary],
    findings: Sequence[Finding],
    written: Sequence[Path],
    console: "Console",
) -> None:
    scored = [summary for summary in summaries if summary.board.targets]
    for summary in scored:
        console.print(tables.to_table(summary, console.width))
    if not scored:
        console.print("nothing to score: see the findings")
    for line in tables.finding_lines(findings):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if written:
        console.print(
            f"wrote {len(written)} files to {written[0].parent}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _write_all(
    analyses: Sequence[Analysis],
    findings: Sequence[Finding],
    options: Options,
) -> list[Path]:
    from scoring.output import plots
    from scoring.output.page import write_page

    out = options.out
    assert out is not None
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = export.write_files(analyses, findings, out)
        slugs = plots.file_slugs([analysis.board for analysis in analyses])
        for analysis, slug in zip(analyses, slugs, strict=True):
            written += plots.write_plots(analysis, out, slug)
        written.append(write_page(analyses, findings, options.command, out / "report.html"))
    except OSError as error:
        raise errors.UserError(
            f"cannot write to {out} ({error.strerror}); give --out a folder that can be written"
        ) from error
    return written
