"""Greedy and beam search for both frameworks, in NumPy; a `Decoder` brings the model.

The semantics are those of transformers' `generate` for an encoder-decoder, without restrictions on
length and repetition. A greedy row takes the likeliest token until the end token or the limit. A
beam search scores a sequence by the sum of its tokens' log-probabilities, the end token's included,
over a power of its length (`GenerationSettings.divisor`).

Shapes: B sources, W beams of a source, N = B x W rows of a step (a source's beams side by side),
C candidates, S source tokens, T generated tokens.
"""

import dataclasses
from typing import Any, Protocol

import numpy as np

from algoperf.data.tokenizers import BEGIN_ID, END_ID, PAD_ID, START_ID

Step = tuple[Any, np.ndarray | None, np.ndarray]


class Decoder(Protocol):
    """A model with its parameters, one token at a time."""

    def start(self, source_BS: np.ndarray, beams: int, length: int) -> Any:
        """Encode sources padded with `PAD_ID`; return a cache for `length` steps."""
        ...

    def step(
        self,
        cache: Any,
        position: int,
        token_N: np.ndarray,
        parent_N: np.ndarray | None,
        candidates: int,
    ) -> Step:
        """Return (cache, log_prob_NC, token_NC): the likeliest next tokens, the first one best.

        `token_N` are the tokens at `position`; row n continues row parent_N[n] of the step before,
        without `parent_N` row n. The old cache may no longer be used. One candidate is asked for
        by greedy search, which needs no probability: `log_prob_NC` is None then.
        """
        ...


@dataclasses.dataclass(frozen=True)
class GenerationSettings:
    """How to search. `max_new_tokens` counts the end token; one beam is greedy search.

    `length_penalty` and `length_offset` are those of `divisor`. `early_stopping` leaves a source as
    soon as it has as many finished sequences as beams; without it, when no running beam's score
    over the present length beats the worst of them.
    """

    max_new_tokens: int
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False
    length_offset: float = 0.0

    def divisor(self, tokens: int) -> float:
        """Return what the log-probability of so many tokens is divided by.

        It is ((offset + tokens) / (offset + 1)) ** penalty: with an offset of 5 that of Wu et al.
        2016 (arXiv:1609.08144, equation 14), with none fairseq's and transformers'.
        """
        ratio = (self.length_offset + tokens) / (self.length_offset + 1)
        return float(ratio**self.length_penalty)


@dataclasses.dataclass(frozen=True)
class Generated:
    """What was generated for each source.

    `sequences` are the tokens after the start, with the end token where there is one, `scores` the
    sequences' scores (of a beam search; else None), `steps` how often the decoder was called.
    """

    sequences: list[list[int]]
    scores: np.ndarray | None
    steps: int

    @property
    def tokens(self) -> list[list[int]]:
        """The sequences without start, end and padding."""
        special = {BEGIN_ID, PAD_ID, END_ID}
        return [[token for token in row if token not in special] for row in self.sequences]


def generate(decoder: Decoder, source_BS: np.ndarray, settings: GenerationSettings) -> Generated:
    """Generate for a batch of sources padded with `PAD_ID`."""
    search = greedy_search if settings.beams == 1 else beam_search
    return search(decoder, source_BS, settings)


def greedy_search(
    decoder: Decoder, source_BS: np.ndarray, settings: GenerationSettings
) -> Generated:
    """Take the likeliest token; leave when every row has ended."""
    rows, limit = len(source_BS), settings.max_new_tokens
    cache = decoder.start(source_BS, 1, limit)
    written_BT = np.full((rows, limit), PAD_ID, np.int32)
    token_B = np.full(rows, START_ID, np.int32)
    done_B = np.zeros(rows, bool)
    steps = 0
    while steps < limit and not done_B.all():
        cache, _, best_B1 = decoder.step(cache, steps, token_B, None, 1)
        token_B = np.where(done_B, PAD_ID, best_B1[:, 0]).astype(np.int32)
        written_BT[:, steps] = token_B
        done_B |= token_B == END_ID
        steps += 1
    return Generated([_until_end(row_T[:steps]) for row_T in written_BT], None, steps)


def _until_end(row_T: np.ndarray) -> list[int]:
    ends = np.flatnonzero(row_T == END_ID)
    row: list[int] = row_T[: ends[0] + 1 if ends.size else None].tolist()
    return row


