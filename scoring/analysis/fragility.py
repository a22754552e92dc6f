"""How little would have changed the order of a leaderboard: of its targets, or of a single time.

Legend: C changes, S submissions, W workloads, R variations.
"""

import dataclasses
import math

import numpy as np

from scoring.analysis.leaderboard import Leaderboard
from scoring.analysis.sensitivity import target_sweep
from scoring.rules import rules as scoring_rules
from scoring.rules.rules import Floats

# All targets are moved together by these shares of their value, until the first place changes.
SHARES = (*(0.001 * step for step in range(1, 20)), *(0.01 * step for step in range(2, 21)))
# A single time is made longer or shorter by these shares. Between them the change is bisected.
FACTORS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 3.0)
BISECTIONS = 30


@dataclasses.dataclass(frozen=True)
class TimeChange:
    """The smallest change of a single median time that changes a rank.

    Attributes:
        label: The entry whose time it is.
        workload: The workload.
        factor: What the time is multiplied by.
        time_s: The time as it is, in seconds.
        overtaken: The labels of entries whose rank changes, best first.
    """

    label: str
    workload: str
    factor: float
    time_s: float
    overtaken: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Fragility:
    """How little would have changed the order.

    Attributes:
        easier: The smallest share by which all targets must be easier for another first place; NaN
            where a fifth does not suffice.
        easier_first: Who is first then.
        harder: The smallest share by which they must be harder; NaN likewise.
        harder_first: Who is first then.
        unknown: How many trials stopped, at their own target or early, before they could show
            whether they meet that harder target; they count as missed.
        time: The smallest change of one time that changes a rank; None where no change up to 4
            times does.
    """

    easier: float
    easier_first: str
    harder: float
    harder_first: str
    unknown: int
    time: TimeChange | None


def fragility(board: Leaderboard) -> Fragility:
    """Return how little would have changed the order of a leaderboard.

    Targets are scored anew from the logged curves, so a harder target is a miss for trials that
    stopped at their own.
    """
    easier, easier_first, _ = _first_change(board, -1)
    harder, harder_first, unknown = _first_change(board, 1)
    change = smallest_change(board)
    return Fragility(easier, easier_first, harder, harder_first, unknown, change)


def _first_change(board: Leaderboard, sign: int) -> tuple[float, str, int]:
    """Return the smallest share by which targets move until another is first, and who it is.

    The third value is the number of trials that cannot show whether they meet the moved target.
    """
    if len(board.rows) < 2:
        return math.nan, "", 0
    shares = SHARES if not board.rules.interpolates else SHARES[::6]
    sweep = target_sweep(board, tuple(sign * share for share in shares))
    first = board.rows[0].score
    firsts = {row.entry.label for row in board.rows if row.score == first}
    for share, scores_S, unknown in zip(shares, sweep.scores_CS, sweep.unknown, strict=True):
        best = scores_S.max()
        now = {
            label
            for label, score in zip(board.labels, scores_S, strict=True)
            if score >= best - 1e-12
        }
        if not now & firsts:
            return share, min(now), unknown
    return math.nan, "", 0


def smallest_change(board: Leaderboard) -> TimeChange | None:
    """Return the smallest change of one median time that changes the rank of any entry."""
    medians_SW = scoring_rules.median_over_studies(board.times_SWN)
    if len(board.rows) < 2:
        return None
    before_S = _ranks(medians_SW, board)
    cells = [(s, w) for s, w in np.ndindex(*medians_SW.shape) if 0 < medians_SW[s, w] < math.inf]
    best: tuple[float, float, int, int, float] | None = None
    for s, w in cells:
        varied = np.repeat(medians_SW[None], 2 * len(FACTORS), axis=0)
        longer = [1 + share for share in FACTORS]
        factors = np.array([*longer, *(1 / factor for factor in longer)])
        varied[:, s, w] *= factors
        differs_R = (_ranks(varied, board) != before_S).any(axis=-1)
        for start in (0, len(FACTORS)):
            differing = np.flatnonzero(differs_R[start : start + len(FACTORS)])
            if len(differing):
                step = int(differing[0])
                lower = FACTORS[step - 1] if step else 0.0
                candidate = FACTORS[step], lower, s, w, -1.0 if start else 1.0
                if best is None or candidate[0] < best[0]:
                    best = candidate
    if best is None:
        return None
    upper, lower, s, w, sign = best
    for _ in range(BISECTIONS):
        middle = (upper + lower) / 2
        if (_changed_ranks(medians_SW, board, s, w, sign, middle) != before_S).any():
            upper = middle
        else:
            lower = middle
    after_S = _changed_ranks(medians_SW, board, s, w, sign, upper)
    moved = tuple(
        label
        for label, before, after in zip(board.labels, before_S, after_S, strict=True)
        if before != after
    )
    factor = (1 + upper) ** sign
    time_s = float(medians_SW[s, w])
    return TimeChange(board.labels[s], board.layout.workloads[w], factor, time_s, moved)


def _changed_ranks(
    medians_SW: Floats, board: Leaderboard, s: int, w: int, sign: float, share: float
) -> Floats:
    """Return the ranks after one median time is multiplied by (1 + share) to the power of sign."""
    changed = medians_SW.copy()
    changed[s, w] *= (1 + share) ** sign
    return _ranks(changed, board)


def _ranks(medians_SW: Floats, board: Leaderboard) -> Floats:
    """Return the ranks (..., S) by median times; scores equal but for rounding share a rank."""
    ratios = scoring_rules.credited_ratios(medians_SW, board.layout, board.rules)
    scores = np.round(scoring_rules.mean_credit(ratios, board.rules), 12)
    return scoring_rules.ranks(scores).astype(np.float64)
