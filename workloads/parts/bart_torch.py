"""BART (Lewis et al. 2019) in PyTorch: an encoder, and a decoder that attends to it.

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
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from algoperf.data.tokenizers import PAD_ID, START_ID
from workloads.parts import packing
from workloads.parts.positions import sine_positions
from workloads.parts.style import BART, EncoderDecoderStyle, TransformerStyle, residual, scaled
from workloads.parts.style_torch import Layer, activate, norm
from workloads.parts.transformer_torch import Attention, hiding_mask, padding_mask

POSITION_OFFSET = 2

KeysValues = tuple[torch.Tensor, torch.Tensor]


class Seen(NamedTuple):
    """The keys and values that an attention layer sees, and a mask that hides some of them.

    Attributes:
        keys_values: The keys and the values, each (B, H, T, K).
        mask_BHQT: Numbers to add to the attention scores, the lowest number of the dtype where a
            key is hidden; None hides nothing.
        causal: Whether a query sees only keys at its own and earlier positions.
    """

    keys_values: KeysValues
    mask_BHQT: torch.Tensor | None = None
    causal: bool = False


class Block(nn.Module):
    """One layer of the encoder or the decoder: attention, then a feed-forward layer.

    A decoder's block also attends to the source.

    Args:
        width: The width D of the residual stream.
        heads: The number H of attention heads.
        feed_forward: The width of the feed-forward layer's inner layer.
        is_decoder: Whether the block attends to the source.
        style: Activation, norms and scales.
        has_norm: Whether the feed-forward layer has a norm.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feed_forward: int,
        is_decoder: bool,
        style: TransformerStyle,
        has_norm: bool,
    ) -> None:
        super().__init__()
        self.style = style
        epsilon, bias = style.NORM_EPSILON, style.ATTENTION_BIAS
        self.attention = Attention(width, heads, style.attention_temperature, bias)
        self.attention_norm = norm(style, width, epsilon=epsilon)
        if is_decoder:
            self.cross_attention = Attention(width, heads, style.attention_temperature, bias)
            self.cross_attention_norm = norm(style, width, epsilon=epsilon)
        self.up = nn.Linear(width, feed_forward)
        if style.is_gated:
            self.gate = nn.Linear(width, feed_forward)
        self.down = nn.Linear(feed_forward, width)
        self.feed_forward_norm = norm(style, width, has_norm, epsilon)

    def own_keys_values(self, hidden_BTD: torch.Tensor) -> KeysValues:
        """Return keys and values of self-attention, each (B, H, T, K), from the residual stream."""
        read_BTD = self.attention_norm(hidden_BTD) if self.style.is_pre else hidden_BTD
        return self.attention.keys_values(read_BTD)

    def forward(
        self, hidden_BTD: torch.Tensor, own: Seen, source: Seen | None, dropout_rate: float
    ) -> torch.Tensor:
        """Return the residual stream (B, T, D) after the block.

        Args:
            hidden_BTD: The residual stream before the block.
            own: What self-attention sees.
            source: What attention to the source sees; None in an encoder.
            dropout_rate: The share of values to drop while training.
        """
        drop = functools.partial(functional.dropout, p=dropout_rate, training=self.training)

        def attend(attention: Attention, seen: Seen) -> Layer:
            return lambda hidden: drop(attention(hidden, *seen))

        def feed_forward(hidden_BTD: torch.Tensor) -> torch.Tensor:
            inner_BTF = activate(self.style, self.up(hidden_BTD), lambda: self.gate(hidden_BTD))
            return drop(self.down(drop(inner_BTF) if self.style.INNER_DROPOUT else inner_BTF))

        hidden_BTD = residual(
            self.style, self.attention_norm, hidden_BTD, attend(self.attention, own)
        )
        if source is not None:
            layer = attend(self.cross_attention, source)
            hidden_BTD = residual(self.style, self.cross_attention_norm, hidden_BTD, layer)
        return residual(self.style, self.feed_forward_norm, hidden_BTD, feed_forward)


