"""Perplexities of the validation rows of lm and mlm under what only counts tokens.

    python tests/benchmarks/pretraining_baselines.py

Unigrams: a token's share of the training tokens, one added to each count. Bigrams: counts of pairs,
with the unigrams as prior observations (Dirichlet smoothing), as many as do best on the validation
rows, which flatters them. For mlm both are measured at the chosen positions, given the true token
before.
"""

import numpy as np

from algoperf.data.loading import load_data
from algoperf.workload import catalogue

PRIORS = (1, 3, 10, 30, 100)


def unigrams(train: np.ndarray, vocab_size: int) -> np.ndarray:
    """Probabilities by token."""
    counts = np.bincount(train.ravel(), minlength=vocab_size) + 1.0
    return counts / counts.sum()


def perplexities(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    vocab_size: int,
) -> tuple[float, float]:
    """Of unigrams and of bigrams; each side is (tokens before, tokens), of any shape."""
    shares = unigrams(train[1], vocab_size)
    pairs = np.zeros((vocab_size, vocab_size))
    np.add.at(pairs, (train[0].ravel(), train[1].ravel()), 1)
    before, token = (side.ravel() for side in validation)
    seen, together = pairs.sum(1)[before], pairs[before, token]
    bigrams = [
        np.exp(-np.log((together + prior * shares[token]) / (seen + prior)).mean())
        for prior in PRIORS
    ]
    return float(np.exp(-np.log(shares[token]).mean())), float(min(bigrams))


def main() -> None:
    """Print both for both workloads."""
    for name in ("lm", "mlm"):
        definition = catalogue.find(name)
        data = load_data(definition, definition.scales["mini"], "builtin")
        train, validation = (data.splits[split] for split in ("train", "validation"))
        if name == "lm":
            sides = [(rows["inputs"], rows["targets"]) for rows in (train, validation)]
        else:
            chosen = validation["weights"][:, 1:] > 0
            rows = len(train["targets"]) // data.notes["copies"]
            whole, held = train["targets"][:rows], validation["targets"]
            sides = [(whole[:, :-1], whole[:, 1:]), (held[:, :-1][chosen], held[:, 1:][chosen])]
        unigram, bigram = perplexities(*sides, data.model["vocab_size"])
        print(f"{name}: unigrams {unigram:.1f}, bigrams {bigram:.2f}")


if __name__ == "__main__":
    main()
