"""GPT-2 (Radford et al. 2019) in the format that the transformers library saves."""

from collections.abc import Iterator
from typing import Any

from algoperf.workload.pretrained.layout import Format, Settings, Weight, dense, norm
from workloads.parts.gpt2 import STYLE


def _config(settings: Settings) -> dict[str, Any]:
    """Return the config.json that transformers needs for a model with these settings."""
    classes = settings.get("classes")
    labels = {str(label): f"LABEL_{label}" for label in range(classes or 0)}
    kind = "GPT2LMHeadModel" if classes is None else "GPT2ForSequenceClassification"
    end = settings.get("pad_id")
    return {
        "architectures": [kind],
        "model_type": "gpt2",
        "vocab_size": settings["vocab_size"],
        "n_positions": settings["positions"],
        "n_embd": settings["width"],
        "n_layer": settings["layers"],
        "n_head": settings["heads"],
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        **({"id2label": labels} if labels else {}),
    }


def _weights(settings: Settings) -> Iterator[Weight]:
    """Yield this library's name of each weight with its name in transformers."""
    width, trunk = settings["width"], "transformer"
    tokens = (settings["vocab_size"], width)
    yield Weight("token/embedding", tokens, f"{trunk}.wte.weight", ("lm_head.weight",))
    table = (settings["positions"], width)
    yield Weight("position/embedding", table, f"{trunk}.wpe.weight", is_positions=True)
    for layer in range(settings["layers"]):
        ours, theirs = f"block_{layer}", f"{trunk}.h.{layer}"
        yield from norm(f"{ours}/norm_1", f"{theirs}.ln_1", width)
        yield from dense(f"{ours}/attention/qkv", f"{theirs}.attn.c_attn", width, 3 * width, True)
        yield from dense(
            f"{ours}/attention/attention_out", f"{theirs}.attn.c_proj", width, width, True
        )
        yield from norm(f"{ours}/norm_2", f"{theirs}.ln_2", width)
        yield from dense(f"{ours}/up", f"{theirs}.mlp.c_fc", width, 4 * width, True)
        yield from dense(f"{ours}/down", f"{theirs}.mlp.c_proj", 4 * width, width, True)
    yield from norm("final_norm", f"{trunk}.ln_f", width)
    if "classes" in settings:
        yield Weight("head/kernel", (width, settings["classes"]), "score.weight", is_optional=True)


FORMAT = Format(
    title="GPT-2",
    model_type="gpt2",
    style=STYLE,
    prefix="transformer.",
    config=_config,
    compared=(
        *("vocab_size", "n_embd", "n_layer", "n_head"),
        *("activation_function", "layer_norm_epsilon", "scale_attn_weights"),
    ),
    positions="n_positions",
    weights=_weights,
)
