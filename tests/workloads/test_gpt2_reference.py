"""Both AG News models against transformers' GPT2ForSequenceClassification, and the size of GPT-2
small.
"""

import math
from typing import Any

import jax
import numpy as np
import pytest
import torch

from algoperf import backends, spec, workload
from algoperf.workload import Data, catalogue

GPT2_SMALL_PARAMETERS = 124_442_880  # the published body, and a head of 768 x 4
BLOCK = {
    "norm_1/scale": "ln_1.weight",
    "norm_1/bias": "ln_1.bias",
    "attention/qkv/kernel": "attn.c_attn.weight",
    "attention/qkv/bias": "attn.c_attn.bias",
    "attention/attention_out/kernel": "attn.c_proj.weight",
    "attention/attention_out/bias": "attn.c_proj.bias",
    "norm_2/scale": "ln_2.weight",
    "norm_2/bias": "ln_2.bias",
    "up/kernel": "mlp.c_fc.weight",
    "up/bias": "mlp.c_fc.bias",
    "down/kernel": "mlp.c_proj.weight",
    "down/bias": "mlp.c_proj.bias",
}
OUTER = {
    "token/embedding": "transformer.wte.weight",
    "position/embedding": "transformer.wpe.weight",
    "final_norm/scale": "transformer.ln_f.weight",
    "final_norm/bias": "transformer.ln_f.bias",
    "head/kernel": "score.weight",
}
AG_NEWS = catalogue.find("ag_news")
FULL_VOCABULARY = {"vocab_size": 50_257, "pad_id": 50_256}
# rows of different lengths: padded, not padded at all, a single token; a padding id amid the text
# is text
LENGTHS = (5, 12, 1, 9)


def transformers_state(values: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The parameters under transformers' names; its Conv1D is laid out as a flax kernel is, its
    head as torch's.
    """
    state = {}
    for name, value in values.items():
        block, _, inner = name.partition("/")
        if name == "head/kernel":
            value = value.T
        theirs = OUTER.get(name) or f"transformer.h.{block.removeprefix('block_')}.{BLOCK[inner]}"
        state[theirs] = torch.tensor(np.ascontiguousarray(value))
    return state


def reference_logits(
    values: dict[str, np.ndarray], model: dict[str, Any], tokens_BT: np.ndarray
) -> np.ndarray:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(
        vocab_size=model["vocab_size"],
        n_positions=model["positions"],
        n_embd=model["width"],
        n_layer=model["layers"],
        n_head=model["heads"],
        num_labels=model["classes"],
        pad_token_id=model["pad_id"],
        bos_token_id=None,
        eos_token_id=None,
    )
    reference = GPT2ForSequenceClassification(config).eval()
    missing = reference.load_state_dict(transformers_state(values), strict=True)
    assert not missing.missing_keys
    with torch.no_grad():
        return reference(input_ids=torch.from_numpy(tokens_BT).long()).logits.numpy()


def padded_batch(model: dict[str, Any]) -> np.ndarray:
    rng = np.random.default_rng(0)
    tokens_BT = np.full((len(LENGTHS), max(LENGTHS)), model["pad_id"], np.int32)
    for row, length in enumerate(LENGTHS):
        ids = rng.integers(0, model["vocab_size"] - 1, length)
        tokens_BT[row, :length] = ids + (ids >= model["pad_id"])
    tokens_BT[1, 3] = model["pad_id"]
    return tokens_BT


@pytest.mark.parametrize(
    ("scale_name", "own"),
    [
        pytest.param("mini", {"vocab_size": 2048, "pad_id": 0}, id="mini"),
        pytest.param("full", FULL_VOCABULARY, id="full", marks=pytest.mark.slow),
    ],
)
def test_both_frameworks_give_transformers_logits(scale_name, own, make_values) -> None:
    scale = AG_NEWS.scales[scale_name]
    model = {**scale.model, **own}
    tokens_BT = padded_batch(model)
    rows = {"inputs": tokens_BT, "targets": np.zeros(len(tokens_BT), np.int32)}
    data = Data(dict.fromkeys(workload.SPLITS, rows), model=own)
    logits = {}
    values: dict[str, np.ndarray] = {}
    for framework in ("jax", "pytorch"):
        backend = backends.load(framework)
        bound = backend.workload(AG_NEWS, scale, "builtin", data)
        if not values:
            values = make_values(
                {name: parameter.shape for name, parameter in bound.parameters.items()}
            )
        params, batch = bound.from_neutral(values), backend.place(rows)
        out, _ = bound.model_fn(params, batch, None, spec.ForwardPassMode.EVAL, None, False)
        logits[framework] = backend.fetch(out)
    expected = reference_logits(values, model, tokens_BT)
    for framework, found in logits.items():
        difference = np.abs(found - expected).max(axis=1)
        assert (difference <= 1e-4 * np.abs(expected).max()).all(), (framework, difference)


def test_full_is_gpt2_small() -> None:
    model = {**AG_NEWS.scales["full"].model, **FULL_VOCABULARY}
    flax_model = AG_NEWS.build_model("jax", model)
    tokens_BT = np.zeros((1, 8), np.int32)
    shapes = jax.eval_shape(
        lambda: flax_model.init(jax.random.PRNGKey(0), tokens_BT, train=False, dropout_rate=0.0)
    )
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == GPT2_SMALL_PARAMETERS
    with torch.device("meta"):
        module = AG_NEWS.build_model("torch", model)
    assert sum(tensor.numel() for tensor in module.parameters()) == GPT2_SMALL_PARAMETERS
    assert AG_NEWS.scales["full"].data["vocab_size"] == FULL_VOCABULARY["vocab_size"]
