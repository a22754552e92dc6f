"""The scorer for notebooks: pure functions that take and return pandas frames.

    runs = scoring.load_runs("runs/")
    times = scoring.time_to_target(runs)
    scoring.score(times)
    scoring.bootstrap(times)

pandas is imported inside the functions, so that the command does not wait for it.
"""

from collections.abc import Hashable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scoring.analysis import statistics
from scoring.analysis.leaderboard import build_leaderboards
from scoring.benchmarks.benchmark import find_benchmark
from scoring.benchmarks.suites import read_suite
from scoring.reading.evaluations import STEP_COLUMN, TIME_COLUMN
from scoring.reading.runs import read_runs
from scoring.reading.trials import CONTENDED, INTERRUPTED, RUNNING, Target, TrialRun
from scoring.rules import rules as scoring_rules
from scoring.rules.rules import BY_THE_RULES, Layout, find_rules
from scoring.rules.time_to_target import is_readable

if TYPE_CHECKING:
    import pandas as pd

RUN_COLUMNS = (
    "submission experiment framework workload base_workload changes study trial metric"
    " higher_is_better target budget_s status scoreable evaluations last_time_s last_step best"
    " hyperparameters settings data_fingerprint workload_hash rows path unfinished"
)

Floats = NDArray[np.float64]


def load_runs(*paths: str | Path) -> "pd.DataFrame":
    """Read every trial in the folders `paths` and below them into a frame with one row per trial.

    Args:
        *paths: Folders of runs; the scorer searches them at any depth.

    Returns:
        A frame with the columns submission, experiment, framework, workload, base_workload (None
        unless the workload is a held-out variant), changes (for a variant, the new value of each
        axis it changes), study, trial; metric, higher_is_better, target (None or NaN where none is
        recorded), budget_s (seconds); status (None where the trial was killed or AlgoPerf wrote the
        folder), scoreable; evaluations (their number), last_time_s, last_step, best (the best
        validation value); hyperparameters, settings (which must be equal before results are
        compared), data_fingerprint, workload_hash (of the source of a workload from outside of the
        library; else None); rows (a mapping from each column of eval_measurements.csv to
        its values); path; unfinished ('running' or 'interrupted'; None where the trial has ended,
        and in AlgoPerf's folders). `.attrs["findings"]` lists whatever was missing, damaged or left
        out.

    Raises:
        UserError: A path is not a folder.
    """
    import pandas as pd

    runs, findings = read_runs(*paths)
    frame = pd.DataFrame([_row(run) for run in runs], columns=RUN_COLUMNS.split())
    frame.attrs["findings"] = [str(finding) for finding in findings]
    return frame


def _row(run: TrialRun) -> dict[str, Any]:
    """Return one trial as a row of the frame that `load_runs` returns."""
    target, readable = run.target, is_readable(run)
    times_s, steps = run.rows.get(TIME_COLUMN, np.empty(0)), run.rows.get(STEP_COLUMN, np.empty(0))
    values = run.rows[target.column] if readable and target else np.empty(0)
    values = values[np.isfinite(values)]
    best = np.nan
    if len(values) and target:
        best = float(values.max() if target.higher_is_better else values.min())
    return {
        "submission": run.submission,
        "experiment": run.experiment,
        "framework": run.framework,
        "workload": run.workload,
        "base_workload": run.base_workload,
        "changes": dict(run.changes),
        "study": run.study,
        "trial": run.trial,
        "metric": target and target.metric,
        "higher_is_better": target and target.higher_is_better,
        "target": target and target.validation,
        "budget_s": run.budget_s,
        "status": run.status,
        "scoreable": run.scoreable,
        "evaluations": len(times_s),
        "last_time_s": float(times_s[-1]) if len(times_s) else np.nan,
        "last_step": float(steps[-1]) if len(steps) else np.nan,
        "best": best,
        "hyperparameters": dict(run.hyperparameters),
        "settings": dict(run.pool),
        "data_fingerprint": run.data_fingerprint,
        "workload_hash": run.workload_hash,
        "rows": run.rows,
        "path": str(run.path),
        "unfinished": run.unfinished,
    }


