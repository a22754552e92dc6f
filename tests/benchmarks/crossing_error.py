"""How far the reported time to target is from the true one, by replaying dense curves.

    algoperf run --workload digits --submission nadamw --framework jax,pytorch --studies 8 \
        --eval-every-steps 1 --until end --max-steps 300 --out dense
    python tests/benchmarks/crossing_error.py dense [--csv docs/targets/ag_news.csv ...]

A dense curve is a trial that was evaluated every few steps and went on past its target. Each is
replayed as if it had been evaluated as rarely as a trial is: when the clock passes a multiple of
the workload's period, as it was once, and as often as the workload's share of the time allows; with
the step times that were recorded times each of several factors, and with the grid shifted by each
of several parts of a period, so that the crossing lies anywhere in it. The true time is where the
dense curve first meets the target (interpolated between its own points): what a trial would report
that is evaluated all the time. It comes early where evaluations are noisy; the error against a
monotone fit (least squares) to the dense curve is shown beside.

Rows: for each workload, framework and rule, the number of curves and replays, the mean error
without sign, its 95th percentile, the mean with its sign (a positive one is late), and what the
evaluations cost as a share of the training time. `--csv` adds curves of docs/targets, which were
evaluated every 20 or 25 steps, with step times as in `STEP_S`; they are counted apart.
"""

import argparse
import csv
import dataclasses
import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from algoperf.trial.goal import Goal, Limits
from algoperf.workload import catalogue
from scoring.reading.evaluations import STEP_COLUMN, TIME_COLUMN, read_evaluations
from scoring.reading.trials import Target
from scoring.rules.time_to_target import time_to_target

Floats = NDArray[np.float64]

# Seconds between evaluations of the mini scale before crossings were interpolated.
EARLIER_S = {"digits": 0.1, "ag_news": 10.0} | dict.fromkeys(
    ("lm", "mlm", "xsum", "samsum", "cnn_dailymail"), 15.0
)
# Seconds of a step for curves that record none: one core of the machine that docs/ was made on.
STEP_S = {"digits": 0.0017, "ag_news": 0.16, "lm": 0.25, "mlm": 0.5, "xsum": 0.3}
STEP_S |= {"samsum": 0.35, "cnn_dailymail": 0.5}
# Likewise the seconds of an evaluation.
EVALUATION_S = {"digits": 0.0016, "ag_news": 1.06, "lm": 1.6, "mlm": 1.6, "xsum": 2.6}
EVALUATION_S |= {"samsum": 2.6, "cnn_dailymail": 2.6}
STEP_FACTORS = (0.8, 0.9, 1.0, 1.1, 1.25)
SHIFTS = 12
MEAN_LIMIT, P95_LIMIT, COST_LIMIT = 0.02, 0.05, 0.2


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """A dense curve: the metric by step, and what a step and an evaluation cost in seconds."""

    workload: str
    framework: str
    target: Target
    step_N: Floats
    value_N: Floats
    first_step_s: float
    step_s: float
    evaluation_s: float

    def time_s(self, factor: float) -> Floats:
        """The clock at each evaluation, with steps that take `factor` times as long."""
        return self.first_step_s + factor * self.step_s * (self.step_N - 1)


def recorded_curves(folders: Sequence[Path]) -> Iterator[Curve]:
    """Yield the dense curve of each run folder."""
    for path in sorted(each for folder in folders for each in folder.rglob("result.json")):
        result = json.loads(path.read_text())
        rows, _ = read_evaluations(path.parent / "eval_measurements.csv")
        goal = result["target"]
        target = Target(goal["metric"], goal["higher_is_better"], goal["validation"])
        time_N, step_N = rows[TIME_COLUMN], rows[STEP_COLUMN]
        steps_s = np.diff(time_N) / np.diff(step_N)
        evaluation_s = np.diff(rows["accumulated_eval_time"])[:-1]  # The last looks at test too.
        yield Curve(
            result["workload"], result["framework"], target, step_N, rows[target.column],
            float(time_N[0]), float(np.median(steps_s)), float(np.median(evaluation_s)),
        )  # fmt: skip


