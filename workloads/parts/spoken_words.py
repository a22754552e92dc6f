"""Built-in speech: sentences of invented words, spoken by a synthesiser of formants.

A word is written as it is spoken, a letter a phone. A phone has targets for three formants and for
how much of the source is voice and how much is noise; between phones the targets glide. Speakers
differ in the length of their vocal tract, pitch, tempo and breath, those of validation and test
from all that train; each utterance has its own melody, loudness, echoes and background noise.

Everything is sums, products, quotients, comparisons, roundings and square roots, which IEEE 754
rounds alike everywhere, of NumPy's own random bits; so the samples are the same bytes on every
machine.

Legend: N utterances, S samples, K blocks of `BLOCK` samples, L formants.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from algoperf.data.validation_seed import seed_words

RATE = 8000
BLOCK = 40  # samples: 5 ms
BLOCKS = 288  # of the longest utterance, 1.44 s
CHUNK_ROWS = 256  # that are synthesised at a time
ROWS = {"train": 2048, "validation": 256, "test": 256}
SPEAKERS = {"train": 48, "validation": 12, "test": 12}
WORDS, MOST_WORDS = 32, 4
LEXICON_SEED = 5
VOWELS = {  # formants in Hz of an average speaker (after Peterson and Barney 1952), voice, noise
    "a": (730, 1090, 2440, 1.0, 0.0),
    "e": (530, 1840, 2480, 0.9, 0.0),
    "i": (290, 2250, 3000, 0.8, 0.0),
    "o": (570, 840, 2410, 0.9, 0.0),
    "u": (310, 870, 2240, 0.8, 0.0),
}
CONSONANTS = {
    "f": (1200, 2200, 3300, 0.0, 0.35),
    "k": (300, 1500, 2300, 0.0, 0.8),
    "l": (360, 1300, 2700, 0.5, 0.0),
    "m": (250, 950, 2200, 0.4, 0.0),
    "n": (250, 1600, 2600, 0.4, 0.0),
    "p": (300, 700, 2100, 0.0, 0.6),
    "r": (330, 1060, 1500, 0.5, 0.0),
    "s": (2300, 3000, 3600, 0.0, 0.7),
    "t": (300, 2000, 3200, 0.0, 0.8),
}
STOPS = frozenset("kpt")  # silent but for their ends
PHONES = {**VOWELS, **CONSONANTS}
SHAPES = ("cv", "cvc", "vcv", "cvcv", "cvcvc")
Array = NDArray[Any]  # of float64


class Speech(NamedTuple):
    """Utterances of a split.

    Attributes:
        samples_NS: Samples of 16 bits at `RATE`, zeros beyond an utterance's end.
        lengths_N: The number of samples of each.
        transcripts: The words of each.
    """

    samples_NS: NDArray[np.int16]
    lengths_N: NDArray[np.int32]
    transcripts: list[str]


@functools.cache
def lexicon() -> tuple[str, ...]:
    """Return the words, of which no two are the same."""
    generator = np.random.default_rng(LEXICON_SEED)
    letters = {"c": sorted(CONSONANTS), "v": sorted(VOWELS)}
    words: dict[str, None] = {}
    while len(words) < WORDS:
        shape = SHAPES[generator.integers(len(SHAPES))]
        chosen = [letters[kind][generator.integers(len(letters[kind]))] for kind in shape]
        words["".join(chosen)] = None
    return tuple(words)


@functools.lru_cache(maxsize=len(ROWS))  # for both workloads
def generate(split: str, seed: int, validation_seed: int | None = None) -> Speech:
    """Return the utterances of a split, which nobody may change.

    Args:
        split: 'train', 'validation' or 'test', which have different speakers.
        seed: The seed of the utterances.
        validation_seed: The seed of other speakers and utterances than the usual ones for
            validation and test; None for the usual ones.
    """
    stream = list(ROWS).index(split)
    secret = seed_words(split, validation_seed)
    generator = np.random.default_rng(np.random.SeedSequence([seed, stream, *secret]))
    speakers = [_speaker(generator) for _ in range(SPEAKERS[split])]
    samples, lengths, transcripts = [], [], []
    for start in range(0, ROWS[split], CHUNK_ROWS):
        count = min(CHUNK_ROWS, ROWS[split] - start)
        plans = [
            _plan(speakers[generator.integers(len(speakers))], generator) for _ in range(count)
        ]
        sounds_NS = _recorded(_synthesised(plans, generator), plans, generator)
        samples.append(sounds_NS)
        lengths += [len(plan.targets) * BLOCK for plan in plans]
        transcripts += [plan.transcript for plan in plans]
    speech = Speech(np.concatenate(samples), np.array(lengths, np.int32), transcripts)
    speech.samples_NS.flags.writeable = speech.lengths_N.flags.writeable = False
    return speech


class _Speaker(NamedTuple):
    """What a speaker is like: factors of formants and durations, pitch in Hz, share of breath."""

    tract: float
    tempo: float
    pitch: float
    breath: float


class _Plan(NamedTuple):
    """What is to be said: in each block formants in Hz, voice and noise, (K, 5), and the pitch."""

    transcript: str
    targets: Array
    pitch: Array
    breath: float


def _speaker(generator: np.random.Generator) -> _Speaker:
    return _Speaker(
        tract=float(generator.uniform(0.85, 1.18)),
        tempo=float(generator.uniform(0.8, 1.25)),
        pitch=float(generator.uniform(85, 240)),
        breath=float(generator.uniform(0.0, 0.12)),
    )


def _plan(speaker: _Speaker, generator: np.random.Generator) -> _Plan:
    words: list[str] = []
    blocks = [_silence(int(generator.integers(4, 16)))]
    wanted = generator.integers(2, MOST_WORDS + 1)
    for index in generator.integers(WORDS, size=wanted).tolist():
        word = lexicon()[index]
        spoken = [_phone(letter, speaker, generator) for letter in word]
        if words:
            spoken.insert(0, _silence(int(generator.integers(5, 13))))
        if sum(map(len, blocks + spoken)) > BLOCKS - 16:
            break
        blocks += spoken
        words.append(word)
    blocks.append(_silence(int(generator.integers(4, 16))))
    targets = np.concatenate(blocks)
    targets[:, :3] = _smoothed(_held(targets[:, :3]), 4)
    targets[:, 3:] = _smoothed(targets[:, 3:], 1)
    across = np.arange(len(targets)) / len(targets) - 0.5
    slope, bend = generator.uniform(-0.25, 0.1), generator.uniform(-0.4, 0.4)
    pitch = speaker.pitch * (1 + slope * across + bend * across * across)
    return _Plan(" ".join(words), targets, pitch, speaker.breath)


def _silence(blocks: int) -> Array:
    """Blocks without a source; formants of 0 stand for those of the neighbours."""
    return np.zeros((blocks, 5))


def _phone(letter: str, speaker: _Speaker, generator: np.random.Generator) -> Array:
    shortest, longest = (14, 23) if letter in VOWELS else (10, 17)
    count = int(generator.integers(shortest, longest) * speaker.tempo)
    values = np.array(PHONES[letter], np.float64)
    values[:3] *= speaker.tract * generator.uniform(0.95, 1.05, 3)
    blocks = np.repeat(values[None], count, axis=0)
    if letter in STOPS:
        blocks[: count - 5, 3:] = 0
    return blocks


def _held(formants_KL: Array) -> Array:
    """Formants of 0 become those of the phone before, at the beginning those of the first."""
    spoken_K = formants_KL[:, 0] > 0
    last_K = np.maximum.accumulate(np.where(spoken_K, np.arange(len(spoken_K)), -1))
    held: Array = formants_KL[np.where(last_K < 0, np.argmax(spoken_K), last_K)]
    return held


def _smoothed(values_KL: Array, reach: int) -> Array:
    """The mean over each block and so many on either side."""
    padded = np.concatenate([values_KL[:1]] * reach + [values_KL] + [values_KL[-1:]] * reach)
    parts = [padded[shift : shift + len(values_KL)] for shift in range(2 * reach + 1)]
    mean: Array = sum(parts[1:], parts[0]) / len(parts)
    return mean


def _cosine(angle: Array) -> Array:
    """The cosine of angles from 0 to pi, to 2e-4, by a polynomial: no library's own rounding."""
    square = angle * angle
    value = 1 - square / 132 * (1 - square / 182)
    for divisor in (90, 56, 30, 12, 2):
        value = 1 - square / divisor * value
    return value


