"""wmt: its two languages, packed rows that keep sentences apart, the published sizes, translations
from files.
"""

import dataclasses
import gzip
import hashlib
import itertools
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax import traverse_util

from algoperf import backends, spec
from algoperf.backends import generation, jax_decoding, torch_backend, torch_decoding
from algoperf.data.tokenizers import END_ID, PAD_ID
from algoperf.errors import UserError
from algoperf.experiments.check import gates
from algoperf.workload import SPLITS, Data, axes, catalogue, parameters
from workloads.parts import bart_jax, bart_torch, packing
from workloads.parts.positions import sine_positions
from workloads.parts.unigrams import Unigrams
from workloads.wmt import data as wmt
from workloads.wmt import generator
from workloads.wmt.generator import lexicon

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "translation"
FRAMEWORKS = ("jax", "pytorch")
VOCABULARY = 40
TINY = {
    "positions": 24,
    "width": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "heads": 2,
    "feed_forward": 16,
}

# The languages

ROWS = {"train": 3000, "validation": 400, "test": 100}


@pytest.fixture(scope="module")
def corpus():
    return generator.generate(3, ROWS)


def test_the_same_seed_gives_the_same_rows_on_every_machine(corpus):
    rows = generator.generate(0, {"train": 60, "validation": 20, "test": 20})
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]
    assert digest == "999bd2ea81012498"
    assert generator.generate(3, ROWS) == corpus


def readers() -> dict[str, Any]:
    """What a reader knows: forms of words, each with what it may mean, and nothing of clauses."""
    words = lexicon()
    verbs = {}
    for verb in words.verbs:
        for prefix, (usual, _) in zip(generator.PARTICLES, verb.translations, strict=True):
            verbs[f"{prefix}{verb.stem}"] = usual, verb.kind
    return {
        "verbs": verbs,
        "nouns": {noun.stem: noun for noun in words.nouns},
        "adjectives": {stem: meanings[0] for stem, meanings in words.adjectives},
        "adverbs": dict(words.adverbs),
    }


def read_clause(words: list[str], knows: dict[str, Any]) -> list[str]:
    """Translate one clause: the verb is found first, wherever its parts stand."""
    helpers = {"hut": "ha", "huben": "hav", "wurt": "wil", "wurten": "wil"}
    words = list(words)
    helper = next((word for word in words if word in helpers), None)
    if helper is not None:
        words.remove(helper)
        form = next(
            word for word in reversed(words) if word[0].islower() and infinitive(word, knows)
        )
        words.remove(form)
        usual, kind = knows["verbs"][infinitive(form, knows)]
        verb = f"{helpers[helper]} {usual}{'ed' if helpers[helper] != 'wil' else ''}"
    else:
        particle = words.pop() if words[-1] in generator.PARTICLES else ""
        form = next(word for word in words if word[0].islower() and finite(word, knows))
        words.remove(form)
        usual, kind = knows["verbs"][particle + finite(form, knows)]
        verb = usual + ("s" if form.endswith("t") else "")
    phrases: list[list[str]] = [[]]
    adverb = []
    for word in words:
        if word in knows["adverbs"]:
            adverb = [knows["adverbs"][word]]
            continue
        translated, closes = read_word(word, kind, knows)
        phrases[-1].append(translated)
        if closes:
            phrases.append([])
    subject, *others = [phrase for phrase in phrases if phrase]
    return [*subject, verb, *(word for phrase in others for word in phrase), *adverb]


def infinitive(word: str, knows: dict[str, Any]) -> str | None:
    """The verb, with its particle, of a form after a helper."""
    if word.endswith("en") and word[:-2] in knows["verbs"]:
        return word[:-2]
    for prefix in generator.PARTICLES:
        stem = word.removeprefix(f"{prefix}ge").removesuffix("t")
        if word == f"{prefix}ge{stem}t" and prefix + stem in knows["verbs"]:
            return prefix + stem
    return None


def finite(word: str, knows: dict[str, Any]) -> str | None:
    stems = (word.removesuffix(ending) for ending in ("en", "t") if word.endswith(ending))
    return next((stem for stem in stems if stem in knows["verbs"]), None)


