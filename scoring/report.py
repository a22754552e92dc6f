"""The `score` command: from paths of run folders to printed tables and written files."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from algoperf import errors
from algoperf.machine import class_file
from scoring.analysis.analysis import Analysis, Summary, analyse, summarise
from scoring.analysis.bounds import ScoreBounds, bounds_of
from scoring.analysis.leaderboard import Leaderboard, build_leaderboards
from scoring.analysis.oddities import find_oddities, find_unfounded
from scoring.analysis.restated import restate
from scoring.analysis.statistics import METHODS, RESAMPLES
from scoring.benchmarks.benchmark import RULESETS, find_benchmark, ruleset_of
from scoring.benchmarks.suites import read_suite
from scoring.output import export, tables
from scoring.reading.runs import LAYOUT, find_submissions, read_runs
from scoring.reading.trials import CONTENDED, INTERRUPTED, Finding, TrialRun, grouped
from scoring.rules import population
from scoring.rules.rules import find_rules

if TYPE_CHECKING:
    from rich.console import Console

DONE, STRICT_FAILURE = 0, 1


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of `algoperf score`; docs/scoring.md explains each.

    Attributes:
        out: The folder to write files to; None writes none.
        as_json: Whether to print JSON in place of tables.
        rules: The name of the rule set; None takes interpolated times for runs of this library, and
            by-the-rules for AlgoPerf's logs and workloads.
        tuning_ruleset: 'external', 'self', or None to take it from the runs.
        targets: The name of a built-in benchmark or a JSON file with targets; None takes them from
            the runs.
        suite: A file with the held-out variants that count.
        held_out: Whether held-out variants count.
        exclude: Submissions to leave out, each as a name or as experiment/name.
        framework: The framework whose runs are scored; None scores those of both together.
        restate: The file of a hardware class in which times are also shown, as an estimate.
        reference: The submission that speed-ups are relative to; None chooses one.
        interval: The method of the intervals, 'pooled' or 'percentile'.
        resamples: The number of competitions that a bootstrap draws.
        count_unfinished: Whether trials that are running or interrupted count as they are, as if
            they had ended.
        exclude_contended: Whether trials whose clock counted others' work are left out.
        partial: Whether to show what scores and places can still become.
        studies: With `partial`, how many studies of each workload there will be; None is as many as
            there are.
        trials: With `partial`, how many trials a study will have; None takes it from the benchmark
            or the fullest study.
        open_trials: Whether trials that record no end, as AlgoPerf's do not, may still be running.
        strict: Whether a finding of damage makes the command fail.
        command: The command line that the page names as its origin.
    """

    out: Path | None = None
    as_json: bool = False
    rules: str | None = None
    tuning_ruleset: str | None = None
    targets: str | None = None
    suite: str | None = None
    held_out: bool = True
    exclude: tuple[str, ...] = ()
    framework: str | None = None
    restate: str | None = None
    reference: str | None = None
    interval: str = METHODS[0]
    resamples: int = RESAMPLES
    count_unfinished: bool = False
    strict: bool = False
    exclude_contended: bool = False
    partial: bool = False
    studies: int | None = None
    trials: int | None = None
    open_trials: bool = False
    command: str = "algoperf score"


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """The leaderboards of all pools of runs, with their intervals and the findings on the way."""

    summaries: Sequence[Summary]
    findings: Sequence[Finding]


def score(paths: Sequence[str | Path], options: Options | None = None) -> Scored:
    """Score the run folders below `paths`.

    Args:
        paths: Folders of runs.
        options: How to score; None takes the defaults.

    Raises:
        UserError: A path is missing or holds no runs, or an option is not valid.
    """
    options = options or Options()
    there = None if options.restate is None else class_file.read(options.restate)
    boards, findings = make_boards(paths, options)
    summaries = []
    for board in filter(lambda board: board.rows, boards):
        restated, notes = (None, []) if there is None else restate(board, there)
        findings += notes
        summaries.append(
            summarise(
                board,
                reference=options.reference,
                method=options.interval,
                resamples=options.resamples,
                bounds=_bounds(board, options),
                restated=restated,
            )
        )
    return Scored(summaries, findings)


def _bounds(board: Leaderboard, options: Options) -> ScoreBounds | None:
    """Return what the scores of a leaderboard can still become, if the options ask for it."""
    if not options.partial:
        return None
    if any(map(population.is_member, board.pool.runs)):
        raise errors.UserError(
            f"--partial: what is still to come of a population ({board.pool.name}) has no bounds, "
            "as its members copy each other; score it once it has ended"
        )
    trials = options.trials
    if trials is None and any(ruleset_of(run) == "external" for run in board.pool.runs):
        trials = board.benchmark.trials
    return bounds_of(board, studies=options.studies, trials=trials)


