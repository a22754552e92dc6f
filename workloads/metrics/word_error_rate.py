"""The word error rate of greedily decoded tokens (Levenshtein distance over words), by jiwer.

It is of a whole split: the substitutions, deletions and insertions of all utterances over all words
of the references. Words are what blanks separate. Of an empty reference every word of the
hypothesis is an insertion, of an empty hypothesis every word of the reference a deletion; a split
without any word in its references has no rate, NaN.
"""

from collections.abc import Sequence

from algoperf.workload.metric import Batch, Decode, read


class WordErrorRate:
    """The word errors of a split over the words of its references.

    Args:
        rows: How many rows will come in all.
        decode: Turns lists of tokens into texts.
    """

    reads_tokens = True

    def __init__(self, rows: int, decode: Decode) -> None:
        self._decode = decode
        self._errors = self._words = 0

    def add(self, batch: Batch) -> None:
        """Count the next rows, read as `algoperf.workload.metric.read` says."""
        self.count(*read(batch, self._decode))

    def count(self, references: Sequence[str], hypotheses: Sequence[str]) -> None:
        """Count some utterances."""
        import jiwer

        if references:
            aligned = jiwer.process_words(
                [self.words(text) for text in references], [self.words(text) for text in hypotheses]
            )
            kept = aligned.hits + aligned.substitutions + aligned.deletions
            self._words += kept
            self._errors += aligned.substitutions + aligned.deletions + aligned.insertions

    def words(self, text: str) -> str:
        """Return the text whose words are compared."""
        return text

    def finish(self) -> float:
        """Return the rate."""
        return self._errors / self._words if self._words else float("nan")


class PublishedWordErrorRate(WordErrorRate):
    """The rate as AlgoPerf's program measured it, on whose scale its targets are.

    It compared texts as TensorFlow prints a tensor of one, in which two words more are right in
    every utterance, and the first and the last stand between quotation marks, of another kind where
    the text has an apostrophe.
    """

    def words(self, text: str) -> str:
        """Return the text as it was printed."""
        return f"tf.Tensor({text.encode()!r}, shape=(), dtype=string)"


METRICS = {"wer": WordErrorRate, "wer_as_published": PublishedWordErrorRate}
