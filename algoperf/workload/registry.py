"""Which workloads there are: packages below `workloads` whose module defines `WORKLOAD`.

The models and the data beside that module are imported when a run needs them, never here.
"""

import importlib
import pkgutil

import workloads
from algoperf.workload.definition import WorkloadDefinition

NO_WORKLOADS = frozenset({"metrics", "parts"})  # what workloads share


def names() -> list[str]:
    """Return the names of the workloads that this installation has, in alphabetical order."""
    packages = [module.name for module in pkgutil.iter_modules(workloads.__path__) if module.ispkg]
    return sorted(set(packages) - NO_WORKLOADS)


def get(name: str) -> WorkloadDefinition:
    """Return the definition of one of `names()`."""
    definition = importlib.import_module(f"workloads.{name}").WORKLOAD
    assert isinstance(definition, WorkloadDefinition), f"workloads.{name}.WORKLOAD"
    return definition


def variant_names() -> list[str]:
    """Return the named variants of all workloads, by the names under which they are found."""
    return [f"{name}_{variant}" for name in names() for variant in sorted(get(name).variants)]
