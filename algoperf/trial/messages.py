"""What a trainer may say to its referee: the fields of each kind of message, and what they hold.

A submission can make its process say anything. What a referee reads is of the expected type and
size, or it is no message, and the trial has failed.
"""

import json
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

LONGEST_MESSAGE = 1 << 28  # bytes
LONGEST_TEXT = 200_000  # characters of a cause, a note, a traceback; the rest is cut off
LARGEST_COUNT = 1 << 53  # what a JSON number holds exactly
MOST_FLAGS = 100
MOST_RANKS = 1 << 16
Read = Callable[[Any], Any]


class InvalidMessageError(ValueError):
    """It is no message that a trainer may send."""


def parse(line: bytes) -> dict[str, Any]:
    """Return a message as its values.

    Raises:
        InvalidMessageError: It is no JSON object.
    """
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidMessageError(f"no JSON ({type(error).__name__})") from error
    if not isinstance(values, dict):
        raise InvalidMessageError(f"no JSON object, but {_kind(values)}")
    return values


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with its fields, each checked.

    Args:
        values: What `parse` returned; its 'kind' is one of `KINDS`.

    Raises:
        InvalidMessageError: A field is missing or holds something else than it may.
    """
    kind = values["kind"]
    checked: dict[str, Any] = {"kind": kind}
    for name, reader in KINDS[kind].items():
        if name not in values:
            raise InvalidMessageError(f"{kind!r} without {name!r}")
        try:
            checked[name] = reader(values[name])
        except InvalidMessageError as error:
            raise InvalidMessageError(f"{name!r} of {kind!r} is {error}") from error
    return checked


def text(value: Any) -> str:
    """Return a text, cut off where it is very long."""
    if not isinstance(value, str):
        raise _wrong("a text", value)
    # What JSON can write as half of a character is none that a file could hold.
    return value[:LONGEST_TEXT].encode(errors="replace").decode()


def boolean(value: Any) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise _wrong("true or false", value)
    return value


def count(value: Any) -> int:
    """Return a whole number from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST_COUNT:
        raise _wrong("a whole number from 0", value)
    return value


def rows(value: Any) -> int:
    """Return a whole number from 1."""
    if count(value) == 0:
        raise _wrong("a whole number from 1", value)
    return operator.index(value)


def seconds(value: Any) -> float:
    """Return a finite number from 0."""
    converted = number(value)
    if not (math.isfinite(converted) and converted >= 0):
        raise _wrong("a finite number from 0", value)
    return converted


def finite(value: Any) -> float:
    """Return a finite number."""
    converted = number(value)
    if not math.isfinite(converted):
        raise _wrong("a finite number", value)
    return converted


def share(value: Any) -> float:
    """Return a number from 0 to 1."""
    if seconds(value) > 1:
        raise _wrong("a number from 0 to 1", value)
    return float(value)


def number(value: Any) -> float:
    """Return a number, finite or not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong("a number", value)
    try:
        return float(value)
    except OverflowError as error:
        raise _wrong("a number", value) from error


def or_none(reader: Read) -> Read:
    """Return a reader that takes null as well."""
    return lambda value: None if value is None else reader(value)


def by_name(reader: Read) -> Read:
    """Return a reader of an object, of whose values each is read by another."""

    def read_all(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong("an object", value)
        return {text(name): reader(each) for name, each in value.items()}

    return read_all


def scalars(value: Any) -> list[tuple[int, dict[str, float]]]:
    """Return training scalars: a step and its numbers by name, for each row."""
    read_row = by_name(number)
    return [(count(step), read_row(row)) for step, row in _pairs(value)]


def signature(value: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return the shape and the type of each parameter by its name."""

    def entry(pair: Any) -> tuple[tuple[int, ...], str]:
        ((shape, dtype),) = _pairs([pair])
        return tuple(map(count, _list(shape))), text(dtype)

    checked: dict[str, tuple[tuple[int, ...], str]] = by_name(entry)(value)
    return checked


def flags(value: Any) -> list[str]:
    """Return what a guard has seen."""
    return [text(each) for each in _list(value)[:MOST_FLAGS]]


def by_rank(reader: Read) -> Read:
    """Return a reader of a list, with a value of each process that trains."""
    return lambda value: [reader(each) for each in _list(value)[:MOST_RANKS]]


def point(value: Any) -> dict[str, Any] | None:
    """Return hyperparameters by name."""
    checked: dict[str, Any] | None = or_none(by_name(lambda each: each))(value)
    return checked


def error(value: Any) -> dict[str, str] | None:
    """Return the 'cause' and the 'traceback' of what a submission raised."""
    if value is None:
        return None
    given: dict[str, str] = by_name(text)(value)
    if set(given) != {"cause", "traceback"}:
        raise _wrong("a cause and a traceback", value)
    return given


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong("a list", value)
    return value


def _pairs(value: Any) -> list[list[Any]]:
    listed = [_list(each) for each in _list(value)]
    if any(len(each) != 2 for each in listed):
        raise _wrong("a list of pairs", value)
    return listed


def _wrong(expected: str, value: Any) -> InvalidMessageError:
    return InvalidMessageError(f"{_kind(value)}, expected {expected}")


def _kind(value: Any) -> str:
    shown = repr(value) if isinstance(value, bool | int | float | str | None) else ""
    return shown if 0 < len(shown) < 40 else f"a {type(value).__name__}"


KINDS: Mapping[str, Mapping[str, Read]] = {
    "loading": {},
    "submitted": {
        "point": point,
        "point_source": text,
        "batch_size": rows,
        "note": text,
        "source_files": by_name(text),
        "search_space": lambda value: value,  # The study reads it as it reads any search space.
    },
    "begin": {"signature": signature},
    "initialised": {"compiled_s": seconds},
    "failed": {"cause": text, "traceback": text},
    "ready": {"flags": flags, "saved_bytes": count},
    "segment": {
        "step": count,
        "evaluates": boolean,
        "is_last": boolean,
        "scalars": scalars,
        "signature": signature,
        "data_wait_s": seconds,
        "clock_s": finite,  # of its own clock; what is on it is the trainer's business
        "recompiled_s": seconds,
        "has_finite_params": boolean,
        "error": error,
    },
    "closing": {
        "interrupted": boolean,
        "checksum": or_none(count),
        "real_token_share": or_none(share),
        "flags": flags,
        "peak_device_bytes": or_none(count),
        "communication_s": by_rank(by_name(or_none(seconds))),
    },
    "note": {"text": text},
    "user_error": {"text": text, "traceback": text},
    "crashed": {"cause": text, "traceback": text},
}
