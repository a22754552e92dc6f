"""What may differ between the variants of a model, beside its sizes.

A style is a field of a workload's model settings; both frameworks' models read it, and its fields
are axes of variants (`algoperf.workload.axes`) of every model whose style has them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "tanh", "glu")


@dataclasses.dataclass(frozen=True)
class Style:
    """What any model has.

    `activation` is one of `ACTIVATIONS`: GELU by the error function or its tanh approximation;
    'glu' is a gated linear unit, inner * sigmoid(gate), with a layer more (Dauphin et al. 2017).
    `norm` is 'layer', 'rms' (Zhang and Sennrich 2019), or 'none' in a model that needs none. Logits
    are multiplied by `output_scale`.
    """

    activation: str
    norm: str
    output_scale: float = 1.0

    @property
    def is_gated(self) -> bool:
        """Whether feed-forward layers have a second inner layer, `gate`."""
        return self.activation == "glu"


@dataclasses.dataclass(frozen=True)
class TransformerStyle(Style):
    """What a transformer has besides.

    `norm_place` is 'pre' (before attention and feed-forward layers, and one after the last block)
    or 'post' (after their sum with the residual stream). Without `has_last_norm` the last of these
    is left out. Attention scores are divided by `attention_temperature`; embeddings of tokens are
    multiplied by `embedding_scale`, those of positions by `position_scale`, and what a layer adds
    to the residual stream by `residual_scale`.
    """

    norm_place: str = "pre"
    has_last_norm: bool = True
    attention_temperature: float = 1.0
    embedding_scale: float = 1.0
    position_scale: float = 1.0
    residual_scale: float = 1.0

    @property
    def is_pre(self) -> bool:
        """Whether norms come before the layers."""
        return self.norm_place == "pre"

    @property
    def has_final_norm(self) -> bool:
        """Whether there is a norm after the last of pre-norm blocks."""
        return self.is_pre and self.has_last_norm

    def has_feed_forward_norm(self, layer: int, layers: int) -> bool:
        """Whether the feed-forward layer of that block has a norm."""
        return self.is_pre or self.has_last_norm or layer < layers - 1


@dataclasses.dataclass(frozen=True)
class EncoderDecoderStyle(TransformerStyle):
    """What an encoder-decoder has besides: an output layer, `head`, of its own or the embeddings'
    weights.
    """

    ties_embeddings: bool = True


BART = EncoderDecoderStyle(activation="gelu", norm="layer", norm_place="post")

ROBERTA = TransformerStyle(activation="gelu", norm="layer", norm_place="post")


def activate(
    style: Style,
    functions: Mapping[str, Callable[[Any], Any]],
    inner: Any,
    gate: Callable[[], Any],
) -> Any:
    """Return the layer's activation, in either framework; `gate` gives the values of the layer that
    gates it, where there is one. `functions` has the framework's, and 'sigmoid'.
    """
    if style.is_gated:
        return inner * functions["sigmoid"](gate())
    return functions[style.activation](inner)


def scaled(hidden: Any, factor: float) -> Any:
    """Return the product; nothing is computed where the factor is 1."""
    return hidden if factor == 1 else hidden * factor


def residual(
    style: TransformerStyle,
    norm: Callable[[Any], Any],
    hidden_BTD: Any,
    layer: Callable[[Any], Any],
) -> Any:
    """Return the residual stream after a layer, with the norm at its place, in either framework."""
    if style.is_pre:
        return hidden_BTD + scaled(layer(norm(hidden_BTD)), style.residual_scale)
    return norm(hidden_BTD + scaled(layer(hidden_BTD), style.residual_scale))