def read_word(word: str, kind: int, knows: dict[str, Any]) -> tuple[str, bool]:
    """A word's translation in a clause of that kind of verb, and whether it ends a phrase."""
    for forms, translated in ((generator.THE, "tha"), (generator.A, "en")):
        if word in {form for case in forms for form in case}:
            return translated, False
    if word in generator.PLACES:
        return generator.TO_PLACES[generator.PLACES.index(word)], False
    if word[0].islower():
        for ending in ("en", "er", "es", "e"):
            if word.endswith(ending) and word.removesuffix(ending) in knows["adjectives"]:
                return knows["adjectives"][word.removesuffix(ending)], False
        raise AssertionError(word)
    if word in lexicon().names:
        return word, True
    return read_noun(word.lower(), kind, knows["nouns"]), True


def read_noun(word: str, kind: int, nouns: dict[str, Any]) -> str:
    for first in ["", *(f"{stem}{generator.LINK}" for stem in nouns)]:
        rest = word.removeprefix(first)
        if not word.startswith(first):
            continue
        before = f"{nouns[first.removesuffix(generator.LINK)].translations[kind]} " if first else ""
        for stem, noun in nouns.items():
            if rest == stem:
                return before + noun.translations[kind]
            if rest == stem + generator.PLURALS[noun.gender]:
                return f"{before}{noun.translations[kind]}{generator.NUMBER[1]}"
    raise AssertionError(word)


def translate(source: str, knows: dict[str, Any]) -> str:
    """What a reader of both languages writes."""
    words = source.removesuffix(".").split()
    lower = words[0][0].lower() + words[0][1:]
    if lower[0].islower() and words[0] not in lexicon().names and is_function(lower, knows):
        words[0] = lower
    if generator.THAT in words[:3]:
        verb = generator.TO_SAYS[generator.SAYS.index(words[1])]
        translated = [words[0], verb, "thet", *read_clause(words[3:], knows)]
    elif generator.AND in words:
        middle = words.index(generator.AND)
        halves = (read_clause(part, knows) for part in (words[:middle], words[middle + 1 :]))
        first, second = halves
        translated = [*first, "end", *second]
    else:
        translated = read_clause(words, knows)
    text = " ".join(translated)
    return f"{text[0].upper()}{text[1:]}."


def is_function(word: str, knows: dict[str, Any]) -> bool:
    """Whether a word that begins a sentence is written with a small letter elsewhere."""
    articles = {form for forms in (*generator.THE, *generator.A) for form in forms}
    stems = (word.removesuffix(ending) for ending in ("en", "er", "es", "e"))
    return (
        word in articles
        or word in knows["adverbs"]
        or any(stem in knows["adjectives"] and stem != word for stem in stems)
    )


def test_a_reader_of_both_languages_writes_the_translations(corpus):
    """So they follow from the source: agreement, order, compounds, and words that others decide."""
    knows = readers()
    for row in corpus["train"]:
        assert translate(row.source, knows) == row.truth


def test_what_the_languages_are_for_occurs(corpus):
    rows = corpus["train"]
    assert len({row.source for rows in corpus.values() for row in rows}) == sum(ROWS.values())
    forms = Counter(word for row in rows for word in row.source.removesuffix(".").split())
    assert sum(count == 1 for count in forms.values()) > 0.4 * len(forms)  # rare words, compounds
    ambiguous = [noun for noun in lexicon().nouns if noun.translations[0] != noun.translations[1]]
    assert len(ambiguous) == pytest.approx(generator.AMBIGUOUS, abs=2)
    for meaning in ambiguous[0].translations:
        assert sum(meaning in row.truth for row in rows) > 10
    separated = [row for row in rows if row.source.endswith((" an.", " ver.", " um."))]
    assert len(separated) > 0.05 * len(rows)
    known = {word for row in rows for word in row.source.split()}
    fresh = [word for row in corpus["validation"] for word in row.source.split()]
    assert sum(word not in known for word in fresh) > 0.025 * len(fresh)


def test_the_ceiling_and_the_baselines():
    """Of the validation rows that runs have; docs/targets.md quotes the numbers."""
    from translation_baselines import measure

    assert measure(0)["validation"] == pytest.approx(
        {"ceiling": 90.73, "copy": 0.0, "word by word": 41.58}, abs=0.05
    )


# Packed rows


