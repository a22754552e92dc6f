"""The finewebedu_lm workload: its model's parameters, its made language, and rows of text."""

import collections
import hashlib
import math
from pathlib import Path

import jax
import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from tokenizers import Tokenizer

from algoperf import backends, spec
from algoperf.backends.computation import USUAL, Computation
from algoperf.backends.torch_backend import neutral_names
from algoperf.data import tokenizers
from algoperf.data.batches import TrainingQueue, once
from algoperf.data.formats import documents
from algoperf.errors import UnreadableRowError, UserError
from algoperf.workload import catalogue
from algoperf.workload.parameters import parameter_type
from workloads.finewebedu_lm import data as finewebedu
from workloads.finewebedu_lm import generator
from workloads.parts import document_stream, rotary

NAME = "finewebedu_lm"
DEFINITION = catalogue.find(NAME)
FULL, MINI = DEFINITION.scales["full"], DEFINITION.scales["mini"]
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "language_modelling"
LENGTH = 128
EVAL = spec.ForwardPassMode.EVAL

# The model


def shapes_at(scale_name: str, name: str = NAME) -> dict[str, tuple[int, ...]]:
    """Of the model in PyTorch, for which no memory is taken."""
    definition = catalogue.find(name)
    scale = definition.scales[scale_name]
    settings = {**scale.model, "vocab_size": scale.data["vocab_size"], "pad_id": 0}
    with torch.device("meta"):
        model = definition.build_model("torch", settings)
    names = neutral_names(model)
    return {names[key]: tuple(value.shape) for key, value in model.named_parameters()}


def test_the_full_model_has_the_reference_s_parameters() -> None:
    """252,815,372 in 86 tensors, as its model in PyTorch: the embeddings of 50,257 tokens, twelve
    layers (queries, keys and values; their output; a factor of their products; the gated layer's
    two halves; its output; two norms) and a norm.
    """
    shapes = shapes_at("full")
    layer = 3 * 1024 * 1024 + 1024 * 1024 + 1 + 2 * 4096 * 1024 + 4096 * 1024 + 2 * 1024
    assert sum(map(math.prod, shapes.values())) == 50_257 * 1024 + 12 * layer + 1024 == 252_815_372
    assert collections.Counter(shapes.values()) == {
        (50_257, 1024): 1, (3072, 1024): 12, (1024, 1024): 12, (): 12, (8192, 1024): 12,
        (1024, 4096): 12, (1024,): 25,
    }  # fmt: skip
    assert len(shapes) == 86
    assert sum(map(math.prod, shapes_at("mini").values())) == 562_178
    kinds = collections.Counter(parameter_type(name, shape).name for name, shape in shapes.items())
    assert kinds == {
        "EMBEDDING": 1, "ATTENTION_QKV": 12, "ATTENTION_OUT": 12, "WEIGHT": 36,
        "LAYER_NORM_SCALE": 25,
    }  # fmt: skip


def test_variants_have_their_parameters() -> None:
    counts = {
        name: sum(map(math.prod, shapes_at("full", f"{NAME}_{name}").values()))
        for name in DEFINITION.variants
    }
    assert counts == {
        "layernorm": 252_815_372 + 25 * 1024,
        "silu": 252_815_372 - 12 * 4096 * 1024,
        "window": 252_815_372,
    }


def test_the_facts_are_algoperf_s() -> None:
    assert FULL.targets["folder"].validation == 22.2995
    assert not DEFINITION.higher_is_better
    facts = (FULL.step_hint, FULL.budget_s, FULL.eval_every_s, FULL.batch_size)
    assert facts == (72_000, 31_967, 2_571, 64)
    assert (FULL.eval_train_rows, FULL.eval_batch_size) == (10_000, 256)
    assert FULL.precision == "bf16"
    assert MINI.precision == "float32"


