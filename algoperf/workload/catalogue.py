"""Find a workload, a named variant, or a held-out variant of a suite's file: by name or by path."""

import dataclasses
import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from algoperf.errors import UserError, choose
from algoperf.workload import axes, outside, registry
from algoperf.workload import suite as suites
from algoperf.workload.definition import WorkloadDefinition


def find(name: str, suite: str | None = None, *, check_metrics: bool = True) -> WorkloadDefinition:
    """Return the workload or variant of that name, or of the folder at that path.

    Args:
        name: A workload's name, `<workload>_<variant>` for a named variant, or the path of a
            workload's folder, `<path>:<variant>` for a named variant of that. A word without a
            separator is a path only where it is no name.
        suite: A file of `algoperf variants sample` that has variants besides.
        check_metrics: Whether the metrics that the facts name must exist.

    Raises:
        UserError: There is none of that name (the message has near matches), none at that path, the
            suite's file is none, or what the facts name as a metric is none.
    """
    definition = _find(name, suite)
    if check_metrics:
        definition.check_metrics()
    return definition


def _find(name: str, suite: str | None) -> WorkloadDefinition:
    drawn = {} if suite is None else dict(read_suite(suite).variants)
    bases = registry.names()
    if name in bases:
        return registry.get(name)
    if "/" in name or os.sep in name:
        return _at(name)
    for base in bases:
        variant = registry.get(base).variants.get(name.removeprefix(f"{base}_"))
        if variant is not None and name.startswith(f"{base}_"):
            drawn[name] = base, variant
    if name in drawn:
        base, variant = drawn[name]
        return axes.vary(registry.get(base), name, variant.changes, variant.targets)
    installed = outside.installed_names()
    for base in installed:
        if name == base or name.startswith(f"{base}_"):
            definition = find_installed(base)
            if name == base:
                return definition
            if name.removeprefix(f"{base}_") in definition.variants:
                return _variant(definition, name.removeprefix(f"{base}_"), name)
    folder, _ = _split(name)
    if (folder / "__init__.py").is_file():
        return _at(name)
    known, others = [*bases, *installed], [*registry.variant_names(), *drawn]
    nearest = difflib.get_close_matches(name, [*known, *others], n=1)
    # The many variants are told of where one of them is meant, and nowhere else.
    allowed = [*known, *others] if {*nearest} & {*others} else known
    return find(choose("workload", name, allowed))


def find_installed(name: str) -> WorkloadDefinition:
    """Return the workload of one of `outside.installed_names()`; UserError where it is broken."""
    definition = outside.load_installed(name)
    outside.check_name(definition, _names_in_the_tree())
    return definition


def all_workloads() -> tuple[list[WorkloadDefinition], list[UserError]]:
    """Return the workloads of the tree and those that are installed, and what is wrong with each
    installed one that cannot be loaded.
    """
    definitions, broken = [registry.get(name) for name in registry.names()], []
    for name in outside.installed_names():
        try:
            definitions.append(find_installed(name))
        except UserError as error:
            broken.append(error)
    return definitions, broken


def read_suite(path: str) -> suites.Suite:
    """Return the suite of a file, whose base workloads this installation has.

    Raises:
        UserError: The file is no suite, a base workload is unknown, or a variant has the name of a
            workload or of a named variant.
    """
    return suites.read(path, registry.names(), {*_names_in_the_tree()})


def _names_in_the_tree() -> Sequence[str]:
    return [*registry.names(), *registry.variant_names()]


def _at(given: str) -> WorkloadDefinition:
    """The workload, or its variant, of a path."""
    folder, variant = _split(given)
    definition = outside.load(folder)
    outside.check_name(definition, _names_in_the_tree())
    if not variant:
        return definition
    choose(f"variant of {definition.name}", variant, sorted(definition.variants))
    return _variant(definition, variant, f"{definition.reference}:{variant}")


def _split(given: str) -> tuple[Path, str]:
    """The folder and the variant of `<path>:<variant>`; a folder may have a colon in its name."""
    before, colon, after = given.rpartition(":")
    return (Path(before), after) if colon and not Path(given).exists() else (Path(given), "")


def _variant(base: WorkloadDefinition, variant: str, reference: str) -> WorkloadDefinition:
    changes, targets = base.variants[variant].changes, base.variants[variant].targets
    varied = axes.vary(base, f"{base.name}_{variant}", changes, targets)
    assert base.outside is not None
    return dataclasses.replace(
        varied, outside=dataclasses.replace(base.outside, reference=reference)
    )
