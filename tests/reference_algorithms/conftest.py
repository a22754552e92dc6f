"""The runs of an algorithm over fixed gradients, which the agreement table uses as well."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "update_agreement.py"


@pytest.fixture(scope="session")
def runs():
    """The module that prints the agreement table."""
    spec = importlib.util.spec_from_file_location("update_agreement", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
