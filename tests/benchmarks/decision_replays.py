"""What decisions cost, and how they err: replays of a finished board under several rules.

    python tests/benchmarks/decision_replays.py LOGS --targets algoperf-2026 \
        --prior OTHER --prior-targets algoperf-0.5 --rules together cheapest bounds

Every pair of submissions is played with each study first in turn. `--flips` counts how often
resampled studies change the sign of the truth itself; `--null` how often the test tells two copies
of one submission with resampled studies apart, looked at after every study.
"""

import argparse
import itertools

import numpy as np

from algoperf.cli.decide_command import recorded
from scoring.decisions import betting, replay
from scoring.decisions.contest import Seen
from scoring.decisions.priors import Finished, learn
from scoring.decisions.rule import Settings
from scoring.rules import rules as scoring_rules
from scoring.rules.rules import BY_THE_RULES

BOUNDS, FORECAST, TEST = ("bounds",), ("forecast",), ("test",)
RULES = {
    "all in order": Settings(stops=BOUNDS, order="given", caps=False, first=1.0, further=1.0),
    "capping alone": Settings(stops=BOUNDS, order="given"),
    "bounds, cheapest first": Settings(stops=BOUNDS, order="cheapest"),
    "test, cheapest first": Settings(stops=TEST, order="cheapest", confidence=0.95),
    "forecast, cheapest first": Settings(stops=FORECAST, order="cheapest"),
    "forecast without curves": Settings(stops=FORECAST, curves=False),
    "forecast": Settings(stops=FORECAST),
    "together": Settings(),
}


def family(name):
    """The family of a submission of the public boards; entries of one are left out together."""
    if "nadamw" in name or name == "baseline":
        return "nadamw"
    return next((word for word in ("sinv6", "muon") if name.startswith(word)), name)


def flips(recording, draws=1000, seed=0):
    """The share of resampled sets of studies in which the sign of each pair's truth changes."""
    generator = np.random.default_rng(seed)
    times_SWN = all_times(recording)
    count, workloads, studies = times_SWN.shape
    shares = {}
    for pair in itertools.combinations(range(count), 2):
        of_pair = times_SWN[list(pair)]
        drawn = generator.integers(studies, size=(draws, 2, workloads, studies))
        times = np.take_along_axis(np.broadcast_to(of_pair, drawn.shape), drawn, axis=-1)
        scores = scoring_rules.scores(times, recording.contest.layout, BY_THE_RULES)
        difference = scores[:, 0] - scores[:, 1]
        shares[pair] = float((np.sign(difference) != np.sign(recording.truth(pair))).mean())
    return shares


def all_times(recording):
    """Seconds to the target (S, W, N) of a recording; inf where it was missed."""
    contest = recording.contest
    shape = len(contest.submissions), len(contest.workloads), contest.studies
    times_SWN = np.full(shape, np.inf)
    for place, trials in recording.trials.items():
        times_SWN[place] = min(trial.hit_s for trial in trials)
    return times_SWN


def null(recording, error=0.05, draws=2000, seed=0):
    """How often the test tells two copies of one submission with resampled studies apart."""
    generator = np.random.default_rng(seed)
    contest, times_SWN = recording.contest, all_times(recording)
    count, workloads, studies = times_SWN.shape
    order = np.argsort([contest.budgets_s[name] for name in contest.workloads])
    wrong = 0
    for _ in range(draws):
        s = generator.integers(count)
        drawn = generator.integers(studies, size=(2, workloads, studies))
        values = []
        for n, w in itertools.product(range(studies), order):
            budget_s = contest.budgets_s[contest.workloads[w]]
            cells = [
                Seen(min(time_s, budget_s), time_s, True)
                for time_s in times_SWN[s, w, drawn[:, w, n]]
            ]
            value = betting.paired(cells[0], cells[1], budget_s)
            values.append(0.0 if value is None else value)
            if betting.wealth(values).leader(error):
                wrong += 1
                break
    return wrong / draws


def line(replays):
    """Decided and wrong at 10 %, 33 % and all of the cost, of all pairs and of those .1 apart."""
    cells = []
    for apart in (0.0, 0.1):
        for cost in (0.1, 0.33, 1.0):
            one = replay.tally(replays, cost, apart=apart)
            ratio = replay.tally(replays, cost, apart=apart, by_log_ratio=True)
            decided, wrong, other = (
                100 * part / max(1, one.pairs) for part in (one.decided, one.wrong, ratio.wrong)
            )
            cells.append(f"{decided:.0f}, {wrong:.1f} ({other:.1f})")
    return " | ".join(cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs")
    parser.add_argument("--targets", required=True)
    parser.add_argument("--prior", action="append", default=[])
    parser.add_argument("--prior-targets", action="append", default=[])
    parser.add_argument("--rules", nargs="*", default=list(RULES), choices=list(RULES))
    parser.add_argument("--most", type=float, default=1.0, help="share of a pair's cost")
    parser.add_argument("--rotations", type=int)
    parser.add_argument("--flips", action="store_true")
    parser.add_argument("--null", type=int, default=0, metavar="DRAWS")
    given = parser.parse_args()
    recording = recorded(given.logs, given.targets)
    boards = []
    for path, targets in zip(given.prior, given.prior_targets, strict=True):
        other = recorded(path, targets)
        families = {name: family(name) for name in other.contest.submissions}
        boards.append(Finished(path, other.contest, other.ended(), families))
    if given.flips:
        shares = flips(recording)
        for apart in (0.0, 0.1):
            kept = [x for pair, x in shares.items() if abs(recording.truth(pair)) >= apart]
            print(
                f"resampled studies flip the truth of pairs at least {apart} apart in "
                f"{np.mean(kept):.1%} of draws; most {np.max(kept):.1%}"
            )
    if given.null:
        print(f"null: decided in {null(recording, draws=given.null):.2%} of {given.null}")
    print("rule | all pairs at 10, 33, 100 % of the cost: decided, wrong (by log ratio) | .1 apart")
    for name in given.rules:
        prior_of = None if not boards else lambda pair: learn(boards, {family(x) for x in pair})
        played = replay.play_all(
            recording, RULES[name], rotations=given.rotations, most=given.most, prior_of=prior_of
        )
        print(f"{name} | {line(list(played))}", flush=True)


if __name__ == "__main__":
    main()
