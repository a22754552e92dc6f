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
# The rooms, from the ground up: a module may import from its own room and from those before it.
ROOMS = (
    "algoperf.errors",
    "algoperf.losses",
    "algoperf.spec",
    "algoperf.random_utils",
    "algoperf.pytorch_utils",
    "algoperf.jax_sharding_utils",
    "algoperf.machine",
    "algoperf.run_folder",
    "algoperf.workload",
    "algoperf.data",
    "workloads",
    "algoperf.backends",
    "reference_algorithms",
    "algoperf.submission",
    "algoperf.trial",
    "algoperf.study",
    "scoring.reading",
    "scoring.rules",
    "scoring.benchmarks",
    "scoring.analysis",
    "scoring.output",
    "scoring.frames",
    "scoring.report",
    "scoring.decisions",
    "scoring",
    "algoperf.experiments",
    "algoperf.api",
    "algoperf",  # the package alone
    "algoperf.cli",
    "algoperf.__main__",
)
ALONE = ("algoperf",)
IMPORTED_WHERE_USED = {"datasets", "jinja2", "matplotlib", "pandas", "transformers"}
DISTRIBUTIONS = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "huggingface_hub": "huggingface-hub",
    "rouge_score": "rouge-score",
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported(tree: ast.AST, *, at_module_level: bool, for_types: bool = False) -> Iterator[str]:
    """Yield dotted names; `from a import b` gives a.b, since b may be a module."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif is_type_checking(node) and not for_types:
            continue
        elif not (at_module_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from imported(node, at_module_level=at_module_level, for_types=for_types)


def imports_of(path: Path, *, at_module_level: bool = False, for_types: bool = False) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"), str(path))
    return set(imported(tree, at_module_level=at_module_level, for_types=for_types))


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
    folders = (ROOT / "tests" / name for name in ("benchmarks", "helpers"))
    imported = {path.stem for folder in folders for path in folder.glob("*.py")}
    ours = {*PACKAGES, "tests", *imported, *sys.stdlib_module_names}
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
    neutral = ("data", "errors", "spec", "workload")
    contract = tuple(f"algoperf.{name}" for name in neutral)
    for package in ("workloads", "reference_algorithms"):
        for path in (ROOT / package).rglob("*.py"):
            for name in imports_of(path):
                if name.split(".")[0] in PACKAGES:
                    assert is_under(name, (*contract, package)), f"{relative(path)} imports {name}"


def module_name(path: Path) -> str:
    return relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


NAMES = {module_name(path): path for path in MODULES}


def room_of(module: str) -> str:
    """The longest entry of `ROOMS` that holds a module."""
    if module in ALONE:
        return module
    held = [room for room in ROOMS if room not in ALONE]
    holding = [room for room in held if is_under(module, (room,))]
    assert holding, f"no room holds {module}: give it a place in ROOMS"
    return max(holding, key=len)


def imported_modules(path: Path) -> set[str]:
    """Our own modules that a file imports, those inside functions and for types as well."""
    found = set()
    for name in imports_of(path, for_types=True):
        package, _, _ = name.rpartition(".")
        module = name if name in NAMES else package  # `from a import b` of a function gives a
        if module in NAMES and module != module_name(path):
            found.add(module)
    return found


ARROWS = {name: imported_modules(path) for name, path in NAMES.items()}


def test_every_room_has_modules_and_every_module_a_room():
    assert {room_of(name) for name in NAMES} == set(ROOMS)


def test_imports_run_one_way():
    rank = {room: level for level, room in enumerate(ROOMS)}
    for importer, modules in ARROWS.items():
        for module in modules:
            own, other = room_of(importer), room_of(module)
            assert rank[other] <= rank[own], f"{importer} imports {module}, which stands above it"


def test_no_modules_import_each_other_in_a_circle():
    finished: set[str] = set()

    def walk(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above[above.index(module) :], module))
        if module not in finished:
            for other in sorted(ARROWS[module]):
                walk(other, (*above, module))
            finished.add(module)

    for name in NAMES:
        walk(name, ())


def test_nothing_imports_the_command_line():
    for importer, modules in ARROWS.items():
        if room_of(importer) != "algoperf.cli":
            of_cli = {module for module in modules if room_of(module) == "algoperf.cli"}
            assert not of_cli or importer == "algoperf.__main__", f"{importer} imports {of_cli}"


def test_at_the_top_stands_the_contract_alone():
    files = {path.stem for path in (ROOT / "algoperf").glob("*.py")}
    tops = {room.split(".")[1] for room in ROOMS if room.startswith("algoperf.")}
    folders = {
        path.name for path in (ROOT / "algoperf").iterdir() if (path / "__init__.py").exists()
    }
    assert files | folders == tops | {"__init__"}
    assert not (ROOT / "algoperf" / "workloads").exists()  # submission.stand_ins answers for it


def test_scoring_loads_no_framework_and_the_contract_neither():
    code = "import sys, scoring, algoperf.spec, algoperf.workload; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert "scoring" in loaded
    assert not loaded & {*set().union(*FRAMEWORKS.values()), *IMPORTED_WHERE_USED}
