"""GPT-2 (Radford et al. 2019) with a classification head on the last real token, in PyTorch.

Shapes: B batch, T tokens, D width, C classes.
"""

from typing import Any

import torch
from torch import nn

from workloads.parts.decoder_torch import Decoder
from workloads.parts.style import scaled


class Classifier(Decoder):
    """GPT-2's decoder with a final norm and a classification head on the last real token.

    Args:
        classes: The number C of classes.
        width: The width D of the residual stream.
        **settings: The other settings of `Decoder`.
    """

    def __init__(self, classes: int, width: int, **settings: Any) -> None:
        super().__init__(width=width, **settings)
        self.head = nn.Linear(width, classes, bias=False)

    def forward(self, tokens_BT: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return the logits (B, C) of the classes.

        Args:
            tokens_BT: Token ids, padded on the right.
            dropout_rate: The share of values to drop while training.
        """
        hidden_BTD = self.blocks(tokens_BT, dropout_rate)
        B, T = tokens_BT.shape
        before = hidden_BTD.shape[1] - T
        positions_T = torch.arange(T, device=tokens_BT.device)
        last_B = before + torch.where(tokens_BT != self.pad_id, positions_T, 0).amax(-1)
        rows_B = torch.arange(B, device=last_B.device)
        logits_BC = self.head(self.final_norm(hidden_BTD[rows_B, last_B]))
        return scaled(logits_BC, self.style.output_scale)


build = Classifier
