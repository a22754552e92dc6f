"""Perplexities of the validation rows of lm, mlm and finewebedu_lm under what only counts tokens.

    python tests/benchmarks/pretraining_baselines.py [WORKLOAD ...]

Unigrams: a token's share of the training tokens, one added to each count. Bigrams: counts of pairs,
with the unigrams as prior observations (Dirichlet smoothing), as many as do best on the validation
rows, which flatters them. Trigrams: the same with the bigrams as prior observations; of
finewebedu_lm alone, whose entropy is known besides. For mlm both are measured at the chosen
positions, given the true token before.
"""

import sys

import numpy as np

from algoperf.data.loading import load_data
from algoperf.workload import catalogue
from workloads.finewebedu_lm import generator

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


def trigrams(train_NT: np.ndarray, validation_NT: np.ndarray, vocab_size: int) -> float:
    """The perplexity of the third and later tokens of rows, and of the second by bigrams."""
    shares = unigrams(train_NT[:, 1:], vocab_size)
    pairs = np.zeros((vocab_size, vocab_size))
    np.add.at(pairs, (train_NT[:, :-1].ravel(), train_NT[:, 1:].ravel()), 1)

    def keys(rows_NT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        whole = rows_NT.astype(np.int64)
        before = whole[:, :-2] * vocab_size + whole[:, 1:-1]
        return before.ravel(), (before * vocab_size + whole[:, 2:]).ravel()

    def counts(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        values, numbers = np.unique(known, return_counts=True)
        at = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
        return np.where(values[at] == wanted, numbers[at], 0)

    known, wanted = keys(train_NT), keys(validation_NT)
    seen, together = (counts(*each) for each in zip(known, wanted, strict=True))
    before_NT, token_NT = validation_NT[:, :-1], validation_NT[:, 1:]
    results = []
    for prior in PRIORS:
        bigram_NT = (pairs[before_NT, token_NT] + prior * shares[token_NT]) / (
            pairs.sum(1)[before_NT] + prior
        )
        prior_N = bigram_NT[:, 1:].ravel()
        for other in PRIORS:
            trigram_N = (together + other * prior_N) / (seen + other)
            nats = np.concatenate([-np.log(bigram_NT[:, 0]), -np.log(trigram_N)])
            results.append(np.exp(nats.mean()))
    return float(min(results))


def main() -> None:
    """Print them for each workload."""
    for name in sys.argv[1:] or ("lm", "mlm", "finewebedu_lm"):
        definition = catalogue.find(name)
        data = load_data(definition, definition.scales["mini"], "builtin")
        train, validation = (data.splits[split] for split in ("train", "validation"))
        if name == "mlm":
            chosen = validation["weights"][:, 1:] > 0
            rows = len(train["targets"]) // data.notes["copies"]
            whole, held = train["targets"][:rows], validation["targets"]
            sides = [(whole[:, :-1], whole[:, 1:]), (held[:, :-1][chosen], held[:, 1:][chosen])]
        else:
            sides = [(rows["inputs"], rows["targets"]) for rows in (train, validation)]
        unigram, bigram = perplexities(*sides, data.model["vocab_size"])
        print(f"{name}: unigrams {unigram:.1f}, bigrams {bigram:.2f}")
        if name == "finewebedu_lm":
            rows = [np.concatenate([inputs[:, :1], targets], 1) for inputs, targets in sides]
            length = sides[0][0].shape[1]
            entropy = generator.entropy(length)
            nats = generator.generate("validation", length + 1, 0).nats_NT[:, 1:].mean()
            print(
                f"{name}: trigrams {trigrams(*rows, data.model['vocab_size']):.2f}; entropy "
                f"{entropy:.6f} nats a token, perplexity {np.exp(entropy):.3f}; of these rows by "
                f"the true probabilities {np.exp(nats):.3f}"
            )


if __name__ == "__main__":
    main()
