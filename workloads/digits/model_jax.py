"""The multilayer perceptron of the digits workload in flax.

Shapes: B batch, D inputs, H width, C classes.
"""

import functools

import jax
from flax import linen as nn

from workloads.parts.dropout_jax import Dropout
from workloads.parts.style import Style, scaled
from workloads.parts.style_jax import activate, norm


class Perceptron(nn.Module):
    """Hidden layers and a linear head.

    Attributes:
        width: The width H of the hidden layers.
        depth: The number of hidden layers.
        classes: The number C of classes.
        style: Activation, norm and output scale.
    """

    width: int
    depth: int
    classes: int
    style: Style

    @nn.compact
    def __call__(self, inputs_BD: jax.Array, train: bool, dropout_rate: float) -> jax.Array:
        """Return the logits (B, C) of the classes.

        Args:
            inputs_BD: The pixels.
            train: Whether to apply dropout.
            dropout_rate: The share of values to drop while training.
        """
        hidden_BH = inputs_BD
        for layer in range(self.depth):
            gate = nn.Dense(self.width, name=f"gate_{layer}")
            inner_BH = nn.Dense(self.width, name=f"hidden_{layer}")(hidden_BH)
            inner_BH = norm(self.style, f"norm_{layer}")(inner_BH)
            hidden_BH = activate(self.style, inner_BH, functools.partial(gate, hidden_BH))
            hidden_BH = Dropout(dropout_rate, train)(hidden_BH)
        return scaled(nn.Dense(self.classes, name="head")(hidden_BH), self.style.output_scale)


build = Perceptron