def time_to_target(
    runs: "pd.DataFrame",
    *,
    rules: str | None = None,
    targets: str | Path | None = None,
    tuning_ruleset: str | None = None,
    suite: str | Path | None = None,
) -> "pd.DataFrame":
    """Return the time to target of each study: one row per submission, workload and study.

    Args:
        runs: A frame from `load_runs`; rows may have been dropped and columns changed.
        rules: The name of the rule set, 'interpolated', 'by-the-rules' or 'as-published'. None is
            'interpolated' for runs of this library, 'by-the-rules' for AlgoPerf's logs and
            workloads.
        targets: The name of a built-in benchmark or a JSON file, as for `algoperf score --targets`.
            None takes targets and budgets from the runs.
        tuning_ruleset: 'external' or 'self'; None takes it from the runs. It matters only with
            `targets`, where the self-tuning ruleset has larger budgets.
        suite: A file with the held-out variants that count, as for `algoperf score --suite`.

    Returns:
        A frame with the columns pool, submission, workload, base_workload (None unless the
        workload is a held-out variant), study, outcome, time_s (seconds; inf where the target was
        missed, NaN where there is no readable trial or the study is undecided), steps (likewise),
        trial, evaluation (the first that met the target, counted from 0), hit_time_s and hit_steps
        (of that evaluation), last_miss_time_s and last_miss_steps (of the one before).
        `.attrs["findings"]` lists the findings.

    Raises:
        UserError: The rules are unknown, `targets` or `suite` cannot be read, or both are given.
    """
    import pandas as pd

    trials = [_trial(row) for row in runs.to_dict("records")]
    chosen = None if rules is None else find_rules(rules)
    benchmark = None if targets is None else find_benchmark(targets)
    scored, findings = build_leaderboards(
        trials,
        chosen,
        benchmark,
        tuning_ruleset=tuning_ruleset,
        suite=None if suite is None else read_suite(suite),
    )
    rows = []
    for board, notes in scored:
        findings += notes
        rows += [
            {
                "pool": board.pool.name,
                "submission": row.entry.label,
                "workload": workload,
                "base_workload": board.benchmark.variant_of.get(workload),
                "study": result.study,
                "outcome": result.outcome,
                "time_s": result.time_s,
                "steps": result.step,
                "trial": result.trial,
                "evaluation": result.crossing.evaluation,
                "hit_time_s": result.crossing.hit_time_s,
                "hit_steps": result.crossing.hit_step,
                "last_miss_time_s": miss.time_s if (miss := result.crossing.last_miss) else None,
                "last_miss_steps": miss.step if miss else None,
            }
            for row in board.rows
            for workload, cell in row.cells.items()
            for result in cell.studies
        ]
    columns = (
        "pool submission workload base_workload study outcome time_s steps trial evaluation"
        " hit_time_s hit_steps last_miss_time_s last_miss_steps"
    )
    frame = pd.DataFrame(rows, columns=columns.split())
    frame.attrs["findings"] = [str(finding) for finding in findings]
    return frame


def _trial(row: dict[Hashable, Any]) -> TrialRun:
    """Return the trial that a row of such a frame describes."""
    import pandas as pd

    def known(name: str) -> Any:
        value = row[name]
        return None if pd.api.types.is_scalar(value) and pd.isna(value) else value

    metric, goal, budget_s = known("metric"), known("target"), known("budget_s")
    target = None
    if metric is not None:
        target = Target(
            metric, bool(row["higher_is_better"]), None if goal is None else float(goal)
        )
    return TrialRun(
        submission=row["submission"],
        experiment=row["experiment"],
        study=int(row["study"]),
        workload=row["workload"],
        framework=row["framework"],
        trial=int(row["trial"]),
        path=Path(row["path"]),
        rows=row["rows"],
        target=target,
        budget_s=None if budget_s is None else float(budget_s),
        base_workload=known("base_workload"),
        status=known("status"),
        scoreable=bool(row["scoreable"]),
        pool=MappingProxyType(row["settings"]),
        data_fingerprint=known("data_fingerprint"),
        workload_hash=known("workload_hash"),
        hyperparameters=MappingProxyType(row["hyperparameters"]),
        changes=MappingProxyType(row["changes"]),
        unfinished=known("unfinished") if "unfinished" in row else None,
    )


def ratios(
    times: "pd.DataFrame", *, rules: str = BY_THE_RULES.name, held_out: bool = True
) -> "pd.DataFrame":
    """Return each submission's ratio to the fastest credited time on each base workload.

    Args:
        times: A frame from `time_to_target`.
        rules: The name of the rule set.
        held_out: Whether held-out variants count.

    Returns:
        A frame indexed by (pool, submission), with a column per base workload. Ratios are in [1,
        4], or inf where there is no credit. The values of one pool can be passed to
        `performance_profile`.

    Raises:
        UserError: The rules are unknown.
    """
    import pandas as pd

    chosen = find_rules(rules)
    parts = []
    for pool, labels, times_SWN, layout in _arrays(times, chosen, held_out):
        medians_SW = scoring_rules.median_over_studies(times_SWN)
        values = scoring_rules.credited_ratios(medians_SW, layout, chosen)
        index = pd.MultiIndex.from_product([[pool], labels], names=["pool", "submission"])
        parts.append(pd.DataFrame(values, index=index, columns=list(layout.base_names)))
    return pd.concat(parts) if parts else pd.DataFrame()