def test_rows_are_filled_in_the_seeds_order_as_far_as_both_sides_go():
    lengths = [np.array([3, 9, 4, 2, 11, 5]), np.array([4, 2, 3, 9, 3, 5])]
    rows = wmt.pack(lengths, 10, seed=1)
    order = [int(row) for each in rows for row in each]
    assert sorted(order) == [0, 1, 2, 3, 5]  # the fifth has a side of 11
    filled = [[int(side[row].sum()) for side in lengths] for row in rows]
    assert all(max(sides) <= 10 for sides in filled)
    for row, after in itertools.pairwise(rows):  # the next pair had no room
        assert any(side[row].sum() + side[after[0]] > 10 for side in lengths)
    assert [row.tolist() for row in wmt.pack(lengths, 10, seed=1)] == [row.tolist() for row in rows]
    assert order != [int(row) for each in wmt.pack(lengths, 10, seed=2) for row in each]
    assert wmt.pack(lengths, 1, seed=1) == []


def test_a_row_holds_its_sentences_and_a_sentence_that_is_cut_keeps_its_end():
    flat, lengths = np.array([7, 8, 2, 9, 2, 5, 6, 5, 6, 2]), np.array([3, 2, 5])
    rows = wmt._laid_out(flat, lengths, [np.array([1, 0]), np.array([2])], 6)
    assert rows.tolist() == [[9, 2, 7, 8, 2, 1], [5, 6, 5, 6, 2, 1]]
    assert wmt._laid_out(flat, lengths, [np.array([2])], 4).tolist() == [[5, 6, 5, 2]]


def test_tokens_see_their_own_sentence_alone():
    source, target = np.array([[7, 2, 8, 9, 2, 1]]), np.array([[4, 5, 2, 6, 2, 1]])
    packed = packing.arrange(source, target)
    assert packed.source_BS.tolist() == [[0, 1, 0, 1, 2, 0]]
    assert packed.target_BT.tolist() == [[0, 1, 2, 0, 1, 0]]
    own, cross, causal = (visible[0].astype(int).tolist() for visible in packed.visible)
    assert own == [[1, 1, 0, 0, 0, 0]] * 2 + [[0, 0, 1, 1, 1, 0]] * 3 + [[0, 0, 0, 0, 0, 1]]
    assert cross == [[1, 1, 0, 0, 0, 0]] * 3 + [[0, 0, 1, 1, 1, 0]] * 2 + [[0, 0, 0, 0, 0, 1]]
    assert causal == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    in_torch = packing.arrange(torch.from_numpy(source), torch.from_numpy(target))
    for ours, theirs in zip(
        (*packed[:2], *packed.visible), (*in_torch[:2], *in_torch.visible), strict=True
    ):
        np.testing.assert_array_equal(theirs.numpy(), ours)


def batch_of(rows: list[list[int]], flat: list[Any], lengths: list[Any]) -> dict[str, np.ndarray]:
    inputs, targets = (
        wmt._laid_out(*side, [np.array(row) for row in rows], 24)
        for side in zip(flat, lengths, strict=True)
    )
    return {
        "inputs": inputs,
        "targets": targets,
        "weights": (targets != PAD_ID).astype(np.float32),
    }


@pytest.fixture(scope="module")
def sentences():
    """Six pairs as two rows, as six rows, and as the two rows with two more that do not count."""
    rng = np.random.default_rng(0)
    flat, lengths = [], []
    for low in (3, 2):
        counts = rng.integers(low, 8, 6)
        tokens = rng.integers(4, VOCABULARY, counts.sum()).astype(np.int32)
        tokens[np.cumsum(counts) - 1] = END_ID
        flat.append(tokens)
        lengths.append(counts)
    packed = batch_of([[0, 1, 2], [3, 4, 5]], flat, lengths)
    alone = batch_of([[row] for row in range(6)], flat, lengths)
    padded = {key: np.concatenate([array, array]) for key, array in packed.items()}
    padded["weights"][2:] = 0
    padded["inputs"][2] = padded["targets"][2] = PAD_ID
    padded["inputs"][3], padded["targets"][3] = 7, 9
    return packed, alone, padded


@pytest.fixture(scope="module", params=FRAMEWORKS)
def bound(request, sentences):
    definition, backend = catalogue.find("wmt"), backends.load(request.param)
    scale = definition.scales["mini"]
    scale = dataclasses.replace(scale, model={**scale.model, **TINY})
    data = Data(dict.fromkeys(SPLITS, sentences[0]), model={"vocab_size": VOCABULARY})
    return backend.workload(definition, scale, "builtin", data), backend


def values_of(shapes: Any) -> dict[str, np.ndarray]:
    """Perturbed, of tokens that matter beside positions."""
    values = gates.perturbed(shapes)
    return {
        name: 30 * value if name == "token/embedding" else value for name, value in values.items()
    }


