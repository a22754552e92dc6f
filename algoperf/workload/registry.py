"""Which workloads there are: packages below `workloads` whose module defines `WORKLOAD`.

The models and the data beside that module are imported when a run needs them, never here.
"""

import functools
import importlib
import pkgutil
import re
from pathlib import Path

from algoperf.workload.definition import WorkloadDefinition

PACKAGE = "workloads"  # found by its name, as are the packages in it and those of entry points
DEFINES = re.compile(r"^WORKLOAD\b", re.MULTILINE)


@functools.cache
def _names(folders: tuple[str, ...]) -> tuple[str, ...]:
    workload_names = []
    for folder in folders:
        for module in pkgutil.iter_modules([folder]):
            facts = Path(folder) / module.name / "__init__.py"
            if module.ispkg and DEFINES.search(facts.read_text("utf-8")):
                workload_names.append(module.name)
    return tuple(sorted(workload_names))


def names() -> list[str]:
    """Return the names of the workloads that this installation has, in alphabetical order.

    A package below `workloads` is one where its module assigns `WORKLOAD`; the others (`parts`,
    `metrics`) hold what workloads share. None of them is imported for this.
    """
    return list(_names(tuple(importlib.import_module(PACKAGE).__path__)))


def get(name: str) -> WorkloadDefinition:
    """Return the definition of one of `names()`."""
    definition = importlib.import_module(f"{PACKAGE}.{name}").WORKLOAD
    assert isinstance(definition, WorkloadDefinition), f"workloads.{name}.WORKLOAD"
    return definition


def variant_names() -> list[str]:
    """Return the named variants of all workloads, by the names under which they are found."""
    return [f"{name}_{variant}" for name in names() for variant in sorted(get(name).variants)]