def _synthesised(plans: list[_Plan], generator: np.random.Generator) -> Array:
    """What the speakers' mouths give, (S, N): a source through three resonators side by side."""
    count = len(plans)
    targets_KN5 = np.zeros((BLOCKS, count, 5))
    pitch_KN = np.zeros((BLOCKS, count))
    for row, plan in enumerate(plans):
        targets_KN5[: len(plan.targets), row] = plan.targets
        pitch_KN[: len(plan.targets), row] = plan.pitch
    formants_KLN = np.minimum(targets_KN5[..., :3].transpose(0, 2, 1), 0.47 * RATE)
    damping_KLN = 3.14159265 * (50 + 0.06 * formants_KLN) / (2 * RATE)
    radius_KLN = (1 - damping_KLN) / (1 + damping_KLN)
    before_KLN = 2 * radius_KLN * _cosine(2 * 3.14159265 * formants_KLN / RATE)
    twice_KLN = -radius_KLN * radius_KLN
    gain_KLN = (1 - radius_KLN) * np.array([1.0, 0.8, 0.6])[:, None]
    breath_N = np.array([plan.breath for plan in plans])
    phase_N = generator.random(count)
    steps_B1 = np.arange(1, BLOCK + 1)[:, None]
    last_LN, second_LN, product_LN = (np.zeros((3, count)) for _ in range(3))
    sounds_SN = np.empty((BLOCKS * BLOCK, count))
    for block in range(BLOCKS):
        phase_BN = phase_N + steps_B1 * (pitch_KN[block] / RATE)
        phase_BN -= np.floor(phase_BN)
        phase_N = phase_BN[-1]
        noise_BN = generator.random((BLOCK, count)) - 0.5
        voice_N, hiss_N = targets_KN5[block, :, 3], targets_KN5[block, :, 4]
        pulse_BN = 4 * phase_BN * (1 - phase_BN) * (1 - 2 * phase_BN)
        source_BN = voice_N * (pulse_BN + breath_N * noise_BN) + hiss_N * noise_BN
        driven_BLN = gain_KLN[block] * source_BN[:, None]
        resonant_BLN = np.empty_like(driven_BLN)
        before_LN, twice_LN = before_KLN[block], twice_KLN[block]
        for step in range(BLOCK):
            np.multiply(before_LN, last_LN, out=product_LN)
            np.multiply(twice_LN, second_LN, out=second_LN)
            second_LN += product_LN
            second_LN += driven_BLN[step]
            last_LN, second_LN = second_LN, last_LN
            resonant_BLN[step] = last_LN
        # Neighbouring resonators are out of phase between their peaks.
        sounds_SN[block * BLOCK : (block + 1) * BLOCK] = (
            resonant_BLN[:, 0] - resonant_BLN[:, 1] + resonant_BLN[:, 2]
        )
    return sounds_SN


def _recorded(
    sounds_SN: Array, plans: list[_Plan], generator: np.random.Generator
) -> NDArray[np.int16]:
    """What a microphone in a room gives, (N, S): with echoes, noise and a loudness of its own."""
    recorded_NS = np.zeros(sounds_SN.T.shape, np.int16)
    for row, plan in enumerate(plans):
        length = len(plan.targets) * BLOCK
        direct_S = sounds_SN[:length, row]
        heard_S = np.diff(direct_S, prepend=0.0) * 0.7 + direct_S * 0.3
        for _ in range(3):
            delay, strength = int(generator.integers(60, 480)), generator.uniform(0, 0.3)
            heard_S[delay:] += strength * heard_S[: length - delay].copy()
        loudness = np.sqrt((heard_S * heard_S).sum() / length)
        noise_S = generator.random(length) - 0.5
        noise_S = noise_S + generator.uniform(0, 1) * np.concatenate([[0.0], noise_S[:-1]])
        heard_S = heard_S + generator.uniform(0.02, 0.5) * loudness * noise_S
        scale = generator.uniform(0.1, 0.9) * 32767 / np.abs(heard_S).max()
        recorded_NS[row, :length] = np.round(heard_S * scale)
    return recorded_NS