def losses_of(bound: Any, batch: dict[str, np.ndarray]) -> tuple[float, dict[str, np.ndarray]]:
    workload, backend = bound
    framework = gates.framework_module(backend.name)
    (result,) = framework.losses_and_gradients(
        workload, backend, values_of(workload.shapes), batch, (0.1,)
    )
    return result


def assert_same(result: Any, expected: Any, tolerance: float) -> None:
    assert result[0] == pytest.approx(expected[0], rel=tolerance)
    size = sum(np.square(value).sum() for value in expected[1].values()) ** 0.5
    for name, gradient in expected[1].items():
        difference = np.linalg.norm(result[1][name] - gradient)
        assert difference <= tolerance * (np.linalg.norm(gradient) + 0.1 * size), name


def test_packed_and_unpacked_rows_have_the_same_loss_and_gradient(bound, sentences):
    packed, alone, padded = (losses_of(bound, batch) for batch in sentences)
    assert packed[0] > 1
    assert_same(packed, alone, 1e-5)
    assert_same(padded, packed, 1e-6)


def test_a_sentence_sees_nothing_of_its_neighbours(bound, sentences):
    workload, backend = bound
    batch = sentences[0]
    ends = [
        int(np.flatnonzero(row == END_ID)[0]) for row in (batch["inputs"][0], batch["targets"][0])
    ]
    changed = {key: array.copy() for key, array in batch.items()}
    changed["inputs"][0, : ends[0]] = 11  # the first sentence, but for its end
    changed["targets"][0, : ends[1]] = 13
    params, state = workload.state_from_neutral(values_of(workload.shapes))
    logits, others = (
        backend.fetch(
            workload.model_fn(
                params, backend.place(each), state, spec.ForwardPassMode.EVAL, None, False
            )[0]
        )
        for each in (batch, changed)
    )
    np.testing.assert_allclose(others[0, ends[1] + 1 :], logits[0, ends[1] + 1 :], atol=1e-6)
    np.testing.assert_allclose(others[1], logits[1], atol=1e-6)
    assert np.abs(others[0, : ends[1]] - logits[0, : ends[1]]).max() > 1e-2


def test_dropout_reaches_the_inner_layers():
    """Without what is added to the stream, the logits change with the drop after the activation."""
    module = bart_torch.build(
        VOCABULARY, **TINY, style=catalogue.find("wmt").scales["mini"].model["style"]
    )
    block = module.encoder.blocks[0].train()
    seen = []
    block.down.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    hidden = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    own = bart_torch.Seen(block.own_keys_values(hidden))
    for rate in (0.0, 0.5):
        block(hidden, own, None, rate)
    plain, dropped = ((each != 0).float().mean() for each in seen)
    assert dropped < 0.8 * plain


# The published sizes

SIZES = {  # parameters, and tensors by shape, of AlgoPerf's models in JAX, heads joined
    "wmt": (133_521_408, {"1024": 88, "1024x1024": 96, "32000x1024": 1}),
    "wmt_post_ln": (133_517_312, {"1024": 84, "1024x1024": 96, "32000x1024": 1}),
    "wmt_attention_temp": (133_521_408, {"1024": 88, "1024x1024": 96, "32000x1024": 1}),
    "wmt_glu_tanh": (146_116_608, {"1024": 100, "1024x1024": 108, "32000x1024": 1}),
}


@pytest.mark.parametrize("name", SIZES)
def test_full_has_the_published_shapes(name):
    scale = catalogue.find(name).scales["full"]
    model = {**scale.model, "vocab_size": scale.data["vocab_size"]}
    with torch.device("meta"):
        module = bart_torch.build(**model)
    tokens = np.zeros((1, 8), np.int32)
    shapes = jax.eval_shape(
        lambda: bart_jax.build(**model).init(
            jax.random.PRNGKey(0), (tokens, tokens), train=False, dropout_rate=0.0
        )
    )
    for tensors in (list(module.parameters()), jax.tree.leaves(shapes)):
        assert sum(math.prod(each.shape) for each in tensors) == SIZES[name][0]
        assert Counter("x".join(map(str, each.shape)) for each in tensors) == SIZES[name][1]


