"""The leaderboard of one pool of runs, as plain data.

Legend: S submissions (rows, best first), W workloads (base and held-out, sorted), B base workloads,
N studies.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from algoperf import errors
from scoring.benchmarks.benchmark import Benchmark, apply_benchmark
from scoring.benchmarks.pools import NOT_RECORDED, Entry, Pool, make_entries, make_pools
from scoring.benchmarks.recorded import benchmark_of
from scoring.benchmarks.suites import HeldOutSuite, apply_suite
from scoring.reading.runs import check_metrics
from scoring.reading.trials import Finding, Target, TrialRun
from scoring.rules import rules as scoring_rules
from scoring.rules.rules import BY_THE_RULES, CREDITED, INTERPOLATED, Layout, Rules
from scoring.rules.time_to_target import (
    REACHED,
    StudyResult,
    log_errors_of,
    steps_of,
    study_results,
    times_of,
)

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """The results of one entry on one workload.

    Attributes:
        studies: The result of each study.
        median_time_s: The median time to target in seconds; inf where the target was missed, NaN
            where no study is decided.
        median_steps: The median number of steps to the target; inf where it was missed.
        ratio: The ratio to the fastest credited time; inf without credit, NaN for a held-out
            variant.
        credit: Why a base workload counts or not: 'credited', '>4x fastest', ... (see
            `scoring.rules.rules.credit_reasons`); '' for a held-out variant.
    """

    studies: tuple[StudyResult, ...]
    median_time_s: float
    median_steps: float
    ratio: float
    credit: str

    @property
    def studies_reached(self) -> int:
        """The number of studies in which the target was reached."""
        return sum(result.outcome == REACHED for result in self.studies)

    @property
    def interpolated(self) -> bool:
        """Whether the time of any study was interpolated."""
        return any(result.crossing.interpolated for result in self.studies)

    @property
    def time_without_first_step_s(self) -> float:
        """The median time to target without the first step, which holds the compilation.

        inf where the target was missed; NaN where it is not known of a study that counts.
        """
        reached = [each for each in self.studies if each.outcome == REACHED]
        known = all(math.isfinite(each.time_without_first_step_s) for each in reached)
        if not known or not math.isfinite(self.median_time_s):
            return math.inf if math.isinf(self.median_time_s) else math.nan
        decided = [each for each in self.studies if not each.undecided]
        times = [each.time_without_first_step_s for each in decided]
        times_N = np.array([math.inf if math.isnan(time_s) else time_s for time_s in times])
        return float(scoring_rules.median_over_studies(times_N))

    @property
    def undecided(self) -> bool:
        """Whether no study is decided, as its trials are running or interrupted."""
        return bool(self.studies) and all(result.undecided for result in self.studies)


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One entry of the leaderboard with its rank, scores and cells.

    Attributes:
        rank: 1 for the best score; equal scores share the better rank.
        entry: The submission folder in one framework that is ranked.
        score: The score by time to target, in [0, 1].
        steps_score: The same score with steps in place of times.
        base_score: The score by time that the entry would have if no held-out variant counted.
        cells: The results by workload, base and held-out.
    """

    rank: int
    entry: Entry
    score: float
    steps_score: float
    base_score: float
    cells: Mapping[str, Cell]

    @property
    def workloads_reached(self) -> int:
        """The number of base workloads on which the entry has credit."""
        return sum(cell.credit == CREDITED for cell in self.cells.values())


