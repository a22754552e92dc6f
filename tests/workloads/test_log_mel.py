"""The front end of speech recognition: equal to its definition, to transformers', and in both
frameworks.
"""

import jax
import numpy as np
import pytest
import torch
from transformers import audio_utils

from workloads.parts import log_mel, spec_augment, speech_jax, speech_torch
from workloads.parts.log_mel import FrontEnd
from workloads.parts.positions import sine_positions

MEAN, STD = log_mel.LIBRISPEECH_MEAN, log_mel.LIBRISPEECH_STD
FRONTS = {
    "16 kHz": FrontEnd(16_000, MEAN, STD),
    "8 kHz": FrontEnd(8_000, (-4.5,) * 40, (2.8,) * 40),
}


@pytest.fixture(params=FRONTS)
def front(request):
    return FRONTS[request.param]


def sounds(front, lengths, beyond=0):
    """Tones that glide and fade, some noise, and other samples beyond each one's end."""
    rng = np.random.default_rng(0)
    size = max(lengths) + beyond
    time_S = np.arange(size) / front.rate
    rows = []
    for row, length in enumerate(lengths):
        tone_S = np.sin(2 * np.pi * (300 + 900 * row + 2000 * time_S) * time_S)
        fading_S = np.exp(-time_S * 6) * (tone_S + 0.02 * rng.standard_normal(size))
        samples_S = np.round(fading_S * 20_000).astype(np.int16)
        samples_S[length:] = rng.integers(-9000, 9000, size - length)
        rows.append(samples_S)
    return np.stack(rows), np.array(lengths, np.int32)


def in_frameworks(front, samples_BS, lengths_B):
    """Features and numbers of frames, by PyTorch and by JAX."""
    masks = np.zeros((len(lengths_B), 2, 2), np.int16)
    module = speech_torch.LogMel(front, 1).eval()
    given = (samples_BS, lengths_B, masks)
    in_torch = module(tuple(map(torch.from_numpy, given)))
    in_jax = jax.jit(lambda *inputs: speech_jax.log_mel_features(front, inputs))(*given)
    return [tuple(map(np.asarray, each)) for each in (in_torch, in_jax)]


def expect_close(features, expected):
    """As the definition, of which float32 alone would lose more where a bin is quiet."""
    np.testing.assert_allclose(features, expected, rtol=0, atol=5e-6)


def test_the_settings_are_the_published_ones():
    front = FRONTS["16 kHz"]
    assert (front.window, front.hop, front.fft, front.bins) == (400, 160, 512, 80)
    assert (FRONTS["8 kHz"].window, FRONTS["8 kHz"].hop, FRONTS["8 kHz"].fft) == (200, 80, 256)
    assert [front.frame_count(each) for each in (1, 160, 161, 320_000)] == [1, 1, 2, 2000]


def test_rates_that_are_taken():
    """Five pieces of half a hop are a window, which has a middle."""
    rates = range(25, 50_000, 25)
    taken = [rate for rate in rates if log_mel.takes_rate(rate)]
    assert {*log_mel.USUAL_RATES, *range(400, 50_000, 400)} <= set(taken)
    for rate in rates:
        front = FrontEnd(rate, (0.0,), (1.0,))
        pieces = [front.window / 5, front.hop / 2]
        fits = pieces[0] == pieces[1] == int(pieces[0]) > 0 and front.window % 2 == 0
        assert (rate in taken) == fits, rate