def test_the_published_facts():
    definition = catalogue.find("wmt")
    full = definition.scales["full"]
    assert (full.batch_size, full.step_hint, full.budget_s) == (128, 120_000, 43_336)
    search = full.generation
    assert (search.beams, search.training_beams, search.max_new_tokens) == (4, 4, 256)
    settings = generation.GenerationSettings(
        256, 4, search.length_penalty, length_offset=search.length_offset
    )
    assert settings.divisor(7) == pytest.approx(1.5157166, rel=1e-6)  # (12 / 6) ** 0.6
    targets = {name: catalogue.find(name).scales["full"].targets["folder"] for name in (*SIZES,)}
    assert [(each.validation, each.test) for each in targets.values()] == [
        (30.8491, 30.7219),
        (30.0779, 29.8982),
        (29.3379, 29.4143),
        (29.5779, 29.0515),
    ]


def test_initial_values_are_glorot_s_and_embeddings_normal():
    std = catalogue.find("wmt").initial_std
    assert std("encoder/block_0/attention/query/kernel", (1024, 1024), {}) == pytest.approx(1 / 32)
    assert std("encoder/block_0/up/kernel", (128, 384), {}) == pytest.approx(1 / 16)
    assert std("token/embedding", (32_000, 1024), {}) == 1


def test_the_variants_compute_what_they_say():
    """The gate is linear and of the layer's input, and scores are multiplied by 4."""
    style = {name: catalogue.find(name).scales["mini"].model["style"] for name in ("wmt", *SIZES)}
    block = bart_torch.Block(16, 2, 16, False, style["wmt_glu_tanh"], True)
    hidden = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    own = bart_torch.Seen(block.own_keys_values(hidden))
    after = hidden + block.attention(block.attention_norm(hidden), *own)
    normed = block.feed_forward_norm(after)
    inner = torch.tanh(block.up(normed)) * block.gate(normed)
    torch.testing.assert_close(block(hidden, own, None, 0.0), after + block.down(inner))
    sharper = bart_torch.Block(16, 2, 16, False, style["wmt_attention_temp"], True)
    query, (keys, values) = torch.randn(1, 3, 16), own.keys_values
    scores = sharper.attention.query(query).view(1, 3, 2, 8).transpose(1, 2)
    weights = (4 * scores @ keys[:1].transpose(2, 3) / 8**0.5).softmax(-1)
    mixed = (weights @ values[:1]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(
        sharper.attention(query, (keys[:1], values[:1])), sharper.attention.attention_out(mixed)
    )


# The search beside transformers


def reference_of(module: Any) -> Any:
    """transformers' Pegasus with the same weights: norms first, sines, attention without biases."""
    from transformers import PegasusConfig, PegasusForConditionalGeneration

    config = PegasusConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=TINY["positions"],
        d_model=TINY["width"],
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        activation_function="relu",
        pad_token_id=PAD_ID,
        eos_token_id=END_ID,
        decoder_start_token_id=END_ID,
        forced_eos_token_id=None,
        tie_word_embeddings=False,
    )
    reference = PegasusForConditionalGeneration(config).eval()
    renamed = (
        ("cross_attention_norm", "encoder_attn_layer_norm"),
        ("attention_norm", "self_attn_layer_norm"),
        ("cross_attention", "encoder_attn"),
        ("attention_out", "out_proj"),
        (".attention.", ".self_attn."),
        (".query", ".q_proj"),
        (".key", ".k_proj"),
        (".value", ".v_proj"),
        ("up.", "fc1."),
        ("down.", "fc2."),
        ("feed_forward_norm", "final_layer_norm"),
        (".final_norm", ".layer_norm"),
        ("block_", "layers."),
    )
    state = {}
    for name, value in module.state_dict().items():
        for ours, theirs in renamed:
            name = name.replace(ours, theirs)
        state[f"model.{name}"] = value
    table = state.pop("model.token.weight")
    sines = torch.from_numpy(sine_positions(TINY["positions"], TINY["width"]))
    for place in ("model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens"):
        state[f"{place}.weight"] = table
    for place in ("encoder", "decoder"):
        state[f"model.{place}.embed_positions.weight"] = sines
    state["lm_head.weight"] = table / TINY["width"] ** 0.5
    missing, unexpected = reference.load_state_dict(state, strict=False)
    assert unexpected == []
    with torch.no_grad():
        for name in missing:  # biases that ours has not
            assert name.endswith(("bias", "final_logits_bias"))
            reference.get_parameter(name).zero_() if "logits" not in name else None
    for layer in reference.modules():
        if isinstance(layer, torch.nn.LayerNorm):
            layer.eps = 1e-6
    return reference