@dataclasses.dataclass(frozen=True, eq=False)
class Leaderboard:
    """One pool of runs, scored; the best entry comes first.

    Attributes:
        pool: The runs.
        benchmark: The workloads, targets and budgets that the pool was scored by.
        rules: The rule set.
        layout: The meaning of the columns of the arrays.
        rows: The entries, best first.
        times_SWN: Array (S, W, N) of seconds to the target in each study: inf where it was missed,
            NaN where there is no such study or it is undecided. Studies without a readable trial
            are inf or NaN as the rules demand.
        steps_SWN: The same for steps to the target.
        log_errors_SWN: The standard deviation of the error that the distance between evaluations
            leaves in the logarithm of each time; 0 where the rules do not interpolate, and where
            the target was missed.
        ratios: Array (S, B) of ratios to the fastest credited time; inf where there is no credit.
        ignored: Held-out variants that would count, had the caller not excluded all variants.
    """

    pool: Pool
    benchmark: Benchmark
    rules: Rules
    layout: Layout
    rows: tuple[Row, ...]
    times_SWN: Floats
    steps_SWN: Floats
    ratios: Floats
    log_errors_SWN: Floats
    ignored: tuple[str, ...] = ()

    @property
    def targets(self) -> Mapping[str, Target]:
        """The targets of the base workloads, by name."""
        return {
            name: self.benchmark.workloads[name].target for name in self.benchmark.base_workloads
        }

    @property
    def labels(self) -> list[str]:
        """The labels of the entries, best first."""
        return [row.entry.label for row in self.rows]

    @property
    def order_by_steps(self) -> list[str]:
        """The labels by the score in steps, best first; empty where time gives the same order.

        Steps are the same on any machine, whatever else it does.
        """
        rows = [row for row in self.rows if not math.isnan(row.steps_score)]
        agree = all(
            first.score == second.score or first.steps_score >= second.steps_score
            for first, second in itertools.combinations(rows, 2)
        )
        return (
            []
            if agree
            else [row.entry.label for row in sorted(rows, key=lambda row: -row.steps_score)]
        )

    @property
    def title(self) -> str:
        """A description of what was compared, such as 'mini-builtin, 2 workloads'."""
        count, held_out = len(self.benchmark.base_workloads), len(self.benchmark.variant_of)
        also = f" and {held_out} held-out" if held_out else ""
        name = self.pool.name
        if self.benchmark.name != name:
            recorded = "" if name == NOT_RECORDED else f", {name}"
            name = f"{self.benchmark.name}{recorded}"
        return f"{name}, {count} workload{'' if count == 1 else 's'}{also}"


def build_leaderboards(
    runs: Sequence[TrialRun],
    rules: Rules | None = None,
    benchmark: Benchmark | None = None,
    *,
    tuning_ruleset: str | None = None,
    suite: HeldOutSuite | None = None,
    held_out: bool = True,
) -> tuple[list[tuple[Leaderboard, list[Finding]]], list[Finding]]:
    """Score each pool of comparable runs.

    `suite` decides which held-out variants count; without one, `benchmark` does, and without
    either, the runs themselves do.

    Args:
        runs: The runs, which this function groups into pools.
        rules: The rule set; None takes the default of each pool (see `default_rules`).
        benchmark: The workloads, targets and budgets to score by; None takes them from the runs.
        tuning_ruleset: 'external' or 'self', which decides the budgets of `benchmark`; None takes
            it from the runs.
        suite: The held-out variants that count.
        held_out: Whether held-out variants count at all.

    Returns:
        The leaderboard of each pool with its findings; and the findings made before the pools were
        scored.

    Raises:
        UserError: Both `benchmark` and `suite` are given.
    """
    if benchmark is not None and suite is not None:
        raise errors.UserError(
            "targets and a suite both say which held-out variants count: give one"
        )
    findings: list[Finding] = []
    if benchmark is not None:
        runs, findings = apply_benchmark(runs, benchmark, tuning_ruleset)
    if suite is not None:
        runs, findings = apply_suite(runs, suite)
    pools, notes = make_pools(runs)
    boards = [
        build_leaderboard(pool, rules, benchmark, suite=suite, held_out=held_out) for pool in pools
    ]
    return boards, findings + notes


