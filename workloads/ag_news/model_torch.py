"""GPT-2 (Radford et al. 2019) with a classification head on the last real token, in PyTorch.

Shapes: B batch, T tokens, D width, C classes.
"""

from typing import Any

import torch
from torch import nn

from workloads.parts.gpt2_torch import Decoder
from workloads.parts.style import scaled


class Classifier(Decoder):
    """The decoder, a final norm, and the head on the last real token."""

    def __init__(self, classes: int, width: int, **settings: Any) -> None:
        super().__init__(width=width, **settings)
        self.head = nn.Linear(width, classes, bias=False)

    def forward(self, tokens_BT: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return logits_BC."""
        hidden_BTD = self.blocks(tokens_BT, dropout_rate)
        B, T = tokens_BT.shape
        before = hidden_BTD.shape[1] - T
        positions_T = torch.arange(T, device=tokens_BT.device)
        last_B = before + torch.where(tokens_BT != self.pad_id, positions_T, 0).amax(-1)
        rows_B = torch.arange(B, device=last_B.device)
        logits_BC = self.head(self.final_norm(hidden_BTD[rows_B, last_B]))
        return scaled(logits_BC, self.style.output_scale)


build = Classifier
