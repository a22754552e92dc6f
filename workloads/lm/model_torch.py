"""GPT-2 (Radford et al. 2019) as a language model in PyTorch: the output layer is the tokens'
embeddings.

Shapes: B batch, T tokens, D width, V vocabulary.
"""

import torch
from torch.nn import functional

from workloads.parts.gpt2_torch import Decoder
from workloads.parts.style import scaled


class LanguageModel(Decoder):
    """The decoder, a final norm, and each position's products with the tokens' embeddings."""

    def forward(self, tokens_BT: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return logits_BTV of the next token."""
        hidden_BTD = self.blocks(tokens_BT, dropout_rate)[:, -tokens_BT.shape[1] :]
        logits_BTV = functional.linear(self.final_norm(hidden_BTD), self.token.weight)
        return scaled(logits_BTV, self.style.output_scale)


build = LanguageModel
