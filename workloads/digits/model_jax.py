"""The multilayer perceptron in flax. Shapes: B batch, D inputs, H width, C classes."""

import jax
from flax import linen as nn


class Perceptron(nn.Module):
    """Rectified hidden layers and a linear head."""

    width: int
    depth: int
    classes: int

    @nn.compact
    def __call__(self, inputs_BD: jax.Array, train: bool, dropout_rate: float) -> jax.Array:
        """Return logits_BC."""
        hidden_BH = inputs_BD
        for layer in range(self.depth):
            hidden_BH = nn.relu(nn.Dense(self.width, name=f"hidden_{layer}")(hidden_BH))
            hidden_BH = nn.Dropout(dropout_rate, deterministic=not train)(hidden_BH)
        return nn.Dense(self.classes, name="head")(hidden_BH)


def build(width: int, depth: int, classes: int) -> Perceptron:
    """Return the model."""
    return Perceptron(width, depth, classes)
