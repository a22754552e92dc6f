"""What every reference algorithm has to have, and how they are found."""

import importlib
import subprocess
import sys

import pytest

import reference_algorithms
from algoperf import search_space, spec

NAMES = reference_algorithms.names()
CONSUMED_BY_THE_LIBRARY = {"batch_size", "grad_clip", "label_smoothing", "dropout_rate"}
INFO = spec.TrainingInfo(
    step_hint=100, loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY, budget_s=60.0
)
WITHOUT_THE_OTHER = """
import importlib, sys
import reference_algorithms
from algoperf import spec
names = reference_algorithms.names()
modules = [importlib.import_module(f"reference_algorithms.{name}") for name in names]
assert "jax" not in sys.modules and "torch" not in sys.modules, "at import"
info = spec.TrainingInfo(step_hint=9, loss_type=spec.LossType.CTC_LOSS, budget_s=1.0)
for module in modules:
    point = spec.make_hyperparameters(module.DEFAULTS)
    module.learning_rate(3, point, info)
    if sys.argv[1] == "jax":
        module.jax_optimizer(point, info)
    else:
        import torch
        tensor = torch.nn.Parameter(torch.zeros(2))
        parameter = spec.Parameter("w", spec.ParameterType.WEIGHT, (2,), False, tensor)
        module.torch_optimizer(spec.Parameters([parameter]), point, info)
print(len(modules), *(name in sys.modules for name in sys.argv[1:]))
"""


def load(name):
    return importlib.import_module(f"reference_algorithms.{name}")


def test_names():
    assert NAMES == ["adamw", "momentum", "nadamw", "nesterov"]


def test_path():
    assert reference_algorithms.path("nadamw").name == "nadamw.py"
    assert reference_algorithms.path("nadamw").is_file()


@pytest.mark.parametrize("name", ["adam", "schedules", "__init__", ""])
def test_unknown_name(name):
    with pytest.raises(spec.UserError, match=r"one of: adamw, momentum, nadamw, nesterov"):
        reference_algorithms.path(name)


@pytest.mark.parametrize("name", NAMES)
def test_summary_is_the_docstrings_first_line(name):
    summary = reference_algorithms.summary(name)
    assert summary == load(name).__doc__.splitlines()[0]
    assert summary.lower().startswith(f"{name}: ")
    assert summary.endswith(".")


def test_looking_imports_no_algorithm():
    code = (
        "import sys, reference_algorithms as r; [r.summary(n) for n in r.names()]; "
        "print([m for m in sys.modules if m.startswith('reference_algorithms.')])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


@pytest.mark.parametrize(("framework", "other"), [("jax", "torch"), ("torch", "jax")])
def test_one_framework_never_loads_the_other(framework, other):
    command = [sys.executable, "-c", WITHOUT_THE_OTHER, framework, other]
    output = subprocess.run(command, capture_output=True, text=True, check=False)
    assert output.stdout.strip() == f"{len(NAMES)} True False", output.stderr


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_making_it_reads_every_default(name, framework):
    """Before the first step already, since a name that nobody reads is the user's mistake."""
    module = load(name)
    point = spec.make_hyperparameters(module.DEFAULTS)
    if framework == "jax":
        module.jax_optimizer(point, INFO)
    else:
        torch = pytest.importorskip("torch")
        tensor = torch.nn.Parameter(torch.zeros(2))
        parameter = spec.Parameter("w", spec.ParameterType.WEIGHT, (2,), False, tensor)
        module.torch_optimizer(spec.Parameters([parameter]), point, INFO)
    assert set(spec.unread(point)) <= CONSUMED_BY_THE_LIBRARY


@pytest.mark.parametrize("name", NAMES)
def test_search_space_has_the_defaults_names_and_holds_them(name):
    module = load(name)
    space = search_space.parse(module.SEARCH_SPACE, name)
    assert list(space.names) == list(module.DEFAULTS)
    for key, dimension in space.dimensions.items():
        default = module.DEFAULTS[key]
        if isinstance(dimension, search_space.Interval):
            assert dimension.low <= default <= dimension.high, key
        else:
            assert default in dimension.values, key


@pytest.mark.parametrize("name", NAMES)
def test_learning_rate_is_the_schedules(name):
    module = load(name)
    point = spec.make_hyperparameters(module.DEFAULTS)
    warmup_steps = round(module.DEFAULTS["warmup_factor"] * INFO.step_hint)
    peak = module.DEFAULTS["learning_rate"]
    assert module.learning_rate(0, point, INFO) == pytest.approx(peak / warmup_steps)
    assert module.learning_rate(warmup_steps - 1, point, INFO) == pytest.approx(peak)
    assert module.learning_rate(99, point, INFO) == pytest.approx(0.01 * peak)
