"""A decoder as a language model in PyTorch.

Shapes: B batch, T tokens, V vocabulary.
"""

import torch

from workloads.parts.decoder_torch import Decoder


class LanguageModel(Decoder):
    """The decoder with a final norm and an output layer tied to the token embeddings."""

    def forward(self, tokens_BT: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return the logits (B, T, V) of the token after each position.

        Args:
            tokens_BT: Token ids.
            dropout_rate: The share of values to drop while training.
        """
        return self.next_token(tokens_BT, dropout_rate)


build = LanguageModel
