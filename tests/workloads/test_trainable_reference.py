"""What techniques add, against other implementations: LoRA and prompt tuning by peft on
transformers' models, adapters by layers put into transformers' by hand.

Shapes: B batch, T tokens, C classes, V vocabulary.
"""

import functools
import warnings
from typing import Any

import jax
import numpy as np
import pytest
import torch
from torch import nn

from algoperf.workload import parameters, pretrained

pytestmark = pytest.mark.slow  # transformers and peft take their time to be imported
FRAMEWORKS = ("jax", "pytorch")
GPT2_LAYERS = {
    "qkv": "attn.c_attn",
    "attention_out": "attn.c_proj",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
    "norm_1": "ln_1",
    "norm_2": "ln_2",
}
GPT2_OUTER = {
    "token/embedding": "wte.weight",
    "position/embedding": "wpe.weight",
    "final_norm/scale": "ln_f.weight",
    "final_norm/bias": "ln_f.bias",
}


def results(model: Any, values: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits, and the gradients of their weighted sum by what trains, by name."""
    bound, rows = model.bound, model.rows
    inputs = (rows["inputs"], rows["targets"]) if bound.feeds_targets else rows["inputs"]
    if model.backend.name == "pytorch":
        placed = jax.tree.map(torch.from_numpy, inputs)
        logits, _ = bound.apply(bound.from_neutral(values), placed, None, None, True, 0.0)
        (logits * torch.from_numpy(weights(logits.shape))).sum().backward()
        gradients = {
            name: parameters.from_torch(name, each.tensor.grad.numpy())
            for name, each in bound.parameters.items()
        }
        return logits.detach().numpy(), gradients
    params, frozen = bound.split(values)

    def weighted(params: Any) -> Any:
        logits, _ = bound.apply(params, inputs, {"frozen": frozen}, None, False, 0.0)
        return (logits * weights(logits.shape)).sum(), logits

    gradients, logits = jax.jit(jax.grad(weighted, has_aux=True))(params)
    return np.asarray(logits), bound.to_neutral(gradients)


def weights(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape, np.float32)


def gpt2_reference(model: dict[str, Any], values: dict[str, np.ndarray]) -> Any:
    """transformers' classifier with the model's own parameters."""
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(
        vocab_size=model["vocab_size"],
        n_positions=model["positions"],
        n_embd=model["width"],
        n_layer=model["layers"],
        n_head=model["heads"],
        num_labels=model["classes"],
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    reference = GPT2ForSequenceClassification(config).eval()
    state = {"score.weight": values["head/kernel"].T}
    for name, value in values.items():
        *_, layer, leaf = name.split("/")
        if name in GPT2_OUTER:
            state[f"transformer.{GPT2_OUTER[name]}"] = value
        elif name.startswith("block_") and layer in GPT2_LAYERS:
            number = name.split("/")[0].removeprefix("block_")
            ending = "bias" if leaf == "bias" else "weight"  # its Conv1D is laid out as ours
            state[f"transformer.h.{number}.{GPT2_LAYERS[layer]}.{ending}"] = value
    tensors = {name: torch.tensor(np.ascontiguousarray(value)) for name, value in state.items()}
    reference.load_state_dict(tensors, strict=True)
    return reference


def bart_reference(model: dict[str, Any], values: dict[str, np.ndarray]) -> Any:
    from transformers import BartConfig, BartForConditionalGeneration

    form = pretrained.format_of("bart")
    wanted = form.config(model)
    keys = {key: wanted[key] for key in (*form.compared, form.positions)}
    config = BartConfig(**keys, dropout=0.0)
    reference = BartForConditionalGeneration(config).eval()
    state = {
        weight.theirs.removeprefix(form.prefix): torch.tensor(
            parameters.to_torch(weight.name, values[weight.name])
        )
        for weight in form.weights(model)
    }
    missing = reference.model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert {name.split(".")[1] for name in missing.missing_keys} == {"embed_tokens"}
    return reference


def under_peft(reference: Any, config: Any) -> Any:
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own, of transformers it is not made for
        return peft.get_peft_model(reference, config).eval()


def with_lora(reference: Any, kind: str, values: dict[str, np.ndarray], place: Any) -> Any:
    """peft's model with our A and B; `place(layer's path)` is its name there."""
    import peft

    targets = ["c_attn", "c_fc"] if kind == "SEQ_CLS" else ["q_proj", "v_proj"]
    config = peft.LoraConfig(task_type=kind, r=3, lora_alpha=12, target_modules=targets)
    tuned = under_peft(reference, config)
    for path, layer in lora_layers(tuned, values, place).items():
        for letter in "ab":
            ours = torch.tensor(values[f"{path}/lora_{letter}/kernel"].T.copy())
            matrix = getattr(layer, f"lora_{letter.upper()}").default.weight
            assert matrix.shape == ours.shape
            matrix.data.copy_(ours)
    return tuned


def lora_layers(tuned: Any, values: dict[str, np.ndarray], place: Any) -> dict[str, Any]:
    ending = "/lora_a/kernel"
    paths = [name.removesuffix(ending) for name in values if name.endswith(ending)]
    return {path: tuned.get_submodule(place(path)) for path in paths}


def gpt2_place(path: str) -> str:
    number, *_, layer = path.removeprefix("block_").split("/")
    return f"base_model.model.transformer.h.{number}.{GPT2_LAYERS[layer]}"


def bart_place(model: dict[str, Any], path: str) -> str:
    weights = {weight.name: weight.theirs for weight in pretrained.format_of("bart").weights(model)}
    return f"base_model.model.{weights[f'{path}/kernel'].removesuffix('.weight')}"


def check_close(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    assert found.shape == expected.shape, what
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max(), what


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_lora_on_gpt2_is_peft_s(framework, make_tiny, make_values) -> None:
    model = make_tiny(framework, "ag_news", "lora rank=3 alpha=12 targets=qkv,up")
    values = make_values(model.bound.shapes)
    logits_BC, gradients = results(model, values)
    tuned = with_lora(gpt2_reference(model.model, values), "SEQ_CLS", values, gpt2_place)
    expected_BC = tuned(input_ids=torch.from_numpy(model.rows["inputs"]).long()).logits
    check_close(logits_BC, expected_BC.detach().numpy(), "logits")
    check_lora_gradients(gradients, expected_BC, tuned, values, gpt2_place)
    assert set(gradients) == {name for name in values if "lora" in name} | {"head/kernel"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_lora_on_bart_is_peft_s(framework, make_tiny, make_values) -> None:
    model = make_tiny(framework, "xsum", "lora rank=3 alpha=12")
    values = make_values(model.bound.shapes)
    logits_BTV, gradients = results(model, values)
    place = functools.partial(bart_place, model.model)
    tuned = with_lora(bart_reference(model.model, values), "SEQ_2_SEQ_LM", values, place)
    source = torch.from_numpy(model.rows["inputs"]).long()
    expected_BTV = tuned(
        input_ids=source,
        attention_mask=(source != 1).long(),
        labels=torch.from_numpy(model.rows["targets"]).long(),
    ).logits
    check_close(logits_BTV, expected_BTV.detach().numpy(), "logits")
    check_lora_gradients(gradients, expected_BTV, tuned, values, place)
    assert set(gradients) == {name for name in values if "lora" in name}
    assert len(gradients) == 2 * 2 * 3  # query and value of each attention


def check_lora_gradients(
    gradients: dict[str, np.ndarray], logits: torch.Tensor, tuned: Any, values: Any, place: Any
) -> None:
    (logits * torch.from_numpy(weights(tuple(logits.shape)))).sum().backward()
    for path, layer in lora_layers(tuned, values, place).items():
        for letter in "ab":
            expected = getattr(layer, f"lora_{letter.upper()}").default.weight.grad.numpy().T
            name = f"{path}/lora_{letter}/kernel"
            assert np.abs(expected).max() > 0
            check_close(gradients[name], expected, name)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_prompt_is_peft_s_on_rows_without_padding(framework, make_tiny, make_values) -> None:
    import peft

    model = make_tiny(framework, "ag_news", "prompt tokens=5", pads=False)
    values = make_values(model.bound.shapes)
    logits_BC, gradients = results(model, values)
    config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=5)
    tuned = under_peft(gpt2_reference(model.model, values), config)
    prompt = tuned.prompt_encoder.default.embedding.weight
    prompt.data.copy_(torch.tensor(values["token/prompt/embedding"]))
    token_BT = torch.from_numpy(model.rows["inputs"]).long()
    expected_BC = tuned(input_ids=token_BT, attention_mask=torch.ones_like(token_BT)).logits
    check_close(logits_BC, expected_BC.detach().numpy(), "logits")
    (expected_BC * torch.from_numpy(weights(tuple(expected_BC.shape)))).sum().backward()
    check_close(gradients["token/prompt/embedding"], prompt.grad.numpy(), "gradient")
    assert set(gradients) == {"token/prompt/embedding", "head/kernel"}


class Adapted(nn.Module):
    """A layer with two more after it, built by hand."""

    def __init__(self, layer: nn.Module, values: dict[str, np.ndarray], path: str) -> None:
        super().__init__()
        self.layer = layer
        self.own = nn.ParameterDict(
            {
                f"{place}_{leaf}": torch.tensor(values[f"{path}/adapter_{place}/{leaf}"])
                for place in ("down", "up")
                for leaf in ("kernel", "bias")
            }
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        output, own = self.layer(hidden), self.own
        down = output @ own["down_kernel"] + own["down_bias"]
        inner = 0.5 * down * (1 + torch.erf(down / 2**0.5))
        return output + inner @ own["up_kernel"] + own["up_bias"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_adapters_are_those_that_are_built_by_hand(framework, make_tiny, make_values) -> None:
    model = make_tiny(framework, "ag_news", "adapters bottleneck=6")
    values = make_values(model.bound.shapes)
    logits_BC, gradients = results(model, values)
    reference, adapted = gpt2_reference(model.model, values), {}
    for number, block in enumerate(reference.transformer.h):
        for parent, path in (
            (block.attn, f"block_{number}/attention/attention_out"),
            (block.mlp, f"block_{number}/down"),
        ):
            parent.c_proj = adapted[path] = Adapted(parent.c_proj, values, path)
    expected_BC = reference(input_ids=torch.from_numpy(model.rows["inputs"]).long()).logits
    check_close(logits_BC, expected_BC.detach().numpy(), "logits")
    (expected_BC * torch.from_numpy(weights(tuple(expected_BC.shape)))).sum().backward()
    for path, layer in adapted.items():
        for name, value in layer.own.items():
            place, leaf = name.split("_")
            own = f"{path}/adapter_{place}/{leaf}"
            check_close(gradients[own], value.grad.numpy(), own)
    norms = reference.transformer.h[0].ln_1.weight.grad.numpy()
    check_close(gradients["block_0/norm_1/scale"], norms, "norm")


def test_the_settings_are_read(make_tiny, make_values) -> None:
    """alpha scales what is added, and targets say where."""
    logits = {}
    for settings in ("alpha=12", "alpha=24", "alpha=12 targets=down"):
        model = make_tiny("pytorch", "ag_news", f"lora rank=3 {settings}")
        logits[settings] = results(model, make_values(model.bound.shapes))[0]
        added = [name for name in model.bound.parameters if "lora" in name]
        expected = "down" if "targets" in settings else "qkv"
        assert {name.split("/")[-3] for name in added} == {expected}, added
    found = list(logits.values())
    assert (found[0] != found[1]).all()
    assert (found[0] != found[2]).all()
