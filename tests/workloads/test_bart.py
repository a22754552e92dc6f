"""Both BARTs against transformers: logits, gradients, generated tokens."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax import traverse_util

from algoperf.backends import generation, jax_decoding, torch_backend, torch_decoding
from algoperf.backends.generation import Generated, GenerationSettings
from algoperf.data import tokenizers
from algoperf.workload import parameters, pretrained
from workloads.parts import bart_jax, bart_torch

BART_BASE_PARAMETERS = 139_420_416
BART_BASE = {
    "vocab_size": 50_265,
    "positions": 1024,
    "width": 768,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "heads": 12,
    "feed_forward": 3072,
}
TINY = {
    "vocab_size": 100,
    "positions": 32,
    "width": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "heads": 4,
    "feed_forward": 128,
}
WEIGHTS = {weight.name: weight for weight in pretrained.format_of("bart").weights(TINY)}
FRAMEWORKS = ("jax", "pytorch")
LIMIT = 24
INPUTS = 50


def make_reference(model: dict[str, int], **settings: Any) -> Any:
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=model["vocab_size"],
        max_position_embeddings=model["positions"],
        d_model=model["width"],
        encoder_layers=model["encoder_layers"],
        decoder_layers=model["decoder_layers"],
        encoder_attention_heads=model["heads"],
        decoder_attention_heads=model["heads"],
        encoder_ffn_dim=model["feed_forward"],
        decoder_ffn_dim=model["feed_forward"],
        dropout=0.0,
        forced_eos_token_id=None,
        **settings,
    )
    return BartForConditionalGeneration(config).eval()


def saved(reference: Any, folder: Path) -> Path:
    from transformers.utils import logging

    logging.disable_progress_bar()
    reference.save_pretrained(folder)
    return folder


def copying_batch(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Rows `<s> tokens </s>` of 10 to 16 tokens, padded; the summary is the row itself."""
    token_BT = rng.integers(4, TINY["vocab_size"], (rows, 18), np.int32)
    token_BT[:, 0] = 0
    lengths_B = rng.integers(10, 17, rows)
    token_BT[np.arange(rows), lengths_B + 1] = tokenizers.END_ID
    token_BT[np.arange(18) > lengths_B[:, None] + 1] = tokenizers.PAD_ID
    return token_BT


