"""Names say what a value is: pronouns and participles do not (CONTRIBUTING.md, "Names")."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("algoperf", "reference_algorithms", "scoring", "workloads")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
VAGUE = {"of", "told", "said", "found", "made", "place"}
# `place` puts a batch on a device, as the backends' method does; files of reference algorithms are
# part of what results record, and stay as they are.
ALLOWED = {
    ("algoperf/data/batches.py", "place"),
    ("algoperf/submission/older/__init__.py", "place"),
    ("reference_algorithms/parts/torch_optimizers.py", "made"),
}


def bound(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_variable_has_a_vague_name(path):
    name = path.relative_to(ROOT).as_posix()
    vague = set(bound(ast.parse(path.read_text("utf-8")))) & VAGUE
    assert not {each for each in vague if (name, each) not in ALLOWED}