def score(
    times: "pd.DataFrame", *, rules: str = BY_THE_RULES.name, held_out: bool = True
) -> "pd.DataFrame":
    """Return the benchmark scores of each pool, best first.

    Args:
        times: A frame from `time_to_target`. For scores by steps instead of time, assign its column
            "steps" to "time_s" first.
        rules: The name of the rule set.
        held_out: Whether held-out variants count.

    Returns:
        A frame with the columns pool, submission, score (in [0, 1]) and rank (1 is best).

    Raises:
        UserError: The rules are unknown.
    """
    import pandas as pd

    chosen = find_rules(rules)
    rows = []
    for pool, labels, times_SWN, layout in _arrays(times, chosen, held_out):
        scores = scoring_rules.scores(times_SWN, layout, chosen)
        ranks = scoring_rules.ranks(scores)
        rows += list(zip([pool] * len(labels), labels, scores, ranks, strict=True))
    frame = pd.DataFrame(rows, columns=["pool", "submission", "score", "rank"])
    return frame.sort_values(["pool", "rank", "submission"], ignore_index=True)


def bootstrap(
    times: "pd.DataFrame",
    *,
    rules: str = BY_THE_RULES.name,
    held_out: bool = True,
    over: str = "studies",
    method: str = "pooled",
    resamples: int = statistics.RESAMPLES,
    seed: int = 0,
) -> "pd.DataFrame":
    """Return 95 % intervals of score and rank, and the probability of being first.

    Args:
        times: A frame from `time_to_target`.
        rules: The name of the rule set.
        held_out: Whether held-out variants count.
        over: What another competition would draw anew: 'studies', 'workloads' or 'both'.
        method: 'pooled' or 'percentile' (docs/scoring.md). Over workloads or both it is always
            'percentile'.
        resamples: The number of competitions to draw.
        seed: The seed of the random draws.

    Returns:
        A frame with the columns pool, submission, score, score_low, score_high, rank_low,
        rank_high, p_first and not_estimable: '', or why there is no interval; the interval and
        p_first are NaN then.

    Raises:
        UserError: The rules, `over` or `method` are unknown.
    """
    import pandas as pd

    chosen = find_rules(rules)
    rows = []
    for pool, labels, times_SWN, layout in _arrays(times, chosen, held_out):
        one = statistics.bootstrap(
            times_SWN, layout, chosen, over=over, method=method, resamples=resamples, seed=seed
        )
        rows += [
            (pool, label, point, *score_ends, *rank_ends, p_first, one.not_estimable)
            for label, point, score_ends, rank_ends, p_first in zip(
                labels,
                one.scores_S,
                one.score_interval,
                one.rank_interval,
                one.p_first,
                strict=True,
            )
        ]
    columns = "pool submission score score_low score_high rank_low rank_high p_first not_estimable"
    return pd.DataFrame(rows, columns=columns.split())


def _arrays(
    times: "pd.DataFrame", rules: scoring_rules.Rules, held_out: bool
) -> Iterator[tuple[str, list[str], Floats, Layout]]:
    """Yield each pool's name, submissions, times (S, W, N) as the rules count them, and layout."""
    for pool, part in times.groupby("pool", sort=True):
        base_of = {
            name: base if isinstance(base, str) else None
            for name, base in zip(part["workload"], part["base_workload"], strict=True)
        }
        variant_of = {name: base for name, base in base_of.items() if base is not None}
        labels, workloads = sorted(set(part["submission"])), sorted(base_of)
        rows_of: dict[tuple[str, str], list[float]] = {}
        decided = part[~part["outcome"].isin((RUNNING, INTERRUPTED, CONTENDED))]
        for label, workload, time_s in zip(
            decided["submission"], decided["workload"], decided["time_s"], strict=True
        ):
            rows_of.setdefault((label, workload), []).append(float(time_s))
        lists = [[rows_of.get((label, name), []) for name in workloads] for label in labels]
        times_SWN = scoring_rules.study_array(lists, rules)
        bases = [name for name in workloads if name not in variant_of]
        layout = scoring_rules.make_layout(workloads, bases, variant_of if held_out else {})
        yield str(pool), labels, times_SWN, layout