@pytest.fixture(scope="module")
def trained() -> tuple[Any, Any]:
    """A model that was taught to copy for a while, so that its translations end; and Pegasus."""
    torch.manual_seed(0)
    style = catalogue.find("wmt").scales["mini"].model["style"]
    module = bart_torch.build(VOCABULARY, **TINY, style=style)
    torch.nn.init.normal_(module.token.weight)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    rng = np.random.default_rng(0)
    for _ in range(150):
        rows = torch.from_numpy(sources_of(rng, 32)).long()
        logits = module((rows, rows), dropout_rate=0.0)
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), rows.flatten(), ignore_index=PAD_ID
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module, reference_of(module)


def sources_of(rng: np.random.Generator, rows: int) -> np.ndarray:
    tokens = rng.integers(4, VOCABULARY, (rows, 14)).astype(np.int32)
    lengths = rng.integers(6, 14, rows)
    tokens[np.arange(rows), lengths] = END_ID
    tokens[np.arange(14) > lengths[:, None]] = PAD_ID
    return tokens


def test_logits_and_searched_tokens_are_those_of_transformers(trained):
    module, reference = trained
    sources = sources_of(np.random.default_rng(1), 50)
    placed = torch.from_numpy(sources).long()
    mask = (placed != PAD_ID).long()
    with torch.no_grad():
        expected = reference(input_ids=placed, attention_mask=mask, labels=placed).logits
        ours = module((placed, placed), dropout_rate=0.0)
    counted = placed != PAD_ID
    assert (ours - expected)[counted].abs().max() <= 1e-4 * expected[counted].abs().max()
    written = reference.generate(
        placed, attention_mask=mask, num_beams=4, max_new_tokens=20, length_penalty=0.6
    )
    greedy = reference.generate(placed, attention_mask=mask, max_new_tokens=20)
    theirs = [generation._until_end(row) for row in written[:, 1:].numpy()]
    assert (
        sum(
            row != generation._until_end(other)
            for row, other in zip(theirs, greedy[:, 1:].numpy(), strict=True)
        )
        >= 5
    )
    names = torch_backend.neutral_names(module)
    values = {
        names[name]: parameters.from_torch(names[name], value.numpy())
        for name, value in module.state_dict().items()
    }
    style = module.style
    params = jax.device_put(traverse_util.unflatten_dict(values, sep="/"))
    settings = generation.GenerationSettings(20, 4, 0.6)
    for decoder in (
        torch_decoding.TorchDecoder(module),
        jax_decoding.JaxDecoder(bart_jax.build(VOCABULARY, **TINY, style=style), params),
    ):
        found = generation.generate(decoder, sources, settings).sequences
        differ = [
            (our, their) for our, their in zip(found, theirs, strict=True) if our != trimmed(their)
        ]
        assert len(differ) <= 1, differ  # a tie may fall either way


def trimmed(row: list[int]) -> list[int]:
    """A sequence that was cut at the limit, without the padding of its batch."""
    while row and row[-1] == PAD_ID:
        row = row[:-1]
    return row


# Rows


def test_the_built_in_rows(load_mini):
    data = load_mini("wmt")
    scale = catalogue.find("wmt").scales["mini"]
    packed = data.notes["packing"]
    assert packed["pairs"] == 16_000
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        "train": packed["rows"],
        "validation": 1_000,
        "test": 1_000,
    }
    assert data.notes["pairs_dropped"] == 0
    train = data.splits["train"]
    for key in ("inputs", "targets"):
        ends = (train[key] == END_ID).sum(1)
        assert ends.sum() == 16_000
        assert (train[key] != PAD_ID).mean() > 0.8
        assert train[key].max() < scale.data["vocab_size"]
    np.testing.assert_array_equal(
        *((train[key] == END_ID).sum(1) for key in ("inputs", "targets"))
    )  # so the n-th sentences of both sides belong together
    for split in ("validation", "test"):
        rows = data.splits[split]
        assert data.text.decode(rows["targets"].tolist()) == data.text.references[split]
        assert ((rows["inputs"] == END_ID).sum(1) == 1).all()
    for row in (0, len(train) - 1):
        for key, texts in (("inputs", data.text.sources), ("targets", data.text.references)):
            ends = np.flatnonzero(train[key][row] == END_ID)
            parts = np.split(train[key][row], ends + 1)[:-1]
            assert data.text.decode([part.tolist() for part in parts]) == texts["train"][row].split(
                "\n"
            )