@dataclasses.dataclass
class Beams:
    """Sequences of each source, and the sum of log-probabilities or the score of each."""

    token_BWT: np.ndarray
    score_BW: np.ndarray

    def best(self, index_BW: np.ndarray) -> "Beams":
        """Return the sequences of these indices."""
        return Beams(
            np.take_along_axis(self.token_BWT, index_BW[:, :, None], 1),
            np.take_along_axis(self.score_BW, index_BW, 1),
        )

    def joined(self, other: "Beams") -> "Beams":
        """Return both sets of sequences, side by side."""
        return Beams(
            np.concatenate([self.token_BWT, other.token_BWT], 1),
            np.concatenate([self.score_BW, other.score_BW], 1),
        )


def _highest(score_BC: np.ndarray, count: int) -> np.ndarray:
    """The indices of the highest scores, in order; the earlier of equals comes first."""
    return np.argsort(-score_BC, axis=1, kind="stable")[:, :count]


def beam_search(decoder: Decoder, source_BS: np.ndarray, settings: GenerationSettings) -> Generated:
    """Keep the W best running sequences and the W best finished ones; leave when no source can
    improve.

    Of the 2 W best continuations of a source at most W end, so that W can always go on. Only those
    among the first W finish; one that ends further down is dropped.
    """
    rows, width, limit = len(source_BS), settings.beams, settings.max_new_tokens
    cache = decoder.start(source_BS, width, limit)
    running = Beams(
        np.full((rows, width, limit), PAD_ID, np.int32),
        np.where(np.arange(width) == 0, 0, -np.inf).astype(np.float32)[None].repeat(rows, 0),
    )
    finished = Beams(running.token_BWT.copy(), np.full((rows, width), -np.inf, np.float32))
    token_N, parent_N = np.full(rows * width, START_ID, np.int32), None
    open_B = np.ones(rows, bool)
    steps = 0
    while steps < limit and open_B.any():
        cache, log_prob_NC, token_NC = decoder.step(cache, steps, token_N, parent_N, 2 * width)
        assert log_prob_NC is not None
        extended, parent_BC = _continuations(running, steps, log_prob_NC, token_NC)
        steps += 1
        ends_BC = extended.token_BWT[:, :, steps - 1] == END_ID
        unended = Beams(extended.token_BWT, np.where(ends_BC, -np.inf, extended.score_BW))
        goes_on_BW = _highest(unended.score_BW, width)
        running = unended.best(goes_on_BW)
        finishes_BC = (ends_BC | (steps == limit)) & open_B[:, None]
        finished = _with_finished(finished, extended, finishes_BC, settings.divisor(steps))
        open_B &= _can_improve(running, finished, steps, settings)
        token_N = running.token_BWT[:, :, steps - 1].reshape(-1)
        offset_B1 = width * np.arange(rows)[:, None]
        parent_N = (offset_B1 + np.take_along_axis(parent_BC, goes_on_BW, 1)).reshape(-1)
    sequences = [_until_end(row_T[:steps]) for row_T in finished.token_BWT[:, 0]]
    return Generated(sequences, finished.score_BW[:, 0], steps)


def _continuations(
    running: Beams, position: int, log_prob_NC: np.ndarray, token_NC: np.ndarray
) -> tuple[Beams, np.ndarray]:
    """Return each source's 2 W best continuations by one token, and the beams they continue."""
    rows, width = running.score_BW.shape
    candidates = token_NC.shape[1]
    score_BWC = running.score_BW[:, :, None] + log_prob_NC.reshape(rows, width, candidates)
    score_BX = score_BWC.reshape(rows, -1)
    best_BC = _highest(score_BX, 2 * width)
    parent_BC = best_BC // candidates
    token_BCT = np.take_along_axis(running.token_BWT, parent_BC[:, :, None], 1)
    token_BCT[:, :, position] = np.take_along_axis(token_NC.reshape(rows, -1), best_BC, 1)
    return Beams(token_BCT, np.take_along_axis(score_BX, best_BC, 1)), parent_BC


def _with_finished(
    finished: Beams, extended: Beams, finishes_BC: np.ndarray, divisor: float
) -> Beams:
    """Return the W best of the finished sequences and of those that finish now, by score."""
    width = finished.score_BW.shape[1]
    score_BC = np.where(finishes_BC, extended.score_BW / np.float32(divisor), -np.inf)
    score_BC[:, width:] = -np.inf
    joined = finished.joined(Beams(extended.token_BWT, score_BC))
    return joined.best(_highest(joined.score_BW, width))


def _can_improve(
    running: Beams, finished: Beams, steps: int, settings: GenerationSettings
) -> np.ndarray:
    """Whether a source's search goes on, by the rule of `GenerationSettings`."""
    worst_B = finished.score_BW.min(axis=1)  # minus infinity while fewer than W have finished
    hoped_B = running.score_BW[:, 0] / np.float32(settings.divisor(steps))
    can_B: np.ndarray = np.isneginf(worst_B) if settings.early_stopping else hoped_B > worst_B
    return can_B
