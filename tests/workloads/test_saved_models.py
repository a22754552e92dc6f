"""Saved models: transformers gives the logits of what we save, and we those of what it saves, in
both frameworks, at step 0 of a run.
"""

import dataclasses
import functools
import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algoperf import backends, spec, workload
from algoperf.data import tokenizers
from algoperf.errors import UserError
from algoperf.workload import Data, catalogue, pretrained

FRAMEWORKS = ("jax", "pytorch")
DECODER = {"vocab_size": 90, "positions": 16, "width": 32, "layers": 2, "heads": 4}
ENCODER = {"vocab_size": 90, "positions": 16, "width": 32, "heads": 4, "feed_forward": 48}
SMALL = {
    "lm": {**DECODER, "pad_id": 0},
    "ag_news": {**DECODER, "pad_id": 0, "classes": 4},
    "mlm": {**ENCODER, "encoder_layers": 2, "pad_id": 1},
    "xsum": {**ENCODER, "encoder_layers": 2, "decoder_layers": 1},
}
CLASSES = {
    "lm": "GPT2LMHeadModel",
    "ag_news": "GPT2ForSequenceClassification",
    "mlm": "RobertaForMaskedLM",
    "xsum": "BartForConditionalGeneration",
}


@functools.cache
def bound(name: str, framework: str) -> Any:
    """A workload over a model of the small settings."""
    definition = catalogue.find(name)
    mini = definition.scales["mini"]
    scale = dataclasses.replace(mini, model={"style": mini.model["style"], **SMALL[name]})
    data = Data(dict.fromkeys(workload.SPLITS, batch(name)))
    return backends.load(framework).workload(definition, scale, "builtin", data)


def settings(name: str) -> dict[str, Any]:
    return {"style": catalogue.find(name).scales["mini"].model["style"], **SMALL[name]}


def batch(name: str) -> dict[str, np.ndarray]:
    """Three rows without padding: what transformers does with it is another test's matter."""
    rng = np.random.default_rng(0)
    rows = {
        key: rng.integers(5, 90, (3, length)).astype(np.int32)
        for key, length in (("inputs", 12), ("targets", 7 if name == "xsum" else 12))
    }
    return {**rows, "targets": rng.integers(0, 4, 3)} if name == "ag_news" else rows


def first_logits(name: str, framework: str, values: Any) -> np.ndarray:
    """Of a run that starts from these values."""
    made, backend = bound(name, framework), backends.load(framework)
    made.pretrained = values
    params, state = made.init_model_fn(backend.random_state((3, 4)))
    placed = backend.place(batch(name))
    out, _ = made.model_fn(params, placed, state, spec.ForwardPassMode.EVAL, None, False)
    return backend.fetch(out)


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    parameters = bound(name, "jax").parameters
    return {key: parameter.shape for key, parameter in parameters.items()}


def load_reference(name: str, folder: Path) -> Any:
    """Transformers' model from a folder, without a message of missing or unknown weights."""
    import transformers

    kind = getattr(transformers, CLASSES[name])
    model, about = kind.from_pretrained(folder, output_loading_info=True)
    assert not about["missing_keys"]
    assert not about["unexpected_keys"]
    return model.eval()


def reference_logits(name: str, model: Any) -> np.ndarray:
    rows = {key: torch.from_numpy(value).long() for key, value in batch(name).items()}
    labels = {"labels": rows["targets"]} if name == "xsum" else {}
    with torch.no_grad():
        return model(input_ids=rows["inputs"], **labels).logits.numpy()


@pytest.fixture(autouse=True)
def no_progress() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()


def save(name: str, folder: Path, values: Any, tokenizer: str | None = None) -> None:
    form = catalogue.find(name).pretrained[0]
    pretrained.Trained(form, settings(name), values, tokenizer).save(folder)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_transformers_gives_the_logits_of_what_we_save(name, make_values, tmp_path: Path) -> None:
    values = make_values(shapes(name))
    save(name, tmp_path, values)
    expected = reference_logits(name, load_reference(name, tmp_path))
    again = pretrained.load(catalogue.find(name).pretrained, str(tmp_path), settings(name))
    assert set(again) == set(values)
    for key, value in values.items():
        np.testing.assert_array_equal(again[key], value, err_msg=key)
    for framework in FRAMEWORKS:
        found = first_logits(name, framework, again)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max(), framework


