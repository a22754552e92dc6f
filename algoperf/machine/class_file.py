"""The file of a hardware class, as `algoperf calibrate` writes it: reading and checking it.

What is wrong in a file is told in one line that names the entry, what it is and what it may be.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from algoperf.errors import UserError, is_finite_number
from algoperf.machine.hardware_class import (
    NAME,
    Against,
    Budget,
    HardwareClass,
    Key,
    Measurement,
    Ratio,
    Spread,
)

FORMAT = 1
MADE_BY = "algoperf calibrate"
Part = TypeVar("Part")


def to_json(each: HardwareClass) -> dict[str, Any]:
    """Return a class as its file holds it."""
    return {"format": FORMAT, "id": each.id, **dataclasses.asdict(each)}


def read(path: str | Path) -> HardwareClass:
    """Read a class from its file.

    Args:
        path: The file.

    Raises:
        UserError: It is no file of a class; the message names what is wrong in it.
    """
    try:
        document = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a file of {MADE_BY}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON ({error}); expected a file of {MADE_BY}") from error
    if not isinstance(document, dict) or "format" not in document:
        raise UserError(
            f'{path}: no hardware class; expected an object with "format": {FORMAT}, as {MADE_BY} '
            "writes it"
        )
    if document["format"] != FORMAT:
        raise UserError(
            f"{path}: format {document['format']!r} is not known here, {FORMAT} is; calibrate anew"
        )
    try:
        known_class = _class(document)
    except _InvalidError as error:
        raise UserError(f"{path}: {error}; {MADE_BY} writes such files") from error
    if document.get("id") != known_class.id:
        raise UserError(
            f"{path}: was changed since it was measured: its id is {document.get('id')!r}, and "
            f"what it holds gives {known_class.id!r}; calibrate anew (--name names a class)"
        )
    return known_class


class _InvalidError(ValueError):
    """What a file holds is not what it should be; the text names the entry."""


def _class(document: Mapping[str, Any]) -> HardwareClass:
    """Return the class that a document describes."""
    name = _text(document, "name", "")
    if not NAME.fullmatch(name):
        raise _InvalidError(f"name is {name!r}, expected letters, digits, '.', '_' and '-'")
    machine = _object(document, "machine", "")
    for part, check in _MACHINE.items():
        check(machine, part, "machine")
    found_times = _listed(document, "measurements", _measurement)
    if not found_times:
        raise _InvalidError("measurements is empty, expected at least one")
    pairs = [(each.key, each.framework) for each in found_times]
    for index, pair in enumerate(pairs):
        if pair in pairs[:index]:
            raise _InvalidError(f"measurements[{index}] is of {found_times[index]} a second time")
    found_budgets = _listed(document, "budgets", _budget)
    keys = [each.key for each in found_budgets]
    for key in dict.fromkeys(key for key, _ in pairs):
        if keys.count(key) != 1:
            raise _InvalidError(f"budgets has {keys.count(key)} entries of {key}, expected one")
    against = document.get("against")
    return HardwareClass(
        name,
        machine,
        _text(document, "reference", ""),
        found_times,
        found_budgets,
        None if against is None else _against(_object(document, "against", "")),
        tuple(
            tuple(_ratio(_as_object(one, where), where) for one in _as_list(entry, where))
            for index, entry in enumerate(_as_list(document.get("confirmations"), "confirmations"))
            for where in [f"confirmations[{index}]"]
        ),
    )


def _measurement(entry: Mapping[str, Any], where: str) -> Measurement:
    runs = _count(entry, "runs", where)
    contended = _count(entry, "contended", where, least=0)
    if contended > runs:
        raise _wrong(f"{where}.contended", contended, f"at most the {runs} runs")
    return Measurement(
        *_key(entry, where),
        _text(entry, "framework", where),
        _count(entry, "steps", where),
        _count(entry, "batch_size", where),
        _text(entry, "work", where),
        runs,
        contended,
        *(_spread(entry, name, where) for name in ("step", "evaluation", "first_step")),
    )


def _spread(entry: Mapping[str, Any], name: str, where: str) -> Spread:
    inside = f"{where}.{name}"
    values = _object(entry, name, where)
    spread = Spread(*(_number(values, part, inside) for part in ("median_s", "low_s", "high_s")))
    if not spread.low_s <= spread.median_s <= spread.high_s:
        raise _InvalidError(f"{inside} is not low_s <= median_s <= high_s")
    return spread


def _ratio(entry: Mapping[str, Any], where: str) -> Ratio:
    names = ("step", "low", "high", "evaluation")
    framework = _text(entry, "framework", where)
    return Ratio(*_key(entry, where), framework, *(_number(entry, name, where) for name in names))


def _budget(entry: Mapping[str, Any], where: str) -> Budget:
    values = (_number(entry, name, where) for name in ("factor", "budget_s"))
    return Budget(*_key(entry, where), *values)


def _against(entry: Mapping[str, Any]) -> Against:
    listed = _listed(entry, "ratios", _ratio, "against.")
    return Against(_text(entry, "name", "against"), _text(entry, "id", "against"), listed)


def _key(entry: Mapping[str, Any], where: str) -> Key:
    return Key(*(_text(entry, name, where) for name in Key._fields))


def _listed(
    document: Mapping[str, Any],
    name: str,
    reader: Callable[[Mapping[str, Any], str], Part],
    prefix: str = "",
) -> tuple[Part, ...]:
    listed = _as_list(document.get(name), f"{prefix}{name}")
    places = (f"{prefix}{name}[{index}]" for index in range(len(listed)))
    return tuple(
        reader(_as_object(entry, where), where) for entry, where in zip(listed, places, strict=True)
    )


def _as_list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(where, value, "a list")
    return value


def _as_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, value, "an object")
    return value


def _object(entry: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    return _as_object(entry.get(name), f"{where}.{name}" if where else name)


def _text(entry: Mapping[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value:
        raise _wrong(f"{where}.{name}" if where else name, value, "a text")
    return value


def _number(entry: Mapping[str, Any], name: str, where: str) -> float:
    value = entry.get(name)
    if not is_finite_number(value) or value <= 0:
        raise _wrong(f"{where}.{name}", value, "a finite number above 0")
    return float(value)


def _count(entry: Mapping[str, Any], name: str, where: str, least: int = 1) -> int:
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _wrong(f"{where}.{name}", value, f"a whole number of at least {least}")
    return value


def _wrong(where: str, value: Any, expected: str) -> _InvalidError:
    shown = (
        repr(value) if isinstance(value, bool | int | float | str | None) else type(value).__name__
    )
    return _InvalidError(f"{where} is {shown[:60]}, expected {expected}")


_MACHINE: Mapping[str, Callable[[Mapping[str, Any], str, str], Any]] = {
    "hardware": _object,
    "versions": _object,
    "environment": _object,
    "library_threads": _text,
}
