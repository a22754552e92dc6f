import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("algoperf", "reference_algorithms", "scoring", "workloads")
FRAMEWORKS = {"jax": {"jax", "jaxlib", "flax", "optax"}, "torch": {"torch"}}
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# Each may import from the groups before it and from its own; what is not listed is not held.
LAYERS = (
    {"spec", "losses", "parameters"},
    {"clock", "evaluate", "run_log", "backends", "data", "workload", "submission", "hardware"},
    {"trial"},
    {"study"},
    {"cli"},
    {"__main__"},
)
IMPORTED_WHERE_USED = {"datasets", "jinja2", "matplotlib", "pandas", "transformers"}
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "huggingface_hub": "huggingface-hub",
    "rouge_score": "rouge-score",
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported(tree: ast.AST, *, at_module_level: bool) -> Iterator[str]:
    """Yield dotted names; `from a import b` gives a.b, since b may be a module."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif is_type_checking(node):
            continue
        elif not (at_module_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from imported(node, at_module_level=at_module_level)


def imports_of(path: Path, *, at_module_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"), str(path))
    return set(imported(tree, at_module_level=at_module_level))


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def is_under(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def frameworks_allowed(path: Path) -> set[str]:
    """Which frameworks a file may import at all: the one in its name, or both in an algorithm."""
    if path.is_relative_to(ROOT / "reference_algorithms"):
        return set(FRAMEWORKS)
    return set(FRAMEWORKS) & set(path.stem.replace("pytorch", "torch").split("_"))


def required(section: str, option: str) -> set[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = config[section][option].splitlines()
    return {Requirement(line).name for line in lines if line and not line.startswith("#")}


def test_every_import_is_declared():
    runtime = required("options", "install_requires")
    known = dict.fromkeys(MODULES, runtime)
    testing = runtime | required("options.extras_require", "test")
    own = set((ROOT / "tests").rglob("*.py")) - set((ROOT / "tests" / "published").rglob("*.py"))
    known |= dict.fromkeys(own, testing)
    benchmarks = {path.stem for path in (ROOT / "tests" / "benchmarks").glob("*.py")}
    ours = {*PACKAGES, "tests", *benchmarks, *sys.stdlib_module_names}
    for path, declared in known.items():
        for name in roots(imports_of(path)) - ours:
            assert DISTRIBUTIONS.get(name, name) in declared, f"{relative(path)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_frameworks_are_imported_by_their_own_side_only(path):
    allowed = frameworks_allowed(path)
    forbidden = set().union(*(FRAMEWORKS[name] for name in FRAMEWORKS if name not in allowed))
    assert not roots(imports_of(path)) & forbidden
    if path.parent.name == "reference_algorithms":  # one file serves both
        assert not roots(imports_of(path, at_module_level=True)) & set().union(*FRAMEWORKS.values())


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_slow_libraries_are_imported_where_they_are_used(path):
    loaded = roots(imports_of(path, at_module_level=True))
    assert path.stem == "plots" or not loaded & IMPORTED_WHERE_USED


def test_units_import_the_contract_and_neutral_helpers_only():
    neutral = ("data", "parameters", "spec", "workload")
    contract = tuple(f"algoperf.{name}" for name in neutral)
    for package in ("workloads", "reference_algorithms"):
        for path in (ROOT / package).rglob("*.py"):
            for name in imports_of(path):
                if name.split(".")[0] in PACKAGES:
                    assert is_under(name, (*contract, package)), f"{relative(path)} imports {name}"


def test_imports_run_one_way_and_nothing_imports_the_cli():
    rank = {f"algoperf.{name}": level for level, group in enumerate(LAYERS) for name in group}
    for path in MODULES:
        importer = relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        own = next((rank[key] for key in rank if is_under(importer, (key,))), len(LAYERS) - 2)
        for name in imports_of(path):
            level = next((rank[key] for key in rank if is_under(name, (key,))), 0)
            assert level <= own, f"{importer} imports {name}"
            if is_under(name, ("algoperf.cli",)):
                assert importer == "algoperf.__main__", f"{importer} imports {name}"


def test_scoring_loads_no_framework_and_the_contract_neither():
    code = "import sys, scoring, algoperf.spec, algoperf.workload; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert "scoring" in loaded
    assert not loaded & {*set().union(*FRAMEWORKS.values()), *IMPORTED_WHERE_USED}
