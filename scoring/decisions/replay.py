"""Finished boards played as if they were running, to measure what a rule costs and how it errs."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from algoperf import errors
from algoperf.trial.plan import LATE
from scoring.analysis.leaderboard import Leaderboard
from scoring.decisions import contest as contests
from scoring.decisions.contest import Board, Contest
from scoring.decisions.priors import Prior
from scoring.decisions.rule import Action, Referee, Settings, Verdict
from scoring.reading.evaluations import TIME_COLUMN
from scoring.rules import rules as scoring_rules
from scoring.rules.rules import BY_THE_RULES, Floats
from scoring.rules.time_to_target import is_readable, time_to_target


@dataclasses.dataclass(frozen=True, eq=False)
class Recorded:
    """One recorded trial: its evaluations up to the one that met the target, or to its end.

    Attributes:
        times_s: The times of the evaluations in seconds.
        curve: Times and distances to the target, as `contest.Seen` has them.
        hit_s: When the target was met; inf where it was not.
    """

    times_s: Floats
    curve: tuple[Floats, Floats]
    hit_s: float

    @property
    def end_s(self) -> float:
        """The clock at which it ended: what it costs to run it."""
        return float(self.times_s[-1]) if len(self.times_s) else 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """A finished board: what was compared, and every trial by (submission, workload, study)."""

    name: str
    contest: Contest
    trials: Mapping[tuple[int, int, int], Sequence[Recorded]]

    def cost_s(self, submissions: Sequence[int]) -> float:
        """Return what it cost to run all of some submissions, in seconds of submission time."""
        return sum(
            trial.end_s
            for (s, _, _), trials in self.trials.items()
            for trial in trials
            if s in submissions
        )

    def ended(self) -> Board:
        """Return everything that came out."""
        board = contests.nothing_seen(self.contest)
        for key in board:
            advance(board, self, key, math.inf)
        return board

    def truth(self, pair: tuple[int, int]) -> float:
        """Return the difference of the scores of two submissions as a pool, by all data."""
        shape = 2, len(self.contest.workloads), self.contest.studies
        times_SWN = np.full(shape, np.inf)
        for key, s in enumerate(pair):
            for w, n in np.ndindex(*shape[1:]):
                times_SWN[key, w, n] = min(
                    (trial.hit_s for trial in self.trials.get((s, w, n), ())), default=math.inf
                )
        first, second = scoring_rules.scores(times_SWN, self.contest.layout, BY_THE_RULES).tolist()
        return float(first - second)

    def log_ratio(self, pair: tuple[int, int]) -> float:
        """Return the mean log ratio of the second's median time over the first's.

        A miss counts as the budget; workloads that both missed count as 0.
        """
        logs = []
        for w, name in enumerate(self.contest.workloads):
            if name in self.contest.variant_of:
                continue
            medians_s = []
            for s in pair:
                hits = [
                    min((trial.hit_s for trial in self.trials.get((s, w, n), ())), default=math.inf)
                    for n in range(self.contest.studies)
                ]
                median_s = float(scoring_rules.median_over_studies(np.array(hits)))
                medians_s.append(min(median_s, self.contest.budgets_s[name]))
            logs.append(math.log(max(medians_s[1], 1e-9) / max(medians_s[0], 1e-9)))
        return float(np.mean(logs))


def record(board: Leaderboard, name: str) -> Recording:
    """Return a finished leaderboard as a recording.

    Raises:
        UserError: A workload has no budget, which a replay needs, or trials were ended as late.
    """
    workloads = board.layout.workloads
    budgets_s: dict[str, float] = {}
    for run in board.pool.runs:
        if run.workload in workloads and run.budget_s is not None:
            budgets_s[run.workload] = max(run.budget_s, budgets_s.get(run.workload, 0.0))
    missing = sorted(set(workloads) - set(budgets_s))
    if missing:
        raise errors.UserError(
            f"{name}: no budget is known of {', '.join(missing)}; --targets gives budgets"
        )
    late = sum(run.status == LATE for run in board.pool.runs)
    if late:
        raise errors.UserError(
            f"{name}: {late} trials were ended by --stop-late, which keeps the scores of all "
            "together: what two of them would have come to alone is not known"
        )
    trials: dict[tuple[int, int, int], list[Recorded]] = {}
    for s, row in enumerate(board.rows):
        for w, workload in enumerate(workloads):
            numbers = [result.study for result in row.cells[workload].studies]
            for run in row.entry.runs:
                if run.workload != workload or run.target is None or not is_readable(run):
                    continue
                crossing = time_to_target(run.rows, run.target, run.budget_s)
                last = None if crossing.evaluation is None else crossing.evaluation + 1
                times_s = run.rows[TIME_COLUMN][:last]
                value, goal = run.rows[run.target.column][:last], run.target.validation
                assert goal is not None
                higher = run.target.higher_is_better
                drawn = contests.curve(times_s, value, goal, higher_is_better=higher)
                key = s, w, numbers.index(run.study)
                trials.setdefault(key, []).append(Recorded(times_s, drawn, crossing.time_s))
    studies = max(len(cell.studies) for row in board.rows for cell in row.cells.values())
    contest = Contest(
        tuple(board.labels),
        workloads,
        board.benchmark.base_workloads,
        dict(board.benchmark.variant_of),
        budgets_s,
        studies,
    )
    return Recording(name, contest, trials)


def advance(
    board: Board,
    recording: Recording,
    key: tuple[int, int, int],
    goal_s: float,
    shown: tuple[int, int, int] | None = None,
) -> float:
    """Run one study of a recording further.

    Args:
        board: What is known, which is changed.
        recording: The recording.
        key: The submission, workload and study, by the recording's own numbers.
        goal_s: The clock to run to: up to the last evaluation before it, but at least one.
        shown: The key in `board`, where it differs.

    Returns:
        What it cost, in seconds.
    """
    seen = board[shown or key]
    trials = recording.trials.get(key, ())
    before_s = seen.clock_s
    every = (
        np.unique(np.concatenate([trial.times_s for trial in trials])) if trials else np.empty(0)
    )
    later = every[every > before_s]
    if seen.is_over or not len(later):
        seen.is_over = True
        return 0.0
    within = later[later <= goal_s]
    clock_s = float(within[-1]) if len(within) else float(later[0])
    hits = [trial.hit_s for trial in trials if trial.hit_s <= clock_s]
    if hits:
        clock_s = seen.hit_s = min(hits)
    seen.clock_s = clock_s
    seen.is_over = bool(hits) or clock_s >= every[-1]
    seen.times_s, seen.gaps = _merged(trials, clock_s)
    return sum(min(clock_s, trial.end_s) - min(before_s, trial.end_s) for trial in trials)


def _merged(trials: Sequence[Recorded], clock_s: float) -> tuple[Floats, Floats]:
    """Return times and the smallest distance to the target so far over the trials of a study."""
    times_s = np.concatenate([trial.curve[0] for trial in trials])
    gaps = np.concatenate([trial.curve[1] for trial in trials])
    order = np.argsort(times_s, kind="stable")
    times_s, gaps = times_s[order], gaps[order]
    kept = times_s <= clock_s
    return times_s[kept], np.minimum.accumulate(gaps[kept])


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a replay: what was run and why, and what it cost so far."""

    action: Action
    cost_s: float


