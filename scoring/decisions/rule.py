"""When to stop, and what to run next: the rule behind `algoperf decide`.

A rule looks at what is known and says either who is ahead, or which study to run further and up to
which clock, and why. It has three ways to stop, any of which may be switched off:

- bounds: no end of the runs could give another order. Never wrong.
- forecast: the probability of an order, by the model of scoring.decisions.forecast, has reached the
  confidence.
- test: an anytime-valid test of equal speed (scoring.decisions.betting) rejects.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from scoring.decisions import betting
from scoring.decisions.contest import Board, Contest, Seen, is_decisive, settled_lead
from scoring.decisions.forecast import Forecast, Lead
from scoring.decisions.priors import NO_PRIOR, Prior

BOUNDS, FORECAST, TEST = "bounds", "forecast", "test"
STOPS = (BOUNDS, FORECAST, TEST)
VALUE, CHEAPEST, GIVEN = "value", "cheapest", "given"
ORDERS = (VALUE, CHEAPEST, GIVEN)
# Of what the first study leaves open of a workload, a later one is taken to settle this much.
LATER_STUDY = 0.4
# A study is expected to use this share of what it may still use, and at least that of its budget.
USUAL_SHARE, LEAST_SHARE = 0.7, 0.02


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a rule.

    Attributes:
        confidence: The probability at which a forecast decides; 1 - confidence is the error of the
            test.
        stops: Which of STOPS may decide.
        order: How the next workload is chosen: by what it tells per second, cheapest first, or as
            given.
        caps: Whether a study ends where its rival was four times faster.
        curves: Whether distances to the target count in a forecast.
        first: The share of its budget that a study gets at first.
        further: The share that it gets at each later turn; 1 runs it to its end.
        small: A difference of scores that is too small to matter; 0 never stops for it.
        prior: What forecasts assume.
    """

    confidence: float = 0.925
    stops: tuple[str, ...] = STOPS
    order: str = VALUE
    caps: bool = True
    curves: bool = True
    first: float = 0.05
    further: float = 0.1
    small: float = 0.0
    prior: Prior = NO_PRIOR


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was decided of a pair.

    Attributes:
        leader: 1 or -1 where the first or the second of the pair is ahead; 0 where they cannot be
            told apart.
        by: Which of STOPS decided, or 'end': everything has run.
        lead: The forecast at that moment; None without one.
    """

    leader: int
    by: str
    lead: Lead | None


@dataclasses.dataclass(frozen=True)
class Action:
    """A study to be run further.

    Attributes:
        pair: The pair whose question it serves.
        workload: The number of the workload.
        study: The number of the study.
        runs: The clock, in seconds, that each submission (by its number) is to reach.
        reason: Why this one, in plain words.
    """

    pair: tuple[int, int]
    workload: int
    study: int
    runs: Mapping[int, float]
    reason: str


class Referee:
    """Decides about the pairs of a contest, and names what to run next."""

    def __init__(
        self,
        contest: Contest,
        settings: Settings,
        priors: Mapping[tuple[int, int], Prior] | None = None,
    ) -> None:
        """Start with nothing decided.

        Args:
            contest: What is compared.
            settings: The settings.
            priors: What forecasts assume, by pair; pairs that are not named take the settings'.
        """
        self.contest, self.settings = contest, settings
        self.pairs = list(itertools.combinations(range(len(contest.submissions)), 2))
        self.verdicts: dict[tuple[int, int], Verdict] = {}
        self._leads: dict[tuple[int, int], Lead] = {}
        self._forecasts: dict[tuple[int, int], Forecast] = {}
        if FORECAST in settings.stops or settings.order == VALUE:
            for pair in self.pairs:
                prior = (priors or {}).get(pair, settings.prior)
                self._forecasts[pair] = Forecast(
                    contest, pair, prior, curves=settings.curves, small=settings.small
                )

    def look(self, board: Board, changed: int | None = None) -> None:
        """Take in what is known, and decide what can be decided.

        What a forecast has decided is open again where what ran since, for another pair, says that
        it is less sure.

        Args:
            board: All that is known.
            changed: The only workload that has changed since the last look; None is all.
        """
        columns = range(len(self.contest.workloads)) if changed is None else (changed,)
        for pair in self.pairs:
            known = self.verdicts.get(pair)
            if known is not None and known.by != FORECAST:
                continue
            forecast = self._forecasts.get(pair)
            if forecast is not None:
                common = _in_common(board, pair)
                for w in columns:
                    forecast.update(common, w)
                self._leads[pair] = forecast.lead()
            verdict = self._verdict(board, pair)
            if verdict is None:
                self.verdicts.pop(pair, None)
            else:
                self.verdicts[pair] = verdict

    def lead(self, pair: tuple[int, int]) -> Lead | None:
        """Return the forecast of a pair at the last look; None without one."""
        return self._leads.get(pair)

    def _verdict(self, board: Board, pair: tuple[int, int]) -> Verdict | None:
        settings, lead = self.settings, self._leads.get(pair)
        if BOUNDS in settings.stops:
            sure = settled_lead(self.contest, board, pair)
            if sure is not None:
                return Verdict(sure, BOUNDS, lead)
        if TEST in settings.stops:
            wealth = betting.evidence(self.contest, board, pair)
            leader = wealth.leader(1 - settings.confidence)
            if leader:
                return Verdict(leader, TEST, lead)
        if FORECAST in settings.stops and lead is not None:
            if max(lead.probability, 1 - lead.probability) >= settings.confidence:
                return Verdict(1 if lead.probability > 0.5 else -1, FORECAST, lead)
            if settings.small and lead.small >= settings.confidence:
                return Verdict(0, FORECAST, lead)
        if not self._candidates(board, pair):
            return Verdict(settled_lead(self.contest, board, pair) or 0, "end", lead)
        return None

    def _candidates(self, board: Board, pair: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the workloads that may still tell something, each with the study to run next."""
        candidates = []
        for w in range(len(self.contest.workloads)):
            for n in range(self.contest.studies):
                if all(board[s, w, n].is_over for s in pair):
                    continue
                if self.settings.caps and not is_decisive(self.contest, board, pair, w, n):
                    continue
                candidates.append((w, n))
                break
        return candidates

    def next(self, board: Board) -> Action | None:
        """Return what to run next; None where every pair is decided."""
        waiting = [pair for pair in self.pairs if pair not in self.verdicts]
        if not waiting:
            return None
        pair = min(waiting, key=self._sureness)
        w, n, reason = self._choose(board, pair)
        name = self.contest.workloads[w]
        budget_s = self.contest.budgets_s[name]
        running = [s for s in pair if not board[s, w, n].is_over]
        behind_s = min(board[s, w, n].clock_s for s in running)
        share = self.settings.first if behind_s == 0 else self.settings.further
        goal_s = math.inf if share >= 1 else behind_s + share * budget_s
        goal_s = min(goal_s, max(self.cap_s(board, pair, w, n), behind_s))
        runs = {s: goal_s for s in running if board[s, w, n].clock_s < goal_s}
        return Action(pair, w, n, runs, reason)

    def _sureness(self, pair: tuple[int, int]) -> float:
        """Return how sure the order of a pair is: the most open pair is served first."""
        lead = self._leads.get(pair)
        return 0.5 if lead is None else max(lead.probability, 1 - lead.probability)

    def cap_s(self, board: Board, pair: tuple[int, int], w: int, n: int) -> float:
        """Return the clock in seconds past which a study tells nothing more of a pair.

        It is infinite where the settings do not cap.
        """
        hit_s = min(board[s, w, n].hit_s for s in pair)
        return 4 * hit_s * (1 + 1e-9) if self.settings.caps else math.inf

    def _cost_s(self, board: Board, pair: tuple[int, int], w: int, n: int) -> float:
        """Return about what a pair's studies of a workload will still cost until they end."""
        budget_s = self.contest.budgets_s[self.contest.workloads[w]]
        cost_s = 0.0
        for s, rival in (pair, pair[::-1]):
            if not board[s, w, n].is_over:
                limit_s = min(budget_s, 4 * board[rival, w, n].hit_s)
                left_s = USUAL_SHARE * limit_s - board[s, w, n].clock_s
                cost_s += max(left_s, LEAST_SHARE * budget_s)
        return cost_s

    def _choose(self, board: Board, pair: tuple[int, int]) -> tuple[int, int, str]:
        """Return the workload and study to run next, and why."""
        candidates = self._candidates(board, pair)
        costs_s = [self._cost_s(board, pair, w, n) for w, n in candidates]
        lead = self._leads.get(pair)
        if self.settings.order == GIVEN or (self.settings.order == VALUE and lead is None):
            w, n = candidates[0]
            return w, n, "it is the next in the order given"
        if self.settings.order == CHEAPEST:
            # All first studies go before any second one.
            keys = [(n, cost_s) for (_, n), cost_s in zip(candidates, costs_s, strict=True)]
            w, n = candidates[keys.index(min(keys))]
            return w, n, "it is the cheapest that is left"
        assert lead is not None
        groups = self.contest.groups
        worths = []
        for (w, n), cost_s in zip(candidates, costs_s, strict=True):
            group = next(number for number, columns in enumerate(groups) if w in columns)
            still_open = lead.open_by_workload[group] * (1.0 if n == 0 else LATER_STUDY / n)
            worths.append((still_open / cost_s, still_open, cost_s))
        best = worths.index(max(worths))
        w, n = candidates[best]
        may_move = math.sqrt(worths[best][1]) / len(groups)
        reason = (
            f"it may move the lead by about {may_move:.3f} for about {worths[best][2]:,.0f} s, the "
            "most per second of what is left"
        )
        return w, n, reason


