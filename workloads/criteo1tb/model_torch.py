"""The model of the criteo1tb workload in PyTorch: DLRM (Naumov et al. 2019), with one table.

Shapes: B rows, I counts, C categories, D width of an embedding, P pairs of embeddings.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from algoperf.data.formats.criteo_columns import CATEGORIES, COUNTS
from workloads.parts.style import ClickStyle, scaled
from workloads.parts.style_torch import FUNCTIONS, norm

EPSILON = 1e-6


class Perceptron(nn.Module):
    """Dense layers with activation, and norm where the style has one.

    Args:
        inputs: The width of the input.
        widths: Of the layers.
        style: Activation and norm; with `is_residual` each layer but the first adds to its input.
        drops_last: Whether the last layer's output is dropped while training.
    """

    def __init__(
        self, inputs: int, widths: Sequence[int], style: ClickStyle, drops_last: bool = False
    ) -> None:
        super().__init__()
        self.layers, self.style, self.drops_last = len(widths), style, drops_last
        for layer, width in enumerate(widths):
            self.add_module(f"dense_{layer}", nn.Linear(inputs, width))
            self.add_module(f"norm_{layer}", norm(style, width, epsilon=EPSILON))
            inputs = width

    def forward(self, hidden: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return hidden, of the last width."""
        for layer in range(self.layers):
            before = hidden
            hidden = self.get_submodule(f"dense_{layer}")(hidden)
            hidden = FUNCTIONS[self.style.activation](hidden)
            hidden = self.get_submodule(f"norm_{layer}")(hidden)
            if self.drops_last and layer == self.layers - 1:
                hidden = functional.dropout(hidden, dropout_rate, self.training)
            if self.style.is_residual and layer:
                hidden = hidden + before
        return hidden


class ClickModel(nn.Module):
    """The logarithm of the odds that a row is clicked.

    Args:
        rows: Of the table.
        width: The width D of an embedding.
        bottom: The widths of the layers of the counts; the last is D where pairs are multiplied.
        top: Those of the layers of everything, before the last.
        style: What variants change.
    """

    upper: torch.Tensor

    def __init__(
        self, rows: int, width: int, bottom: Sequence[int], top: Sequence[int], style: ClickStyle
    ) -> None:
        super().__init__()
        self.style = style
        bottom, top = style.sizes(width, bottom, top)
        # The first values of all parameters are drawn elsewhere; here they would take seconds.
        self.table = nn.Embedding(rows, width, _weight=torch.empty(rows, width))
        self.table_norm = norm(style, width, epsilon=EPSILON)
        self.bottom = Perceptron(COUNTS, bottom, style)
        vectors = CATEGORIES + 1
        one, other = torch.triu_indices(vectors, vectors)
        self.register_buffer("upper", one * vectors + other, persistent=False)
        seen = CATEGORIES * width if style.is_residual else len(self.upper)
        self.top = Perceptron(bottom[-1] + seen, top, style, drops_last=True)
        self.head = nn.Linear(top[-1], 1)

    def forward(self, inputs_BF: torch.Tensor, dropout_rate: float) -> torch.Tensor:
        """Return logits_B.

        Args:
            inputs_BF: See `workloads.parts.clicks`.
            dropout_rate: The share of the last hidden layer to drop while training.
        """
        counts_BI, categories_BC = inputs_BF[:, :COUNTS], inputs_BF[:, COUNTS:]
        embedded_BCD = self.table_norm(self.table(categories_BC))
        counts_BI = counts_BI.clamp(min=0).to(embedded_BCD.dtype).log1p()
        counted_BD = self.bottom(counts_BI, dropout_rate)
        if self.style.is_residual:
            seen = embedded_BCD.flatten(1)
        else:
            all_BVD = torch.cat([counted_BD[:, None], embedded_BCD], 1)
            products_BVV = all_BVD @ all_BVD.transpose(1, 2)
            seen = products_BVV.flatten(1).index_select(1, self.upper)
        hidden = torch.cat([counted_BD, seen], 1)
        hidden = self.top(hidden, dropout_rate)
        return scaled(self.head(hidden)[:, 0], self.style.output_scale)


build = ClickModel
