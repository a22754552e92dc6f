"""The multilayer perceptron in PyTorch. Shapes: B batch, D inputs, H width, C classes."""

import torch
from torch import nn
from torch.nn import functional

INPUTS = 64


class Perceptron(nn.Module):
    """Rectified hidden layers and a linear head."""

    def __init__(self, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.depth = depth
        for layer in range(depth):
            self.add_module(f"hidden_{layer}", nn.Linear(width if layer else INPUTS, width))
        self.head = nn.Linear(width, classes)

    def forward(self, inputs_BD: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return logits_BC."""
        hidden_BH = inputs_BD
        for layer in range(self.depth):
            hidden_BH = self.get_submodule(f"hidden_{layer}")(hidden_BH).relu()
            hidden_BH = functional.dropout(hidden_BH, dropout_rate, self.training)
        return self.head(hidden_BH)


def build(width: int, depth: int, classes: int) -> Perceptron:
    """Return the model."""
    return Perceptron(width, depth, classes)