def published_curves(paths: Sequence[Path]) -> Iterator[Curve]:
    """Yield the curves of the nadamw runs in files of docs/targets."""
    for path in paths:
        with path.open() as file:
            rows = [row for row in csv.DictReader(file) if row["submission"] == "nadamw"]
        rows = [row for row in rows if float(row["learning_rate_factor"]) == 1]
        key = lambda row: (row["workload"], row["framework"], int(row["seed"]))  # noqa: E731
        for (workload, framework, _), of_run in itertools.groupby(sorted(rows, key=key), key):
            if workload not in EARLIER_S:
                continue
            points = sorted((float(row["step"]), float(row["value"])) for row in of_run)
            step_N, value_N = np.array(points).T
            yield Curve(
                workload, framework, _target(workload), step_N, value_N,
                STEP_S[workload], STEP_S[workload], EVALUATION_S[workload],
            )  # fmt: skip


def _target(workload: str) -> Target:
    definition = catalogue.find(workload)
    goal = definition.scales["mini"].targets["builtin"].validation
    return Target(definition.target_metric, definition.higher_is_better, goal)


def true_step(curve: Curve) -> float:
    """Return where the monotone fit of a dense curve meets its target; inf where it does not.

    Flat stretches of the fit stand for their middle.
    """
    fit_N = isotonic_regression(curve.value_N, increasing=curve.target.higher_is_better).x
    values = np.unique(fit_N)
    middles = np.array([curve.step_N[fit_N == value].mean() for value in values])
    order = np.argsort(middles)
    middles, values = middles[order], values[order]
    return _first(middles, values, curve.target)


def _first(time_N: Floats, value_N: Floats, target: Target) -> float:
    rows = {TIME_COLUMN: time_N, STEP_COLUMN: time_N, target.column: value_N}
    return time_to_target(rows, target, interpolates=True).time_s


def replayed(
    curve: Curve, limits: Limits, factor: float, shift: float
) -> tuple[Mapping[str, Floats], float]:
    """Return the evaluations of a curve on a trial's own grid until its target is met, as columns.

    One follows the first step, as always, and the others where `limits` says.

    Args:
        curve: The dense curve.
        limits: When a trial evaluates.
        factor: How many times as long steps take.
        shift: In [0, 1): how many periods the clock is put forward; where evaluations come by cost,
            they cost 0.8 to 1.2 times as much instead, which moves all but the first.

    Returns:
        The columns, and the seconds of all these evaluations.
    """
    target, time_N = curve.target, curve.time_s(factor)
    goal = Goal(target.metric, target.higher_is_better, target.validation)
    by_cost = limits.eval_share is not None
    shift_s = 0.0 if by_cost else shift * limits.eval_every_s
    evaluation_s = curve.evaluation_s * (0.8 + 0.4 * shift if by_cost else 1.0)
    due_s, kept = 0.0, []
    for index, time_s in enumerate((time_N + shift_s).tolist()):
        if time_s < due_s:
            continue
        kept.append(index)
        if goal.is_met({target.column: float(curve.value_N[index])}):
            break
        due_s = limits.next_due_s(time_s, len(kept) * evaluation_s, evaluation_s)
    return {
        TIME_COLUMN: time_N[kept],
        STEP_COLUMN: curve.step_N[kept],
        target.column: curve.value_N[kept],
    }, len(kept) * evaluation_s


