"""What a technique means for parameters by name: settings, what trains, what is added, first
values.
"""

import json

import numpy as np
import pytest

from algoperf.errors import UserError
from algoperf.workload import axes, catalogue, registry, suite, trainable

DECODER = {
    "token/embedding": (50, 12),
    "position/embedding": (20, 12),
    "block_0/norm_1/scale": (12,),
    "block_0/norm_1/bias": (12,),
    "block_0/attention/qkv/kernel": (12, 36),
    "block_0/attention/qkv/bias": (36,),
    "block_0/attention/attention_out/kernel": (12, 12),
    "block_0/attention/attention_out/bias": (12,),
    "block_0/up/kernel": (12, 48),
    "block_0/down/kernel": (48, 12),
    "head/kernel": (12, 4),
}
ENCODER_DECODER = {
    "token/embedding": (50, 12),
    "encoder/position/embedding": (20, 12),
    "encoder/block_0/attention/query/kernel": (12, 12),
    "encoder/block_0/attention/key/kernel": (12, 12),
    "decoder/position/embedding": (20, 12),
    "decoder/block_0/cross_attention/value/kernel": (12, 12),
}


def bind(text, shapes=DECODER, output="head"):
    return trainable.bind(text, shapes, lambda name: output in name.split("/"))


def trained(text, shapes=DECODER, output="head"):
    return set(shapes) - bind(text, shapes, output).frozen


def test_without_a_technique_all_train():
    assert bind(None) == trainable.Trainable()


def test_lora_has_two_thin_matrices_beside_each_target():
    found = bind("lora rank=4 alpha=10 targets=qkv,up")
    assert found.added == {
        "block_0/attention/qkv/lora_a/kernel": (12, 4),
        "block_0/attention/qkv/lora_b/kernel": (4, 36),
        "block_0/up/lora_a/kernel": (12, 4),
        "block_0/up/lora_b/kernel": (4, 48),
    }
    assert found.kinds == {"block_0/attention/qkv": "lora", "block_0/up": "lora"}
    assert found.scale == 2.5
    assert set(DECODER) - found.frozen == {"head/kernel"}


def test_lora_s_own_settings():
    of_decoder, of_both = bind("lora"), bind("lora", ENCODER_DECODER, "token")
    assert of_decoder.added["block_0/attention/qkv/lora_a/kernel"] == (12, 8)
    assert set(of_decoder.kinds) == {"block_0/attention/qkv"}
    assert of_decoder.scale == 2
    assert set(of_both.kinds) == {
        "encoder/block_0/attention/query",
        "decoder/block_0/cross_attention/value",
    }
    assert of_both.frozen == set(ENCODER_DECODER)  # the output layer is the embeddings


def test_adapters_follow_what_adds_to_the_residual_stream_and_norms_train():
    found = bind("adapters bottleneck=3")
    of_down = {
        "block_0/down/adapter_down/kernel": (12, 3),
        "block_0/down/adapter_down/bias": (3,),
        "block_0/down/adapter_up/kernel": (3, 12),
        "block_0/down/adapter_up/bias": (12,),
    }
    assert of_down.items() <= found.added.items()
    assert set(found.kinds) == {"block_0/down", "block_0/attention/attention_out"}
    assert len(found.added) == 8
    own = {"block_0/norm_1/scale", "block_0/norm_1/bias", "head/kernel"}
    assert trained("adapters") == own


def test_a_prompt_is_below_the_tokens_embeddings():
    found = bind("prompt tokens=5")
    assert found.added == {"token/prompt/embedding": (5, 12)}
    assert found.kinds == {"token": "prompt"}
    assert trained("prompt") == trained("head") == {"head/kernel"}


def test_what_is_frozen_of_the_model_itself():
    assert bind("frozen_embeddings").frozen == {"token/embedding", "position/embedding"}
    assert bind("frozen_encoder", ENCODER_DECODER, "token").frozen == {
        "token/embedding",
        "encoder/position/embedding",
        "encoder/block_0/attention/query/kernel",
        "encoder/block_0/attention/key/kernel",
    }
    assert not bind("frozen_embeddings").added


def test_first_values():
    """What maps back is 0; what maps from is uniform within 1 / sqrt(inputs)."""
    shapes = {**bind("lora rank=64").added, **bind("adapters bottleneck=64").added}
    values = {
        name: trainable.initial_value(name, shape, {}, (1, 2)) for name, shape in shapes.items()
    }
    for name, value in values.items():
        assert value.shape == shapes[name]
        assert value.dtype == np.float32
        layer, leaf = name.split("/")[-2:]
        if layer in ("lora_b", "adapter_up") or leaf == "bias":
            assert not value.any()
        else:
            assert 0.98 * 12**-0.5 < np.abs(value).max() <= 12**-0.5
            assert value.std() == pytest.approx(36**-0.5, rel=0.05)
            assert abs(value.mean()) < 0.02
    down = [value for name, value in values.items() if name.endswith("adapter_down/kernel")]
    assert (down[0] != down[1]).any()


