"""How often the 95 % intervals of scores cover what they claim to, on made leaderboards.

    python tests/benchmarks/interval_coverage.py --leaderboards 1000

Each leaderboard has its own truth: log times normal around a submission's quality plus a cell's own
level, spread within a cell log-normal with median 8 % and 90th percentile 19 % (the run-to-run
spread of time to target in AlgoPerf's logs), and every study missed with the same probability;
with `--clumped`, with a probability of its cell's own, beta with that mean and a strength of 2.
The truth that an interval should cover, the expected score of a competition with n studies, is the
mean score of `--competitions` fresh competitions. A row of the table is one setting; the coverage
is the share of (leaderboard, submission) pairs whose interval holds the truth.
"""

import argparse
import math

import numpy as np

from scoring.analysis.statistics import bootstrap, percentiles
from scoring.rules.profiles import TAU_MAX
from scoring.rules.rules import BY_THE_RULES, make_layout, scores

QUALITY, LEVEL = 0.25, 0.25  # standard deviations of log time over submissions and over cells
SPREAD, SPREAD_OF_SPREADS = 0.08, math.log(19 / 8) / 1.2816  # median and log-normal sd, see above
ESTIMATORS = ("percentile", "pooled, percentiles", "pooled")


def draw(rng, level_SW, spread_SW, miss_SW, studies, count):
    """`count` competitions, (count, S, W, N)."""
    noise = rng.standard_normal((count, *level_SW.shape, studies))
    times = np.exp(level_SW[..., None] + spread_SW[..., None] * noise)
    times[rng.random(times.shape) < miss_SW[..., None]] = np.inf
    return times


def cover(rng, layout, shape, miss, clumped, studies, competitions, resamples):
    """Whether each estimator's interval holds the truth, and its width, for one leaderboard."""
    level_SW = rng.normal(0, QUALITY, (shape[0], 1)) + rng.normal(0, LEVEL, shape)
    spread_SW = SPREAD * np.exp(rng.normal(0, SPREAD_OF_SPREADS, shape))
    miss_SW = np.full(shape, miss)
    if clumped and miss:
        miss_SW = rng.beta(2 * miss, 2 * (1 - miss), shape)
    fresh = draw(rng, level_SW, spread_SW, miss_SW, studies, competitions)
    truth_S = scores(fresh, layout, BY_THE_RULES).mean(axis=0)
    times_SWN = draw(rng, level_SW, spread_SW, miss_SW, studies, 1)[0]
    seed = int(rng.integers(2**31))
    plain, pooled = (
        bootstrap(times_SWN, layout, BY_THE_RULES, method=name, resamples=resamples, seed=seed)
        for name in ("percentile", "pooled")
    )
    ends = (plain.score_interval, percentiles(pooled.scores_RS), pooled.score_interval)
    low, high = np.moveaxis(np.array(ends), -1, 0)
    return (low <= truth_S + 1e-12) & (truth_S <= high + 1e-12), high - low


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--leaderboards", type=int, default=1000)
    parser.add_argument("--competitions", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--submissions", type=int, default=6)
    parser.add_argument("--workloads", type=int, default=8)
    parser.add_argument("--clumped", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shape = options.submissions, options.workloads
    names = tuple(f"w{index}" for index in range(options.workloads))
    layout = make_layout(names, names, {})
    print(f"{shape[0]} submissions, {shape[1]} workloads, cut-off {TAU_MAX:g}")
    print("| studies | missed | " + " | ".join(f"{e}: cover, width" for e in ESTIMATORS) + " |")
    print("|---|---|" + "---|" * len(ESTIMATORS))
    for studies in (3, 5):
        for miss in (0.0, 0.3):
            rng = np.random.default_rng(options.seed)
            sizes = options.competitions, options.resamples
            held, width = zip(
                *(
                    cover(rng, layout, shape, miss, options.clumped, studies, *sizes)
                    for _ in range(options.leaderboards)
                ),
                strict=True,
            )
            cells = zip(np.mean(held, axis=(0, 2)), np.mean(width, axis=(0, 2)), strict=True)
            told = " | ".join(f"{100 * c:.1f} %, {w:.3f}" for c, w in cells)
            print(f"| {studies} | {miss:.0%} | {told} |", flush=True)


if __name__ == "__main__":
    main()
