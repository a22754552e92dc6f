"""BLEU (Papineni et al. 2002) of generated texts, by sacrebleu, equal to what its command prints.

It is sacrebleu's default: the tokenizer 13a, case kept, one reference, exponential smoothing of
orders without a match. The value is of all rows together, between 0 and 100.
"""

from typing import Any

import numpy as np

from algoperf.workload.metric import TextBatch

ORDERS = 4


def _metric() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(force=True)  # no warning of texts that look tokenized


class Bleu:
    """The BLEU of the rows that are judged.

    What counts are sums over rows (matching and possible n-grams, lengths), so that batches in any
    order give the same value.
    """

    values_N: None = None

    def __init__(self, rows: int) -> None:
        self._bleu = _metric()
        self._matches, self._possible = (np.zeros(ORDERS, np.int64) for _ in range(2))
        self._length = self._reference_length = 0

    def add(self, batch: TextBatch) -> None:
        """Count some rows."""
        counted = self._bleu.corpus_score(list(batch.predictions), [list(batch.references)])
        self._matches += counted.counts
        self._possible += counted.totals
        self._length += counted.sys_len
        self._reference_length += counted.ref_len

    def finish(self) -> float:
        """Return the value, in [0, 100]."""
        bleu = self._bleu.compute_bleu(
            self._matches.tolist(), self._possible.tolist(), self._length, self._reference_length
        )
        return float(bleu.score)


class Start:
    """What starts the metric."""

    def __call__(self, rows: int) -> Bleu:
        """Return the accumulator for so many rows."""
        return Bleu(rows)

    def signature(self) -> str:
        """Return sacrebleu's signature, which names what is computed and by which version."""
        bleu = _metric()
        bleu.corpus_score([""], [[""]])  # the signature counts the references of a row
        return str(bleu.get_signature())


TEXT_METRICS = {"bleu": Start()}
