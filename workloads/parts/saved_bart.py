"""BART (Lewis et al. 2019) in the format that the transformers library saves."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from algoperf.errors import UserError
from algoperf.workload.pretrained.layout import Format, Settings, Tensors, Weight, dense, norm
from workloads.parts.style import BART

POSITION_OFFSET = 2
LOGITS_BIAS = "final_logits_bias"
PROJECTIONS = {
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "attention_out": "out_proj",
}
ATTENTIONS = {"attention": "self_attn", "cross_attention": "encoder_attn"}


def _config(settings: Settings) -> dict[str, Any]:
    """Return the config.json that transformers needs for a model with these settings."""
    heads, inner = settings["heads"], settings["feed_forward"]
    return {
        "architectures": ["BartForConditionalGeneration"],
        "model_type": "bart",
        "is_encoder_decoder": True,
        "vocab_size": settings["vocab_size"],
        "max_position_embeddings": settings["positions"],
        "d_model": settings["width"],
        "encoder_layers": settings["encoder_layers"],
        "decoder_layers": settings["decoder_layers"],
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": inner,
        "decoder_ffn_dim": inner,
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": 2,
    }


def _weights(settings: Settings) -> Iterator[Weight]:
    """Yield this library's name of each weight with its name in transformers."""
    width, inner = settings["width"], settings["feed_forward"]
    # The weights are tied: all of these names stand for one table.
    aliases = ("encoder.embed_tokens.weight", "lm_head.weight")
    tokens = (settings["vocab_size"], width)
    yield Weight("token/embedding", tokens, "model.shared.weight", aliases)
    for stack, attentions in (("encoder", 1), ("decoder", 2)):
        whole = f"model.{stack}"
        yield Weight(
            f"{stack}/position/embedding",
            (settings["positions"] + POSITION_OFFSET, width),
            f"{whole}.embed_positions.weight",
            is_positions=True,
        )
        yield from norm(f"{stack}/embedding_norm", f"{whole}.layernorm_embedding", width)
        for layer in range(settings[f"{stack}_layers"]):
            ours, theirs = f"{stack}/block_{layer}", f"{whole}.layers.{layer}"
            for attention, name in [*ATTENTIONS.items()][:attentions]:
                for own, projection in PROJECTIONS.items():
                    path = f"{theirs}.{name}.{projection}"
                    yield from dense(f"{ours}/{attention}/{own}", path, width, width)
                yield from norm(f"{ours}/{attention}_norm", f"{theirs}.{name}_layer_norm", width)
            yield from dense(f"{ours}/up", f"{theirs}.fc1", width, inner)
            yield from dense(f"{ours}/down", f"{theirs}.fc2", inner, width)
            yield from norm(f"{ours}/feed_forward_norm", f"{theirs}.final_layer_norm", width)


def _without_bias(source: str, tensors: Tensors) -> Tensors:
    """Return the tensors of a folder; raise UserError if they have a bias on the logits."""
    if tensors.get(LOGITS_BIAS, np.zeros(1)).any():
        raise UserError(f"{source} has a bias on its logits ({LOGITS_BIAS}), ours has none")
    return tensors


FORMAT = Format(
    title="BART",
    model_type="bart",
    style=BART,
    prefix="model.",
    config=_config,
    compared=(
        *("vocab_size", "d_model", "encoder_layers", "decoder_layers"),
        *("encoder_attention_heads", "decoder_attention_heads"),
        *("encoder_ffn_dim", "decoder_ffn_dim", "activation_function", "scale_embedding"),
        *("pad_token_id", "eos_token_id", "decoder_start_token_id"),
    ),
    positions="max_position_embeddings",
    weights=_weights,
    tensors=_without_bias,
    constants=lambda settings: {LOGITS_BIAS: np.zeros((1, settings["vocab_size"]), np.float32)},
)
