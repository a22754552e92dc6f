"""How often the 95 % intervals of scores and speed-ups cover what they claim to, on made boards.

    python tests/benchmarks/interval_coverage.py --boards 1000 --out coverage.jsonl

Each board has its own truth: log times normal around a submission's quality plus a cell's own
level, spread within a cell log-normal with median 8 % and 90th percentile 19 % (the run-to-run
spread of time to target in AlgoPerf's logs), and every study missed with the same probability;
with `--clumped`, with a probability of its cell's own, beta with that mean and a strength of 2.
The truth that an interval should cover, the expected score (or log speed-up) of a competition with
n studies, is the mean over `--competitions` fresh competitions. In a speed-up a miss counts as
BUDGET seconds. On as many boards again all submissions are the same algorithm: there the table says
how often one of them is first with a probability of at least .95.

A row of the table is one setting. The coverage is the share of (board, submission) pairs whose
interval holds the truth, among boards that get an interval. Boards are made in blocks with seeds
of their own; `--out` keeps each finished block as a line, and goes on from those that are there.
"""

import argparse
import itertools
import json
import math
from pathlib import Path

import numpy as np

from scoring.analysis.speedup import log_interval, log_means
from scoring.analysis.statistics import METHODS, bootstrap
from scoring.rules.rules import BY_THE_RULES, make_layout, median_over_studies, scores

QUALITY, LEVEL = 0.25, 0.25  # standard deviations of log time over submissions and over cells
SPREAD, SPREAD_OF_SPREADS = 0.08, math.log(19 / 8) / 1.2816  # median and log-normal sd, see above
BUDGET = 4.0  # seconds; the median time is 1
SIZES = ("1x2", "1x3", "2x2", "3x3", "7x3")  # workloads x studies
BLOCK = 100
SURE = 0.95
HEADINGS = (
    "submissions",
    "workloads x studies",
    "missed",
    "refused",
    "score covered, width",
    "same algorithm: covered",
    "first with .95",
    "speed-up covered, width",
)


def draw(rng, level_SW, spread_SW, miss_SW, studies, count):
    """`count` competitions, (count, S, W, N)."""
    noise = rng.standard_normal((count, *level_SW.shape, studies))
    times = np.exp(level_SW[..., None] + spread_SW[..., None] * noise)
    times[rng.random(times.shape) < miss_SW[..., None]] = np.inf
    return times


def truth_of(rng, shape, miss, *, same, clumped):
    """Levels, spreads and probabilities to miss of one board, each (S, W)."""
    level_SW = rng.normal(0, QUALITY, (shape[0], 1)) + rng.normal(0, LEVEL, shape)
    spread_SW = SPREAD * np.exp(rng.normal(0, SPREAD_OF_SPREADS, shape))
    miss_SW = np.full(shape, miss)
    if clumped and miss:
        miss_SW = rng.beta(2 * miss, 2 * (1 - miss), shape)
    every = (level_SW, spread_SW, miss_SW)
    return tuple(np.broadcast_to(each_SW[:1], shape) for each_SW in every) if same else every


def one_board(rng, layout, shape, miss, studies, options, *, same):
    """What the intervals of one board hold; None where they are not estimable."""
    parts = truth_of(rng, shape, miss, same=same, clumped=options.clumped)
    times_SWN = draw(rng, *parts, studies, 1)[0]
    seed = int(rng.integers(2**31))
    one = bootstrap(
        times_SWN,
        layout,
        BY_THE_RULES,
        method=options.method,
        resamples=options.resamples,
        seed=seed,
    )
    if one.not_estimable:
        return None
    fresh = draw(rng, *parts, studies, options.competitions)
    held, width = _held(one.score_interval, scores(fresh, layout, BY_THE_RULES).mean(axis=0))
    found = {
        "held": held,
        "width": width,
        "pairs": shape[0],
        "sure": int(one.p_first.max() >= SURE),
    }
    if not same:
        budgets_B, unknown_SB = np.full(shape[1], BUDGET), np.zeros(shape, bool)
        settings = (layout, 0, budgets_B, unknown_SB)
        ends = log_interval(times_SWN, *settings, seed=seed)[1:]
        logs_RS = log_means(median_over_studies(fresh), *settings)[:, 1:]
        # A board whose real competition compares nothing shows no speed-up at all.
        known = ~np.isnan(ends[:, 0]) & ~np.isnan(
            log_means(median_over_studies(times_SWN), *settings)[1:]
        )
        held, width = _held(ends[known], np.nanmean(logs_RS[:, known], axis=0))
        found |= {"speedup_held": held, "speedup_width": width, "speedups": int(known.sum())}
    return found


