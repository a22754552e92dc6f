"""Find a workload, a named variant, or a held-out variant of a suite's file, by name."""

import difflib

from algoperf.errors import choose
from algoperf.workload import axes, registry
from algoperf.workload import suite as suites
from algoperf.workload.definition import WorkloadDefinition


def find(name: str, suite: str | None = None) -> WorkloadDefinition:
    """Return the workload or variant of that name.

    Args:
        name: A workload's name, or `<workload>_<variant>` for a named variant.
        suite: A file of `algoperf variants sample` that has variants besides.

    Raises:
        UserError: There is none of that name (the message has near matches), or the suite's file
            is none, or what it names as a metric is none.
    """
    definition = _find(name, suite)
    definition.check_metrics()
    return definition


def _find(name: str, suite: str | None) -> WorkloadDefinition:
    drawn = {} if suite is None else dict(read_suite(suite).variants)
    bases = registry.names()
    if name in bases:
        return registry.get(name)
    for base in bases:
        variant = registry.get(base).variants.get(name.removeprefix(f"{base}_"))
        if variant is not None and name.startswith(f"{base}_"):
            drawn[name] = base, variant
    if name not in drawn:
        others = [*registry.variant_names(), *drawn]
        nearest = difflib.get_close_matches(name, [*bases, *others], n=1)
        # The many variants are told of where one of them is meant, and nowhere else.
        choose("workload", name, [*bases, *others] if {*nearest} & {*others} else bases)
    base, variant = drawn[name]
    return axes.vary(registry.get(base), name, variant.changes, variant.targets)


def read_suite(path: str) -> suites.Suite:
    """Return the suite of a file, whose base workloads this installation has.

    Raises:
        UserError: The file is no suite, a base workload is unknown, or a variant has the name of a
            workload or of a named variant.
    """
    taken = {*registry.names(), *registry.variant_names()}
    return suites.read(path, registry.names(), taken)
