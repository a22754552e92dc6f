"""Stand-ins for the workloads of AlgoPerf, so that submissions can import them.

Some published submissions import them for `isinstance(workload, ...)` or for an annotation. No
workload of this library is an instance of one.
"""

import importlib.abc
import importlib.machinery
import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

WORKLOADS = re.compile(r"(algoperf|algorithmic_efficiency)\.workloads(\..+)?")


class StandIn:
    """The class that stands for any name in AlgoPerf's workload modules.

    Creating an instance raises TypeError.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        raise TypeError(f"{type(self).__name__} is a workload of AlgoPerf's, which is not here")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if WORKLOADS.fullmatch(name) is None:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        def named(name: str) -> type[StandIn]:
            if name.startswith("__"):
                raise AttributeError(name)
            stand_in: type[StandIn] = type(name, (StandIn,), {"__module__": module.__name__})
            module.__dict__[name] = stand_in
            return stand_in

        module.__dict__["__getattr__"] = named


def install() -> None:
    """Let AlgoPerf's workload modules be imported in this process.

    Other modules that have these names come first.
    """
    if not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.append(_Finder())
