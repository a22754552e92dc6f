"""The secret that draws validation rows: how it is read, what is told of it, what refuses it."""

import hashlib
import hmac
import io
import json
import os
import sys

import pytest

import algoperf
from algoperf.cli import commands
from algoperf.cli.argument_types import masked
from algoperf.data import validation_seed
from algoperf.data.loading import load_data
from algoperf.errors import UserError
from algoperf.study.request import RunRequest, combine
from algoperf.workload import catalogue

SECRET = "a text for tests, known to all"
# Worked out on the command line: `openssl kdf ... SCRYPT`, then `openssl dgst -mac HMAC`.
COMMITMENT = "96a9177c151f84b72d77a9019ae195263265138832379f614e8cf09c466003a0"
ROWS_SEED = 64525693488262602811052541223978974416449263317916764829072760376343068374411
OTHER = "another text for tests, known"


def test_what_follows_from_a_secret():
    seed = validation_seed.derive(SECRET)
    assert seed.commitment == COMMITMENT
    assert seed.rows_seed == ROWS_SEED
    assert seed.short == COMMITMENT[:12]
    other = validation_seed.derive(OTHER)
    assert (other.commitment != COMMITMENT, other.rows_seed != ROWS_SEED) == (True, True)


def test_a_guess_costs_memory_and_the_commitment_is_no_plain_hash():
    cost = 128 * validation_seed._COST * validation_seed._BLOCK
    assert cost >= 32 * 2**20  # bytes
    plain = [hashlib.sha256(SECRET.encode()), hmac.new(b"", SECRET.encode(), "sha256")]
    assert COMMITMENT not in [each.hexdigest() for each in plain]


def test_a_secret_is_shown_nowhere():
    seed = validation_seed.derive(SECRET)
    request = RunRequest("digits", "nadamw", validation_seed=seed)
    for text in (repr(seed), repr(request), str(request.words())):
        assert SECRET not in text
        assert str(ROWS_SEED) not in text
    assert "--validation-seed" in request.words()
    assert request.words()[request.words().index("--validation-seed") + 1] == "-"


@pytest.fixture
def given(tmp_path, monkeypatch):
    """The secret in each of its forms."""
    (tmp_path / "secret").write_text(f" {SECRET}\n")
    monkeypatch.setenv("SEED_OF_TEST", SECRET)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{SECRET}\n"))
    return {
        "file": str(tmp_path / "secret"),
        "path": tmp_path / "secret",
        "env": "env:SEED_OF_TEST",
        "text": f"text:{SECRET}",
        "input": "-",
    }


def test_the_forms_of_a_secret(given):
    for form in given.values():
        assert validation_seed.resolve(form).commitment == COMMITMENT
    assert validation_seed.resolve(None) is None


def test_a_variable_is_not_inherited_but_can_be_asked_for_again(given):
    assert validation_seed.resolve(given["env"]).secret == SECRET
    assert "SEED_OF_TEST" not in os.environ
    assert validation_seed.resolve(given["env"]).secret == SECRET
    os.environ["SEED_OF_TEST"] = OTHER
    assert validation_seed.resolve(given["env"]).secret == OTHER


def test_standard_input_is_read_once_for_several_runs(given):
    requests = combine(["ag_news", "xsum"], ["nadamw"], validation_seed="-")
    assert [each.validation_seed.commitment for each in requests] == [COMMITMENT] * 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("text:only fifteen ch", "the secret has 15 characters, and one of fewer than 16 can be"),
        ("text:", "the secret has 0 characters"),
        (f"text:{' ' * 20}", "the secret has 0 characters"),
        (SECRET, "no file that can be read (No such file or directory); give a FILE, - for"),
        ("env:NO_SUCH_VARIABLE", "there is no such environment variable; give a FILE"),
        (12345678901234567890, "a int was given; give a FILE"),
    ],
)
def test_a_mistake_is_one_line_that_repeats_nothing(wrong, message):
    with pytest.raises(UserError) as raised:
        RunRequest("ag_news", "nadamw", validation_seed=wrong)
    text = str(raised.value)
    assert text.startswith(f"--validation-seed: {message}")
    assert "\n" not in text
    assert SECRET not in text
    assert "NO_SUCH" not in text


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "secret").write_bytes(b"\xff" * 32)
    with pytest.raises(UserError, match=r"no file that can be read \(no text in UTF-8\)"):
        validation_seed.resolve(tmp_path / "secret")


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        (f"text:{SECRET}", "text:***"),
        (f"--validation-seed=text:{SECRET}", "--validation-seed=text:***"),
        (
            f"--run-options=--validation-seed text:{SECRET}",
            "--run-options=--validation-seed text:***",
        ),
        ("text:two\nlines of it", "text:***"),
        ("env:NAME", "env:NAME"),
        ("a-context:b", "a-context:b"),
    ],
)
def test_a_secret_on_the_command_line_is_masked(word, shown):
    assert masked(["run", word]) == ["run", shown]


