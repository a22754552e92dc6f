"""The leaderboard of one pool, as plain data.

Legend: S submissions (rows, best first), W workloads (base and held-out, sorted), B base workloads,
N studies.
"""

import dataclasses
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
from scoring.rules.rules import BY_THE_RULES, CREDITED, Layout, Rules
from scoring.rules.time_to_target import REACHED, StudyResult, study_results

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One entry on one workload; infinite times, steps and ratio where the target was missed.

    `credit` says why a base workload counts or not ('credited', '>4x fastest', ...); a held-out
    variant has neither ratio (NaN) nor credit ('').
    """

    studies: tuple[StudyResult, ...]
    median_time_s: float
    median_steps: float
    ratio: float
    credit: str

    @property
    def studies_reached(self) -> int:
        """In how many studies the target was reached."""
        return sum(result.outcome == REACHED for result in self.studies)


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One entry: its place (equal scores share one), scores by time and by steps, and cells.

    `base_score` is the score by time if no held-out variant counted.
    """

    rank: int
    entry: Entry
    score: float
    steps_score: float
    base_score: float
    cells: Mapping[str, Cell]

    @property
    def workloads_reached(self) -> int:
        """On how many base workloads there is credit."""
        return sum(cell.credit == CREDITED for cell in self.cells.values())


@dataclasses.dataclass(frozen=True, eq=False)
class Leaderboard:
    """One pool scored: best entry first.

    `times_SWN` and `steps_SWN` hold what each study took: inf where it missed the target, NaN where
    there is no such study (absent ones as the rules count them). `ratios` has shape (S, B).
    `ignored` are the held-out variants that would count, had it not been asked that none does.
    """

    pool: Pool
    benchmark: Benchmark
    rules: Rules
    layout: Layout
    rows: tuple[Row, ...]
    times_SWN: Floats
    steps_SWN: Floats
    ratios: Floats
    ignored: tuple[str, ...] = ()

    @property
    def targets(self) -> Mapping[str, Target]:
        """The targets of the base workloads."""
        return {
            name: self.benchmark.workloads[name].target for name in self.benchmark.base_workloads
        }

    @property
    def labels(self) -> list[str]:
        """The entries' labels, best first."""
        return [row.entry.label for row in self.rows]

    @property
    def title(self) -> str:
        """What was compared, e.g. 'mini-builtin, 2 workloads'."""
        count, held_out = len(self.benchmark.base_workloads), len(self.benchmark.variant_of)
        also = f" and {held_out} held-out" if held_out else ""
        name = self.pool.name
        if self.benchmark.name != name:
            recorded = "" if name == NOT_RECORDED else f", {name}"
            name = f"{self.benchmark.name}{recorded}"
        return f"{name}, {count} workload{'' if count == 1 else 's'}{also}"


def build_leaderboards(
    runs: Sequence[TrialRun],
    rules: Rules = BY_THE_RULES,
    benchmark: Benchmark | None = None,
    *,
    tuning_ruleset: str | None = None,
    suite: HeldOutSuite | None = None,
    held_out: bool = True,
) -> tuple[list[tuple[Leaderboard, list[Finding]]], list[Finding]]:
    """The leaderboard of every pool of the runs, each with its findings; and those on the way.

    Which held-out variants count is said by `suite`, else by `benchmark`, else by the runs. Raises
    UserError where both are given.
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


def build_leaderboard(
    pool: Pool,
    rules: Rules = BY_THE_RULES,
    benchmark: Benchmark | None = None,
    *,
    suite: HeldOutSuite | None = None,
    held_out: bool = True,
) -> tuple[Leaderboard, list[Finding]]:
    """Score a pool over the workloads of `benchmark`, or every one in it that has a target and the
    variants of `suite` whose base has one.

    The studies that count are those that any entry of the pool has on the workload, or on its base
    where nobody has run a variant; where a benchmark is given, on any of its workloads, and at
    least as many as the benchmark asks for. An entry that lacks one has no readable trial there.
    Without `held_out` the variants do not count.
    """
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
    """Workloads of the benchmark that an entry has not run."""
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
    ordered = [[cells[name] for name in layout.workloads] for cells in results]
    times_SWN = scoring_rules.study_array(
        [[[r.time_s for r in cell] for cell in cells] for cells in ordered], rules
    )
    steps_SWN = scoring_rules.study_array(
        [[[r.step for r in cell] for cell in cells] for cells in ordered], rules
    )
    logged_SW = np.array(
        [[not all(r.absent for r in cell) for cell in cells] for cells in ordered], bool
    )
    scores = scoring_rules.scores(times_SWN, layout, rules)
    places = scoring_rules.ranks(scores)
    order = sorted(range(len(entries)), key=lambda s: (places[s], entries[s].label))
    times_SWN, steps_SWN = times_SWN[order], steps_SWN[order]
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
    return Leaderboard(pool, benchmark, rules, layout, rows, times_SWN, steps_SWN, ratios_SB)


def _cells(
    results: Sequence[Mapping[str, tuple[StudyResult, ...]]],
    layout: Layout,
    medians_SW: Floats,
    median_steps_SW: Floats,
    ratios_SB: Floats,
    reasons: Sequence[Sequence[str]],
) -> list[dict[str, Cell]]:
    """The cells of every entry, by workload."""
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
    """Studies that others have and this entry lacks, on workloads that it has run."""
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
    """Trials that say they reached the target in a study whose rows do not show it."""
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
