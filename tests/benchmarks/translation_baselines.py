"""Print the ceiling and trivial baselines of wmt's built-in languages, in BLEU.

    python tests/benchmarks/translation_baselines.py

The ceiling is the score of the translations, of which three in ten references are freer. 'copy' is
the source itself. 'word by word' has in place of each word what most often translates it in the
training rows where it stands, and leaves the order.
"""

import argparse
from collections import Counter, defaultdict

import numpy as np

from algoperf.workload.metric import TextBatch
from workloads.metrics.bleu import Bleu
from workloads.parts.summarization_corpus import DRAWS, Picker
from workloads.wmt.data import BUILTIN_ROWS
from workloads.wmt.generator import generate, sentence

DICTIONARY_ROWS = 16_000


def dictionary(seed: int) -> dict[str, str]:
    """For each word of the first language what most often translates it, of as many sentences as
    are trained on.
    """
    draws = np.random.default_rng(np.random.SeedSequence([seed, 0])).random(
        (DICTIONARY_ROWS, DRAWS)
    )
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for row in draws.tolist():
        for word in sentence(Picker(row))[0]:
            seen[word.source.lower()][word.target] += 1
    return {word: counts.most_common(1)[0][0] for word, counts in seen.items()}


def word_by_word(source: str, words: dict[str, str]) -> str:
    translated = (words.get(word.lower(), word) for word in source.removesuffix(".").split())
    text = " ".join(word for word in translated if word)
    return f"{text[:1].upper()}{text[1:]}."


def measure(seed: int) -> dict[str, dict[str, float]]:
    """Return BLEU by split and by what writes."""
    splits, words = generate(seed, BUILTIN_ROWS), dictionary(seed)
    measured: dict[str, dict[str, float]] = {}
    for split in ("validation", "test"):
        rows = splits[split]
        texts = {
            "ceiling": [row.truth for row in rows],
            "copy": [row.source for row in rows],
            "word by word": [word_by_word(row.source, words) for row in rows],
        }
        references = [row.reference for row in rows]
        measured[split] = {}
        for name, predictions in texts.items():
            metric = Bleu(len(rows))
            metric.add(TextBatch(np.arange(len(rows)), predictions, references))
            measured[split][name] = metric.finish()
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the rows")
    for split, values in measure(parser.parse_args().seed).items():
        print(split, *(f"{name} {value:.2f}" for name, value in values.items()), sep="  ")


if __name__ == "__main__":
    main()
