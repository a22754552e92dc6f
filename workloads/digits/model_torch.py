"""The multilayer perceptron of the digits workload in PyTorch.

Shapes: B batch, D inputs, H width, C classes.
"""

import functools

import torch
from torch import nn
from torch.nn import functional

from workloads.parts.style import Style, scaled
from workloads.parts.style_torch import activate, norm

INPUTS = 64


class Perceptron(nn.Module):
    """Hidden layers and a linear head.

    Args:
        width: The width H of the hidden layers.
        depth: The number of hidden layers.
        classes: The number C of classes.
        style: Activation, norm and output scale.
    """

    def __init__(self, width: int, depth: int, classes: int, style: Style) -> None:
        super().__init__()
        self.style = style
        self.depth = depth
        for layer in range(depth):
            inputs = width if layer else INPUTS
            self.add_module(f"hidden_{layer}", nn.Linear(inputs, width))
            self.add_module(f"norm_{layer}", norm(style, width))
            if style.is_gated:
                self.add_module(f"gate_{layer}", nn.Linear(inputs, width))
        self.head = nn.Linear(width, classes)

    def forward(self, inputs_BD: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return the logits (B, C) of the classes.

        Args:
            inputs_BD: The pixels.
            dropout_rate: The share of values to drop while training.
        """
        hidden_BH = inputs_BD
        for layer in range(self.depth):
            inner_BH = self._call("hidden", layer, hidden_BH)
            inner_BH = self._call("norm", layer, inner_BH)
            hidden_BH = activate(
                self.style, inner_BH, functools.partial(self._call, "gate", layer, hidden_BH)
            )
            hidden_BH = functional.dropout(hidden_BH, dropout_rate, self.training)
        return scaled(self.head(hidden_BH), self.style.output_scale)

    def _call(self, kind: str, layer: int, hidden_BH: torch.Tensor) -> torch.Tensor:
        called: torch.Tensor = self.get_submodule(f"{kind}_{layer}")(hidden_BH)
        return called


build = Perceptron