@dataclasses.dataclass(frozen=True, eq=False)
class Replay:
    """A replay of one pair.

    Attributes:
        pair: The names of the two submissions.
        truth: The difference of their scores by all data.
        log_ratio: The mean log ratio of their times, as another truth.
        verdict: What was decided; None where the budget of the replay was spent before.
        cost: What was run until then, as a share of all.
        steps: What was run.
        looks: For each look the share of cost, and the probability that the first is ahead; NaN
            without a forecast.
    """

    pair: tuple[str, str]
    truth: float
    log_ratio: float
    verdict: Verdict | None
    cost: float
    steps: Sequence[Step]
    looks: Sequence[tuple[float, float]]


def play(
    recording: Recording,
    pair: tuple[int, int],
    settings: Settings,
    *,
    studies: Sequence[int] | None = None,
    most: float = 1.0,
    prior: Prior | None = None,
) -> Replay:
    """Play a pair of a recording as if it were running, until it is decided.

    Args:
        recording: The recording.
        pair: The numbers of two submissions.
        settings: The rule.
        studies: The recording's studies in the order in which they are run; None is their own.
        most: The share of the pair's cost at which to give up.
        prior: What the forecast assumes; None is the settings' prior.
    """
    whole = recording.contest
    contest = dataclasses.replace(whole, submissions=tuple(whole.submissions[s] for s in pair))
    studies = list(range(whole.studies)) if studies is None else list(studies)
    referee = Referee(contest, settings, None if prior is None else {(0, 1): prior})
    board = contests.nothing_seen(contest)
    total_s, spent_s = recording.cost_s(pair), 0.0
    steps: list[Step] = []
    looks: list[tuple[float, float]] = []
    changed: int | None = None
    while True:
        referee.look(board, changed)
        lead = referee.lead((0, 1))
        looks.append((spent_s / total_s, math.nan if lead is None else lead.probability))
        action = referee.next(board)
        if action is None or spent_s >= most * total_s:
            break
        for s, goal_s in action.runs.items():
            key = pair[s], action.workload, studies[action.study]
            shown = s, action.workload, action.study
            spent_s += advance(board, recording, key, goal_s, shown)
        changed = action.workload
        steps.append(Step(action, spent_s))
    return Replay(
        (contest.submissions[0], contest.submissions[1]),
        recording.truth(pair),
        recording.log_ratio(pair),
        referee.verdicts.get((0, 1)),
        spent_s / total_s,
        steps,
        looks,
    )


