"""A network of bidirectional LSTM layers in PyTorch (after Deep Speech 2, Amodei et al. 2016), as
AlgoPerf has it.

Legend: B utterances, T frames after subsampling, D width, V tokens.
"""

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from workloads.parts.log_mel import FrontEnd
from workloads.parts.speech_torch import LayerNorm, LogMel, MaskedBatchNorm, Subsampling
from workloads.parts.style import RecurrentStyle, scaled
from workloads.parts.style_torch import FUNCTIONS

DIRECTIONS = ("forward", "backward")


class Norm(nn.Module):
    """Batch norm of the frames that count, or layer norm; each under its own name."""

    def __init__(self, width: int, momentum: float, style: RecurrentStyle) -> None:
        super().__init__()
        self.kind = style.norm
        if self.kind == "batch":
            self.batch_norm = MaskedBatchNorm(width, momentum, style.BATCH_NORM_EPSILON)
        else:
            self.norm = LayerNorm(width)

    def forward(self, hidden_BTD: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """Return the normalised array."""
        if self.kind == "batch":
            return self.batch_norm(hidden_BTD, mask_BT)
        return self.norm(hidden_BTD)


class Bidirectional(nn.Module):
    """An LSTM layer in both directions (Hochreiter and Schmidhuber 1997), from zeros at each end of
    an utterance, with one bias for each gate; gates come in the order input, forget, cell, output.

    Args:
        width: The width D of inputs and outputs, half of it for each direction.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = width // 2
        for name in DIRECTIONS:
            self.add_module(f"{name}_input", nn.Linear(width, 4 * self.inner))
            self.add_module(f"{name}_recurrent", nn.Linear(self.inner, 4 * self.inner, bias=False))

    def forward(self, hidden_BTD: torch.Tensor, frames_B: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D), 0 beyond an utterance's frames, of which `frames_B` is the number, on
        the host.
        """
        weights = []
        for name in DIRECTIONS:
            given, recurrent = (
                self.get_submodule(f"{name}_{part}") for part in ("input", "recurrent")
            )
            none = torch.zeros_like(given.bias)  # PyTorch adds two biases
            weights += [given.weight, recurrent.weight, given.bias, none]
        packed = pack_padded_sequence(
            hidden_BTD.to(weights[0].dtype), frames_B, batch_first=True, enforce_sorted=False
        )
        start = packed.data.new_zeros(2, len(hidden_BTD), self.inner)
        # In a lower precision the state's rounding would add up over the frames.
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            outputs, _, _ = torch.lstm(
                packed.data,
                packed.batch_sizes,
                (start, start),
                weights,
                True,  # has biases
                1,  # layer
                0.0,  # dropout
                self.training,
                True,  # both directions
            )
        outputs = packed._replace(data=outputs)
        return pad_packed_sequence(outputs, batch_first=True, total_length=hidden_BTD.shape[1])[0]


class Block(nn.Module):
    """A norm and an LSTM layer, added to what comes in."""

    def __init__(self, width: int, momentum: float, style: RecurrentStyle) -> None:
        super().__init__()
        self.style = style
        self.normalise = Norm(width, momentum, style)
        self.lstm = Bidirectional(width)

    def forward(
        self, hidden_BTD: torch.Tensor, mask_BT: torch.Tensor, frames_B: torch.Tensor
    ) -> torch.Tensor:
        """Return (B, T, D)."""
        outputs = self.lstm(self.normalise(hidden_BTD, mask_BT), frames_B)
        return hidden_BTD + outputs if self.style.has_skip_connections else outputs


class FeedForward(nn.Module):
    """A norm, a layer and dropout, added to what comes in."""

    def __init__(self, width: int, momentum: float, style: RecurrentStyle) -> None:
        super().__init__()
        self.style = style
        self.normalise = Norm(width, momentum, style)
        self.dense = nn.Linear(width, width)

    def forward(
        self, hidden_BTD: torch.Tensor, mask_BT: torch.Tensor, dropout_rate: float
    ) -> torch.Tensor:
        """Return (B, T, D)."""
        outputs = self.dense(self.normalise(hidden_BTD, mask_BT))
        outputs = FUNCTIONS[self.style.activation](outputs) * mask_BT[..., None]
        outputs = functional.dropout(outputs, dropout_rate, self.training)
        return hidden_BTD + outputs if self.style.has_skip_connections else outputs


class DeepSpeech(nn.Module):
    """The front end, subsampling, LSTM layers, feed-forward layers and the output layer.

    Args:
        rate: Samples a second.
        mean: The mean of each bin of the front end.
        std: The standard deviation of each bin.
        frequency_masks: How many of an utterance's masks are of bins.
        vocabulary: The number V of tokens, the blank among them.
        width: The width D.
        layers: The number of LSTM layers.
        feed_forward_layers: The number of feed-forward layers.
        batch_norm_momentum: The weight of a batch in batch norm's running statistics.
        style: Activation, norms and residual connections.
    """

    def __init__(
        self,
        rate: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        frequency_masks: int,
        vocabulary: int,
        width: int,
        layers: int,
        feed_forward_layers: int,
        batch_norm_momentum: float,
        style: RecurrentStyle,
    ) -> None:
        super().__init__()
        self.layers, self.feed_forward_layers, self.style = layers, feed_forward_layers, style
        self.log_mel = LogMel(FrontEnd(rate, mean, std), frequency_masks)
        self.subsampling = Subsampling(len(mean), width, FUNCTIONS[style.activation])
        for layer in range(layers):
            self.add_module(f"block_{layer}", Block(width, batch_norm_momentum, style))
        for layer in range(feed_forward_layers):
            feed_forward = FeedForward(width, batch_norm_momentum, style)
            self.add_module(f"feed_forward_{layer}", feed_forward)
        self.final_norm = LayerNorm(width) if style.has_last_norm else nn.Identity()
        self.head = nn.Linear(width, vocabulary)

    def forward(
        self, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], dropout_rate: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits_BTV and paddings_BT, 1 beyond an utterance's frames."""
        hidden_BTD, mask_BT = self.subsampling(*self.log_mel(inputs))
        hidden_BTD = functional.dropout(hidden_BTD, dropout_rate, self.training)
        frames_B = mask_BT.sum(1).long().cpu()
        for layer in range(self.layers):
            hidden_BTD = self.get_submodule(f"block_{layer}")(hidden_BTD, mask_BT, frames_B)
        for layer in range(self.feed_forward_layers):
            feed_forward = self.get_submodule(f"feed_forward_{layer}")
            hidden_BTD = feed_forward(hidden_BTD, mask_BT, dropout_rate)
        logits_BTV = self.head(self.final_norm(hidden_BTD))
        return scaled(logits_BTV, self.style.output_scale), 1 - mask_BT


build = DeepSpeech