def test_the_recorded_command_line_is_masked(monkeypatch, capsys):
    words = ["algoperf", "commitment", f"text:{SECRET}"]
    monkeypatch.setattr(sys, "argv", words)
    assert commands.main() == 0
    assert sys.argv == ["algoperf", "commitment", "text:***"]
    assert capsys.readouterr().out == f"{COMMITMENT}\n"


def test_a_revealed_secret_is_verified(capsys):
    words = ["commitment", f"text:{SECRET}", "--verify"]
    assert commands.main([*words, COMMITMENT.upper()]) == 0
    assert capsys.readouterr().out == "the secret is what the commitment was made of\n"
    assert commands.main([*words, "0" + COMMITMENT[1:][::-1]]) == 1
    assert capsys.readouterr().out == "the secret is not what the commitment was made of\n"
    with pytest.raises(SystemExit):
        commands.main([*words, COMMITMENT[:12]])
    assert "12 characters, not the 64 hexadecimal digits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run", "--workload", "digits", "--submission", "nadamw"],
            "digits has the same rows for everybody, since load in its data.py takes no "
            "validation_seed (docs/organise.md)",
        ),
        (["data", "digits"], "digits has the same rows for everybody"),
        (["compare", "digits", "--frameworks", "jax,pytorch"], "digits has the same rows"),
        (
            ["run", "--workload", "docs/examples/spirals", "--submission", "nadamw"],
            "spirals has the same rows for everybody",
        ),
        (
            ["run", "--workload", "ag_news", "--submission", "nadamw", "--scale", "full"],
            "with --data hub: rows that are read can be known to everybody",
        ),
        (
            ["data", "ag_news", "--data", "docs"],
            "with --data {docs}: rows that are read can be known to everybody",
        ),
        (
            ["variants", "sample", "--seed", "1", "--per-workload", "1", "--workloads", "digits"],
            "digits has the same rows",
        ),
    ],
)
def test_rows_that_no_secret_can_draw_are_refused(words, message, tmp_path, capsys, request):
    root = request.config.rootpath
    words = [str(root / word) if word.startswith("docs") else word for word in words]
    out = [] if words[0] in ("data", "variants") else ["--out", str(tmp_path)]
    assert commands.main([*words, *out, "--validation-seed", f"text:{SECRET}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    expected = message.format(docs=root / "docs")
    assert error.startswith(f"algoperf: --validation-seed{' ' if 'with' in message[:5] else ': '}")
    assert expected in error
    assert SECRET not in error
    assert not any(tmp_path.iterdir())


def test_every_loader_is_asked(monkeypatch):
    definition = catalogue.find("digits")
    with pytest.raises(UserError, match="digits has the same rows for everybody"):
        load_data(definition, definition.scales["mini"], "builtin", 7)


@pytest.mark.slow
def test_facts_of_texts_say_whose_they_are(monkeypatch, capsys):
    monkeypatch.setenv("SEED_OF_TEST", SECRET)
    assert (
        commands.main(["data", "ag_news", "--json", "--validation-seed", "env:SEED_OF_TEST"]) == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["validation_commitment"] == COMMITMENT
    across = report["duplicates"]["source"]["across"]
    assert {counts["exact"] for counts in across.values()} == {0}


def test_python_takes_the_same_forms(tmp_path):
    with pytest.raises(algoperf.UserError, match="digits has the same rows for everybody"):
        algoperf.run("digits", "nadamw", out=tmp_path, validation_seed=f"text:{SECRET}")
