"""What suites of several rooms share: the workload with batch norm."""

import importlib.util
import sys
from pathlib import Path

import pytest

CONV_NORM = Path(__file__).parent / "workloads" / "conv_norm" / "__init__.py"


@pytest.fixture(scope="session")
def conv_norm():
    """The definition of tests/workloads/conv_norm, a convolutional network with batch norm."""
    if "conv_norm" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "conv_norm", CONV_NORM, submodule_search_locations=[str(CONV_NORM.parent)]
        )
        sys.modules["conv_norm"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["conv_norm"].WORKLOAD