def default_rules(pool: Pool, benchmark: Benchmark | None = None) -> Rules:
    """Return the rule set of a pool where none is asked for.

    Times are interpolated for runs of this library, which record their settings. AlgoPerf's logs
    and AlgoPerf's workloads are scored by AlgoPerf's rules to the letter.
    """
    of_algoperf = not pool.settings or (benchmark is not None and benchmark.of_algoperf)
    return BY_THE_RULES if of_algoperf else INTERPOLATED


def build_leaderboard(
    pool: Pool,
    rules: Rules | None = None,
    benchmark: Benchmark | None = None,
    *,
    suite: HeldOutSuite | None = None,
    held_out: bool = True,
) -> tuple[Leaderboard, list[Finding]]:
    """Score one pool of runs.

    A study counts on a workload if any entry of the pool has it there; for a variant that nobody
    has run, if any entry has it on the base workload. With a benchmark, a study counts if any entry
    has it on any workload of the benchmark, and there are at least as many studies as the benchmark
    asks for. An entry that lacks such a study has no readable trial in it.

    Args:
        pool: The runs.
        rules: The rule set; None takes the default of each pool (see `default_rules`).
        benchmark: The workloads to score, with their targets and budgets. None scores each workload
            of the pool that has a target, and each variant of `suite` whose base workload has one.
        suite: The held-out variants that count.
        held_out: Whether held-out variants count at all.

    Returns:
        The leaderboard and its findings.
    """
    rules = rules or default_rules(pool, benchmark)
    entries, findings = make_entries(pool.runs)
    counts, more = benchmark_of(pool, suite) if benchmark is None else (benchmark, [])
    findings += more + check_metrics(run for run in pool.runs if run.workload in counts.scored)
    ignored = () if held_out else tuple(sorted(counts.variant_of))
    if not held_out:
        counts = dataclasses.replace(counts, variant_of={})
    findings += _gaps(counts, entries)
    workloads = counts.scored
    studies = _studies(pool, counts, declared=benchmark is not None)
    results = [
        {
            name: study_results(
                [run for run in entry.runs if run.workload == name], studies[name], rules
            )
            for name in workloads
        }
        for entry in entries
    ]
    for entry, of_entry in zip(entries, results, strict=True):
        findings += _missing_studies(entry, studies) + _contradictions(entry, of_entry)
    layout = scoring_rules.make_layout(workloads, counts.base_workloads, counts.variant_of)
    board = _scored(pool, counts, rules, layout, entries, results)
    return dataclasses.replace(board, ignored=ignored), findings


def _gaps(benchmark: Benchmark, entries: Sequence[Entry]) -> list[Finding]:
    """Return a finding for each entry that has not run all workloads of the benchmark."""
    findings = []
    for entry in entries:
        missing = sorted(set(benchmark.scored) - {run.workload for run in entry.runs})
        if missing:
            findings.append(
                Finding(
                    entry.runs[0].submission_folder,
                    f"{entry.label} has no runs of {', '.join(missing)}: counted as not reached",
                )
            )
    return findings


def _studies(pool: Pool, benchmark: Benchmark, *, declared: bool) -> Mapping[str, list[int]]:
    """Return the numbers of the studies that count on each workload (see `build_leaderboard`)."""
    runs = [run for run in pool.runs if run.workload in benchmark.scored]
    if declared:
        every = {run.study for run in runs}
        asked = benchmark.studies or 0
        absent = [study for study in range(asked) if study not in every]
        every.update(absent[: max(0, asked - len(every))])
        return dict.fromkeys(benchmark.scored, sorted(every))
    studies_of = {
        name: {run.study for run in runs if run.workload == name} for name in benchmark.scored
    }
    base_of = benchmark.variant_of
    return {
        name: sorted(studies or studies_of[base_of.get(name, name)])
        for name, studies in studies_of.items()
    }


