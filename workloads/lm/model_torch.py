"""GPT-2 (Radford et al. 2019) as a language model in PyTorch.

The output layer shares the weights of the token embeddings.

Shapes: B batch, T tokens, D width, V vocabulary.
"""

import torch
from torch.nn import functional

from workloads.parts.gpt2_torch import Decoder
from workloads.parts.style import scaled


class LanguageModel(Decoder):
    """GPT-2's decoder with a final norm and an output layer tied to the token embeddings."""

    def forward(self, tokens_BT: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return the logits (B, T, V) of the token after each position.

        Args:
            tokens_BT: Token ids.
            dropout_rate: The share of values to drop while training.
        """
        hidden_BTD = self.blocks(tokens_BT, dropout_rate)[:, -tokens_BT.shape[1] :]
        logits_BTV = functional.linear(self.final_norm(hidden_BTD), self.token.weight)
        return scaled(logits_BTV, self.style.output_scale)


build = LanguageModel
