"""The perceptron in flax. Shapes: B batch, C classes."""

import jax
from flax import linen as nn

from workloads.parts.dropout_jax import Dropout


class Perceptron(nn.Module):
    """Two hidden layers and a linear head."""

    width: int
    classes: int

    @nn.compact
    def __call__(self, point_B2: jax.Array, train: bool, dropout_rate: float) -> jax.Array:
        """Return logits_BC."""
        hidden = nn.relu(nn.Dense(self.width, name="hidden_0")(point_B2))
        hidden = nn.relu(nn.Dense(self.width, name="hidden_1")(hidden))
        return nn.Dense(self.classes, name="head")(Dropout(dropout_rate, train)(hidden))


build = Perceptron
