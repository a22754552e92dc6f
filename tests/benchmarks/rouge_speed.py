"""Time of ROUGE-1, -2, -L and -Lsum here, beside the package rouge_score on the same pairs.

    python tests/benchmarks/rouge_speed.py --pairs 1000 --words 50

Both in turn in one process, stemming on, medians. `cold` is the first call of a process, which
stems every word once; later calls find most words in the cache, as a run's later evaluations do.
"""

import argparse
import random
import statistics
import time

import numpy as np

from workloads.metrics import rouge


def texts(count, words, vocabulary, draw):
    """Texts of so many words, drawn as Zipf has it (rank r with weight 1/r)."""
    known = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(vocabulary)]
    known = [word + draw.choice(("", "s", "ed", "ing", "ation")) for word in known]
    weights = [1 / rank for rank in range(1, vocabulary + 1)]
    return [" ".join(draw.choices(known, weights, k=words)) for _ in range(count)]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--words", type=int, default=50)
    parser.add_argument("--lines", type=int, default=1, help="lines a text, for ROUGE-Lsum")
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    from rouge_score import rouge_scorer

    draw = random.Random(0)
    rows = texts(2 * options.pairs, options.words, options.vocabulary, draw)
    width = -(-options.words // options.lines)
    split = [row.split() for row in rows]
    rows = [
        "\n".join(" ".join(row[start : start + width]) for start in range(0, len(row), width))
        for row in split
    ]
    predictions, references = rows[: options.pairs], rows[options.pairs :]
    scorer = rouge_scorer.RougeScorer(list(rouge.names), use_stemmer=True)

    def ours():
        return rouge.score(predictions, references)

    def theirs():
        pairs = zip(references, predictions, strict=True)
        scored = [scorer.score(*pair) for pair in pairs]
        return {name: np.array([row[name].fmeasure for row in scored]) for name in rouge.names}

    def timed(function):
        start = time.perf_counter()
        return function(), time.perf_counter() - start

    expected, _ = timed(theirs)
    measured, cold_s = timed(ours)
    for name in rouge.names:
        np.testing.assert_array_equal(measured[name], expected[name])
    pairs = [(timed(theirs)[1], timed(ours)[1]) for _ in range(options.repeats)]
    package_s, warm_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"rouge_score {package_s:.3f} s; here {warm_s:.3f} s, cold {cold_s:.3f} s")
    ratio = statistics.median(package / here for package, here in pairs)
    print(f"ratio: {ratio:.1f}, cold {package_s / cold_s:.1f}; equal to the last digit")


if __name__ == "__main__":
    main()
