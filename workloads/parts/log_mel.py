"""The front end of speech recognition: from samples to normalised log-mel features.

As AlgoPerf has it, after HTK (Young et al. 2006, The HTK Book, chapter 5): frames of 25 ms every
10 ms, of which each sample is less 0.97 times the one before it and the first is times 0.03; a
periodic Hann window; the power spectrum; triangles on the mel scale, 1127 ln(1 + f / 700), from
125 Hz to 7,600 Hz or, at lower rates, to 95 % of what the rate holds; the logarithm of at least
1e-5; and fixed means and deviations.

Samples beyond an utterance's end are 0. A frame that begins before the end is one of its frames;
what a frame holds does not depend on how far the arrays go beyond.

A quiet bin beside loud ones is what is left of large terms, so the models, which compute in
float32, do most of the sum without rounding: 100 times a sample after pre-emphasis is a whole
number below 2^23; it is taken apart into a multiple of 2^15 and a rest, and so are the waves that
it is multiplied by. The products of the first parts add up exactly, and those with the rests are
2^8 times smaller. So features are within some 1e-6 of their definition in both frameworks, where
plain sums, in the order of each library, were 2e-5 to 1e-4 apart.

Legend: B utterances, S samples, F frames, W samples of a window, N half of them, K numbers of a
spectrum, M bins.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PRE_EMPHASIS = 0.97
FLOOR = 1e-5
LOWEST_HZ, HIGHEST_HZ, HIGHEST_SHARE = 125.0, 7600.0, 0.95
SAMPLE_SCALE = 2.0**-15  # of samples of 16 bits
# A sample after pre-emphasis, times KEPT, is KEPT of it less LOST of the one before it.
KEPT = 100
LOST = round(KEPT * PRE_EMPHASIS)
COARSE = 2.0**15  # Of such numbers, what is rounded to a multiple of this has 9 bits.
PIECES = 5  # of a window, each half as long as a hop
USUAL_RATES = (8_000, 12_000, 16_000, 24_000, 32_000, 48_000)  # that `takes_rate` takes
Array = NDArray[np.float64]
# Of log-mel features of LibriSpeech at 16 kHz, as AlgoPerf has them.
LIBRISPEECH_MEAN = (
    -7.60478, -7.12062, -6.88642, -6.87058, -6.96677, -7.10841, -6.95280, -6.78399,
    -6.61955, -6.48763, -6.41207, -6.39405, -6.42449, -6.39937, -6.51583, -6.71380,
    -6.84769, -6.98850, -6.92214, -7.14615, -7.20404, -7.05376, -7.31404, -7.12232,
    -7.30251, -7.12121, -7.24257, -7.17305, -7.09794, -7.08875, -6.98499, -6.87877,
    -6.76028, -6.63009, -6.51458, -6.42451, -6.35651, -6.31788, -6.26608, -6.24683,
    -6.28215, -6.19084, -6.24844, -6.14726, -6.09247, -6.01710, -5.92504, -5.85358,
    -5.82091, -5.81189, -5.80784, -5.77146, -5.74537, -5.77057, -5.77656, -5.78317,
    -5.79541, -5.79948, -5.80235, -5.80471, -5.81682, -5.88448, -5.97271, -6.04447,
    -6.12849, -6.22576, -6.31575, -6.39061, -6.49286, -6.54985, -6.60543, -6.65084,
    -6.66918, -6.67269, -6.68423, -6.69746, -6.75472, -6.79491, -6.86342, -6.94187,
)  # fmt: skip
LIBRISPEECH_STD = (
    3.43533, 3.59629, 3.70125, 3.73692, 3.75351, 3.69363, 3.69225, 3.76415, 3.84197,
    3.89998, 3.92942, 3.93174, 3.91396, 3.90316, 3.86920, 3.81551, 3.76450, 3.70991,
    3.69651, 3.60038, 3.54932, 3.54651, 3.45004, 3.47128, 3.40846, 3.44081, 3.41049,
    3.42176, 3.43129, 3.41992, 3.43058, 3.43827, 3.45804, 3.48180, 3.49587, 3.50368,
    3.50476, 3.49887, 3.49306, 3.48229, 3.45943, 3.46128, 3.45591, 3.47554, 3.49715,
    3.53266, 3.57052, 3.59203, 3.59691, 3.59135, 3.58659, 3.58268, 3.58377, 3.58958,
    3.58193, 3.58379, 3.58612, 3.58896, 3.59221, 3.59395, 3.58566, 3.58841, 3.59210,
    3.58705, 3.58066, 3.57311, 3.56175, 3.54981, 3.55274, 3.54754, 3.53878, 3.52562,
    3.50318, 3.49227, 3.48796, 3.47256, 3.45584, 3.43518, 3.42843, 3.42992,
)  # fmt: skip


class Waves(NamedTuple):
    """Windowed cosines or sines, (N, K): `whole` is `coarse`, of 8 bits, and `fine` together."""

    whole: NDArray[np.float32]
    coarse: NDArray[np.float32]
    fine: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """The settings of the front end, and the matrices that follow from them.

    Attributes:
        rate: Samples a second.
        mean: The mean of each bin, as many as there are bins.
        std: The standard deviation of each bin.
    """

    rate: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def bins(self) -> int:
        """The number M of mel bins."""
        return len(self.mean)

    @property
    def window(self) -> int:
        """Samples of a frame."""
        return self.rate * 25 // 1000

    @property
    def hop(self) -> int:
        """Samples from a frame to the next."""
        return self.rate // 100

    @property
    def fft(self) -> int:
        """Points of the Fourier transform: a power of 2 above the window."""
        return 1 << self.window.bit_length()

    def frame_count(self, samples: int) -> int:
        """Return how many frames begin before the end of so many samples."""
        return -(-samples // self.hop)

    @functools.cached_property
    def window_weights(self) -> Array:
        """Hann's window, periodic."""
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)

    @functools.cached_property
    def waves(self) -> tuple[Waves, Waves]:
        """What the real and the imaginary parts of a frame's windowed transform are made with, of
        the sums and the differences of samples on both sides of its middle.

        The transform is that of a frame turned round by half its length, which changes no power.
        A frame's first sample has no part in it: the window makes it 0. So each frame's own
        pre-emphasis is that of the whole utterance.
        """
        distances_N = np.arange(self.window // 2)
        numbers_K = np.arange(self.fft // 2 + 1)
        angles_NK = 2 * np.pi * (distances_N[:, None] * numbers_K % self.fft) / self.fft
        scale = SAMPLE_SCALE / KEPT
        weights_N1 = scale * self.window_weights[self.window // 2 :][:, None]
        real_NK = weights_N1 * np.cos(angles_NK)
        real_NK[0] /= 2  # The middle is on both sides.
        return _split(real_NK, scale), _split(weights_N1 * np.sin(angles_NK), scale)

    @functools.cached_property
    def mel_weights(self) -> NDArray[np.float32]:
        """The weight of each number of the power spectrum in each bin; the lowest, 0 Hz, has
        none.
        """
        highest = min(HIGHEST_HZ, HIGHEST_SHARE * self.rate / 2)
        edges = np.linspace(_mel(LOWEST_HZ), _mel(highest), self.bins + 2)
        below_M, centre_M, above_M = edges[:-2], edges[1:-1], edges[2:]
        numbers_K1 = _mel(np.linspace(0, self.rate / 2, self.fft // 2 + 1))[:, None]
        rising = (numbers_K1 - below_M) / (centre_M - below_M)
        falling = (above_M - numbers_K1) / (above_M - centre_M)
        weights_KM = np.maximum(np.minimum(rising, falling), 0)
        weights_KM[0] = 0
        return weights_KM.astype(np.float32)


def takes_rate(rate: int) -> bool:
    """Return whether the models can compute the features of recordings at a rate: a window has to
    be `PIECES` half hops, and to have a middle.

    Args:
        rate: Samples a second. All multiples of 400 are taken.
    """
    front = FrontEnd(rate, (), ())
    half_hop, rest = divmod(front.hop, 2)
    is_whole = rest == 0 and front.window == PIECES * half_hop
    return is_whole and front.window > 0 and front.window % 2 == 0


def _split(wave_NK: Array, largest: float) -> Waves:
    """A wave, its first 8 bits below a power of two, and the rest."""
    unit = 2.0 ** (math.ceil(math.log2(largest)) - 8)
    coarse_NK = np.round(wave_NK / unit) * unit
    return Waves(*(each.astype(np.float32) for each in (wave_NK, coarse_NK, wave_NK - coarse_NK)))


def _mel(hertz: float | Array) -> Array:
    mel: Array = 1127.0 * np.log1p(np.asarray(hertz) / 700.0)
    return mel


def padded_frames(frames: int) -> int:
    """Return how many frames the models compute for the longest utterance of a batch.

    They are one or two more than its own: a first convolution with windows of 3 and strides of 2
    reaches so far beyond.
    """
    return frames + 1 + frames % 2


def halved(frames: int) -> int:
    """Return the number of frames after a convolution with strides of 2."""
    return -(-frames // 2)


def features(front: FrontEnd, samples_S: NDArray[np.int16]) -> Array:
    """Return the features of an utterance, (F, M), step by step in float64, as a check.

    Args:
        front: The settings.
        samples_S: The samples.
    """
    count = front.frame_count(len(samples_S))
    padded = np.pad(samples_S * SAMPLE_SCALE, (0, front.window))
    frames = np.stack([padded[k * front.hop :][: front.window] for k in range(count)])
    emphasised = frames - PRE_EMPHASIS * np.pad(frames, ((0, 0), (1, 0)))[:, :-1]
    emphasised[:, 0] = frames[:, 0] * (1 - PRE_EMPHASIS)
    power = np.abs(np.fft.rfft(emphasised * front.window_weights, front.fft)) ** 2
    bins = np.log(np.maximum(power @ front.mel_weights.astype(np.float64), FLOOR))
    normalised: Array = (bins - np.array(front.mean)) / np.array(front.std)
    return normalised
