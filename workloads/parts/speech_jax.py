"""What the models of speech recognition share, in flax; `workloads.parts.speech_torch` says what
padding does.

Legend: B utterances, S samples, F frames, K masks, M bins, T frames after subsampling, D width.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from workloads.parts import log_mel
from workloads.parts.log_mel import FrontEnd
from workloads.parts.products_jax import Dense, product

NORM_EPSILON = 1e-6
WIDE = 256  # channels
Inputs = tuple[jax.Array, jax.Array, jax.Array]


def log_mel_features(front: FrontEnd, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
    """Return features_BFM, in float32, and the number of frames of each utterance, (B,).

    Args:
        front: The front end's settings.
        inputs: samples_BS, integers of 16 bits; the number of samples of each utterance, (B,);
            SpecAugment's masks, which are not looked at.
    """
    samples_BS, lengths_B, _ = inputs
    S, hop, half = samples_BS.shape[1], front.hop, front.hop // 2
    F = log_mel.padded_frames(front.frame_count(S))
    samples_BS = jnp.where(jnp.arange(S) < lengths_B[:, None], samples_BS, 0)
    samples_BS = samples_BS.astype(jnp.float32)
    # A zero before the first sample, and others beyond the last.
    padded = jnp.pad(samples_BS, ((0, 0), (1, F * hop + front.window - S)))
    emphasised = log_mel.KEPT * padded[:, 1:] - log_mel.LOST * padded[:, :-1]
    parts = emphasised.reshape(len(padded), -1, half)
    frames_BFW = jnp.concatenate([parts[:, k : k + 2 * F : 2] for k in range(log_mel.PIECES)], -1)
    middle = front.window // 2
    after, before = frames_BFW[..., middle:], frames_BFW[..., middle:0:-1]
    real_BFK, imaginary_BFK = map(_transformed, (after + before, after - before), front.waves)
    power_BFK = real_BFK * real_BFK + imaginary_BFK * imaginary_BFK
    bins_BFM = jnp.log(jnp.maximum(_product(power_BFK, front.mel_weights), log_mel.FLOOR))
    mean_M, std_M = jnp.array(front.mean), jnp.array(front.std)
    return (bins_BFM - mean_M) / std_M, (lengths_B + hop - 1) // hop


_product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def _transformed(numbers_BFN: jax.Array, waves: log_mel.Waves) -> jax.Array:
    """Multiply whole numbers by waves, as `workloads.parts.log_mel` says."""
    coarse_BFN = jnp.round(numbers_BFN / log_mel.COARSE) * log_mel.COARSE
    rest = _product(coarse_BFN, waves.fine) + _product(numbers_BFN - coarse_BFN, waves.whole)
    return _product(coarse_BFN, waves.coarse) + rest


def model_features(
    module: nn.Module, front: FrontEnd, frequency_masks: int, inputs: Inputs, train: bool
) -> tuple[jax.Array, jax.Array]:
    """Return what a model begins with: `log_mel_features`, while training with SpecAugment's zeros,
    in the type of the model's parameters.

    Args:
        module: The model.
        front: The front end's settings.
        frequency_masks: How many of an utterance's masks are of bins.
        inputs: As of `log_mel_features`.
        train: Whether the model is training.
    """
    features_BFM, frames_B = log_mel_features(front, inputs)
    if train:
        features_BFM = masked(features_BFM, inputs[2], frequency_masks)
    return in_type_of(module, features_BFM), frames_B


def in_type_of(module: nn.Module, features_BFM: jax.Array) -> jax.Array:
    """Return features in the type of a module's parameters, in which it is to compute."""
    leaves = jax.tree.leaves(module.variables.get("params", {}))
    return features_BFM.astype(leaves[0].dtype) if leaves else features_BFM


def masked(features_BFM: jax.Array, masks_BK2: jax.Array, frequency_masks: int) -> jax.Array:
    """Return features with SpecAugment's zeros.

    Args:
        features_BFM: The features.
        masks_BK2: The first masked position of each mask, and the one after the last.
        frequency_masks: How many of an utterance's masks are of bins; the others are of frames.
    """
    _, F, M = features_BFM.shape
    bins_BM = _covered(masks_BK2[:, :frequency_masks], M)
    frames_BF = _covered(masks_BK2[:, frequency_masks:], F)
    return jnp.where(bins_BM[:, None] | frames_BF[:, :, None], 0, features_BFM)


def _covered(masks_BK2: jax.Array, size: int) -> jax.Array:
    positions = jnp.arange(size)
    first, beyond = masks_BK2[..., :1], masks_BK2[..., 1:]
    return ((positions >= first) & (positions < beyond)).any(1)


