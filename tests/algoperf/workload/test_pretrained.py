"""BART's weights from folders that transformers saved; what fits and what does not."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from algoperf.errors import UserError
from algoperf.workload import pretrained
from workloads.parts.style import BART

TINY = {
    "vocab_size": 100,
    "positions": 32,
    "width": 64,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "heads": 4,
    "feed_forward": 128,
}
SIZES = (
    *("vocab_size", "max_position_embeddings", "d_model", "encoder_layers", "decoder_layers"),
    *("encoder_attention_heads", "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim"),
)


@pytest.fixture(scope="module")
def random_folder(tmp_path_factory) -> Path:
    from transformers import BartConfig, BartForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("random")
    written = pretrained.format_of("bart").config(TINY)
    config = BartConfig(**{key: written[key] for key in SIZES})
    BartForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_a_pickled_folder_gives_the_same_weights(random_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    values = pretrained.load(("bart",), str(random_folder), TINY)
    tensors = load_file(random_folder / "model.safetensors")
    # as older folders are: without the prefix, tied weights shared, a view with an offset
    tensors = {name.removeprefix("model."): value for name, value in tensors.items()}
    tensors["lm_head.weight"] = tensors["shared.weight"]
    key = "decoder.layers.1.fc1.bias"
    tensors[key] = torch.cat([torch.zeros(3), tensors[key]])[3:]
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text((random_folder / "config.json").read_text())
    pickled = pretrained.load(("bart",), str(tmp_path), TINY)
    assert list(pickled) == list(values)
    for name, value in values.items():
        np.testing.assert_array_equal(pickled[name], value, err_msg=name)


def test_a_pickle_with_anything_else_is_refused(random_folder: Path, tmp_path: Path) -> None:
    torch.save({"weight": Path("x")}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text((random_folder / "config.json").read_text())
    with pytest.raises(UserError, match=r"not a file of torch\.save with tensors \(it holds path"):
        pretrained.load(("bart",), str(tmp_path), TINY)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"width": 128}, "d_model 64, not 128"),
        ({"vocab_size": 101}, "vocab_size 100, not 101"),
        ({"decoder_layers": 3, "positions": 33}, "max_position_embeddings 32, not 33; its dec"),
    ],
)
def test_another_size_is_one_line_that_names_the_difference(random_folder, change, named) -> None:
    with pytest.raises(UserError) as caught:
        pretrained.load(("bart",), str(random_folder), TINY | change)
    assert named.partition(";")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_architecture_is_refused(random_folder: Path, tmp_path: Path) -> None:
    config = json.loads((random_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"scale_embedding": True}))
    with pytest.raises(UserError, match="scale_embedding True, not False"):
        pretrained.load(("bart",), str(tmp_path), TINY)


def test_missing_and_misshapen_weights_are_named(random_folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(random_folder / "model.safetensors")
    (tmp_path / "config.json").write_text((random_folder / "config.json").read_text())
    with pytest.raises(UserError, match="holds neither"):
        pretrained.load(("bart",), str(tmp_path), TINY)
    lost = tensors.pop("model.encoder.layers.0.fc2.bias")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"no weights named 'encoder\.layers\.0\.fc2\.bias'"):
        pretrained.load(("bart",), str(tmp_path), TINY)
    tensors["model.encoder.layers.0.fc2.bias"] = lost[:-1]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"has shape \(63,\), expected \(64,\)"):
        pretrained.load(("bart",), str(tmp_path), TINY)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot be read"):
        pretrained.load(("bart",), str(tmp_path), TINY)


def test_neither_a_folder_nor_on_the_hub(monkeypatch) -> None:
    import huggingface_hub

    def refuse(*_, **__):
        raise OSError("no network in tests\nmore lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError, match="no such folder, and not found on the Hugging Face hub"):
        pretrained.load(("bart",), "nobody/nothing", TINY)


def test_a_variant_with_other_layers_is_refused(random_folder: Path) -> None:
    style = dataclasses.replace(BART, norm_place="pre")
    with pytest.raises(UserError, match=r"whose layers differ from BART's: .*norm_place='pre'"):
        pretrained.load(("bart",), str(random_folder), {**TINY, "style": style})
    same = pretrained.load(("bart",), str(random_folder), {**TINY, "style": BART})
    assert list(same) == list(pretrained.load(("bart",), str(random_folder), TINY))
