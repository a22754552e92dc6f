"""An anytime-valid test of which of two submissions is faster: a bet on paired log ratios.

Each pair of studies (the same workload and number) gives

    x = log(time of the second / time of the first) / log 4, within [-1, 1]

where a time that is only known to be above a clock counts as that clock, and a pair that both miss
as 0. If the two are equally fast, so that the names of a pair might as well be exchanged, x has
the mean 0 whatever was seen before and whichever workload is chosen next. So the wealth of a
gambler who stakes a share of it on x, which is the product of (1 + share x), is at any time at
least 2 / error only with a probability of error / 2 at most (Ville's inequality), however often
one looks and whenever one stops: an e-process. The wealth here is the mean over four shares.

A study that was stopped early because its rival was four times faster does not spoil this: the rule
treats both alike.
"""

import dataclasses
import math
from collections.abc import Iterable

from scoring.decisions.contest import Board, Contest, Seen

STAKES = (0.1, 0.3, 0.6, 0.9)
SCALE = math.log(4.0)


def paired(first: Seen, second: Seen, budget_s: float) -> float | None:
    """Return x of a pair of studies; None while it is not known."""
    if first.has_hit and second.has_hit:
        low = max(min(first.hit_s, second.hit_s), 1e-9)
        high = max(first.hit_s, second.hit_s, 1e-9)
        size = math.log(high / low)
        sign = 1.0 if first.hit_s < second.hit_s else -1.0
        return sign * min(1.0, size / SCALE)
    if first.is_over and second.is_over and not (first.has_hit or second.has_hit):
        return 0.0
    for one, other, sign in ((first, second, 1.0), (second, first, -1.0)):
        if one.has_hit and (other.is_over or other.clock_s > 4 * one.hit_s):
            late_s = budget_s if other.is_over else other.clock_s
            return sign * min(1.0, max(0.0, math.log(late_s / max(one.hit_s, 1e-9))) / SCALE)
    return None


@dataclasses.dataclass(frozen=True)
class Wealth:
    """What a bet on each of two submissions has come to, from 1.

    Attributes:
        first: The wealth of a bet that the first is faster.
        second: The same for the second.
        pairs: The number of pairs of studies that it rests on.
    """

    first: float
    second: float
    pairs: int

    def leader(self, error: float) -> int:
        """Return 1 or -1 where the first or the second is faster with this error, else 0."""
        if self.first >= 2 / error:
            return 1
        return -1 if self.second >= 2 / error else 0


def wealth(values: Iterable[float]) -> Wealth:
    """Return what bets on values in [-1, 1] come to, in their order."""
    logs = {sign * stake: 0.0 for sign in (1, -1) for stake in STAKES}
    pairs = 0
    for value in values:
        pairs += 1
        for stake in logs:
            logs[stake] += math.log1p(stake * value)
    totals = [
        sum(math.exp(logs[sign * stake]) for stake in STAKES) / len(STAKES) for sign in (1, -1)
    ]
    return Wealth(totals[0], totals[1], pairs)


def evidence(contest: Contest, board: Board, pair: tuple[int, int]) -> Wealth:
    """Return the wealth from all pairs of studies that are known so far."""
    values = []
    for w, name in enumerate(contest.workloads):
        for n in range(contest.studies):
            first, second = (board[s, w, n] for s in pair)
            value = paired(first, second, contest.budgets_s[name])
            if value is not None:
                values.append(value)
    return wealth(values)
