"""Random cuts in time of a finished board: is its final score always within the bounds?

    python tests/benchmarks/score_bounds.py LOGS --targets algoperf-2026 --cuts 10000 \
        [--save FILE] [--plot FILE]

A cut stops each trial at a random time of its own: some have not begun, some have run in part, some
have ended. The bounds of the cut board have to hold the scores of the whole one, and to meet them
where nothing is cut. Studies that were never run stay missing. Cost is submission time.

`--save` keeps each hundred of cuts as a line of JSON, so that a run that was stopped goes on where
it was; hundreds have seeds of their own, so that the figures are the same.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scoring import report
from scoring.analysis import bounds
from scoring.analysis.leaderboard import Leaderboard
from scoring.reading.evaluations import TIME_COLUMN
from scoring.rules import rules as scoring_rules

NONE, PART, ALL = range(3)
CHUNK = 100


@dataclasses.dataclass(frozen=True)
class Trial:
    """One finished trial: where it belongs, its end, and the times of its evaluations."""

    place: tuple[int, int, int]  # Entry, workload and study.
    end: bounds.TrialState
    times_s: np.ndarray


def trials_of(board: Leaderboard) -> list[Trial]:
    """Every trial of a board, with the numbers of its entry, its workload and its study."""
    found = []
    for index, row in enumerate(board.rows):
        for run in row.entry.runs:
            if run.workload not in row.cells or run.target is None:
                continue
            cell = row.cells[run.workload]
            numbers = [result.study for result in cell.studies]
            place = index, board.layout.workloads.index(run.workload), numbers.index(run.study)
            state = bounds.trial_state(run, board.rules)
            found.append(Trial(place, state, run.rows.get(TIME_COLUMN, np.empty(0))))
    return found


def cut(trial: Trial, share: float) -> tuple[bounds.TrialState | None, float]:
    """A trial after a share of its time (below 0: not begun; 1: ended), and what it cost so far."""
    end, times_s = trial.end, trial.times_s
    needed = len(times_s) if end.hit is None else (end.hit.evaluation or 0) + 1
    total_s = float(times_s[needed - 1]) if needed else 0.0
    if share < 0:
        return None, 0.0
    if share >= 1:
        return end, total_s
    kept = int((times_s[:needed] <= share * total_s).sum())
    clock_s = float(times_s[kept - 1]) if kept else 0.0
    hit = end.hit if end.hit is not None and (end.hit.evaluation or 0) < kept else None
    return bounds.TrialState(end.trial, True, clock_s, kept, hit, kept > 0), clock_s


def bounds_of_cut(
    board: Leaderboard, trials: Sequence[Trial], shares: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, float]:
    """The earliest and latest times (S, W, N) of a cut board, and what it cost so far."""
    shape = board.times_SWN.shape
    states_at: dict[tuple[int, int, int], list[bounds.TrialState]] = {}
    planned: dict[tuple[int, int, int], int] = {}
    cost_s = 0.0
    for trial, share in zip(trials, shares, strict=True):
        state, so_far_s = cut(trial, share)
        cost_s += so_far_s
        planned[trial.place] = planned.get(trial.place, 0) + 1
        if state is not None:
            states_at.setdefault(trial.place, []).append(state)
    low, high = np.full(shape, np.nan), np.full(shape, np.nan)
    for s, w, n in np.ndindex(*shape):
        if n < len(board.rows[s].cells[board.layout.workloads[w]].studies):
            states, count = states_at.get((s, w, n), []), planned.get((s, w, n), 0)
            low[s, w, n], high[s, w, n] = bounds.study_bounds(states, board.rules, trials=count)
    if board.rules.absent_is_missed:  # Columns of all boards here have as many studies.
        low, high = (np.where(np.isnan(each), np.inf, each) for each in (low, high))
    return low, high, cost_s


def random_shares(count: int, generator: np.random.Generator) -> np.ndarray:
    """A share of its time for each trial; the mix of kinds differs from cut to cut."""
    kinds = generator.choice(3, size=count, p=generator.dirichlet([0.7, 0.7, 0.7]))
    return np.select([kinds == NONE, kinds == PART], [-1.0, generator.random(count)], 1.0)


def check(
    board: Leaderboard, cuts: int, seed: int = 0, save: Path | None = None
) -> tuple[int, np.ndarray]:
    """Cut a board at random.

    Args:
        board: The finished leaderboard.
        cuts: How often, in whole hundreds.
        seed: The seed.
        save: The file that keeps what was done; None keeps nothing.

    Returns:
        How many final scores lay outside of their bounds, and an array (cuts, 3) of the share of
        cost, the mean width of the bounds and the share of places that were settled.
    """
    trials = trials_of(board)
    whole_s = bounds_of_cut(board, trials, [1.0] * len(trials))[2]
    final_S = scoring_rules.scores(board.times_SWN, board.layout, board.rules)
    asked = {"trials": len(trials), "seed": seed, "final": final_S.tolist()}
    saved = save.read_text(encoding="utf-8").splitlines() if save and save.exists() else []
    done = [json.loads(line) for line in saved]
    if any(each["of"] != asked for each in done):
        raise SystemExit(f"{save} is of another board or seed")
    for chunk in range(len(done), -(-cuts // CHUNK)):
        generator = np.random.default_rng([seed, chunk])
        made = [
            bounds_of_cut(board, trials, random_shares(len(trials), generator).tolist())
            for _ in range(CHUNK)
        ]
        low, high = (np.stack([each[end] for each in made]) for end in (0, 1))
        lowest, highest = bounds.score_bounds(low, high, board.layout, board.rules)
        best, worst = bounds.place_bounds(lowest, highest)
        cost = np.array([each[2] for each in made]) / whole_s
        settled = (best == worst).mean(axis=-1)
        rows = np.stack([cost, (highest - lowest).mean(axis=-1), settled], axis=-1)
        is_out = (final_S < lowest - 1e-12) | (final_S > highest + 1e-12)
        done.append({"of": asked, "outside": int(is_out.sum()), "rows": rows.tolist()})
        if save:
            with save.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[-1]) + "\n")
    return sum(each["outside"] for each in done), np.concatenate([each["rows"] for each in done])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs")
    parser.add_argument("--targets", required=True)
    parser.add_argument("--rules", default=None)
    parser.add_argument("--cuts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="keep what was done there, and go on from it")
    parser.add_argument("--plot", help="write width against the share of cost there, as SVG or PNG")
    given = parser.parse_args()
    options = report.Options(targets=given.targets, rules=given.rules)
    (board,), _ = report.make_boards([given.logs], options)
    trials = trials_of(board)
    low, high, _ = bounds_of_cut(board, trials, [1.0] * len(trials))
    ends = bounds.score_bounds(low, high, board.layout, board.rules)
    final_S = scoring_rules.scores(board.times_SWN, board.layout, board.rules)
    print("both ends meet the score at the end:", all(np.array_equal(end, final_S) for end in ends))
    outside, table = check(board, given.cuts, given.seed, given.save)
    print(f"{len(table)} cuts of {len(board.rows)} submissions ({board.rules.name})")
    print(f"final scores outside of their bounds: {outside}")
    print("share of cost | cuts | mean width | places settled")
    for low_share in np.arange(0, 1, 0.1):
        cuts = table[(table[:, 0] >= low_share) & (table[:, 0] < low_share + 0.1)]
        if len(cuts):
            width, settled = cuts[:, 1].mean(), cuts[:, 2].mean()
            shares = f"{low_share:.1f} to {low_share + 0.1:.1f}"
            print(f"{shares} | {len(cuts)} | {width:.3f} | {settled:.0%}")
    if given.plot:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(5, 3))
        axes.plot(table[:, 0], table[:, 1], ".", markersize=2, alpha=0.3)
        axes.set_xlabel("share of the cost spent")
        axes.set_ylabel("mean width of the bounds")
        axes.set_ylim(0, 1)
        figure.tight_layout()
        figure.savefig(given.plot)


if __name__ == "__main__":
    main()
