"""Read `suite.json`, which holds held-out variants of workloads with their targets.

It also holds how the variants were drawn and their targets set.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf.errors import UserError, choose, is_finite_number
from algoperf.workload import Target, Variant, axes

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Suite:
    """The content of a suite's file.

    Attributes:
        variants: The base workload's name and the variant, by the variant's name.
        document: The whole document.
    """

    variants: Mapping[str, tuple[str, Variant]]
    document: Mapping[str, Any]


def read(
    path: str | Path, bases: Sequence[str] | None = None, taken: Collection[str] = ()
) -> Suite:
    """Read a suite from a file.

    Args:
        path: The file.
        bases: The names of the base workloads that exist. None accepts any name, as the scorer
            does, which reads files and needs no workload.
        taken: Names that no variant of the suite may have.

    Raises:
        UserError: The file is not a suite; the message names the place in it.
    """
    try:
        document = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: no JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(
            f'{path}: no suite; expected an object with "format": {FORMAT}, as `algoperf variants '
            "sample` writes it"
        )
    given = document.get("variants")
    if not isinstance(given, dict):
        raise UserError(f'{path}: "variants" is not an object of variants by name')
    variants = {}
    for name, entry in given.items():
        where = f"{path}: {name}"
        base = _base(where, name, entry, bases, taken)
        variants[name] = base, _variant(where, entry)
    return Suite(variants, document)


def _base(
    where: str, name: str, given: Any, bases: Sequence[str] | None, taken: Collection[str]
) -> str:
    """Return the name of the base workload of an entry."""
    if not isinstance(given, dict) or not isinstance(given.get("base"), str):
        raise UserError(f'{where}: expected an object with "base", "changes" and "targets"')
    base: str = given["base"]
    if bases is not None:
        try:
            choose("base workload", base, bases)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    if not name.isidentifier() or name in taken:
        raise UserError(f"{where}: no name for a variant, or one that a workload has")
    return base


def _variant(where: str, given: Mapping[str, Any]) -> Variant:
    changes = axes.check(f"{where}/changes", given.get("changes"))
    try:
        targets = {
            scale: {source: Target(**target) for source, target in by_source.items()}
            for scale, by_source in given.get("targets", {}).items()
        }
        for by_source in targets.values():
            for target in by_source.values():
                if not is_finite_number(target.validation):
                    raise ValueError(f"validation is {target.validation!r}")
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f'{where}/targets: expected {{scale: {{data: {{"validation": number, "provenance": '
            f"text}}}}}} ({error})"
        ) from error
    return Variant(changes, targets)