def _in_common(board: Board, pair: tuple[int, int]) -> Board:
    """Return what is known of a pair's studies that both have begun; the others count as not begun.

    Else a submission of which others have shown that its rival is fast would be behind before it
    has run at all. In a contest of two a study is begun by both before the next look.
    """
    common = {}
    for (s, w, n), seen in board.items():
        if s in pair:
            have_begun = all(board[each, w, n].has_begun for each in pair)
            common[s, w, n] = seen if have_begun else Seen()
    return common


def told(contest: Contest, pair: Sequence[int], verdict: Verdict | None, small: float) -> str:
    """Return a verdict in plain words."""
    first, second = (contest.submissions[s] for s in pair)
    if verdict is None:
        return f"{first} against {second}: budget spent, not decided"
    if verdict.leader == 0:
        if verdict.by in (BOUNDS, "end"):
            return f"{first} against {second}: they score the same, whatever the rest would give"
        return f"{first} against {second}: cannot be told apart: the difference is under {small:g}"
    ahead, behind = (first, second) if verdict.leader > 0 else (second, first)
    how = {
        BOUNDS: "whatever the rest would give",
        TEST: "by the anytime-valid test",
        FORECAST: "by the forecast",
        "end": "all has run",
    }[verdict.by]
    text = f"{ahead} is ahead of {behind} ({how}"
    if verdict.by == FORECAST and verdict.lead is not None:
        lead = verdict.lead
        text += (
            f": probability {max(lead.probability, 1 - lead.probability):.3f}, lead "
            f"{abs(lead.mean):.3f} with standard deviation {lead.deviation:.3f}"
        )
    return f"{text})"