def _held(ends_S2, truth_S):
    low, high = ends_S2.T
    held = (low <= truth_S + 1e-12) & (truth_S <= high + 1e-12)
    return int(held.sum()), float((high - low).sum())


def block(size, miss, number, options, *, same):
    """The sums over one block of boards."""
    workloads, studies = map(int, size.split("x"))
    names = tuple(f"w{index}" for index in range(workloads))
    layout = make_layout(names, names, {})
    rng = np.random.default_rng([options.seed, workloads, studies, round(100 * miss), same, number])
    shape = options.submissions, workloads
    count = min(BLOCK, options.boards - BLOCK * number)
    boards = [
        one_board(rng, layout, shape, miss, studies, options, same=same) for _ in range(count)
    ]
    known = [board for board in boards if board is not None]
    names = known[0] if known else {}
    return {"boards": count, "known": len(known)} | {
        name: sum(board[name] for board in known) for name in names
    }


def measure(size, miss, options, kept):
    """The sums over all boards of a setting, different submissions and same ones."""
    sums = []
    for same in (False, True):
        total = {}
        for number in range(-(-options.boards // BLOCK)):
            key = json.dumps([size, miss, same, number, *_settings(options)])
            if key not in kept:
                kept[key] = block(size, miss, number, options, same=same)
                if options.out:
                    with options.out.open("a") as file:
                        file.write(json.dumps({"key": key, "sums": kept[key]}) + "\n")
            for name, value in kept[key].items():
                total[name] = total.get(name, 0) + value
        sums.append(total)
    return sums


def _settings(options):
    fields = "boards competitions resamples submissions clumped method seed"
    return [getattr(options, name) for name in fields.split()]


def row(size, miss, options, kept):
    """The cells of one row of the table."""
    differ, same = measure(size, miss, options, kept)
    clumped = ", clumped" if options.clumped else ""
    cells = [f"{options.submissions}{clumped}", size, f"{miss:.0%}"]
    refused = 1 - (differ["known"] + same["known"]) / (differ["boards"] + same["boards"])
    cells.append(f"{100 * refused:.1f} %")

    def share(total, held, count, width=None):
        if not total.get(count):
            return "not estimable"
        text = f"{100 * total[held] / total[count]:.1f} %"
        return f"{text}, {total[width] / total[count]:.3f}" if width else text

    cells.append(share(differ, "held", "pairs", "width"))
    cells.append(share(same, "held", "pairs"))
    cells.append(share(same, "sure", "known"))
    cells.append(share(differ, "speedup_held", "speedups", "speedup_width"))
    return cells


def parse(words=None):
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boards", type=int, default=1000)
    parser.add_argument("--competitions", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=4000)
    parser.add_argument("--submissions", type=int, default=2)
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="WORKLOADSxSTUDIES")
    parser.add_argument("--missed", nargs="+", type=float, default=(0.0, 0.3, 0.5))
    parser.add_argument("--clumped", action="store_true")
    parser.add_argument("--method", choices=METHODS, default=METHODS[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="keeps finished blocks, to go on from")
    return parser.parse_args(words)


def main():
    """Print the table."""
    options = parse()
    kept = {}
    if options.out and options.out.exists():
        lines = [json.loads(line) for line in options.out.read_text().splitlines()]
        kept = {line["key"]: line["sums"] for line in lines}
    print("| " + " | ".join(HEADINGS) + " |")
    print("|---" * len(HEADINGS) + "|")
    for size, miss in itertools.product(options.sizes, options.missed):
        print("| " + " | ".join(row(size, miss, options, kept)) + " |", flush=True)


if __name__ == "__main__":
    main()
