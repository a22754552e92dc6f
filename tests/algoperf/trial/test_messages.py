"""What a referee takes from a trainer, which may say anything."""

import json
import math

import pytest

from algoperf.trial import messages

SEGMENT = {
    "kind": "segment",
    "step": 3,
    "evaluates": True,
    "is_last": False,
    "scalars": [[1, {"loss": math.nan}], [2, {"loss": 1, "rate": 0.5}]],
    "signature": {"head/kernel": [[64, 10], "float32"]},
    "data_wait_s": 0.25,
    "clock_s": 1.5,
    "recompiled_s": 0,
    "has_finite_params": True,
    "error": None,
}


def test_an_honest_segment_is_read():
    read = messages.read(messages.parse(json.dumps(SEGMENT).encode()))
    (first, _), (second, values) = read["scalars"]
    assert (first, second, values) == (1, 2, {"loss": 1.0, "rate": 0.5})
    assert read["signature"] == {"head/kernel": ((64, 10), "float32")}
    assert {name: read[name] for name in ("step", "clock_s", "error")} == {
        "step": 3,
        "clock_s": 1.5,
        "error": None,
    }


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON (RecursionError)"),
        (b"9" * 5000, "no JSON"),
        (b"[1]", "no JSON object, but a list"),
        (b"null", "no JSON object, but None"),
    ],
)
def test_what_is_no_message(line, text):
    with pytest.raises(messages.InvalidMessageError) as error:
        messages.parse(line)
    assert text in str(error.value)


WRONG = {
    "step": (-1, 1.5, True, "3", None, 1 << 60, [3]),
    "evaluates": (1, "true", None),
    "is_last": (0, {}),
    "scalars": ({}, [1], [[1]], [[1, 2]], [[1, {"loss": "x"}]], [[-1, {}]], [[1, {"a": 10**400}]]),
    "signature": ([], {"a": 1}, {"a": [[1.5], "float32"]}, {"a": [[-1], "float32"]}, {"a": [[1]]}),
    "data_wait_s": (-0.1, math.nan, "0", True, 10**400),
    "clock_s": (math.inf, -math.inf, None, [0]),
    "recompiled_s": (-1, math.nan),
    "has_finite_params": (None, 1.0),
    "error": ("broken", {"cause": "x"}, {"cause": "x", "traceback": 1}, {"a": "b"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_every_field_of_a_segment_is_checked(name):
    for value in (*WRONG[name], ...):
        values = {key: each for key, each in {**SEGMENT, name: value}.items() if each is not ...}
        with pytest.raises(messages.InvalidMessageError, match=name):
            messages.read(messages.parse(json.dumps(values).encode()))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("submitted", {"batch_size": 0}),
        ("submitted", {"point": [1]}),
        ("submitted", {"source_files": {"a.py": 1}}),
        ("initialised", {"compiled_s": -1.0}),
        ("ready", {"saved_bytes": -5}),
        ("ready", {"saved_bytes": 1e9}),
        ("ready", {"flags": "none"}),
        ("ready", {"flags": [1]}),
        ("closing", {"interrupted": 1}),
        ("closing", {"checksum": "crc"}),
        ("closing", {"real_token_share": 1.5}),
        ("closing", {"peak_device_bytes": math.nan}),
        ("closing", {"communication_s": None}),
        ("closing", {"communication_s": [{"agreement_s": -1}]}),
        ("failed", {"cause": None}),
    ],
)
def test_every_other_message_is_checked(kind, values):
    honest = {
        "submitted": {
            "point": None,
            "point_source": "",
            "batch_size": 8,
            "note": "",
            "source_files": {},
            "search_space": None,
        },
        "initialised": {"compiled_s": 0.0},
        "ready": {"flags": [], "saved_bytes": 0},
        "closing": {
            "interrupted": False,
            "checksum": 1,
            "real_token_share": None,
            "flags": [],
            "peak_device_bytes": None,
            "communication_s": [],
        },
        "failed": {"cause": "", "traceback": ""},
    }[kind]
    messages.read({"kind": kind, **honest})
    (name,) = values
    with pytest.raises(messages.InvalidMessageError, match=f"'{name}' of '{kind}' is "):
        messages.read({"kind": kind, **honest, **values})


def test_a_text_is_cut_and_can_be_written():
    cut = messages.text("x" * (messages.LONGEST_TEXT + 5))
    assert len(cut) == messages.LONGEST_TEXT
    assert messages.text(json.loads('"\\ud800"')).encode() == b"?"
    assert len(messages.flags(["a"] * 1000)) == messages.MOST_FLAGS