def errors(curve: Curve, limits: Limits, *, interpolates: bool) -> tuple[Floats, Floats, Floats]:
    """Return the relative errors of all replays against the fit and the first hit, and their cost.

    The cost is what the evaluations until the target cost, as a share of the time to it. A replay
    that meets no target before the dense curve ends is left out.
    """
    found = []
    for factor, shift in itertools.product(STEP_FACTORS, np.arange(SHIFTS) / SHIFTS):
        time_N = curve.time_s(factor)
        truth_s = float(np.interp(true_step(curve), curve.step_N, time_N))
        first_s = _first(time_N, curve.value_N, curve.target)
        rows, evaluations_s = replayed(curve, limits, factor, shift)
        time_s = time_to_target(rows, curve.target, interpolates=interpolates).time_s
        if math.isfinite(time_s):
            cost = evaluations_s / float(rows[TIME_COLUMN][-1])
            found.append((time_s / truth_s - 1, time_s / first_s - 1, cost))
    against_fit, against_first, cost_N = np.array(found).reshape(-1, 3).T
    return against_fit, against_first, cost_N


def table(curves: Sequence[Curve]) -> list[dict[str, float | str]]:
    """Return a row for each workload, framework and rule, and rows for all workloads together."""
    rows: list[dict[str, float | str]] = []
    used = [each for each in curves if math.isfinite(true_step(each))]
    groups = sorted({(each.workload, each.framework) for each in used})
    every: dict[str, list[Floats]] = {}
    for workload, framework in groups:
        group = [each for each in used if (each.workload, each.framework) == (workload, framework)]
        period = Limits(math.inf, EARLIER_S[workload])
        scale = catalogue.find(workload).scales["mini"]
        by_cost = Limits(math.inf, scale.eval_every_s, eval_share=scale.eval_share)
        for rule, limits, interpolates in (
            ("by period, the hit", period, False),
            ("by period, interpolated", period, True),
            ("by cost, the hit", by_cost, False),
            ("by cost, interpolated", by_cost, True),
        ):
            found = [errors(each, limits, interpolates=interpolates) for each in group]
            columns = np.stack([np.concatenate(each) for each in zip(*found, strict=True)])
            every.setdefault(rule, []).append(columns)
            place = {"workload": workload, "framework": framework, "rule": rule}
            rows.append({**place, "curves": len(group), **summary(*columns)})
    for rule, of_groups in every.items():
        place = {"workload": "all", "framework": "both", "rule": rule}
        columns = np.concatenate(of_groups, axis=1)
        rows.append({**place, "curves": len(used), **summary(*columns)})
    return rows


def summary(fit: Floats, first: Floats, cost: Floats) -> dict[str, float]:
    """Return what the table shows of relative errors."""
    return {
        "replays": len(fit),
        "mean": float(np.abs(first).mean()),
        "p95": float(np.percentile(np.abs(first), 95)),
        "bias": float(first.mean()),
        "mean_fit": float(np.abs(fit).mean()),
        "bias_fit": float(fit.mean()),
        "cost": float(cost.mean()),
    }


def main() -> int:
    """Print the table; the exit code is 1 where the interpolated time misses a limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="folders of dense runs")
    parser.add_argument("--csv", nargs="*", type=Path, default=[], help="files of docs/targets")
    arguments = parser.parse_args()
    failed = False
    for what, curves in (
        ("dense runs", list(recorded_curves(arguments.folders))),
        ("published curves, every 20 or 25 steps", list(published_curves(arguments.csv))),
    ):
        if not curves:
            continue
        rows = table(curves)
        print(f"{what}: {len(curves)} curves")
        for row in rows:
            print(
                f"{row['workload']:13} {row['framework']:8} {row['rule']:23} "
                f"{row['curves']:3} curves {row['replays']:5} replays  "
                f"error {row['mean']:6.1%}  95 % {row['p95']:6.1%}  bias {row['bias']:+6.1%}  "
                f"(from the fit {row['mean_fit']:6.1%} {row['bias_fit']:+6.1%})  "
                f"evaluation {row['cost']:.0%}"
            )
        last = rows[-1]
        failed |= last["mean"] > MEAN_LIMIT or last["p95"] > P95_LIMIT or last["cost"] > COST_LIMIT
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
