"""The rows of the LibriSpeech workloads: built-in speech at mini, and recordings of a folder.

Legend: N rows, S samples of the longest, L labels of the longest, K masks.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from algoperf.data.formats import speech as recordings
from algoperf.data.rows import DecodedRows
from algoperf.errors import UserError
from algoperf.workload import SPLITS, ArrayRows, Data, Rows, Target
from workloads.parts import log_mel, spoken_words, targets
from workloads.parts.spec_augment import SpecAugment
from workloads.parts.speech_facts import MOST_LABELS
from workloads.parts.unigrams import Special, Unigrams

BLANK_ID, UNKNOWN_ID, END_ID = range(3)
UNKNOWN = "\u2047"
INPUTS = ("inputs", "lengths", "masks")
# Words and utterances of LibriSpeech's dev-clean with dev-other, and of test-clean.
SPLIT_SIZES = {"validation": (54_402 + 50_948, 2703 + 2864), "test": (52_576, 2620)}


class Vocabulary(Protocol):
    """What texts are written in; labels are its tokens, of which 0 is the blank."""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text and the end token."""
        ...

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Return the texts of lists of tokens, without end tokens and blanks."""
        ...


class Characters:
    """A vocabulary of the characters of some texts.

    Args:
        texts: The texts.
        size: The most tokens.

    Raises:
        UserError: The texts have more characters.
    """

    def __init__(self, texts: Sequence[str], size: int) -> None:
        self._characters = sorted(set().union(*texts))
        self._ids = {character: END_ID + 1 + i for i, character in enumerate(self._characters)}
        if END_ID + 1 + len(self._characters) > size:
            raise UserError(
                f"the training transcripts have {len(self._characters)} different characters, and "
                f"the vocabulary holds {size - END_ID - 1}: write them in one alphabet"
            )

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text and the end token."""
        return [*(self._ids.get(character, UNKNOWN_ID) for character in text), END_ID]

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Return the texts of lists of tokens, without end tokens and blanks."""
        written = ["", UNKNOWN, "", *self._characters]
        known = len(written)
        return [
            "".join(written[token] if token < known else UNKNOWN for token in row).strip()
            for row in tokens
        ]


def _unigrams(texts: Sequence[str], size: int) -> Unigrams:
    return Unigrams(texts, size, Special(BLANK_ID, UNKNOWN_ID, END_ID))


KINDS: Mapping[str, Callable[[Sequence[str], int], Vocabulary]] = {
    "characters": Characters,
    "unigrams": _unigrams,
}


def load(
    source: str,
    kind: str,
    vocabulary: int,
    bins: int,
    frequency_masks: int,
    time_masks: int,
    most_bins: int,
    most_time: float,
    rate: int | None = None,
    seconds: float = 20.0,
    characters: int = 256,
    seed: int = 0,
    skip_bad_rows: bool = False,
    validation_seed: int | None = None,
) -> Data:
    """Return utterances and the tokens of their transcripts.

    Args:
        source: 'builtin' or a folder with recordings (see `algoperf.data.formats.speech`).
        kind: What a token is: one of `KINDS`.
        vocabulary: The most tokens.
        bins: The number of bins of the features, for the masks.
        frequency_masks: As of `SpecAugment`, like the next three.
        time_masks: Likewise.
        most_bins: Likewise.
        most_time: Likewise.
        rate: Samples a second; None takes that of the recordings, if the front end does
            (`log_mel.takes_rate`).
        seconds: The longest recording that is not dropped.
        characters: The longest transcript that is not dropped.
        seed: The seed of the built-in speech, and of a held-out split.
        skip_bad_rows: Whether recordings that cannot be used are left out and counted.
        validation_seed: As of `spoken_words.generate`.

    Returns:
        For each split 'inputs', int16 (N, S), of which 'lengths' are those of the rows; 'targets',
        int32 (N, L), padded with 0, the blank; and 'masks', int16 (N, K, 2), which training draws
        anew. Notes count what was 'dropped', and the rows whose labels their frames cannot hold,
        'infeasible', by split, and have the share of the samples that are 'padding'.

    Raises:
        UserError: The recordings cannot be used, or a package to read them is missing.
    """
    notes: dict[str, Any] = {}
    if source == "builtin":
        rate = spoken_words.RATE
        spoken = {split: spoken_words.generate(split, seed, validation_seed) for split in SPLITS}
        texts = {split: each.transcripts for split, each in spoken.items()}
    else:
        limits = recordings.Limits(rate, seconds, characters)
        recorded = recordings.find(Path(source), limits, seed, skip_bad_rows)
        rate, notes = recorded.rate, dict(recorded.notes)
        if not log_mel.takes_rate(rate):
            *usual, last = map(str, log_mel.USUAL_RATES)
            raise UserError(
                f"{recorded.splits['train'][0].path}: a sampling rate of {rate} Hz, at which "
                "windows of 25 ms every 10 ms are no whole samples; convert the files to a "
                f"multiple of 400 Hz: {', '.join(usual)} or {last}"
            )
        texts = {
            split: [each.transcript for each in utterances]
            for split, utterances in recorded.splits.items()
        }
    words = KINDS[kind](texts["train"], vocabulary)
    labels = {split: [words.encode(text) for text in each] for split, each in texts.items()}
    masks = frequency_masks + time_masks
    rows: dict[str, Rows] = {}
    samples: dict[str, list[int]] = {}
    if source == "builtin":
        width = max(len(row) for each in labels.values() for row in each)
        for split, speech in spoken.items():
            samples[split] = speech.lengths_N.tolist()
            rows[split] = ArrayRows(
                {
                    "inputs": speech.samples_NS,
                    "lengths": speech.lengths_N,
                    "targets": np.stack([_padded(row, width) for row in labels[split]]),
                    "masks": np.zeros((len(speech.lengths_N), masks, 2), np.int16),
                }
            )
    else:
        kept = _kept(source, recorded.splits, labels, notes)
        rows = _decoded(kept, labels, masks)
        samples = {split: [each.samples for each in kept[split]] for split in SPLITS}
    hop = rate // 100
    notes["padding"] = {
        split: round(1 - sum(samples[split]) / (len(each) * each.fields["inputs"].shape[0]), 4)
        for split, each in rows.items()
    }
    notes["infeasible"] = {
        split: sum(map(functools.partial(_is_infeasible, hop), samples[split], labels[split]))
        for split in SPLITS
    }
    if any(notes["infeasible"].values()):
        notes["remarks"] = [
            "utterances whose transcripts have more labels than frames can hold: "
            + ", ".join(f"{count} ({split})" for split, count in notes["infeasible"].items())
            + "; their loss counts as 0"
        ]
    return Data(
        rows,
        model={"rate": rate, "frequency_masks": frequency_masks},
        notes=notes,
        augmentation=SpecAugment(frequency_masks, time_masks, bins, most_bins, most_time, hop),
        decode=words.decode,
    )


def _padded(tokens: Sequence[int], width: int) -> NDArray[np.int32]:
    padded = np.full(width, BLANK_ID, np.int32)
    padded[: len(tokens)] = tokens
    return padded


def _is_infeasible(hop: int, samples: int, tokens: Sequence[int]) -> bool:
    """Whether an utterance's frames, after subsampling, are too few for its labels."""
    frames = log_mel.halved(log_mel.halved(-(-samples // hop)))
    repeats = sum(one == other for one, other in itertools.pairwise(tokens))
    return len(tokens) + repeats > frames


def _kept(
    source: str,
    splits: Mapping[str, Sequence[recordings.Utterance]],
    labels: dict[str, list[list[int]]],
    notes: dict[str, Any],
) -> dict[str, list[recordings.Utterance]]:
    """Drop, and count, what has too many labels."""
    kept = {}
    for split, utterances in splits.items():
        fits = [len(tokens) <= MOST_LABELS for tokens in labels[split]]
        if not all(fits):
            reasons = notes["dropped"].setdefault(split, {})
            reasons[f"over {MOST_LABELS} tokens"] = fits.count(False)
        kept[split] = [each for each, fit in zip(utterances, fits, strict=True) if fit]
        recordings.check_left(source, split, kept[split], notes["dropped"].get(split, {}))
        labels[split] = [each for each, fit in zip(labels[split], fits, strict=True) if fit]
    return kept


def _decoded(
    splits: Mapping[str, Sequence[recordings.Utterance]],
    labels: Mapping[str, Sequence[Sequence[int]]],
    masks: int,
) -> dict[str, Rows]:
    """Rows that are read from their files when they are asked for."""
    longest = max(each.samples for utterances in splits.values() for each in utterances)
    width = max(len(tokens) for rows in labels.values() for tokens in rows)
    fields = {
        "inputs": ((longest,), np.int16),
        "lengths": ((), np.int32),
        "targets": ((width,), np.int32),
        "masks": ((masks, 2), np.int16),
    }

    def read(utterances: Sequence[recordings.Utterance], tokens: Any, index: int) -> dict[str, Any]:
        recorded = utterances[index].read()
        samples = np.zeros(longest, np.int16)
        samples[: len(recorded)] = recorded
        return {
            "inputs": samples,
            "lengths": np.int32(len(recorded)),
            "targets": _padded(tokens[index], width),
            "masks": np.zeros((masks, 2), np.int16),
        }

    return {
        split: DecodedRows(
            len(utterances),
            fields,
            functools.partial(read, utterances, labels[split]),
            recordings.fingerprint(utterances),
            lengths={
                "inputs": np.array([each.samples for each in utterances]),
                "targets": np.array([len(tokens) for tokens in labels[split]]),
            },
        )
        for split, utterances in splits.items()
    }


def published(validation: float, test: float) -> dict[str, Target]:
    """Return AlgoPerf's targets, on the scale of `wer_as_published`, by source of data.

    The provenance says what they are as plain word error rates of the whole splits.
    """
    plain = [
        value * (words + 2 * utterances) / words
        for value, (words, utterances) in zip((validation, test), SPLIT_SIZES.values(), strict=True)
    ]
    provenance = (
        f"{targets.ALGOPERF}; without the two words more that it counts in every utterance, WER "
        f"{plain[0]:.4f} (dev-clean and dev-other) and {plain[1]:.4f} (test-clean)"
    )
    return {"folder": Target(validation=validation, test=test, provenance=provenance)}
