"""Print the baselines of the built-in speech: word error rates of recognisers that learn nothing.

    python tests/benchmarks/speech_baselines.py [--rows ROWS] [--templates TEMPLATES]

'most frequent' gives every utterance the training transcript that comes most often; 'the commonest
words' the best of one, two or three times the most frequent word; 'nearest' the transcript of the
training utterance that is nearest by dynamic time warping (Sakoe and Chiba 1978) of every second
frame of the features, less their mean over the utterance. Each line has the rate as published, then
the plain one.
"""

import argparse
import collections

import numpy as np

from workloads.librispeech_conformer import WORKLOAD, data
from workloads.metrics.word_error_rate import PublishedWordErrorRate, WordErrorRate
from workloads.parts import log_mel
from workloads.parts.log_mel import FrontEnd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=256, help="validation rows, from the first")
    parser.add_argument("--templates", type=int, default=512, help="training rows, from the first")
    arguments = parser.parse_args()
    scale = WORKLOAD.scales["mini"]
    loaded = data.load("builtin", **scale.data)
    front = FrontEnd(loaded.model["rate"], scale.model["mean"], scale.model["std"])
    train, validation = (loaded.splits[split] for split in ("train", "validation"))
    texts, references = (
        loaded.decode([row[row != 0].tolist() for row in rows["targets"]])
        for rows in (train, validation)
    )
    commonest = collections.Counter(texts).most_common(1)[0][0]
    show("most frequent", references, [commonest] * len(references))
    word = collections.Counter(" ".join(texts).split()).most_common(1)[0][0]
    for count in (1, 2, 3):
        repeated = " ".join([word] * count)
        show(f"the commonest word, {count} times", references, [repeated] * len(references))
    templates = [features(front, train, row) for row in range(arguments.templates)]
    nearest = [
        texts[int(np.argmin(distances(features(front, validation, row), templates)))]
        for row in range(arguments.rows)
    ]
    show("nearest", references[: arguments.rows], nearest)


def show(name: str, references: list[str], hypotheses: list[str]) -> None:
    rates = []
    for start in (PublishedWordErrorRate, WordErrorRate):
        metric = start(len(references), None)
        metric.count(references, hypotheses)
        rates.append(metric.finish())
    print(f"{name:28}{rates[0]:8.3f}{rates[1]:8.3f}")


def features(front: FrontEnd, rows, row: int) -> np.ndarray:
    own = log_mel.features(front, rows["inputs"][row, : rows["lengths"][row]])[::2]
    return own - own.mean(0)


def distances(query_FM: np.ndarray, templates: list[np.ndarray]) -> np.ndarray:
    """The mean distance along the best path to each template; all are warped at a time."""
    longest = max(map(len, templates))
    lengths = np.array([len(each) for each in templates])
    padded = np.stack([np.pad(each, ((0, longest - len(each)), (0, 0))) for each in templates])
    squares = np.square(query_FM).sum(1)[:, None, None] + np.square(padded).sum(2)[None]
    costs = np.sqrt(np.maximum(squares - 2 * np.einsum("qm,ntm->qnt", query_FM, padded), 0))
    total = np.cumsum(costs[0], 1)
    for cost in costs[1:]:
        after = np.empty_like(total)
        after[:, 0] = total[:, 0] + cost[:, 0]
        for position in range(1, longest):
            best = np.minimum(total[:, position], total[:, position - 1])
            after[:, position] = cost[:, position] + np.minimum(best, after[:, position - 1])
        total = after
    return total[np.arange(len(templates)), lengths - 1] / (lengths + len(query_FM))


if __name__ == "__main__":
    main()
