"""The model of the criteo1tb workload in flax: DLRM (Naumov et al. 2019), with one table.

Shapes: B rows, I counts, C categories, D width of an embedding, P pairs of embeddings.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from algoperf.data.formats.criteo_columns import COUNTS
from workloads.parts.dropout_jax import Dropout
from workloads.parts.style import ClickStyle, scaled
from workloads.parts.style_jax import FUNCTIONS, norm

EPSILON = 1e-6


class Perceptron(nn.Module):
    """Dense layers with activation, and norm where the style has one.

    Attributes:
        widths: Of the layers.
        style: Activation and norm; with `is_residual` each layer but the first adds to its input.
        drops_last: Whether the last layer's output is dropped while training.
    """

    widths: tuple[int, ...]
    style: ClickStyle
    drops_last: bool = False

    @nn.compact
    def __call__(
        self, hidden: jax.Array, train: bool, dropout_rate: float | jax.Array
    ) -> jax.Array:
        """Return hidden, of the last width."""
        for layer, width in enumerate(self.widths):
            before = hidden
            hidden = nn.Dense(width, name=f"dense_{layer}")(hidden)
            hidden = FUNCTIONS[self.style.activation](hidden)
            hidden = norm(self.style, f"norm_{layer}", epsilon=EPSILON)(hidden)
            if self.drops_last and layer == len(self.widths) - 1:
                hidden = Dropout(dropout_rate, train)(hidden)
            if self.style.is_residual and layer:
                hidden = hidden + before
        return hidden


class ClickModel(nn.Module):
    """The logarithm of the odds that a row is clicked.

    Attributes:
        rows: Of the table.
        width: The width D of an embedding.
        bottom: The widths of the layers of the counts; the last is D where pairs are multiplied.
        top: Those of the layers of everything, before the last.
        style: What variants change.
    """

    rows: int
    width: int
    bottom: tuple[int, ...]
    top: tuple[int, ...]
    style: ClickStyle

    @nn.compact
    def __call__(
        self, inputs_BF: jax.Array, train: bool, dropout_rate: float | jax.Array
    ) -> jax.Array:
        """Return logits_B.

        Args:
            inputs_BF: See `workloads.parts.clicks`.
            train: Whether to apply dropout.
            dropout_rate: The share of the last hidden layer to drop while training.
        """
        style = self.style
        counts_BI, categories_BC = inputs_BF[:, :COUNTS], inputs_BF[:, COUNTS:]
        table = nn.Embed(self.rows, self.width, name="table")
        embedded_BCD = table(categories_BC)
        embedded_BCD = norm(style, "table_norm", epsilon=EPSILON)(embedded_BCD)
        counts_BI = jnp.log1p(jnp.maximum(counts_BI, 0).astype(embedded_BCD.dtype))
        bottom, top = style.sizes(self.width, self.bottom, self.top)
        counted_BD = Perceptron(bottom, style, name="bottom")(counts_BI, train, dropout_rate)
        if style.is_residual:
            seen = embedded_BCD.reshape(len(inputs_BF), -1)
        else:
            all_BVD = jnp.concatenate([counted_BD[:, None], embedded_BCD], 1)
            products_BVV = jnp.einsum("bvd,bwd->bvw", all_BVD, all_BVD)
            upper = np.triu_indices(all_BVD.shape[1])
            flat = np.ravel_multi_index(upper, products_BVV.shape[1:])
            seen = products_BVV.reshape(len(inputs_BF), -1)[:, flat]
        hidden = jnp.concatenate([counted_BD, seen], 1)
        hidden = Perceptron(top, style, drops_last=True, name="top")(hidden, train, dropout_rate)
        return scaled(nn.Dense(1, name="head")(hidden)[:, 0], style.output_scale)


build = ClickModel