def score_command(
    paths: Sequence[str | Path], console: "Console", options: Options | None = None
) -> int:
    """Score the run folders below `paths`, print the result and write any requested files.

    Args:
        paths: Folders of runs.
        console: Where to print.
        options: How to score, and where to write; None takes the defaults.

    Returns:
        The exit code: 1 where `options.strict` and a finding reports damage, otherwise 0.

    Raises:
        UserError: As for `score`, or `options.out` cannot be written.
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
    """Write the CSV files, the plots and the page of a scored result.

    Args:
        scored: The result of `score`.
        options: The options that it was scored with; `options.out` must be given.

    Returns:
        The paths of the files.

    Raises:
        UserError: `options.out` cannot be written.
    """
    return _write_all(_analyses(scored, options), scored.findings, options)


def _analyses(scored: Scored, options: Options) -> list[Analysis]:
    return [analyse(summary, resamples=options.resamples) for summary in scored.summaries]


def make_boards(
    paths: Sequence[str | Path], options: Options
) -> tuple[list[Leaderboard], list[Finding]]:
    """Return the leaderboards of all pools below `paths`, and the findings on the way there.

    Args:
        paths: Folders of runs.
        options: How to score.

    Raises:
        UserError: A path is missing or holds no runs, or an option is not valid.
    """
    rules = None if options.rules is None else find_rules(options.rules)
    if options.tuning_ruleset not in (None, *RULESETS):
        raise errors.UserError(
            f"unknown tuning ruleset {options.tuning_ruleset!r}; one of: {', '.join(RULESETS)}"
        )
    needs_partial = (options.studies, options.trials, options.open_trials) != (None, None, False)
    if needs_partial and not options.partial:
        raise errors.UserError(
            "--studies, --trials and --open-trials say what is still to come: give --partial too"
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
    runs = of_framework(exclude(runs, options.exclude), options.framework)
    if options.count_unfinished:
        runs = [dataclasses.replace(run, unfinished=None) for run in runs]
    if options.open_trials:
        runs = [_reopened(run) for run in runs]
    if options.exclude_contended:
        runs, left_out = without_contended(runs)
        findings += left_out
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
        findings += find_unfounded(board)
    boards = [board for board, _ in scored]
    return boards, findings


def _reopened(run: TrialRun) -> TrialRun:
    """Return a trial that may still be running, where it records no end."""
    has_no_end = run.unfinished is None and run.status is None
    return dataclasses.replace(run, unfinished=INTERRUPTED) if has_no_end else run


def exclude(runs: Sequence[TrialRun], names: Sequence[str]) -> list[TrialRun]:
    """Return all runs except those of the named submissions.

    Args:
        runs: The runs to choose from.
        names: Submissions to leave out, each as its name or as experiment/name.

    Raises:
        UserError: A name belongs to no run, or no run is left.
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


def of_framework(runs: Sequence[TrialRun], framework: str | None) -> list[TrialRun]:
    """Return the runs in a framework; all where it is None.

    Raises:
        UserError: No run is in that framework.
    """
    if framework is None:
        return list(runs)
    errors.choose("framework", framework, sorted({run.framework for run in runs}))
    return [run for run in runs if run.framework == framework]


def without_contended(runs: Sequence[TrialRun]) -> tuple[list[TrialRun], list[Finding]]:
    """Return the runs, those whose clock counted others' work as if they still had to be run.

    So a study that such a trial decides is neither reached nor missed. One that diverged or failed
    did so at any speed, and counts.

    Returns:
        The runs, and a finding for each submission and workload that lost some.

    Raises:
        UserError: No run is left.
    """

    def is_left_out(run: TrialRun) -> bool:
        return run.contended is True and run.status not in ("diverged", "failed")

    if all(map(is_left_out, runs)):
        raise errors.UserError("every trial is contended: nothing is left to score")
    findings = []
    for group in grouped(
        filter(is_left_out, runs), lambda run: (run.submission_folder, run.workload, run.framework)
    ):
        trials = "1 trial" if len(group) == 1 else f"{len(group)} trials"
        message = f"{trials} of {group[0].workload} contended: left out"
        findings.append(Finding(group[0].submission_folder, message, damage=False))
    kept = [
        dataclasses.replace(run, rows={}, unfinished=CONTENDED, contended=None)
        if is_left_out(run)
        else run
        for run in runs
    ]
    return kept, findings


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