LINES = {
    "de": [f"Satz {row} hat drei Wörter" + " mehr" * (row % 5) for row in range(60)],
    "en": [f"sentence {row} has two words" + " more" * (row % 7) for row in range(60)],
}


@pytest.fixture
def folder(tmp_path):
    for split, start in (("train", 0), ("val", 40), ("test_2016_flickr", 50)):
        for language, lines in LINES.items():
            (tmp_path / f"{split}.{language}").write_text("\n".join(lines[start:]) + "\n")
    return tmp_path


def test_rows_of_files_are_packed_cut_and_counted(folder):
    data = wmt.load(str(folder), row_length=16, vocab_size=120)
    both = [text for pair in zip(LINES["de"], LINES["en"], strict=True) for text in pair]
    vocabulary = Unigrams(both, 120, wmt.SPECIAL)
    lengths = np.array(
        [[len(vocabulary.encode(LINES[side][row])) for row in range(60)] for side in ("de", "en")]
    )
    fits = (lengths <= 16).all(0)
    assert 0 < fits.sum() < 60
    assert data.notes["pairs_dropped"] == 60 - fits.sum()
    packed = [line for text in data.text.sources["train"] for line in text.split("\n")]
    assert sorted(packed) == sorted(np.array(LINES["de"])[fits])
    assert data.text.references["test"] == LINES["en"][50:]
    cut = {
        side: int((each[40:] > 16).sum())
        for side, each in zip(("source", "target"), lengths, strict=True)
    }
    assert data.notes["rows_cut"]["validation"] == cut
    assert (data.splits["validation"]["inputs"] == END_ID).sum(1).tolist() == [1] * 20
    with pytest.raises(UserError, match="no pair of sentences has at most 2 tokens"):
        wmt.load(str(folder), row_length=2, vocab_size=120)


def test_the_other_direction_is_a_setting(folder):
    data = wmt.load(str(folder), row_length=64, vocab_size=120, languages=("en", "de"))
    assert data.text.sources["test"] == LINES["en"][50:]


def test_glu_tanh_and_the_temperature_are_named_and_never_drawn():
    for axis, value in (("activation", "glu_tanh"), ("attention_temperature", 0.25)):
        assert value not in axes.AXES[axis].values
        assert axes.check("here", {axis: value}) == {axis: value}


# Real samples


@pytest.mark.skipif(not SHARED.is_dir(), reason="no samples of real translations here")
@pytest.mark.parametrize("name", ["multi30k", "wmt"])
def test_the_real_samples(name, tmp_path):
    """Against the files read by nothing but gzip and json."""
    expected: dict[str, list[tuple[str, str]]] = {}
    if name == "multi30k":
        files = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
        for split, stem in files.items():
            sides = []
            for language in ("de", "en"):
                path = SHARED / name / f"{stem}.{language}.gz"
                (tmp_path / path.name).symlink_to(path)
                sides.append(gzip.decompress(path.read_bytes()).decode().rstrip("\n").split("\n"))
            expected[split] = list(zip(*sides, strict=True))
    else:
        for split, stem in (("train", "de2en"), ("test", "en2de")):
            path = SHARED / name / f"{stem}.jsonl.gz"
            (tmp_path / f"{split}.jsonl.gz").symlink_to(path)
            lines = gzip.decompress(path.read_bytes()).decode().rstrip("\n").split("\n")
            rows = [json.loads(line)["translation"] for line in lines]
            expected[split] = [(row["de"], row["en"]) for row in rows]
    pairs, notes = wmt.read(str(tmp_path))
    counts = {split: len(sides[0]) for split, sides in pairs.items()}
    if name == "multi30k":
        assert counts == {"train": 25_502, "validation": 1_014, "test": 1_000}
        assert notes["held_out"] == {}
    else:
        assert counts == {"train": 1_506, "validation": 167, "test": 1_641}
        assert notes["held_out"] == {"validation": 167}
        expected["train"] = [
            pair for pair in expected["train"] if pair[0] not in set(pairs["validation"][0])
        ]
    for split, rows in expected.items():
        assert [
            (first.split(), second.split()) for first, second in zip(*pairs[split], strict=True)
        ] == [(first.split(), second.split()) for first, second in rows]