def _scored(
    pool: Pool,
    benchmark: Benchmark,
    rules: Rules,
    layout: Layout,
    entries: Sequence[Entry],
    results: Sequence[Mapping[str, tuple[StudyResult, ...]]],
) -> Leaderboard:
    """Return the leaderboard of `entries`, scored and ranked from `results` in the same order."""
    ordered = [[cells[name] for name in layout.workloads] for cells in results]
    times_SWN, steps_SWN = times_of(ordered, rules), steps_of(ordered, rules)
    logged_SW = np.array(
        [[not all(r.absent for r in cell) for cell in cells] for cells in ordered], bool
    )
    scores = scoring_rules.scores(times_SWN, layout, rules)
    places = scoring_rules.ranks(scores)
    order = sorted(range(len(entries)), key=lambda s: (places[s], entries[s].label))
    times_SWN, steps_SWN = times_SWN[order], steps_SWN[order]
    log_errors_SWN = log_errors_of(ordered, rules)[order]
    medians_SW = scoring_rules.median_over_studies(times_SWN)
    ratios_SB = scoring_rules.credited_ratios(medians_SW, layout, rules)
    reasons = scoring_rules.credit_reasons(medians_SW, logged_SW[order], layout, rules)
    cells = _cells(
        [results[entry] for entry in order],
        layout,
        medians_SW,
        scoring_rules.median_over_studies(steps_SWN),
        ratios_SB,
        reasons,
    )
    steps_scores = scoring_rules.scores(steps_SWN, layout, rules).tolist()
    bases_alone = dataclasses.replace(layout, variants=())
    base_scores = scoring_rules.scores(times_SWN, bases_alone, rules).tolist()
    rows = tuple(
        Row(int(places[entry]), entries[entry], float(scores[entry]), by_steps, of_bases, of_entry)
        for entry, by_steps, of_bases, of_entry in zip(
            order, steps_scores, base_scores, cells, strict=True
        )
    )
    return Leaderboard(
        pool, benchmark, rules, layout, rows, times_SWN, steps_SWN, ratios_SB, log_errors_SWN
    )


def _cells(
    results: Sequence[Mapping[str, tuple[StudyResult, ...]]],
    layout: Layout,
    medians_SW: Floats,
    median_steps_SW: Floats,
    ratios_SB: Floats,
    reasons: Sequence[Sequence[str]],
) -> list[dict[str, Cell]]:
    """Return the cells of each entry, by workload."""
    cells = []
    for index, by_workload in enumerate(results):
        ratio_of = dict(zip(layout.base, ratios_SB[index].tolist(), strict=True))
        credit_of = dict(zip(layout.base, reasons[index], strict=True))
        cells.append(
            {
                name: Cell(
                    by_workload[name],
                    float(medians_SW[index, column]),
                    float(median_steps_SW[index, column]),
                    ratio_of.get(column, np.nan),
                    credit_of.get(column, ""),
                )
                for column, name in enumerate(layout.workloads)
            }
        )
    return cells


def _missing_studies(entry: Entry, studies: Mapping[str, Sequence[int]]) -> list[Finding]:
    """Return findings about studies that an entry lacks on workloads that it has run."""
    run_studies: dict[str, set[int]] = {}
    for run in entry.runs:
        run_studies.setdefault(run.workload, set()).add(run.study)
    return [
        Finding(
            entry.runs[0].submission_folder,
            f"{entry.label} has no trial of {name} in "
            + ", ".join(
                f"study_{study}" for study in studies[name] if study not in run_studies[name]
            ),
        )
        for name in sorted(set(run_studies) & set(studies))
        if set(studies[name]) - run_studies[name]
    ]


def _contradictions(entry: Entry, results: Mapping[str, tuple[StudyResult, ...]]) -> list[Finding]:
    """Return findings about trials that claim 'reached' in a study that missed its target.

    Whether a study missed its target is decided by its evaluations alone.
    """
    missed = {
        (name, study.study)
        for name, studies in results.items()
        for study in studies
        if study.outcome != REACHED
    }
    return [
        Finding(
            run.path,
            "result.json says 'reached', eval_measurements.csv does not: counted as not reached",
        )
        for run in entry.runs
        if run.status == REACHED and (run.workload, run.study) in missed
    ]