def random_reference(name: str) -> Any:
    """Transformers' model of the small settings, by its own constructor."""
    import transformers

    written = pretrained.format_of(catalogue.find(name).pretrained[0]).config(settings(name))
    config = transformers.AutoConfig.for_model(**written)
    if name == "mlm":
        config.type_vocab_size = 2  # the second of which is never used
    torch.manual_seed(0)
    model = getattr(transformers, CLASSES[name])(config).eval()
    with torch.no_grad():  # its biases are 0, its norms 1
        for key, value in model.named_parameters():
            value.add_(0.05 * torch.randn_like(value) * ("final_logits_bias" not in key))
    return model


@pytest.mark.parametrize("name", sorted(SMALL))
def test_we_give_the_logits_of_what_transformers_saves(name, tmp_path: Path) -> None:
    reference = random_reference(name)
    reference.save_pretrained(tmp_path)
    expected = reference_logits(name, reference)
    values = pretrained.load(catalogue.find(name).pretrained, str(tmp_path), settings(name))
    assert set(values) == set(shapes(name))
    for framework in FRAMEWORKS:
        found = first_logits(name, framework, values)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max(), framework


def test_ag_news_starts_from_a_language_model_and_draws_its_head(make_values, tmp_path) -> None:
    """And both frameworks start at the same function, whichever wrote it."""
    trunk = make_values(shapes("lm"))
    save("lm", tmp_path, trunk)
    values = pretrained.load(
        catalogue.find("ag_news").pretrained, str(tmp_path), settings("ag_news")
    )
    assert set(values) == set(shapes("ag_news")) - {"head/kernel"} == set(trunk)
    ours, theirs = (first_logits("ag_news", framework, values) for framework in FRAMEWORKS)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(ours).max()
    drawn = first_logits("ag_news", "pytorch", None)
    assert np.abs(ours - drawn).max() > 0.1 * np.abs(ours).max()


def test_a_summarizer_starts_from_a_masked_language_model(make_values, tmp_path: Path) -> None:
    values = make_values(shapes("mlm"))
    save("mlm", tmp_path, values)
    longer = {**settings("xsum"), "positions": 20}
    found = pretrained.load(catalogue.find("xsum").pretrained, str(tmp_path), longer)
    expected = {key for key in shapes("xsum") if not key.startswith("decoder/")}
    assert set(found) == expected
    for key in expected - {"encoder/position/embedding"}:
        np.testing.assert_array_equal(found[key], values[key], err_msg=key)
    table = found["encoder/position/embedding"]
    np.testing.assert_array_equal(table[:18], values["encoder/position/embedding"])
    assert table.shape == (22, 32)
    assert not table[18:].any()


def test_positions_that_are_not_needed_are_left(make_values, tmp_path: Path) -> None:
    values = make_values(shapes("lm"))
    save("lm", tmp_path, values)
    found = pretrained.load(
        catalogue.find("lm").pretrained, str(tmp_path), {**settings("lm"), "positions": 10}
    )
    table = values["position/embedding"]
    np.testing.assert_array_equal(found["position/embedding"], table[:10])
    with pytest.raises(UserError, match=r"another model: its n_positions 16, not 17$"):
        pretrained.load(
            catalogue.find("lm").pretrained, str(tmp_path), {**settings("lm"), "positions": 17}
        )


def test_another_kind_of_model_is_refused(make_values, tmp_path: Path) -> None:
    save("mlm", tmp_path, make_values(shapes("mlm")))
    with pytest.raises(UserError, match=r"its model_type 'roberta', not 'gpt2'$"):
        pretrained.load(catalogue.find("lm").pretrained, str(tmp_path), settings("lm"))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config\.json: expected an object, found list$"):
        pretrained.load(catalogue.find("lm").pretrained, str(tmp_path), settings("lm"))