def test_virtual_tokens_start_as_tokens():
    tokens_VD = np.arange(600, dtype=np.float32).reshape(50, 12)

    def draw(seed):
        name = "token/prompt/embedding"
        return trainable.initial_value(name, (20, 12), {"token/embedding": tokens_VD}, seed)

    rows = draw((0, 1))[:, 0] / 12
    np.testing.assert_array_equal(draw((0, 1)), tokens_VD[rows.astype(int)])
    assert len(set(rows)) > 10
    assert (draw((0, 2)) != draw((0, 1))).any()


def test_lora_becomes_part_of_its_layer():
    found = bind("lora rank=1 alpha=3", {"qkv/kernel": (2, 2), "up/kernel": (2, 2)})
    values = {
        "qkv/kernel": np.eye(2, dtype=np.float32),
        "up/kernel": np.ones((2, 2), np.float32),
        "qkv/lora_a/kernel": np.array([[1], [2]], np.float32),
        "qkv/lora_b/kernel": np.array([[10, 20]], np.float32),
    }
    folded = found.folded(values)
    assert set(folded) == {"qkv/kernel", "up/kernel"}
    assert folded["qkv/kernel"].tolist() == [[31, 60], [60, 121]]
    assert folded["up/kernel"] is values["up/kernel"]
    with pytest.raises(UserError, match="token has a prompt beside it"):
        bind("prompt").folded({"token/prompt/embedding": 0})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            3,
            "trainable is 3, expected a technique and its settings, as 'lora rank=4' (one of: ",
        ),
        ("", "trainable is '', expected a technique"),
        ("lorra", "unknown technique 'lorra'; did you mean lora"),
        ("lora rnak=4", "unknown setting of lora 'rnak'; did you mean rank"),
        ("lora rank=0", "rank is '0', expected a whole number above 0"),
        ("lora rank=1.5", "rank is '1.5', expected a whole number above 0"),
        ("lora alpha=nan", "alpha is 'nan', expected above 0"),
        ("lora alpha=inf", "alpha is 'inf', expected above 0"),
        ("lora targets=qkv,", "targets is 'qkv,', expected names of layers, as qkv,up"),
        ("lora rank=2 rank=3", "'rank=3' is not expected; lora has rank=... alpha=... targets=..."),
        ("prompt tokens", "'tokens' is not expected; prompt has tokens=..."),
        ("head rank=2", "'rank=2' is not expected; head has no settings"),
    ],
)
def test_a_mistake_is_one_line(text, said):
    with pytest.raises(UserError) as raised:
        trainable.parse(text)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("target", "said"),
    [("qvk", "unknown target of lora 'qvk'; did you mean qkv"), ("head", "'head' (one of")],
)
def test_lora_on_what_is_no_layer(target, said):
    with pytest.raises(UserError, match="unknown target of lora") as raised:
        bind(f"lora targets=up,{target}")
    assert said in str(raised.value)
    assert "attention_out, down, qkv, up" in str(raised.value)


def test_a_prompt_leaves_the_text_the_other_positions():
    mini = catalogue.find("ag_news").scales["mini"]
    changed = axes.changed(mini, {"trainable": "prompt tokens=20"})
    assert (changed.data["max_length"], changed.trainable) == (44, "prompt tokens=20")
    assert axes.changed(mini, {"trainable": "lora"}).data == mini.data
    full = catalogue.find("ag_news").scales["full"]
    assert axes.changed(full, {"trainable": "prompt"}).data == full.data
    with pytest.raises(UserError, match="prompt tokens=64': the model has 64 positions"):
        axes.changed(mini, {"trainable": "prompt tokens=64"})


def test_a_technique_is_of_the_workloads_that_say_so():
    for name, technique in (("digits", "head"), ("xsum", "prompt"), ("ag_news", "frozen_encoder")):
        with pytest.raises(UserError, match=f"{name} has nothing that .*{technique}"):
            axes.vary(catalogue.find(name), f"{name}_x", {"trainable": technique}, {})
    real = catalogue.find("xsum_lora").scales["mini"].real
    assert real.trainable == "lora"


def test_the_axis_is_never_drawn_and_a_suite_may_name_it(tmp_path):
    for name in registry.names():
        assert "trainable" not in axes.offered(catalogue.find(name).scales["mini"])

    def write(value):
        entry = {"base": "ag_news", "changes": {"trainable": value}}
        document = {"format": 1, "variants": {"ag_news_thin": entry}}
        (tmp_path / "suite.json").write_text(json.dumps(document))
        return tmp_path / "suite.json"

    found = catalogue.find("ag_news_thin", str(write("lora rank=2")))
    assert found.scales["mini"].trainable == "lora rank=2"
    with pytest.raises(UserError, match=r"ag_news_thin/changes: .*rank is '-2', expected a whole"):
        suite.read(write("lora rank=-2"))