class Stack(nn.Module):
    """The encoder or the decoder: position embeddings, their norm, and blocks.

    Args:
        positions: The largest number of positions.
        width: The width D of the residual stream.
        layers: The number of blocks.
        heads: The number H of attention heads.
        feed_forward: The width of the feed-forward layers' inner layers.
        is_decoder: Whether the blocks attend to a source.
        style: Activation, norms and scales.
    """

    def __init__(
        self,
        positions: int,
        width: int,
        layers: int,
        heads: int,
        feed_forward: int,
        is_decoder: bool,
        style: TransformerStyle,
    ) -> None:
        super().__init__()
        self.position_scale = style.position_scale
        if style.LEARNED_POSITIONS:
            self.position = nn.Embedding(positions + POSITION_OFFSET, width)
        else:
            self._sines = torch.from_numpy(sine_positions(positions, width))
        self.embedding_norm = norm(style, width, style.EMBEDDING_NORM, style.NORM_EPSILON)
        self.block_names = [f"block_{layer}" for layer in range(layers)]
        for layer, name in enumerate(self.block_names):
            has_norm = style.has_feed_forward_norm(layer, layers)
            block = Block(width, heads, feed_forward, is_decoder, style, has_norm)
            self.add_module(name, block)
        self.final_norm = norm(style, width, style.has_final_norm, style.NORM_EPSILON)

    @property
    def blocks(self) -> list[Block]:
        """The blocks from the first to the last."""
        return [self.get_submodule(name) for name in self.block_names]

    def embedded(
        self,
        token_BTD: torch.Tensor,
        first: int,
        dropout_rate: float,
        position_BT: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the residual stream (B, T, D) before the first block.

        Args:
            token_BTD: The embeddings of the tokens.
            first: The position of the first token, from 0.
            dropout_rate: The share of values to drop while training.
            position_BT: The position of each token, where they do not simply follow on the first.
        """
        table, start = self._positions(token_BTD)
        if position_BT is None:
            position = table[start + first : start + first + token_BTD.shape[1]]
        else:
            position = table[start + position_BT]
        hidden_BTD = self.embedding_norm(token_BTD + scaled(position, self.position_scale))
        return functional.dropout(hidden_BTD, dropout_rate, self.training)

    def _positions(self, like: torch.Tensor) -> tuple[torch.Tensor, int]:
        """The vectors of positions, on the device of a tensor, and the row of the first one."""
        if hasattr(self, "position"):
            return self.position.weight, POSITION_OFFSET
        if self._sines.device != like.device:
            self._sines = self._sines.to(like.device)
        return self._sines, 0

    def forward(
        self,
        token_BTD: torch.Tensor,
        mask_BHTT: torch.Tensor | None,
        sources: list[Seen] | None,
        dropout_rate: float,
        position_BT: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the final hidden states (B, T, D) of whole rows of tokens.

        Args:
            token_BTD: The embeddings of the tokens.
            mask_BHTT: Numbers to add to the scores of self-attention, or a tensor that broadcasts
                to them. None hides nothing from an encoder, and from a decoder what comes later.
            sources: What each block of a decoder sees of the source. None is for an encoder, which
                reads its rows in both directions.
            dropout_rate: The share of values to drop while training.
            position_BT: The position of each token, where they do not simply follow one another.
        """
        hidden_BTD = self.embedded(token_BTD, 0, dropout_rate, position_BT)
        causal = sources is not None and mask_BHTT is None
        for block, source in zip(self.blocks, sources or [None] * len(self.blocks), strict=True):
            own = Seen(block.own_keys_values(hidden_BTD), mask_BHTT, causal)
            hidden_BTD = block(hidden_BTD, own, source, dropout_rate)
        return self._normed(hidden_BTD)

    def _normed(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        normed_BTD: torch.Tensor = self.final_norm(hidden_BTD)
        return normed_BTD

    def sources(self, encoded_BSD: torch.Tensor, mask_BHTS: torch.Tensor) -> list[Seen]:
        """Return what each block of a decoder sees of the encoded source.

        The keys and values are made contiguous, because generation reads them often.

        Args:
            encoded_BSD: The output of the encoder.
            mask_BHTS: Numbers to add to the attention scores, which hide the padding.
        """
        sources = []
        for block in self.blocks:
            k_BHSK, v_BHSK = block.cross_attention.keys_values(encoded_BSD)
            sources.append(Seen((k_BHSK.contiguous(), v_BHSK.contiguous()), mask_BHTS))
        return sources

    def step(
        self,
        token_N1D: torch.Tensor,
        position: int,
        cache: list[KeysValues],
        sources: list[Seen],
    ) -> torch.Tensor:
        """Decode one position of each row.

        Args:
            token_N1D: The embeddings of the tokens at the position.
            position: The position, from 0.
            cache: The keys and values (N, H, T, K) of all positions, for each block. This function
                writes those of this position into it.
            sources: What each block sees of the source.

        Returns:
            The final hidden states (N, 1, D).
        """
        hidden_N1D = self.embedded(token_N1D, position, 0.0)
        for block, kept, source in zip(self.blocks, cache, sources, strict=True):
            for whole_NHTK, new_NH1K in zip(kept, block.own_keys_values(hidden_N1D), strict=True):
                whole_NHTK[:, :, position : position + 1] = new_NH1K
            k_NHTK, v_NHTK = (whole_NHTK[:, :, : position + 1] for whole_NHTK in kept)
            hidden_N1D = block(hidden_N1D, Seen((k_NHTK, v_NHTK)), source, 0.0)
        return self._normed(hidden_N1D)


class Bart(nn.Module):
    """BART's encoder-decoder, with the separate parts of its forward pass that generation calls.

    Args:
        vocab_size: The number V of tokens.
        positions: The largest number of tokens of a row.
        width: The width D of the residual stream.
        encoder_layers: The number of blocks of the encoder.
        decoder_layers: The number of blocks of the decoder.
        heads: The number H of attention heads.
        feed_forward: The width of the feed-forward layers' inner layers.
        style: Activation, norms, scales, and whether the output layer shares the embeddings.
    """

    def __init__(
        self,
        vocab_size: int,
        positions: int,
        width: int,
        encoder_layers: int,
        decoder_layers: int,
        heads: int,
        feed_forward: int,
        style: EncoderDecoderStyle = BART,
    ) -> None:
        super().__init__()
        self.heads, self.style = heads, style
        self.token = nn.Embedding(vocab_size, width)
        if not style.ties_embeddings:
            self.head = nn.Linear(width, vocab_size, bias=False)
        self.encoder = Stack(positions, width, encoder_layers, heads, feed_forward, False, style)
        self.decoder = Stack(positions, width, decoder_layers, heads, feed_forward, True, style)

    def forward(
        self, inputs: tuple[torch.Tensor, torch.Tensor], dropout_rate: float
    ) -> torch.Tensor:
        """Return logits (B, T, V) of each target token, given the source and the targets before it.

        Args:
            inputs: Token ids (source_BS, target_BT). Padding (`PAD_ID`) of the source is not
                attended to. Each may be several sentences, where the style has packed rows.
            dropout_rate: The share of values to drop while training.
        """
        source_BS, target_BT = inputs
        shifted_BT = functional.pad(target_BT[:, :-1], (1, 0), value=START_ID)
        if self.style.PACKED:
            hidden_BTD = self._packed(source_BS, target_BT, shifted_BT, dropout_rate)
        else:
            hidden_BTD = self.decode(shifted_BT, self.encode(source_BS, dropout_rate), dropout_rate)
        return self._logits(hidden_BTD)

    def _packed(
        self,
        source_BS: torch.Tensor,
        target_BT: torch.Tensor,
        shifted_BT: torch.Tensor,
        dropout_rate: float,
    ) -> torch.Tensor:
        """The decoder's final hidden states (B, T, D) of rows of several sentences."""
        packed = packing.arrange(source_BS, target_BT)
        token_BSD = self._embedded(source_BS)
        masks = [hiding_mask(~visible, token_BSD.dtype)[:, None] for visible in packed.visible]
        encoded_BSD = self.encoder(token_BSD, masks[0], None, dropout_rate, packed.source_BS)
        sources = self.decoder.sources(encoded_BSD, masks[1])
        shifted_BTD = self._embedded(shifted_BT)
        return self.decoder(shifted_BTD, masks[2], sources, dropout_rate, packed.target_BT)

    def _embedded(self, token_BT: torch.Tensor) -> torch.Tensor:
        token_BTD: torch.Tensor = scaled(self.token(token_BT), self.style.embedding_scale)
        return token_BTD

    def _logits(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        output = self.token if self.style.ties_embeddings else self.head
        if self.style.LOGITS_BY_WIDTH:
            hidden_BTD = hidden_BTD / hidden_BTD.shape[-1] ** 0.5
        logits_BTV = functional.linear(hidden_BTD, output.weight)
        return scaled(logits_BTV, self.style.output_scale)

    def encode(self, source_BS: torch.Tensor, dropout_rate: float = 0.0) -> list[Seen]:
        """Encode the source, and return what each block of the decoder sees of it.

        Args:
            source_BS: Token ids; padding (`PAD_ID`) is not attended to.
            dropout_rate: The share of values to drop while training.
        """
        token_BSD = self._embedded(source_BS)
        mask_BHTS = padding_mask(source_BS == PAD_ID, token_BSD.dtype)
        encoded_BSD = self.encoder(token_BSD, mask_BHTS, None, dropout_rate)
        return self.decoder.sources(encoded_BSD, mask_BHTS)

    def decode(
        self, target_BT: torch.Tensor, sources: list[Seen], dropout_rate: float = 0.0
    ) -> torch.Tensor:
        """Return the decoder's final hidden states (B, T, D) of whole rows of targets.

        Args:
            target_BT: Token ids, which begin with `START_ID`.
            sources: The result of `encode`.
            dropout_rate: The share of values to drop while training.
        """
        return self.decoder(self._embedded(target_BT), None, sources, dropout_rate)

    def empty_cache(self, rows: int, length: int) -> list[KeysValues]:
        """Return an empty cache for `step`: keys and values (rows, H, length, K) for each block.

        Args:
            rows: The number N of rows to decode, one per beam.
            length: The largest number of positions.
        """
        weight = self.token.weight
        shape = (rows, self.heads, length, weight.shape[1] // self.heads)
        return [
            (weight.new_empty(shape), weight.new_empty(shape)) for _ in self.decoder.block_names
        ]

    def step(
        self, token_N: torch.Tensor, position: int, cache: list[KeysValues], sources: list[Seen]
    ) -> torch.Tensor:
        """Decode one position of each row, and return the logits (N, V) of the next token.

        Args:
            token_N: The tokens at the position.
            position: The position, from 0.
            cache: The keys and values of the positions before it, which grows in place.
            sources: The result of `encode`. It may have N / W rows, each for W neighbouring beams.
        """
        hidden_N1D = self.decoder.step(self._embedded(token_N[:, None]), position, cache, sources)
        return self._logits(hidden_N1D[:, 0])

    def logits_at(
        self, target_NT: torch.Tensor, position: int, sources: list[Seen]
    ) -> torch.Tensor:
        """Return the same logits (N, V) as `step`, computed from whole rows without a cache.

        Args:
            target_NT: Token ids, of which those after `position` do not matter.
            position: The position whose next token the logits are of, from 0.
            sources: The result of `encode`.
        """
        return self._logits(self.decode(target_NT[:, : position + 1], sources)[:, position])


build = Bart
