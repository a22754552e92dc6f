"""What the models of speech recognition share, in PyTorch; `workloads.parts.log_mel` has the
front end's definition.

Padding never reaches a frame that counts: features beyond an utterance's end are those of silence,
and layers see zeros there or leave them out.

Legend: B utterances, S samples, F frames, K masks, M bins, T frames after subsampling, D width.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from workloads.parts import log_mel
from workloads.parts.batch_norm_torch import BatchNorm
from workloads.parts.log_mel import FrontEnd

NORM_EPSILON = 1e-6


class LogMel(nn.Module):
    """The front end, and SpecAugment's masks on its features.

    Args:
        front: The front end's settings.
        frequency_masks: How many of an utterance's masks are of bins; the others are of frames.
    """

    def __init__(self, front: FrontEnd, frequency_masks: int) -> None:
        super().__init__()
        self.front, self.frequency_masks = front, frequency_masks
        self._constants: dict[torch.device, tuple[torch.Tensor, ...]] = {}

    def forward(
        self, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features_BFM, in float32, and the number of frames of each utterance, (B,).

        Args:
            inputs: samples_BS, integers of 16 bits; the number of samples of each utterance, (B,);
                masks_BK2, the first masked position and the one after the last, in training.
        """
        samples_BS, lengths_B, masks_BK2 = inputs
        with torch.no_grad(), torch.autocast(samples_BS.device.type, enabled=False):
            features_BFM = self._features(samples_BS, lengths_B)
            if self.training:
                features_BFM = self._masked(features_BFM, masks_BK2)
        hop = self.front.hop
        return features_BFM, torch.div(lengths_B + hop - 1, hop, rounding_mode="floor")

    def _features(self, samples_BS: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        front = self.front
        *waves, mel_KM, mean_M, std_M = self._constants_on(samples_BS.device)
        B, S = samples_BS.shape
        F = log_mel.padded_frames(front.frame_count(S))
        counts_BS = torch.arange(S, device=samples_BS.device) < lengths_B[:, None]
        # A zero before the first sample, and others beyond the last.
        padded = samples_BS.new_zeros((B, 1 + F * front.hop + front.window), dtype=torch.float32)
        padded[:, 1 : S + 1] = samples_BS * counts_BS
        emphasised = padded[:, 1:] * log_mel.KEPT - padded[:, :-1] * log_mel.LOST
        frames_BFW = emphasised.unfold(1, front.window, front.hop)[:, :F]
        middle = front.window // 2
        after, before = frames_BFW[..., middle:], frames_BFW[..., 1 : middle + 1].flip(-1)
        real_BFK = _transformed(after + before, waves[:3])
        imaginary_BFK = _transformed(after - before, waves[3:])
        power_BFK = real_BFK.square_().add_(imaginary_BFK.square_())
        bins_BFM = (power_BFK @ mel_KM).clamp_(min=log_mel.FLOOR).log_()
        return bins_BFM.sub_(mean_M).div_(std_M)

    def _constants_on(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        """The matrices, which are no state of the model's."""
        if device not in self._constants:
            front = self.front
            real, imaginary = front.waves
            arrays = (*real, *imaginary, front.mel_weights, front.mean, front.std)
            self._constants[device] = tuple(
                torch.as_tensor(each, dtype=torch.float32, device=device) for each in arrays
            )
        return self._constants[device]

    def _masked(self, features_BFM: torch.Tensor, masks_BK2: torch.Tensor) -> torch.Tensor:
        _, F, M = features_BFM.shape
        bins_BM = _covered(masks_BK2[:, : self.frequency_masks], M)
        frames_BF = _covered(masks_BK2[:, self.frequency_masks :], F)
        return features_BFM.masked_fill_(bins_BM[:, None] | frames_BF[:, :, None], 0)


def _transformed(numbers_BFN: torch.Tensor, waves: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiply whole numbers by waves, as `workloads.parts.log_mel` says."""
    whole, coarse, fine = waves
    coarse_BFN = (numbers_BFN / log_mel.COARSE).round_().mul_(log_mel.COARSE)
    rest = coarse_BFN @ fine + (numbers_BFN - coarse_BFN) @ whole
    return coarse_BFN @ coarse + rest


def _covered(masks_BK2: torch.Tensor, size: int) -> torch.Tensor:
    positions = torch.arange(size, device=masks_BK2.device)
    first, beyond = masks_BK2[..., :1], masks_BK2[..., 1:]
    return ((positions >= first) & (positions < beyond)).any(1)


class Subsampling(nn.Module):
    """Two convolutions with strides of 2 over frames and bins, and a dense layer: a quarter of the
    frames.

    The second convolution begins a frame before the first: so AlgoPerf's does, of which the padding
    is TensorFlow's 'SAME', at the 2,000 frames of its longest utterances.

    Args:
        bins: The number M of bins, which 4 divides.
        width: The width D.
        activate: The activation after each convolution, which leaves zeros as they are.
    """

    def __init__(
        self, bins: int, width: int, activate: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        super().__init__()
        self.activate = activate
        self.conv_0 = nn.Conv2d(1, width, 3, stride=2)
        self.conv_1 = nn.Conv2d(width, width, 3, stride=2, padding=(1, 0))
        self.dense = nn.Linear(width * (bins // 4), width)

    def forward(
        self, features_BFM: torch.Tensor, frames_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return hidden_BTD, and mask_BT: 1 at each utterance's own frames, 0 beyond."""
        # The first convolution gives a bin more than are asked for, which the mask makes the zeros
        # that the second one needs after the last: its own padding would be on both sides. Where
        # frames are even in number, it does not reach the zeros after them.
        hidden = self.conv_0(functional.pad(features_BFM[:, None], (0, 3)))
        frames_B = (frames_B + 1) // 2
        mask_BT = frame_mask(frames_B, hidden.shape[2])
        is_bin_M = torch.arange(hidden.shape[3], device=hidden.device) < hidden.shape[3] - 1
        hidden.mul_((mask_BT[..., None] * is_bin_M)[:, None])
        hidden = self.conv_1(self.activate(hidden))
        frames_B = (frames_B + 1) // 2
        mask_BT = frame_mask(frames_B, hidden.shape[2])
        hidden = self.activate(hidden.mul_(mask_BT[:, None, :, None]))
        return self.dense(hidden.permute(0, 2, 3, 1).flatten(2)), mask_BT


def frame_mask(frames_B: torch.Tensor, size: int) -> torch.Tensor:
    """Return float32 (B, size): 1 for the first frames of each utterance, 0 beyond."""
    return (torch.arange(size, device=frames_B.device) < frames_B[:, None]).float()


class LayerNorm(nn.Module):
    """Layer norm whose scale is stored less 1, so that weight decay draws it to 1.

    Args:
        width: The size of the last axis.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        """Return the normalised array."""
        return functional.layer_norm(
            hidden_BTD, self.scale.shape, 1 + self.scale, self.bias, NORM_EPSILON
        )


def _own_sum(value: torch.Tensor) -> torch.Tensor:
    return value


class MaskedBatchNorm(BatchNorm):
    """Batch norm of the frames that count, whose scale is stored less 1; zeros at the others.

    The running variance takes in the unbiased one, as `workloads.parts.batch_norm_jax` says.

    Attributes:
        total: What sums over the rows pass through: on several devices it adds up those of all.
    """

    total: Callable[[torch.Tensor], torch.Tensor] = staticmethod(_own_sum)

    def forward(self, hidden_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """Return the normalised array."""
        mask_BT1 = mask_BT[..., None]
        if self.training:
            count = self.total(mask_BT.sum())
            mean_D = self.total((hidden_BTD * mask_BT1).sum((0, 1))) / count
            centred_BTD = (hidden_BTD - mean_D) * mask_BT1
            var_D = self.total(centred_BTD.square().sum((0, 1))) / count
            if self.track_running_stats:
                with torch.no_grad():
                    unbiased_D = var_D * (count / (count - 1).clamp(min=1))
                    self.running_mean.lerp_(mean_D.float(), self.momentum)
                    self.running_var.lerp_(unbiased_D.float(), self.momentum)
        else:
            var_D = self.running_var
            centred_BTD = (hidden_BTD - self.running_mean) * mask_BT1
        factor_D = torch.rsqrt(var_D + self.eps) * (1 + self.weight)
        return centred_BTD * factor_D + self.bias * mask_BT1