def test_the_definition_is_transformers(front):
    highest = min(7600, 0.475 * front.rate)
    filters = audio_utils.mel_filter_bank(
        front.fft // 2 + 1,
        front.bins,
        125,
        highest,
        front.rate,
        norm=None,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    np.testing.assert_allclose(front.mel_weights, filters, atol=1e-6)
    samples_BS, _ = sounds(front, [front.rate // 2])
    samples_S = samples_BS[0]
    theirs_MF = audio_utils.spectrogram(
        samples_S / 2**15,
        audio_utils.window_function(front.window, "hann"),
        front.window,
        front.hop,
        front.fft,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        log_mel="log",
        mel_floor=1e-5,
    )
    expected_FM = (theirs_MF.T - np.array(front.mean)) / np.array(front.std)
    ours_FM = log_mel.features(front, samples_S)
    np.testing.assert_allclose(ours_FM[: len(expected_FM)], expected_FM, atol=1e-5)
    assert np.ptp(expected_FM) > 3


def test_both_frameworks_compute_it_and_leave_out_what_lies_beyond(front):
    lengths = [front.rate // 2, front.rate // 3, 1]
    samples_BS, lengths_B = sounds(front, lengths, beyond=77)
    F = log_mel.padded_frames(front.frame_count(samples_BS.shape[1]))
    silence_M = (np.log(1e-5) - np.array(front.mean)) / np.array(front.std)
    for features_BFM, frames_B in in_frameworks(front, samples_BS, lengths_B):
        assert features_BFM.shape == (3, F, front.bins)
        assert frames_B.tolist() == [front.frame_count(each) for each in lengths]
        for row, length in enumerate(lengths):
            expected_FM = log_mel.features(front, samples_BS[row, :length])
            own_FM = features_BFM[row, : len(expected_FM)]
            expect_close(own_FM, expected_FM)
            beyond_FM = features_BFM[row, len(expected_FM) :]
            np.testing.assert_allclose(
                beyond_FM, np.tile(silence_M, (len(beyond_FM), 1)), atol=1e-5
            )


def test_masks_hide_bins_and_frames_in_training_alone():
    front = FRONTS["8 kHz"]
    samples_BS, lengths_B = sounds(front, [1600, 1600])
    masks_BK2 = np.array([[[3, 5], [0, 1], [4, 7]], [[0, 0], [39, 40], [0, 0]]], np.int16)
    given = tuple(map(torch.from_numpy, (samples_BS, lengths_B, masks_BK2)))
    module = speech_torch.LogMel(front, frequency_masks=2)
    plain_BFM = module.eval()(given)[0].numpy()
    expected_BFM = plain_BFM.copy()
    expected_BFM[0, :, [0, 3, 4]] = expected_BFM[0, 4:7] = 0
    expected_BFM[1, :, 39] = 0
    np.testing.assert_array_equal(module.train()(given)[0].numpy(), expected_BFM)
    in_jax = speech_jax.masked(jax.numpy.asarray(plain_BFM), masks_BK2, 2)
    np.testing.assert_array_equal(np.asarray(in_jax), expected_BFM)
    assert (plain_BFM != 0).all()


def test_drawn_masks_have_the_published_sizes():
    augment = spec_augment.SpecAugment(2, 10, 80, 27, 0.05, 160)
    generator = np.random.default_rng(0)
    drawn = np.stack([augment.masks(500, generator) for _ in range(4000)]).astype(int)
    lengths = drawn[..., 1] - drawn[..., 0]
    for kept, size, most in ((slice(2), 80, 26), (slice(2, 12), 500, 24)):
        assert set(np.unique(lengths[:, kept])) == set(range(most + 1))
        assert drawn[:, kept].min() == 0
        assert drawn[:, kept].max() == size
        # Uniform, rounded down.
        assert lengths[:, kept].mean() == pytest.approx(most / 2, rel=0.03)
        middle = drawn[:, kept].mean(-1).mean()
        assert middle == pytest.approx(size / 2, rel=0.02)
    short = augment.masks(3, generator)
    np.testing.assert_array_equal(short[2:, 0], short[2:, 1])  # a twentieth of it is no frame


def test_positions_are_sines_then_cosines():
    positions = sine_positions(3, 6)
    angles = np.arange(3)[:, None] * np.array([1, 1e-2, 1e-4])
    np.testing.assert_allclose(
        positions, np.concatenate([np.sin(angles), np.cos(angles)], 1), atol=1e-7
    )