def test_a_variant_with_other_layers_is_not_saved() -> None:
    style = catalogue.find("lm_post_ln").scales["mini"].model["style"]
    with pytest.raises(UserError, match="variant whose layers differ from GPT-2's"):
        pretrained.check_saved("gpt2", None, {"style": style})


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_lora_is_saved_in_the_kernels_and_a_prompt_is_not_saved(framework, load_small) -> None:
    def bound(name):
        definition = catalogue.find(name)
        data = load_small(definition, "mini")
        scale = definition.scales["mini"]
        made = backends.load(framework).workload(definition, scale, "builtin", data)
        return made, {**scale.model, **data.model}

    plain, (low_rank, made) = bound("ag_news")[0], bound("ag_news_lora")
    assert low_rank.folded_names == set(plain.parameters)
    pretrained.check_saved("gpt2", low_rank, made)
    with pytest.raises(UserError, match="has token/prompt/embedding besides"):
        pretrained.check_saved("gpt2", *bound("ag_news_prompt"))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_what_has_other_parameters_is_not_saved(name) -> None:
    """As where a technique adds more than the published model has."""
    form, made = catalogue.find(name).pretrained[0], settings(name)
    whole = dict.fromkeys(shapes(name))
    pretrained.check_saved(form, types.SimpleNamespace(folded_names=whole), made)
    more = types.SimpleNamespace(folded_names={**whole, "prompt/embedding": None})
    with pytest.raises(UserError, match="the model has prompt/embedding besides"):
        pretrained.check_saved(form, more, made)
    less = types.SimpleNamespace(folded_names=whole.keys() - {"token/embedding"})
    with pytest.raises(UserError, match="the model lacks token/embedding"):
        pretrained.check_saved(form, less, made)


def test_the_tokenizer_goes_along(make_values, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    texts = ["the cat sat on the mat", "a dog, another dog"] * 9
    made = tokenizers.train_byte_pair(texts, 300)
    save("lm", tmp_path, make_values(shapes("lm")), made.to_str())
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(texts[1])["input_ids"] == made.encode(texts[1]).ids
    assert theirs.pad_token == "<pad>"
    mini = catalogue.find("ag_news").scales["mini"]
    taken = pretrained.starting_from(catalogue.find("ag_news"), str(tmp_path), mini)
    assert taken.data["vocab_size"] == 90  # the weights', not what the tokenizer has
    ours, end_id = tokenizers.of_decoder(taken.data["tokenizer"], "builtin", [], 90)
    read, written = (json.loads(each.to_str()) for each in (ours, made))
    assert not read.pop("post_processor")["special_tokens"]  # transformers' own, which adds nothing
    assert written.pop("post_processor") is None
    assert read == written
    assert ours.encode(texts[1]).ids == made.encode(texts[1]).ids
    assert end_id == 0
    full = catalogue.find("ag_news").scales["full"]
    assert pretrained.starting_from(catalogue.find("ag_news"), str(tmp_path), full) is full


def test_weights_without_a_tokenizer_do_not_fit_a_scale_that_trains_one(tmp_path: Path) -> None:
    definition = catalogue.find("ag_news")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 90}))
    with pytest.raises(UserError, match=r"no tokenizer\.json beside the weights"):
        pretrained.starting_from(definition, str(tmp_path), definition.scales["mini"])
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer"):
        tokenizers.of_decoder(str(tmp_path), "builtin", [], 90)
    tokenizers.train_byte_pair(["x"], 300, ("<s>",)).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"<pad> is token None, expected 0"):
        tokenizers.of_decoder(str(tmp_path), "builtin", [], 90)
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": "many"}))
    with pytest.raises(UserError, match=r"config\.json: no configuration \(Unrecognized model id"):
        pretrained.starting_from(definition, str(tmp_path), definition.scales["mini"])
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "vocab_size": "many"}')
    with pytest.raises(UserError, match=r"'vocab_size'.* expected int, got str \(value: 'many'\)"):
        pretrained.starting_from(definition, str(tmp_path), definition.scales["mini"])
    digits = catalogue.find("digits")
    with pytest.raises(UserError, match="digits has no pretrained weights to start from"):
        pretrained.starting_from(digits, str(tmp_path), digits.scales["mini"])


def test_a_folder_of_something_else_is_not_written_into(make_values, tmp_path: Path) -> None:
    values = make_values(shapes("lm"))
    save("lm", tmp_path, values)
    pretrained.check_target(tmp_path)  # a model that was saved is replaced
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"it holds thesis\.txt, which is no part of a saved model"):
        pretrained.check_target(tmp_path)
    with pytest.raises(UserError, match="not a folder"):
        pretrained.check_target(tmp_path / "thesis.txt")


def test_changed_weights_are_another_configuration(make_values) -> None:
    values = make_values(shapes("lm"))
    changed = {**values, "final_norm/bias": values["final_norm/bias"] + 1}
    found = [pretrained.flags(each) for each in (values, dict(reversed(values.items())), changed)]
    assert found[0] == found[1] != found[2]
    assert pretrained.flags(None) == {}