def play_all(
    recording: Recording,
    settings: Settings,
    *,
    rotations: int | None = None,
    most: float = 1.0,
    prior_of: Callable[[tuple[str, str]], Prior] | None = None,
    only: Collection[str] | None = None,
) -> Iterator[Replay]:
    """Play every pair of a recording, with each of its studies first in turn.

    Args:
        recording: The recording.
        settings: The rule.
        rotations: In how many orders of the studies; None is as many as there are studies.
        most: The share of a pair's cost at which to give up.
        prior_of: What the forecast assumes of a pair, by names; None is the settings' prior.
        only: The names of the submissions to play; None plays all.
    """
    count = recording.contest.studies
    names = recording.contest.submissions
    kept = [s for s, name in enumerate(names) if only is None or name in only]
    for pair in itertools.combinations(kept, 2):
        prior = None if prior_of is None else prior_of((names[pair[0]], names[pair[1]]))
        for first in range(min(rotations or count, count)):
            studies = [(first + n) % count for n in range(count)]
            yield play(recording, pair, settings, studies=studies, most=most, prior=prior)


@dataclasses.dataclass(frozen=True)
class Tally:
    """How a rule did on replays, up to a share of the cost.

    Attributes:
        cost: The share.
        pairs: The number of replays.
        decided: How many were decided by then.
        wrong: How many of these against the truth.
    """

    cost: float
    pairs: int
    decided: int
    wrong: int

    def __str__(self) -> str:
        decided, wrong = (100 * part / max(1, self.pairs) for part in (self.decided, self.wrong))
        return f"{decided:.0f} % decided, {wrong:.1f} % wrong"


def tally(
    replays: Sequence[Replay], cost: float, *, apart: float = 0.0, by_log_ratio: bool = False
) -> Tally:
    """Return how a rule did up to a share of the cost.

    Args:
        replays: The replays.
        cost: The share of the cost of running all of the pair.
        apart: Only pairs whose scores are at least so far apart count.
        by_log_ratio: Whether the truth is the sign of the mean log ratio of times, in place of the
            difference of scores.
    """
    counted = [one for one in replays if abs(one.truth) >= apart]
    decided = [
        one
        for one in counted
        if one.verdict is not None and one.verdict.leader != 0 and one.cost <= cost
    ]
    wrong = [
        one
        for one in decided
        if one.verdict is not None
        and one.verdict.leader * (one.log_ratio if by_log_ratio else one.truth) <= 0
    ]
    return Tally(cost, len(counted), len(decided), len(wrong))