def padded_batch(model: dict[str, int], source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Random sources and targets of different lengths, one of each full."""
    rng = np.random.default_rng(0)
    batch = []
    for length in (source, target):
        token_BT = rng.integers(3, model["vocab_size"], (4, length), np.int32)
        lengths_B = np.array([length, length // 2, 1, length - 1])
        token_BT[np.arange(length) >= lengths_B[:, None]] = tokenizers.PAD_ID
        batch.append(token_BT)
    return batch[0], batch[1]


@dataclasses.dataclass(frozen=True)
class Models:
    """transformers' model, and ours with its weights."""

    reference: Any
    flax: Any
    params: Any
    module: Any

    def logits(self, framework: str, inputs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        if framework == "jax":
            call = jax.jit(self.flax.apply, static_argnames=("train", "dropout_rate"))
            variables = {"params": self.params}
            return np.asarray(call(variables, inputs, train=False, dropout_rate=0.1))
        with torch.no_grad():
            return self.module.eval()(
                tuple(map(torch.from_numpy, inputs)), dropout_rate=0.1
            ).numpy()

    def decoder(self, framework: str, *, cached: bool) -> generation.Decoder:
        if framework == "jax":
            return jax_decoding.JaxDecoder(self.flax, self.params, cached=cached)
        return torch_decoding.TorchDecoder(self.module, cached=cached)

    def reference_logits(self, source_BS: np.ndarray, labels_BT: np.ndarray) -> torch.Tensor:
        source = torch.from_numpy(source_BS).long()
        mask = (source != tokenizers.PAD_ID).long()
        labels = torch.from_numpy(labels_BT).long()
        return self.reference(input_ids=source, attention_mask=mask, labels=labels).logits


def load_both(reference: Any, folder: Path, model: dict[str, int]) -> Models:
    values = pretrained.load(("bart",), str(folder), model)
    module = bart_torch.build(**model)
    names = torch_backend.neutral_names(module)
    assert set(names.values()) == set(values)
    module.load_state_dict(
        {
            name: torch.tensor(parameters.to_torch(ours, values[ours]))
            for name, ours in names.items()
        }
    )
    params = jax.device_put(traverse_util.unflatten_dict(values, sep="/"))
    return Models(reference, bart_jax.build(**model), params, module)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Models:
    """75 steps on copying: the tokens vary with the source, and the model is often unsure."""
    reference, rng = make_reference(TINY, init_std=0.08).train(), np.random.default_rng(0)
    optimizer = torch.optim.Adam(reference.parameters(), fused=True)
    for step in range(75):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 20)
        token_BT = torch.from_numpy(copying_batch(rng, 32)).long()
        padded_BT = token_BT == tokenizers.PAD_ID
        loss = reference(
            input_ids=token_BT,
            attention_mask=(~padded_BT).long(),
            labels=token_BT.masked_fill(padded_BT, -100),
        ).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimizer.step()
    folder = saved(reference.eval(), tmp_path_factory.mktemp("trained"))
    return load_both(reference, folder, TINY)


@pytest.fixture(scope="module")
def sources() -> np.ndarray:
    return copying_batch(np.random.default_rng(1), INPUTS)


def test_full_is_bart_base_in_pytorch() -> None:
    with torch.device("meta"):
        module = bart_torch.build(**BART_BASE)
    assert sum(tensor.numel() for tensor in module.parameters()) == BART_BASE_PARAMETERS


def test_full_is_bart_base_in_flax() -> None:
    token_BT = np.zeros((1, 8), np.int32)
    model = bart_jax.build(**BART_BASE)
    shapes = jax.eval_shape(
        lambda: model.init(
            jax.random.PRNGKey(0), (token_BT, token_BT), train=False, dropout_rate=0.0
        )
    )
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == BART_BASE_PARAMETERS


def assert_logits_equal(models: Models, inputs: tuple[np.ndarray, np.ndarray]) -> None:
    with torch.no_grad():
        expected = models.reference_logits(*inputs).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-2 * np.abs(expected).max()  # rows differ
    for framework in FRAMEWORKS:
        difference = np.abs(models.logits(framework, inputs) - expected).max()
        assert difference <= 1e-4 * np.abs(expected).max(), framework


def test_logits_are_transformers(trained: Models) -> None:
    assert_logits_equal(trained, padded_batch(TINY, source=13, target=9))


@pytest.mark.slow
def test_logits_of_bart_base_are_transformers(tmp_path: Path) -> None:
    reference = make_reference(BART_BASE)
    models = load_both(reference, saved(reference, tmp_path), BART_BASE)
    assert sum(value.numel() for value in reference.parameters()) == BART_BASE_PARAMETERS
    assert_logits_equal(models, padded_batch(BART_BASE, source=48, target=12))


GRADIENT_INPUTS = padded_batch(TINY, source=13, target=9)
LOSS_WEIGHTS_BTV = np.random.default_rng(2).standard_normal((4, 9, 100), np.float32)


def jax_gradients(models: Models) -> dict[str, np.ndarray]:
    def loss_of(params: Any) -> Any:
        logits = models.flax.apply(
            {"params": params}, GRADIENT_INPUTS, train=True, dropout_rate=0.0
        )
        return (logits * LOSS_WEIGHTS_BTV).sum()

    flat = traverse_util.flatten_dict(jax.jit(jax.grad(loss_of))(models.params), sep="/")
    return {name: parameters.to_torch(name, np.asarray(value)) for name, value in flat.items()}


def torch_gradients(models: Models) -> dict[str, np.ndarray]:
    models.module.train().zero_grad()
    logits = models.module(tuple(map(torch.from_numpy, GRADIENT_INPUTS)), dropout_rate=0.0)
    (logits * torch.from_numpy(LOSS_WEIGHTS_BTV)).sum().backward()
    names = torch_backend.neutral_names(models.module)
    return {names[name]: value.grad.numpy() for name, value in models.module.named_parameters()}


@pytest.mark.parametrize(
    "gradients_of",
    [
        pytest.param(torch_gradients, id="pytorch"),
        pytest.param(jax_gradients, id="jax", marks=pytest.mark.slow),
    ],
)
def test_gradients_are_transformers(trained: Models, gradients_of) -> None:
    ours = gradients_of(trained)
    trained.reference.zero_grad()
    logits = trained.reference_logits(*GRADIENT_INPUTS)
    (logits * torch.from_numpy(LOSS_WEIGHTS_BTV)).sum().backward()
    theirs = dict(trained.reference.named_parameters())
    size = sum(np.square(value).sum() for value in ours.values()) ** 0.5
    for name, value in ours.items():
        expected = theirs[WEIGHTS[name].theirs].grad.numpy()
        differs = value - expected
        if name == "token/embedding":
            # transformers' embedding gives padding no gradient; an optimizer would not move a row
            # that is never read but as an output, whose gradient both have
            differs = np.delete(differs, tokenizers.PAD_ID, axis=0)
        limit = 1e-4 * np.linalg.norm(expected) + 1e-6 * size
        assert np.linalg.norm(differs) <= limit, name


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_dropout_acts_in_training_alone(framework) -> None:
    small = TINY | {"vocab_size": 10, "width": 8, "encoder_layers": 1, "decoder_layers": 1}
    inputs = padded_batch(small, source=5, target=4)

    def logits_in_jax(*, train: bool) -> np.ndarray:
        rng = np.random.default_rng(0)
        weights = pretrained.format_of("bart").weights(small)
        values = {each.name: rng.standard_normal(each.shape, np.float32) for each in weights}
        params = traverse_util.unflatten_dict(values, sep="/")
        apply = jax.jit(bart_jax.build(**small).apply, static_argnums=(2, 3))
        keys = {"dropout": jax.random.key(1, impl="rbg")}  # compiled in a tenth of the time
        return np.asarray(apply({"params": params}, inputs, train, 0.5, rngs=keys))

    def logits_in_torch(*, train: bool) -> np.ndarray:
        torch.manual_seed(0)
        module = bart_torch.build(**small).train(train)
        return module(tuple(map(torch.from_numpy, inputs)), dropout_rate=0.5).detach().numpy()

    logits_of = {"jax": logits_in_jax, "pytorch": logits_in_torch}[framework]
    plain = logits_of(train=False)
    np.testing.assert_array_equal(logits_of(train=False), plain)
    assert np.abs(logits_of(train=True) - plain).max() > 0.01 * np.abs(plain).max()


def transformers_sequences(models: Models, source_BS: np.ndarray, **settings) -> list[list[int]]:
    source = torch.from_numpy(source_BS).long()
    written_BT = models.reference.generate(
        source,
        attention_mask=(source != tokenizers.PAD_ID).long(),
        max_new_tokens=LIMIT,
        do_sample=False,
        **settings,
    )
    return [generation._until_end(row_T) for row_T in written_BT[:, 1:].numpy()]


def unpadded(row: list[int]) -> list[int]:
    """A sequence that was cut at the limit, without the padding of its batch."""
    while row and row[-1] == tokenizers.PAD_ID:
        row = row[:-1]
    return row


def score(models: Models, source_S: np.ndarray, sequence: list[int]) -> float:
    """The mean log-probability of a sequence's tokens, by transformers."""
    labels_1T = np.array([sequence], np.int32)
    with torch.no_grad():
        log_probs_TV = models.reference_logits(source_S[None], labels_1T)[0].log_softmax(-1)
    return float(log_probs_TV[range(len(sequence)), sequence].mean())


def count_ties(
    models: Models, sources: np.ndarray, ours: list[list[int]], theirs: list[list[int]]
) -> int:
    """How many rows differ; where one does, its scores must be equal to 1e-5."""
    ties = 0
    for source_S, our, their in zip(sources, ours, map(unpadded, theirs), strict=True):
        if our != their:
            difference = score(models, source_S, our) - score(models, source_S, their)
            assert abs(difference) < 1e-5, (our, their)
            ties += 1
    return ties


def test_the_trained_model_writes_what_a_comparison_needs(trained: Models, sources) -> None:
    greedy, beam = (transformers_sequences(trained, sources, num_beams=beams) for beams in (1, 4))
    assert np.median([len(row) for row in Generated(greedy, None, 0).tokens]) >= 8
    assert len({token for row in greedy for token in row}) >= 50
    assert sum(map(list.__ne__, greedy, beam)) >= 10


SEARCHES = [
    pytest.param({"beams": 1}, id="greedy"),
    pytest.param({"beams": 4}, id="beam"),
    pytest.param({"beams": 4, "early_stopping": True}, id="early", marks=pytest.mark.slow),
    pytest.param({"beams": 4, "length_penalty": 2.0}, id="long", marks=pytest.mark.slow),
    pytest.param({"beams": 3, "length_penalty": 0.5}, id="short", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("search", SEARCHES)
def test_tokens_are_those_of_transformers(trained: Models, sources, search) -> None:
    settings = GenerationSettings(LIMIT, **search)
    theirs = transformers_sequences(
        trained,
        sources,
        num_beams=settings.beams,
        length_penalty=settings.length_penalty,
        early_stopping=settings.early_stopping,
    )
    for framework in FRAMEWORKS:
        generated = generation.generate(trained.decoder(framework, cached=True), sources, settings)
        ties = count_ties(trained, sources, generated.sequences, theirs)
        print(f"{framework}: {ties} ties")  # noqa: T201 (shown by pytest -s)
        assert ties <= 2, framework
        if generated.scores is not None and settings.length_penalty == 1.0:
            for source_S, row, found in zip(
                sources[:5], generated.sequences, generated.scores, strict=False
            ):
                assert score(trained, source_S, row) == pytest.approx(float(found), abs=1e-4)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("beams", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_the_cache_changes_no_token(trained: Models, sources, framework, beams) -> None:
    settings = GenerationSettings(LIMIT, beams)
    cached, anew = (
        generation.generate(trained.decoder(framework, cached=cached), sources, settings)
        for cached in (True, False)
    )
    assert cached.steps == anew.steps
    assert count_ties(trained, sources, cached.sequences, anew.sequences) <= 2


def test_padding_the_sources_further_changes_no_token(trained: Models, sources) -> None:
    settings = GenerationSettings(LIMIT)
    decoder = trained.decoder("pytorch", cached=True)
    wider = np.pad(sources, ((0, 0), (0, 7)), constant_values=tokenizers.PAD_ID)
    ours, theirs = (
        generation.generate(decoder, rows, settings).sequences for rows in (sources, wider)
    )
    assert count_ties(trained, sources, ours, theirs) <= 2