def test_first_values_are_the_reference_s() -> None:
    """Of the factor log2(1024^2 - 1024), of the others 0.02, by sqrt(24) less into the residual
    stream.
    """
    factor = DEFINITION.initial_norm_scale("block_3/attention/scale", FULL.model)
    assert factor == pytest.approx(19.9986, abs=5e-5)
    assert DEFINITION.initial_norm_scale("block_3/norm_1/scale", FULL.model) == 1
    stds = {
        name: DEFINITION.initial_std(name, (1, 1), FULL.model)
        for name in ("token/embedding", "block_0/up/kernel", "block_0/down/kernel")
    }
    assert list(stds.values()) == pytest.approx([0.02, 0.02, 0.02 / 24**0.5])
    assert (
        DEFINITION.initial_std("block_0/attention/attention_out/kernel", (1, 1), FULL.model)
        == (stds["block_0/down/kernel"])
    )


def test_rotation_is_multiplication_of_complex_numbers() -> None:
    cosines, sines = rotary.tables(50, 8)
    for position, pair in ((0, 0), (7, 1), (49, 3)):
        angle = position * 500_000 ** (-2 * pair / 8)
        turned = complex(cosines[position, pair], sines[position, pair])
        assert turned == pytest.approx(complex(math.cos(angle), math.sin(angle)), abs=1e-6)


