"""Supply names that submissions of version 0.5 use and that no longer exist.

They are the older package's own name, and functions of JAX and NumPy. Only the submission's own
modules get the removed functions: their `import` statements give them a view of the package that
has the removed names beside the present ones.
"""

import builtins
import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

PACKAGE = "algorithmic_efficiency"
# A source mentions removed names as attributes, or as keywords of `jnp.clip`.
GONE = {
    *("tree_all", "tree_flatten", "tree_leaves", "tree_map", "tree_multimap", "tree_reduce"),
    *("tree_structure", "tree_transpose", "tree_unflatten", "device_put_replicated"),
    *("device_put_sharded", "KeyArray", "a_min", "a_max", "trapz", "float_", "Inf", "NaN"),
    *("infty", "product", "cumproduct", "alltrue"),
}
MODULES = ("spec", "pytorch_utils", "jax_sharding_utils", "random_utils")


def install_package() -> None:
    """Let `import algorithmic_efficiency...` find the modules of `algoperf` with the same names."""
    package = ModuleType(PACKAGE, "AlgoPerf's package up to version 0.5; an alias.")
    package.__path__ = []
    for name in MODULES:
        module = importlib.import_module(f"algoperf.{name}")
        setattr(package, name, module)
        sys.modules[f"{PACKAGE}.{name}"] = module
    sys.modules[PACKAGE] = package


def supply_removed(framework: str) -> Callable[[ModuleType], None]:
    """Return a function that gives a module, before it runs, imports with the removed names.

    Args:
        framework: The framework of the trial: 'jax' adds JAX's removed names to NumPy's.
    """
    removed = {"numpy": _numpy} | ({"jax": _jax} if framework == "jax" else {})
    views: dict[str, ModuleType] = {}

    def view_of(module: ModuleType) -> ModuleType:
        """Return a view of the module with its removed names; itself if it has none."""
        top = module.__name__.partition(".")[0]
        if top not in removed:
            return module
        if not views:
            for make in removed.values():
                views.update({name: _View(name, extra, view_of) for name, extra in make().items()})
        return views.get(module.__name__, module)

    def own_import(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> ModuleType:
        return view_of(builtins.__import__(name, globals, locals, fromlist, level))

    def prepare(module: ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": own_import}

    return prepare


class _View(ModuleType):
    """A module with additional names; its submodules that have a view are given as their view."""

    def __init__(
        self, name: str, extra: Mapping[str, Any], view_of: Callable[[ModuleType], ModuleType]
    ) -> None:
        super().__init__(name)
        self.__dict__.update(extra)
        self.__dict__["_view_of"] = view_of
        self.__dict__["_module"] = importlib.import_module(name)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.__dict__["_module"], name)
        return self.__dict__["_view_of"](value) if isinstance(value, ModuleType) else value


def _jax() -> dict[str, dict[str, Any]]:
    from algoperf.submission.older import jax_names

    return jax_names.removed()


def _numpy() -> dict[str, dict[str, Any]]:
    """Return the names that NumPy 2 removed, by module (its migration guide, 'Main namespace')."""
    import numpy as np

    gone = {"trapz": np.trapezoid, "float_": np.float64, "Inf": np.inf, "NaN": np.nan}
    gone |= {"infty": np.inf, "product": np.prod, "cumproduct": np.cumprod, "alltrue": np.all}
    return {"numpy": {name: value for name, value in gone.items() if not hasattr(np, name)}}
