"""RoBERTa (Liu et al. 2019) in the format that the transformers library saves.

It is the whole model of `mlm`, and the encoder and the embeddings of an encoder-decoder. Its
embeddings of token types, of which one type is used, are added to the embeddings of positions.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from algoperf.workload.pretrained.layout import Format, Settings, Tensors, Weight, dense, norm
from workloads.parts.style import ROBERTA

POSITION_OFFSET = 2
POSITIONS = "embeddings.position_embeddings.weight"
TYPES = "embeddings.token_type_embeddings.weight"
PREFIX = "roberta."
LAYER = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/attention_out": "attention.output.dense",
}


def _config(settings: Settings) -> dict[str, Any]:
    """Return the config.json that transformers needs for a model with these settings."""
    return {
        "architectures": ["RobertaForMaskedLM"],
        "model_type": "roberta",
        "vocab_size": settings["vocab_size"],
        "max_position_embeddings": settings["positions"] + POSITION_OFFSET,
        "hidden_size": settings["width"],
        "num_hidden_layers": settings["encoder_layers"],
        "num_attention_heads": settings["heads"],
        "intermediate_size": settings["feed_forward"],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "type_vocab_size": 1,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }


def _weights(settings: Settings) -> Iterator[Weight]:
    """Yield this library's name of each weight with its name in transformers."""
    width, inner, vocabulary = (settings[key] for key in ("width", "feed_forward", "vocab_size"))
    tied = ("lm_head.decoder.weight",)
    words = f"{PREFIX}embeddings.word_embeddings.weight"
    yield Weight("token/embedding", (vocabulary, width), words, tied)
    table = (settings["positions"] + POSITION_OFFSET, width)
    yield Weight("encoder/position/embedding", table, PREFIX + POSITIONS, is_positions=True)
    yield from norm("encoder/embedding_norm", f"{PREFIX}embeddings.LayerNorm", width)
    for layer in range(settings["encoder_layers"]):
        ours, theirs = f"encoder/block_{layer}", f"{PREFIX}encoder.layer.{layer}"
        for own, path in LAYER.items():
            yield from dense(f"{ours}/{own}", f"{theirs}.{path}", width, width)
        attention_norm = f"{theirs}.attention.output.LayerNorm"
        yield from norm(f"{ours}/attention_norm", attention_norm, width)
        yield from dense(f"{ours}/up", f"{theirs}.intermediate.dense", width, inner)
        yield from dense(f"{ours}/down", f"{theirs}.output.dense", inner, width)
        yield from norm(f"{ours}/feed_forward_norm", f"{theirs}.output.LayerNorm", width)
    if "decoder_layers" not in settings:
        yield from _head(width, vocabulary)


def _head(width: int, vocabulary: int) -> Iterator[Weight]:
    """Yield the weights that predict masked tokens; where a folder lacks them they stay random."""
    for name, shape, theirs in (
        ("transform/kernel", (width, width), "dense.weight"),
        ("transform/bias", (width,), "dense.bias"),
        ("transform_norm/scale", (width,), "layer_norm.weight"),
        ("transform_norm/bias", (width,), "layer_norm.bias"),
        ("head/bias", (vocabulary,), "bias"),
    ):
        yield Weight(name, shape, f"lm_head.{theirs}", is_optional=True)


def _with_types(source: str, tensors: Tensors) -> Tensors:
    """Return the tensors of a folder, with the embedding of token type 0 added to positions."""
    if POSITIONS not in tensors or TYPES not in tensors:
        return tensors
    return {**tensors, POSITIONS: tensors[POSITIONS] + tensors[TYPES][0]}


FORMAT = Format(
    title="RoBERTa",
    model_type="roberta",
    style=ROBERTA,
    prefix=PREFIX,
    config=_config,
    compared=(
        *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
        *("intermediate_size", "hidden_act", "layer_norm_eps", "pad_token_id"),
    ),
    positions="max_position_embeddings",
    weights=_weights,
    tensors=_with_types,
    constants=lambda settings: {
        PREFIX + TYPES: np.zeros((1, settings["width"]), np.float32),
    },
    may_lack_positions=True,
)
