"""BART (Lewis et al. 2019) in flax: an encoder, and a decoder that attends to it.

The architecture is that of bart-base unless the style says otherwise: learned positions from the
third row of their table on, a layer norm on the embeddings, post-norm blocks, GELU by the error
function, and token embeddings shared by encoder, decoder and output. Dropout applies to embeddings
and to the outputs that attention and feed-forward layers add to the residual stream; there is none
inside attention or after the activation. In `TranslationStyle` it is the transformer of Vaswani et
al. (2017), with norms first, and rows may be packed (`workloads.parts.packing`).

Shapes: B batch, W beams of a row, S source tokens, T target tokens, D width, H heads, K width of a
head, V vocabulary; N = B x W rows of a decoder's step.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algoperf.data.tokenizers import PAD_ID, START_ID
from workloads.parts import packing
from workloads.parts.dropout_jax import dropped
from workloads.parts.positions import sine_positions
from workloads.parts.products_jax import Dense, Embed
from workloads.parts.style import BART, EncoderDecoderStyle, TransformerStyle, residual, scaled
from workloads.parts.style_jax import Layer, activate, norm
from workloads.parts.transformer_jax import Attention, causal_mask

POSITION_OFFSET = 2

KeysValues = tuple[jax.Array, jax.Array]


class Block(nn.Module):
    """One layer of the encoder or the decoder: attention, then a feed-forward layer.

    A decoder's block also attends to the source.

    Attributes:
        width: The width D of the residual stream.
        heads: The number H of attention heads.
        feed_forward: The width of the feed-forward layer's inner layer.
        is_decoder: Whether the block attends to the source.
        style: Activation, norms and scales.
        has_norm: Whether the feed-forward layer has a norm.
    """

    width: int
    heads: int
    feed_forward: int
    is_decoder: bool
    style: TransformerStyle
    has_norm: bool

    def setup(self) -> None:
        """Create the layers."""
        style, epsilon = self.style, self.style.NORM_EPSILON
        attention = functools.partial(
            Attention, self.width, self.heads, style.attention_temperature, style.ATTENTION_BIAS
        )
        self.attention = attention()
        self.attention_norm = norm(style, epsilon=epsilon)
        if self.is_decoder:
            self.cross_attention = attention()
            self.cross_attention_norm = norm(style, epsilon=epsilon)
        self.up = Dense(self.feed_forward)
        if style.is_gated:
            self.gate = Dense(self.feed_forward)
        self.down = Dense(self.width)
        self.feed_forward_norm = norm(style, present=self.has_norm, epsilon=epsilon)

    def own_keys_values(self, hidden_BTD: jax.Array) -> KeysValues:
        """Return keys and values of self-attention, each (B, H, T, K), from the residual stream."""
        read_BTD = self.attention_norm(hidden_BTD) if self.style.is_pre else hidden_BTD
        keys_values: KeysValues = self.attention.keys_values(read_BTD)
        return keys_values

    def __call__(
        self,
        hidden_BTD: jax.Array,
        own: tuple[KeysValues, jax.Array],
        source: tuple[KeysValues, jax.Array] | None,
        dropout_rate: float,
    ) -> jax.Array:
        """Return the residual stream (B, T, D) after the block.

        Args:
            hidden_BTD: The residual stream before the block.
            own: The keys and values of self-attention, and its mask.
            source: The keys and values of attention to the source, and its mask; None in an
                encoder.
            dropout_rate: The share of values to drop; 0 outside training.
        """
        style = self.style

        def attend(attention: Attention, seen: tuple[KeysValues, jax.Array]) -> Layer:
            return lambda hidden: dropped(self, attention(hidden, *seen), dropout_rate)

        def feed_forward(hidden_BTD: jax.Array) -> jax.Array:
            inner_BTF = activate(style, self.up(hidden_BTD), lambda: self.gate(hidden_BTD))
            if style.INNER_DROPOUT:
                inner_BTF = dropped(self, inner_BTF, dropout_rate)
            return dropped(self, self.down(inner_BTF), dropout_rate)

        hidden_BTD = residual(style, self.attention_norm, hidden_BTD, attend(self.attention, own))
        if source is not None:
            layer = attend(self.cross_attention, source)
            hidden_BTD = residual(style, self.cross_attention_norm, hidden_BTD, layer)
        return residual(style, self.feed_forward_norm, hidden_BTD, feed_forward)


class Stack(nn.Module):
    """The encoder or the decoder: position embeddings, their norm, and blocks.

    Attributes:
        positions: The largest number of positions.
        width: The width D of the residual stream.
        layers: The number of blocks.
        heads: The number H of attention heads.
        feed_forward: The width of the feed-forward layers' inner layers.
        is_decoder: Whether the blocks attend to a source.
        style: Activation, norms and scales.
    """

    positions: int
    width: int
    layers: int
    heads: int
    feed_forward: int
    is_decoder: bool
    style: TransformerStyle

    def setup(self) -> None:
        """Create the layers."""
        style = self.style
        if style.LEARNED_POSITIONS:
            self.position = Embed(self.positions + POSITION_OFFSET, self.width)
        self.embedding_norm = norm(style, present=style.EMBEDDING_NORM, epsilon=style.NORM_EPSILON)
        for layer in range(self.layers):
            block = Block(
                self.width,
                self.heads,
                self.feed_forward,
                self.is_decoder,
                style,
                style.has_feed_forward_norm(layer, self.layers),
            )
            setattr(self, f"block_{layer}", block)
        self.final_norm = norm(style, present=style.has_final_norm, epsilon=style.NORM_EPSILON)

    @property
    def blocks(self) -> list[Block]:
        """The blocks from the first to the last."""
        return [getattr(self, f"block_{layer}") for layer in range(self.layers)]

    def embedded(
        self,
        token_BTD: jax.Array,
        first: Any,
        dropout_rate: float,
        position_BT: jax.Array | None = None,
    ) -> jax.Array:
        """Return the residual stream (B, T, D) before the first block.

        Args:
            token_BTD: The embeddings of the tokens.
            first: The position of the first token, from 0.
            dropout_rate: The share of values to drop.
            position_BT: The position of each token, where they do not simply follow on the first.
        """
        positions = first + jnp.arange(token_BTD.shape[1]) if position_BT is None else position_BT
        if self.style.LEARNED_POSITIONS:
            position = self.position(POSITION_OFFSET + positions)
        else:
            sines_PD = sine_positions(self.positions, self.width)
            position = jnp.asarray(sines_PD, token_BTD.dtype)[positions]
        hidden_BTD = self.embedding_norm(token_BTD + scaled(position, self.style.position_scale))
        return dropped(self, hidden_BTD, dropout_rate)

    def __call__(
        self,
        token_BTD: jax.Array,
        mask_BHTT: jax.Array,
        sources: list[tuple[KeysValues, jax.Array]] | None,
        dropout_rate: float,
        position_BT: jax.Array | None = None,
    ) -> jax.Array:
        """Return the final hidden states (B, T, D) of whole rows of tokens.

        Args:
            token_BTD: The embeddings of the tokens.
            mask_BHTT: True where a position may attend to another, or an array that broadcasts to
                that.
            sources: For each block of a decoder, the keys and values of the source, and their mask;
                None in an encoder.
            dropout_rate: The share of values to drop; 0 outside training.
            position_BT: The position of each token, where they do not simply follow one another.
        """
        hidden_BTD = self.embedded(token_BTD, 0, dropout_rate, position_BT)
        for block, source in zip(self.blocks, sources or [None] * self.layers, strict=True):
            own = block.own_keys_values(hidden_BTD), mask_BHTT
            hidden_BTD = block(hidden_BTD, own, source, dropout_rate)
        return self.final_norm(hidden_BTD)

    def sources(
        self, encoded_BSD: jax.Array, mask_BHTS: jax.Array
    ) -> list[tuple[KeysValues, jax.Array]]:
        """Return keys and values of the encoded source, with the mask, for each block of a decoder.

        Args:
            encoded_BSD: The output of the encoder.
            mask_BHTS: True where the source is no padding, or an array that broadcasts to that.
        """
        return [
            (block.cross_attention.keys_values(encoded_BSD), mask_BHTS) for block in self.blocks
        ]

    def step(
        self,
        token_N1D: jax.Array,
        position: jax.Array,
        cache: list[KeysValues],
        sources: list[tuple[KeysValues, jax.Array]],
    ) -> tuple[jax.Array, list[KeysValues]]:
        """Decode one position of each row.

        Args:
            token_N1D: The embeddings of the tokens at the position.
            position: The position, from 0.
            cache: The keys and values (N, H, T, K) of all positions, for each block.
            sources: The keys and values of the source, and their mask, for each block.

        Returns:
            The final hidden states (N, 1, D), and the cache with the keys and values of this
            position.
        """
        hidden_N1D = self.embedded(token_N1D, position, 0.0)
        seen_T = jnp.arange(cache[0][0].shape[2]) <= position
        grown = []
        for block, (k_NHTK, v_NHTK), source in zip(self.blocks, cache, sources, strict=True):
            k_NH1K, v_NH1K = block.own_keys_values(hidden_N1D)
            k_NHTK = jax.lax.dynamic_update_slice_in_dim(k_NHTK, k_NH1K, position, 2)
            v_NHTK = jax.lax.dynamic_update_slice_in_dim(v_NHTK, v_NH1K, position, 2)
            grown.append((k_NHTK, v_NHTK))
            hidden_N1D = block(hidden_N1D, (grown[-1], seen_T), source, 0.0)
        return self.final_norm(hidden_N1D), grown


class Bart(nn.Module):
    """BART's encoder-decoder, with the separate parts of its forward pass that generation calls.

    Attributes:
        vocab_size: The number V of tokens.
        positions: The largest number of tokens of a row.
        width: The width D of the residual stream.
        encoder_layers: The number of blocks of the encoder.
        decoder_layers: The number of blocks of the decoder.
        heads: The number H of attention heads.
        feed_forward: The width of the feed-forward layers' inner layers.
        style: Activation, norms, scales, and whether the output layer shares the embeddings.
    """

    vocab_size: int
    positions: int
    width: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    feed_forward: int
    style: EncoderDecoderStyle = BART

    def setup(self) -> None:
        """Create the layers."""
        self.token = Embed(self.vocab_size, self.width)
        stack = functools.partial(
            Stack,
            positions=self.positions,
            width=self.width,
            heads=self.heads,
            feed_forward=self.feed_forward,
            style=self.style,
        )
        if not self.style.ties_embeddings:
            self.head = Dense(self.vocab_size, use_bias=False)
        self.encoder = stack(layers=self.encoder_layers, is_decoder=False)
        self.decoder = stack(layers=self.decoder_layers, is_decoder=True)

    def __call__(
        self, inputs: tuple[jax.Array, jax.Array], train: bool, dropout_rate: float
    ) -> jax.Array:
        """Return logits (B, T, V) of each target token, given the source and the targets before it.

        Args:
            inputs: Token ids (source_BS, target_BT). Padding (`PAD_ID`) of the source is not
                attended to. Each may be several sentences, where the style has packed rows.
            train: Whether to apply dropout.
            dropout_rate: The share of values to drop while training.
        """
        source_BS, target_BT = inputs
        rate = dropout_rate if train else 0.0
        shifted_BT = jnp.pad(target_BT[:, :-1], ((0, 0), (1, 0)), constant_values=START_ID)
        if self.style.PACKED:
            hidden_BTD = self._packed(source_BS, target_BT, shifted_BT, rate)
        else:
            hidden_BTD = self.decode(shifted_BT, self.encode(source_BS, rate), rate)
        return self._logits(hidden_BTD)

    def _packed(
        self, source_BS: jax.Array, target_BT: jax.Array, shifted_BT: jax.Array, rate: float
    ) -> jax.Array:
        """The decoder's final hidden states (B, T, D) of rows of several sentences."""
        packed = packing.arrange(source_BS, target_BT)
        own_BHSS, cross_BHTS, causal_BHTT = (visible[:, None] for visible in packed.visible)
        token_BSD = self._embedded(source_BS)
        encoded_BSD = self.encoder(token_BSD, own_BHSS, None, rate, packed.source_BS)
        sources = self.decoder.sources(encoded_BSD, cross_BHTS)
        shifted_BTD = self._embedded(shifted_BT)
        return self.decoder(shifted_BTD, causal_BHTT, sources, rate, packed.target_BT)

    def _embedded(self, token_BT: jax.Array) -> jax.Array:
        return scaled(self.token(token_BT), self.style.embedding_scale)

    def _logits(self, hidden_BTD: jax.Array) -> jax.Array:
        output = self.token.attend if self.style.ties_embeddings else self.head
        if self.style.LOGITS_BY_WIDTH:
            hidden_BTD = hidden_BTD / self.width**0.5
        return scaled(output(hidden_BTD), self.style.output_scale)

    def encode(self, source_BS: jax.Array, dropout_rate: float = 0.0) -> Any:
        """Encode the source, and return what each block of the decoder attends to.

        That is a list of keys and values, each with its mask.

        Args:
            source_BS: Token ids; padding (`PAD_ID`) is not attended to.
            dropout_rate: The share of values to drop; 0 outside training.
        """
        mask_BHTS = (source_BS != PAD_ID)[:, None, None, :]
        encoded_BSD = self.encoder(self._embedded(source_BS), mask_BHTS, None, dropout_rate)
        return self.decoder.sources(encoded_BSD, mask_BHTS)

    def decode(self, target_BT: jax.Array, sources: Any, dropout_rate: float = 0.0) -> jax.Array:
        """Return the decoder's final hidden states (B, T, D) of whole rows of targets.

        Args:
            target_BT: Token ids, which begin with `START_ID`.
            sources: The result of `encode`.
            dropout_rate: The share of values to drop; 0 outside training.
        """
        mask_TT = causal_mask(target_BT.shape[1])
        return self.decoder(self._embedded(target_BT), mask_TT, sources, dropout_rate)

    def empty_cache(self, rows: int, length: int) -> list[KeysValues]:
        """Return an empty cache for `step`: keys and values (rows, H, length, K) for each block.

        Args:
            rows: The number N of rows to decode, one per beam.
            length: The largest number of positions.
        """
        shape = (rows, self.heads, length, self.width // self.heads)
        return [(jnp.zeros(shape), jnp.zeros(shape)) for _ in range(self.decoder_layers)]

    def step(
        self, token_N: jax.Array, position: jax.Array, cache: list[KeysValues], sources: Any
    ) -> tuple[jax.Array, list[KeysValues]]:
        """Decode one position of each row.

        Args:
            token_N: The tokens at the position.
            position: The position, from 0.
            cache: The keys and values of the positions before it, from `empty_cache` or the last
                step.
            sources: The result of `encode`. It may have N / W rows, each for W neighbouring beams.

        Returns:
            The logits (N, V) of the next token, and the cache with the keys and values of this
            position.
        """
        hidden_N1D, cache = self.decoder.step(
            self._embedded(token_N[:, None]), position, cache, sources
        )
        return self._logits(hidden_N1D[:, 0]), cache

    def logits_at(self, target_NT: jax.Array, position: jax.Array, sources: Any) -> jax.Array:
        """Return the same logits (N, V) as `step`, computed from whole rows without a cache.

        Args:
            target_NT: Token ids, of which those after `position` do not matter.
            position: The position whose next token the logits are of, from 0.
            sources: The result of `encode`.
        """
        hidden_NTD = self.decode(target_NT, sources)
        return self._logits(jax.lax.dynamic_index_in_dim(hidden_NTD, position, 1, False))


build = Bart
