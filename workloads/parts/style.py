"""The style of a model: whatever may differ between its variants, beside its sizes.

A style is a field of a workload's model settings. The models of both frameworks read it, and its
fields are axes of variants (`algoperf.workload.axes`) of every model whose style has them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

ACTIVATIONS = ("relu", "leaky_relu", "gelu", "gelu_tanh", "silu", "tanh", "glu", "glu_tanh")
LEAKY_SLOPE = 0.2
SMALLEST_NORM = 1e-6  # added to the norms of queries and keys, as the sides of a right triangle


@dataclasses.dataclass(frozen=True)
class Style:
    """The style that any model has.

    Attributes:
        activation: One of `ACTIVATIONS`. 'leaky_relu' has the slope `LEAKY_SLOPE` below 0, 'gelu'
            is GELU by the error function, 'gelu_tanh' its tanh approximation. 'glu' is a gated
            linear unit, inner * sigmoid(gate), with one layer more (Dauphin et al. 2017), and
            'glu_tanh' tanh(inner) * gate.
        norm: 'layer', 'rms' (Zhang and Sennrich 2019), or 'none' in a model that needs no norm.
        output_scale: The factor that the logits are multiplied by.
    """

    NORMS: ClassVar[tuple[str, ...]] = ("layer", "rms")
    GATES: ClassVar[bool] = True  # whether the model can have gated layers

    activation: str
    norm: str
    output_scale: float = 1.0

    @property
    def is_gated(self) -> bool:
        """Whether feed-forward layers have a second inner layer, `gate`."""
        return self.activation.startswith("glu")


@dataclasses.dataclass(frozen=True)
class ResidualConvolutionStyle(Style):
    """The style of a residual convolutional network; `norm` is one of `norms.KINDS`.

    Attributes:
        last_norm_scale: What the scale of a block's last norm starts at; at 0 a block changes
            nothing at first (Goyal et al. 2017).
    """

    NORMS: ClassVar[tuple[str, ...]] = ("batch", "layer", "group")
    GATES: ClassVar[bool] = False

    last_norm_scale: float = 0.0


@dataclasses.dataclass(frozen=True)
class TransformerStyle(Style):
    """The style of a transformer.

    What one style has in all its variants are constants of its class: `EMBEDDING_NORM` (whether a
    norm follows the embeddings), `ATTENTION_BIAS` (whether attention's layers have biases),
    `LEARNED_POSITIONS` (whether positions have embeddings; they are sines otherwise),
    `INNER_DROPOUT` (whether feed-forward layers drop values after the activation), and
    `NORM_EPSILON`, which is added to a variance. Encoders and decoders read them.

    Attributes:
        norm_place: 'pre': norms come before attention and feed-forward layers, and one comes after
            the last block. 'post': norms come after each layer's sum with the residual stream.
        has_last_norm: Whether the model has the last of these norms.
        attention_temperature: The number that attention scores are divided by, in addition to the
            square root of the width of a head.
        embedding_scale: The factor that embeddings of tokens are multiplied by.
        position_scale: The factor that embeddings of positions are multiplied by.
        residual_scale: The factor that the output of each layer is multiplied by before it is added
            to the residual stream.
    """

    EMBEDDING_NORM: ClassVar[bool] = True
    ATTENTION_BIAS: ClassVar[bool] = True
    LEARNED_POSITIONS: ClassVar[bool] = True
    INNER_DROPOUT: ClassVar[bool] = False
    NORM_EPSILON: ClassVar[float] = 1e-5

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
        """Whether a norm follows the last block, as in pre-norm models."""
        return self.is_pre and self.has_last_norm

    def has_feed_forward_norm(self, layer: int, layers: int) -> bool:
        """Return whether the feed-forward layer of a block has a norm.

        Args:
            layer: The index of the block, from 0.
            layers: The number of blocks.
        """
        return self.is_pre or self.has_last_norm or layer < layers - 1


@dataclasses.dataclass(frozen=True)
class DecoderStyle(TransformerStyle):
    """The style of a decoder without an encoder, such as GPT-2's.

    Attributes:
        norm_epsilon: What norms add to the variance.
        has_biases: Whether dense layers have biases.
        fuses_gate: Whether the two inner layers of a gated feed-forward layer are one, `up`, of
            which the second half gates.
        is_rotary: Whether queries and keys are rotated by their positions (Su et al. 2021), in
            place of a table of embeddings of positions.
        normalises_queries: Whether queries and keys are divided by their norms, and their products
            multiplied by a learned number (Henry et al. 2020).
        attention_window: The latest tokens, a position's own among them, that it attends to; None:
            all.
        global_tokens: The first tokens of a row that every position attends to besides.
        drops: Whether the model has dropout.
        adds_in_float32: Whether at a lower precision the residual stream and the scores of
            attention are float32 in JAX as well; in PyTorch they always are.
    """

    norm_epsilon: float = 1e-5
    has_biases: bool = True
    fuses_gate: bool = False
    is_rotary: bool = False
    normalises_queries: bool = False
    attention_window: int | None = None
    global_tokens: int = 0
    drops: bool = True
    adds_in_float32: bool = False


@dataclasses.dataclass(frozen=True)
class ImageTransformerStyle(TransformerStyle):
    """The style of a transformer of images.

    Attributes:
        pooling: How the patches become one vector: 'mean', or 'map', attention by a learned probe
            (Zhai et al. 2022).
    """

    pooling: str = "mean"


@dataclasses.dataclass(frozen=True)
class EncoderDecoderStyle(TransformerStyle):
    """The style of an encoder-decoder.

    Of its class are `PACKED` (whether a row may hold several sentences, each of which ends with the
    end token and is kept apart from the others) and `LOGITS_BY_WIDTH` (whether logits are divided
    by the square root of the model's width).

    Attributes:
        ties_embeddings: Whether the output layer shares the weights of the token embeddings;
            otherwise it is a layer of its own, `head`.
    """

    PACKED: ClassVar[bool] = False
    LOGITS_BY_WIDTH: ClassVar[bool] = False

    ties_embeddings: bool = True


@dataclasses.dataclass(frozen=True)
class TranslationStyle(EncoderDecoderStyle):
    """The style of a transformer that translates (Vaswani et al. 2017), as AlgoPerf has it."""

    EMBEDDING_NORM: ClassVar[bool] = False
    ATTENTION_BIAS: ClassVar[bool] = False
    LEARNED_POSITIONS: ClassVar[bool] = False
    INNER_DROPOUT: ClassVar[bool] = True
    NORM_EPSILON: ClassVar[float] = 1e-6
    PACKED: ClassVar[bool] = True
    LOGITS_BY_WIDTH: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class UNetStyle(Style):
    """The style of a U-Net.

    Its norms are 'instance', of each channel and without parameters (Ulyanov et al. 2016), and
    'layer', of all channels together.
    """

    NORMS: ClassVar[tuple[str, ...]] = ("instance", "layer")
    GATES: ClassVar[bool] = False


@dataclasses.dataclass(frozen=True)
class GraphStyle(Style):
    """The style of a graph network."""

    GATES: ClassVar[bool] = False


@dataclasses.dataclass(frozen=True)
class ClickStyle(Style):
    """The style of a model of clicks; `norm` is 'none' or 'layer'.

    Attributes:
        is_residual: Whether embeddings are put side by side, in place of the products of their
            pairs, with layers of twice their width that add to their inputs.
        table_scale: The largest first value of the table of embeddings; None: 1 / sqrt(rows).
    """

    NORMS: ClassVar[tuple[str, ...]] = ("layer",)
    GATES: ClassVar[bool] = False

    is_residual: bool = False
    table_scale: float | None = None

    def sizes(
        self, width: int, bottom: Sequence[int], top: Sequence[int]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the widths of the layers of counts, and of those of everything but the last.

        Args:
            width: That of an embedding.
            bottom: The widths of the layers of counts, where pairs are multiplied.
            top: Those of the other layers.
        """
        if self.is_residual:
            return (2 * width,) * len(bottom), (2 * width,) * len(top)
        return tuple(bottom), tuple(top)


@dataclasses.dataclass(frozen=True)
class ConformerStyle(Style):
    """The style of a conformer; its convolutions have batch norm besides.

    Attributes:
        attention_output_scale: The factor of what attention gives its last layer.
        has_block_norm: Whether each block ends with a norm.
    """

    NORMS: ClassVar[tuple[str, ...]] = ("layer",)
    GATES: ClassVar[bool] = False
    BATCH_NORM_EPSILON: ClassVar[float] = 1e-3

    attention_output_scale: float = 1.0
    has_block_norm: bool = True


@dataclasses.dataclass(frozen=True)
class RecurrentStyle(Style):
    """The style of a network of recurrent layers; `norm` is 'batch' or 'layer'.

    Attributes:
        has_skip_connections: Whether what comes into a layer is added to what it gives.
        has_last_norm: Whether a layer norm comes before the output layer.
    """

    NORMS: ClassVar[tuple[str, ...]] = ("batch", "layer")
    GATES: ClassVar[bool] = False
    BATCH_NORM_EPSILON: ClassVar[float] = 1e-3

    has_skip_connections: bool = True
    has_last_norm: bool = True


BART = EncoderDecoderStyle(activation="gelu", norm="layer", norm_place="post")

ROBERTA = TransformerStyle(activation="gelu", norm="layer", norm_place="post")


def activate(
    style: Style,
    functions: Mapping[str, Callable[[Any], Any]],
    inner: Any,
    gate: Callable[[], Any],
) -> Any:
    """Return the activation of a feed-forward layer, in either framework.

    Args:
        style: The style, which names the activation.
        functions: The framework's activation functions by name, and its 'sigmoid'.
        inner: The values of the inner layer.
        gate: A function that returns the values of the gating layer. It is called only where the
            style is gated.
    """
    if style.activation == "glu_tanh":
        return functions["tanh"](inner) * gate()
    if style.is_gated:
        return inner * functions["sigmoid"](gate())
    return functions[style.activation](inner)


def scaled(hidden: Any, factor: float) -> Any:
    """Return `hidden` times `factor`; nothing is computed where the factor is 1."""
    return hidden if factor == 1 else hidden * factor


def residual(
    style: TransformerStyle,
    norm: Callable[[Any], Any],
    hidden_BTD: Any,
    layer: Callable[[Any], Any],
) -> Any:
    """Return the residual stream after a layer, with the norm where the style puts it.

    It works in either framework.

    Args:
        style: The style.
        norm: The norm of the layer.
        hidden_BTD: The residual stream before the layer: batch, tokens, width.
        layer: The attention or feed-forward layer.
    """
    if style.is_pre:
        return hidden_BTD + scaled(layer(norm(hidden_BTD)), style.residual_scale)
    return norm(hidden_BTD + scaled(layer(hidden_BTD), style.residual_scale))
