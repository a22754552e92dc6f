"""`suite.json`: held-out variants of workloads, with their targets and how they were found."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from algoperf import workload
from algoperf.json_values import is_finite_number
from algoperf.spec import UserError
from algoperf.variants import axes
from algoperf.workload import Target, Variant

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Suite:
    """What a suite's file holds: base workload and variant by the variant's name, and all the
    rest of the document.
    """

    variants: Mapping[str, tuple[str, Variant]]
    document: Mapping[str, Any]


def read(path: str | Path) -> Suite:
    """Return the suite of a file. Raises UserError, naming file and place, for what is none."""
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
    return Suite({name: _variant(f"{path}: {name}", name, given[name]) for name in given}, document)


def _variant(where: str, name: str, given: Any) -> tuple[str, Variant]:
    if not isinstance(given, dict) or not isinstance(given.get("base"), str):
        raise UserError(f'{where}: expected an object with "base", "changes" and "targets"')
    try:
        base = workload.choose("base workload", given["base"], workload.names())
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if not name.isidentifier() or name in workload.names() or name in workload.variant_names():
        raise UserError(f"{where}: no name for a variant, or one that a workload has")
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
    return base, Variant(changes, targets)
