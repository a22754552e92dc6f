"""The perceptron in PyTorch. Shapes: B batch, C classes."""

import torch
from torch import nn
from torch.nn import functional


class Perceptron(nn.Module):
    """Two hidden layers and a linear head."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.hidden_0 = nn.Linear(2, width)
        self.hidden_1 = nn.Linear(width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, point_B2: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return logits_BC."""
        hidden = torch.relu(self.hidden_0(point_B2))
        hidden = torch.relu(self.hidden_1(hidden))
        return self.head(functional.dropout(hidden, dropout_rate, self.training))


build = Perceptron