class Strided(nn.Module):
    """A convolution with windows of 3 x 3 and strides of 2.

    Of `WIDE` channels and more it is, on a CPU, a product with a matrix of windows, which is made
    anew for the gradients: of 512 channels XLA's convolution and its gradients take twice as long,
    of 48 three quarters.

    Attributes:
        width: The width of what it gives.
    """

    width: int

    @nn.compact
    def __call__(self, hidden_BHWC: jax.Array, over_height: tuple[int, int]) -> jax.Array:
        """Return (B, H / 2, W / 2, D), of an array that is padded with so many zeros before and
        after its height, and with one after its width.
        """
        shape = (3, 3, hidden_BHWC.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias_D = self.param("bias", nn.initializers.zeros, shape[-1:])
        padded = jnp.pad(hidden_BHWC, ((0, 0), over_height, (0, 1), (0, 0)))
        if shape[2] < WIDE:
            return _convolved(padded, kernel) + bias_D
        on_cpu = jax.checkpoint(_windows_times)
        return jax.lax.platform_dependent(padded, kernel, cpu=on_cpu, default=_convolved) + bias_D


def _convolved(padded: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        padded, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _windows_times(padded: jax.Array, kernel: jax.Array) -> jax.Array:
    height, width = ((size - 1) // 2 for size in padded.shape[1:3])
    windows = [
        padded[:, row : row + 2 * height - 1 : 2, column : column + 2 * width - 1 : 2]
        for row in range(3)
        for column in range(3)
    ]
    return product(jnp.concatenate(windows, -1), kernel.reshape(-1, kernel.shape[-1]))


class Subsampling(nn.Module):
    """Two convolutions with strides of 2 over frames and bins, and a dense layer: a quarter of the
    frames; `workloads.parts.speech_torch` says more.

    Attributes:
        width: The width D.
        activate: The activation after each convolution.
    """

    width: int
    activate: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, features_BFM: jax.Array, frames_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return hidden_BTD, and mask_BT: 1 at each utterance's own frames, 0 beyond."""
        first, second = (Strided(self.width, name=f"conv_{number}") for number in range(2))
        hidden = self.activate(first(features_BFM[..., None], (0, 0)))
        frames_B = (frames_B + 1) // 2
        hidden = hidden * frame_mask(frames_B, hidden)[:, :, None, None]
        hidden = self.activate(second(hidden, (1, hidden.shape[1] % 2)))
        frames_B = (frames_B + 1) // 2
        mask_BT = frame_mask(frames_B, hidden)
        hidden = hidden * mask_BT[:, :, None, None]
        hidden = hidden.reshape(*hidden.shape[:2], -1)
        return Dense(self.width, name="dense")(hidden), mask_BT


def frame_mask(frames_B: jax.Array, hidden: jax.Array) -> jax.Array:
    """Return 1 for the first frames of each utterance, 0 beyond, for an array (B, T, ...)."""
    return (jnp.arange(hidden.shape[1]) < frames_B[:, None]).astype(hidden.dtype)


class LayerNorm(nn.Module):
    """Layer norm whose scale is stored less 1, so that weight decay draws it to 1."""

    @nn.compact
    def __call__(self, hidden_BTD: jax.Array) -> jax.Array:
        """Return the normalised array."""
        shape = hidden_BTD.shape[-1:]
        scale_D = self.param("scale", nn.initializers.zeros, shape)
        bias_D = self.param("bias", nn.initializers.zeros, shape)
        values = hidden_BTD.astype(jnp.float32)
        centred = values - values.mean(-1, keepdims=True)
        variance = jnp.square(centred).mean(-1, keepdims=True)
        normalised = centred * jax.lax.rsqrt(variance + NORM_EPSILON)
        return (normalised * (1 + scale_D) + bias_D).astype(hidden_BTD.dtype)


class MaskedBatchNorm(nn.Module):
    """Batch norm of the frames that count, whose scale is stored less 1; zeros at the others.

    The running variance takes in the unbiased one, as `workloads.parts.batch_norm_jax` says.

    Attributes:
        momentum: The weight of a batch in the running statistics.
        epsilon: What is added to the variance.
    """

    momentum: float
    epsilon: float

    @nn.compact
    def __call__(
        self, hidden_BTD: jax.Array, mask_BT: jax.Array, use_running_average: bool
    ) -> jax.Array:
        """Return the normalised array."""
        shape = hidden_BTD.shape[-1:]
        scale_D = self.param("scale", nn.initializers.zeros, shape)
        bias_D = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        values, mask_BT1 = hidden_BTD.astype(jnp.float32), mask_BT[..., None].astype(jnp.float32)
        if use_running_average:
            var_D = running_var.value
            centred = (values - running_mean.value) * mask_BT1
        else:
            count = mask_BT1.sum()
            mean_D = (values * mask_BT1).sum((0, 1)) / count
            centred = (values - mean_D) * mask_BT1
            var_D = jnp.square(centred).sum((0, 1)) / count
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                unbiased_D = var_D * (count / jnp.maximum(count - 1, 1))
                for running, value_D in ((running_mean, mean_D), (running_var, unbiased_D)):
                    running.value = running.value + self.momentum * (value_D - running.value)
        factor_D = jax.lax.rsqrt(var_D + self.epsilon) * (1 + scale_D)
        return (centred * factor_D + bias_D * mask_BT1).astype(hidden_BTD.dtype)