def reference_logits(values: dict[str, np.ndarray], tokens: np.ndarray, model) -> np.ndarray:
    """Of one row, by the formulas of the papers, in float64 and a position after the other."""
    width, heads = model["width"], model["heads"]
    values = {name: value.astype(np.float64) for name, value in values.items()}

    def rms(hidden, name):
        scaled = hidden / np.sqrt((hidden**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * values[f"{name}/scale"]

    def heads_of(part):
        unit = part.reshape(len(tokens), heads, -1)
        return unit / np.linalg.norm(unit, axis=-1, keepdims=True)

    def turned(vectors_THK):
        pairs = vectors_THK[..., 0::2] + 1j * vectors_THK[..., 1::2]
        frequencies = 500_000 ** (-np.arange(pairs.shape[-1]) / pairs.shape[-1])
        pairs = pairs * np.exp(1j * np.arange(len(tokens))[:, None, None] * frequencies)
        return np.stack([pairs.real, pairs.imag], -1).reshape(vectors_THK.shape)

    hidden = values["token/embedding"][tokens]
    for layer in range(model["layers"]):
        block = f"block_{layer}"
        q, k, v = np.split(
            rms(hidden, f"{block}/norm_1") @ values[f"{block}/attention/qkv/kernel"], 3, -1
        )
        q, k, v = turned(heads_of(q)), turned(heads_of(k)), v.reshape(len(tokens), heads, -1)
        mixed = np.zeros_like(v)
        for position in range(len(tokens)):
            scores = np.einsum("hk,thk->ht", q[position], k[: position + 1])
            shares = np.exp(scores * values[f"{block}/attention/scale"])
            shares /= shares.sum(-1, keepdims=True)
            mixed[position] = np.einsum("ht,thk->hk", shares, v[: position + 1])
        hidden = (
            hidden + mixed.reshape(-1, width) @ values[f"{block}/attention/attention_out/kernel"]
        )
        inner, gate = np.split(rms(hidden, f"{block}/norm_2") @ values[f"{block}/up/kernel"], 2, -1)
        hidden = hidden + inner / (1 + np.exp(-gate)) @ values[f"{block}/down/kernel"]
    return rms(hidden, "final_norm") @ values["token/embedding"].T


def bound(framework: str, load_small, computation=USUAL):
    backend = backends.load(framework, computation=computation)
    return backend, backend.workload(DEFINITION, MINI, "builtin", load_small(DEFINITION, "mini"))


def logits(framework, load_small, make_values, rows, computation=USUAL) -> np.ndarray:
    backend, workload = bound(framework, load_small, computation)
    params, state = workload.state_from_neutral(make_values(workload.shapes))

    def forward(params, batch):
        return workload.model_fn(params, batch, state, EVAL, None, False)[0]

    call = jax.jit(forward) if framework == "jax" else forward
    return np.asarray(backend.fetch(call(params, backend.place(rows))))


@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_logits_are_those_of_the_formulas(framework, load_small, make_values) -> None:
    """And at bf16 they are near them, alike in both frameworks, and of the type float32."""
    rows = {
        key: array[:1, :24] for key, array in load_small(DEFINITION, "mini").splits["train"].items()
    }
    _, workload = bound("jax", load_small)
    values = make_values(workload.shapes)
    expected = reference_logits(values, rows["inputs"][0], MINI.model)
    largest = np.abs(expected).max()
    actual = logits(framework, load_small, make_values, rows)[0]
    assert np.abs(actual - expected).max() < 1e-5 * largest
    rough = logits(framework, load_small, make_values, rows, Computation("bf16"))[0]
    assert rough.dtype == np.float32
    assert 1e-4 * largest < np.abs(rough - expected).max() < 2e-2 * largest


def test_at_bf16_jax_adds_in_float32(load_small) -> None:
    """The residual stream, the scores of attention and the norms, as PyTorch does: of the sums and
    of softmax none is of bfloat16, and the matrix products take nothing else.
    """
    _, workload = bound("jax", load_small, Computation("bf16"))
    params, _ = workload.init_model_fn(np.array([0, 1], np.uint32))
    rows = {
        key: array[:1, :8] for key, array in load_small(DEFINITION, "mini").splits["train"].items()
    }

    def forward(params):
        return workload.model_fn(params, rows, None, EVAL, None, False)[0]

    kinds = collections.defaultdict(set)
    for equation in equations(jax.make_jaxpr(forward)(params).jaxpr):
        kinds[equation.primitive.name] |= {str(each.aval.dtype) for each in equation.invars}
    assert kinds["dot_general"] == {"bfloat16"}
    assert kinds["exp"] == {"float32"}
    assert kinds["reduce_sum"] == {"float32"}


def equations(program):
    for equation in program.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


# The made language


@pytest.fixture(scope="module")
def drawn() -> generator.Text:
    return generator.generate("validation", LENGTH + 1, 0)


def test_the_language_is_the_same_everywhere(drawn) -> None:
    assert drawn.tokens_NT.dtype == np.int32
    digest = hashlib.sha256(np.ascontiguousarray(drawn.tokens_NT).tobytes()).hexdigest()
    assert digest == DIGEST


DIGEST = "9cf9bc7349b153760eb5fe98503b78083d1bf956743afb754cdf17b5dc278960"


def read(row: np.ndarray) -> list[float]:
    """The nats of each token of a row, read word by word; an assertion fails where it is not of the
    language.
    """
    words = [generator.LEXICON[token] for token in row]
    nats, cast, forms, waiting = [], {}, [], "topic"
    topic, mentioned, ranks_by_topic = "", "", ranks()
    for word in words:
        kind = word.rstrip("0123456789.") or word
        rank = ranks_by_topic.get(topic, {})
        match waiting, kind:
            case "topic", "topic":
                nats.append(math.log(8))
                topic, cast, waiting = word, {}, "cast"
            case "cast", "Name":
                assert word not in cast
                nats.append(math.log(24 - len(cast)))
                mentioned, waiting = word, "trait"
            case "trait", "trait":
                nats.append(math.log(8))
                cast[mentioned] = word
                waiting = "cast" if len(cast) < 3 else "subject"
            case (("subject" | "next"), "noun"):
                share = 0.55 if waiting == "subject" else 0.48
                nats.append(-math.log(share * zipf(rank[word], 24)))
                forms.append(form_of(word))
                waiting = "after"
            case (("subject" | "next"), "Name"):
                nats.append(-math.log((0.45 if waiting == "subject" else 0.4) / 3))
                mentioned, waiting = word, "its trait"
            case "next", "<end>":
                nats.append(-math.log(0.12))
                waiting = "topic"
            case "its trait", "trait":
                assert word == cast[mentioned]
                nats.append(0.0)
                forms.append(int(word.removeprefix("trait")) % 4)
                waiting = "after"
            case "after", "prep":
                nats.append(-math.log(0.2 / 8))
                waiting = "place"
            case "place", "noun":
                nats.append(-math.log(zipf(rank[word], 24)))
                waiting = "after"
            case "after", "that":
                assert len(forms) < 3
                nats.append(-math.log(0.2))
                waiting = "subject"
            case "after", "verb":
                stem, form = word.split(".")
                assert int(form) == forms[-1]  # agreement
                share = 0.8 if len(forms) == 3 else 0.6
                nats.append(-math.log(share * zipf(rank[stem], 12)))
                forms.pop()
                waiting = "after" if forms else "object"
            case "object", "noun":
                nats.append(-math.log(0.3 * zipf(rank[word], 24)))
                waiting = "close"
            case "object", "Name":
                nats.append(-math.log(0.4 / 3))
                mentioned, waiting = word, "object's trait"
            case "object's trait", "trait":
                assert word == cast[mentioned]
                nats.append(0.0)
                waiting = "close"
            case "close", "adverb":
                nats.append(-math.log(0.2 / 16))
                waiting = "stop"
            case (("object" | "close" | "stop"), "."):
                nats.append(-math.log({"object": 0.3, "close": 0.8, "stop": 1}[waiting]))
                waiting = "next"
            case _:
                raise AssertionError(f"{word} while {waiting}")
    return nats


def zipf(rank: int, size: int) -> float:
    return 1 / (rank + 1) / math.fsum(1 / number for number in range(1, size + 1))


def language() -> generator._Language:
    return generator._Language(generator._generator([0, 0]))


def form_of(noun: str) -> int:
    return int(language().form_of_noun[int(noun.removeprefix("noun"))])


def ranks() -> dict[str, dict[str, int]]:
    drawn = language()
    return {
        f"topic{topic}": {
            f"noun{noun}": rank for rank, noun in enumerate(drawn.noun_of_rank[topic])
        }
        | {f"verb{stem}": rank for rank, stem in enumerate(drawn.stem_of_rank[topic])}
        for topic in range(8)
    }


def test_every_row_is_of_the_language_and_its_probabilities_are_known(drawn) -> None:
    for tokens, nats in zip(drawn.tokens_NT[:40], drawn.nats_NT[:40], strict=True):
        np.testing.assert_allclose(nats, read(tokens), rtol=1e-12, atol=1e-12)


def test_the_entropy_is_what_rows_have_on_average(drawn) -> None:
    """2.1004 nats a token, 8.17 as a perplexity; the mean over many rows is within three standard
    errors of it, and so is that of each third of a row.
    """
    assert generator.entropy(LENGTH) == pytest.approx(2.100377, abs=1e-6)
    train = generator.generate("train", LENGTH + 1, 0).nats_NT
    means = train[:, 1:].mean(1)
    error = means.std() / len(means) ** 0.5
    assert abs(means.mean() - generator.entropy(LENGTH)) < 3 * error
    for length in (7, 40):
        means = train[:, 1 : length + 1].mean(1)
        error = means.std() / len(means) ** 0.5
        assert abs(means.mean() - generator.entropy(length)) < 3 * error
    # The first targets are the topic's cast, whatever comes later.
    cast = math.fsum(math.log(24 - each) + math.log(8) for each in range(3))
    assert 6 * generator.entropy(6) == pytest.approx(cast)
    assert drawn.nats_NT[:, 1:].mean() == pytest.approx(2.1007, abs=1e-4)


def test_rows_begin_with_a_document_and_targets_are_the_next_tokens(load_mini) -> None:
    data = load_mini(NAME)
    for split, count in generator.ROWS.items():
        rows = data.splits[split]
        assert rows["inputs"].shape == rows["targets"].shape == (count, LENGTH)
        np.testing.assert_array_equal(rows["inputs"][:, 1:], rows["targets"][:, :-1])
        first = rows["inputs"][:, 0]
        assert ((first >= generator.TOPIC) & (first < generator.NAME)).all()
    assert data.model == {"vocab_size": generator.VOCABULARY, "pad_id": 0}


# Text of a folder


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared sample of real text is not here")
def test_real_text_is_counted_as_by_hand(tmp_path: Path) -> None:
    """tinyshakespeare to train on, WikiText to evaluate: rows and tokens of each split equal those
    of a reader that knows the file and the tokenizer alone.
    """
    files = {"train": "tinyshakespeare", "valid": "wikitext2_valid", "test": "wikitext2_test"}
    for split, name in files.items():
        (tmp_path / f"{split}.txt.gz").symlink_to(REAL / f"{name}.txt.gz")
    data = finewebedu.load(str(tmp_path), **MINI.real.data)
    assert data.tokenizer is not None
    tokenizer = Tokenizer.from_str(data.tokenizer)
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        lines = gzip_lines(tmp_path / f"{name}.txt.gz")
        blocks = ["\n".join(lines[start : start + 32]) for start in range(0, len(lines), 32)]
        stream = [
            token
            for block in blocks
            if block.strip()
            for token in [*tokenizer.encode(block, add_special_tokens=False).ids, 0]
        ]
        rows = (len(stream) - 1) // LENGTH
        own = data.splits[split]
        assert data.notes["packed_tokens"][split] == len(stream)
        assert own["inputs"].shape == (rows, LENGTH)
        assert own["inputs"].ravel().tolist() == stream[: rows * LENGTH]
        assert own["targets"].ravel().tolist() == stream[1 : rows * LENGTH + 1]


def gzip_lines(path: Path) -> list[str]:
    import gzip

    return gzip.decompress(path.read_bytes()).decode().removesuffix("\n").split("\n")


# Documents of parquet files

WORDS = ["river", "stone", "cloud", "seven", "maple", "quiet", "north", "paper"]
TEXTS = [
    " ".join(WORDS[(row * step) % 8] for step in range(1, 4 + row % 23)) + "." for row in range(240)
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokenizers.train_byte_pair(TEXTS, 300)


def write(path: Path, texts: list[str | None], group: int = 10, **columns: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"text": texts, "url": [""] * len(texts), **columns})
    parquet.write_table(table, path, row_group_size=group)


def expected_rows(tokenizer: Tokenizer, groups: list[list[str]], length: int) -> list[list[int]]:
    """Row by row, of each row group alone: tokens, and the one after the last."""
    rows = []
    for texts in groups:
        stream = [token for text in texts for token in [*tokenizer.encode(text).ids, 0]]
        starts = range(0, len(stream) - length, length)
        rows += [stream[start : start + length + 1] for start in starts]
    return rows


def groups_of(texts: list[str], size: int = 10) -> list[list[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def whole(rows) -> list[list[int]]:
    batch = rows.take(np.arange(len(rows)))
    assert batch["inputs"].dtype == batch["targets"].dtype == np.int32
    np.testing.assert_array_equal(batch["inputs"][:, 1:], batch["targets"][:, :-1])
    return np.concatenate([batch["inputs"], batch["targets"][:, -1:]], 1).tolist()


def test_documents_are_joined_and_cut(tmp_path: Path, tokenizer) -> None:
    """As FineWeb-Edu's files lie in their folders; the last rows are held out."""
    write(tmp_path / "sample/10BT/000_00000.parquet", TEXTS[:130])
    write(tmp_path / "sample/10BT/001_00000.parquet", TEXTS[130:])
    data = finewebedu.load(str(tmp_path), 16, 300)
    assert data.tokenizer == tokenizer.to_str()
    rows = expected_rows(tokenizer, groups_of(TEXTS), 16)
    each = len(rows) // 10
    assert data.notes["held_out"] == {"validation": each, "test": each}
    assert whole(data.splits["train"]) == rows[: -2 * each]
    assert whole(data.splits["test"]) == rows[-2 * each : -each]
    assert whole(data.splits["validation"]) == rows[-each:]
    tokens = sum(len(tokenizer.encode(text).ids) + 1 for text in TEXTS)
    assert data.notes["packed_tokens"] == {"train": tokens}
    assert data.notes["bad_rows"] == {}


def test_rows_are_mixed_in_windows_and_training_goes_on_anywhere(
    tmp_path: Path, tokenizer, monkeypatch
) -> None:
    monkeypatch.setattr(document_stream, "WINDOW_ROWS", 30)
    write(tmp_path / "train-00000-of-00001.parquet", TEXTS)
    write(tmp_path / "validation-00000-of-00001.parquet", TEXTS[:20])
    data = finewebedu.load(str(tmp_path), 16, 300)
    train = data.splits["train"]
    rows = expected_rows(tokenizer, groups_of(TEXTS), 16)
    assert len(train) + data.notes["held_out"]["test"] == len(rows)
    assert whole(data.splits["validation"]) == expected_rows(tokenizer, groups_of(TEXTS[:20]), 16)

    def take(queue: TrainingQueue, count: int) -> list[list[int]]:
        batches = [next(queue)["inputs"] for _ in range(count)]
        return np.concatenate(batches).tolist()

    queue = TrainingQueue(train, 5, seed=3)
    steps = len(train) // 5
    drawn = take(queue, 4)
    position = queue.position()
    rest = take(queue, steps - 4)
    assert drawn + rest != [row[:-1] for row in rows[: 5 * steps]]
    once_an_epoch = collections.Counter(map(tuple, drawn + rest))
    assert not once_an_epoch - collections.Counter(tuple(row[:-1]) for row in rows[: len(train)])
    again = TrainingQueue(train, 5, seed=3)
    again.go_to(position)
    assert take(again, steps - 4) == rest
    for each in (queue, again):
        each.close()
    evaluated = [row for batch in once(train, 8) for row in batch["inputs"][batch["weights"] > 0]]
    assert np.array(evaluated).tolist() == [row[:-1] for row in rows[: len(train)]]


def test_a_column_says_how_many_tokens_there_are(tmp_path: Path, tokenizer, monkeypatch) -> None:
    """Then no document is read before its rows are; where it is wrong the row group is named."""
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setattr(tokenizers, "GPT2_END_ID", 0)
    counts = [len(tokenizer.encode(text).ids) for text in TEXTS]
    write(tmp_path / "a.parquet", TEXTS, token_count=counts)
    read = []
    texts = document_stream.ParquetDocuments.texts
    monkeypatch.setattr(
        document_stream.ParquetDocuments,
        "texts",
        lambda self, group: (read.append(group), texts(self, group))[1],
    )
    data = finewebedu.load(str(tmp_path), 16, 300, "gpt2")
    assert read == []
    rows = expected_rows(tokenizer, groups_of(TEXTS), 16)
    assert whole(data.splits["train"]) == rows[: len(data.splits["train"])]
    assert read == list(range(max(read) + 1))
    write(tmp_path / "a.parquet", TEXTS, token_count=[counts[0] + 40, *counts[1:]])
    wrong = finewebedu.load(str(tmp_path), 16, 300, "gpt2")
    with pytest.raises(
        UnreadableRowError, match=r"a\.parquet, row group 1: \d+ rows of tokens, bu"
    ):
        wrong.splits["train"].take(np.arange(3))
    counted = finewebedu.load(str(tmp_path), 16, 300, "gpt2", skip_bad_rows=True)
    assert len(counted.splits["train"]) == len(data.splits["train"])


def test_damaged_files_and_documents_are_named(tmp_path: Path) -> None:
    texts = [*TEXTS[:25], None, *TEXTS[26:]]
    write(tmp_path / "a.parquet", texts)
    with pytest.raises(UserError, match=r"a\.parquet, row group 3, row 6: no text; --skip-bad-row"):
        finewebedu.load(str(tmp_path), 16, 300)
    data = finewebedu.load(str(tmp_path), 16, 300, skip_bad_rows=True)
    assert data.notes["bad_rows"] == {"train": {"no text": 1}}
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"a\.parquet: cannot be read .*; download it again"):
        finewebedu.load(str(tmp_path), 16, 300)
    parquet.write_table(pyarrow.table({"content": TEXTS}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: no column 'text'; it has: content"):
        finewebedu.load(str(tmp_path), 16, 300)
    write(tmp_path / "a.parquet", ["short"])
    with pytest.raises(UserError, match="split is shorter than one row of 16 tokens"):
        finewebedu.load(str(tmp_path), 16, 300)


def test_a_fingerprint_is_of_files_tokenizer_and_length(tmp_path: Path, tokenizer) -> None:
    write(tmp_path / "one/a.parquet", TEXTS)
    files = [documents.ParquetDocuments(tmp_path / "one/a.parquet")]
    as_many_rows = [
        document_stream.Stream(tokenizer, 0, length, is_gpt2=False).rows(files, False)[0]
        for length in (150, 151)
    ]
    assert len(as_many_rows[0]) == len(as_many_rows[1])
    assert as_many_rows[0].fingerprint != as_many_rows[1].fingerprint
    fingerprints = {
        finewebedu.load(str(tmp_path), length, size).fingerprint
        for length, size in ((16, 300), (16, 290), (8, 300))
    }
    assert len(fingerprints) == 3
    (tmp_path / "one").rename(tmp_path / "two")
    assert finewebedu.load(str(tmp_path), 16, 300).fingerprint in fingerprints
