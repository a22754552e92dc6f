"""Functions and modules as submissions: what is written to a file, and what cannot be."""

import importlib.util
import math
import types
from pathlib import Path

import numpy as np
import optax
import pytest

from algoperf.errors import UserError
from algoperf.submission import loading, written

RATE = 0.5
FACTORS = {"slow": [1, 2.0], "fast": (3, None)}
ARRAY = np.zeros(3)


def scaled(value):
    return helper(value) * FACTORS["slow"][1]


def helper(value, power=RATE):
    return math.pow(value, power)


class Kept:
    base = RATE

    def twice(self):
        return 2 * self.base


def jax_optimizer(params, hyperparameters):
    rate = scaled(hyperparameters.learning_rate) + Kept().twice()

    def inner():
        return optax.sgd(rate)

    return inner()


def torch_optimizer():
    return ARRAY


def import_file(path):
    spec = importlib.util.spec_from_file_location("written_submission", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_functions_are_written_with_what_they_use(tmp_path):
    defaults = {"learning_rate": 0.25}
    given = {"jax_optimizer": jax_optimizer, "DEFAULTS": defaults}
    path = Path(written.path_of(given, tmp_path, "mine"))
    assert path.name == "mine.py"
    outline = loading.inspect(path)
    assert (outline.name, outline.frameworks) == ("mine", ("jax",))
    module = import_file(path)
    assert defaults == module.DEFAULTS
    assert module.scaled(16) == 8.0  # 16 ** 0.5 * 2
    assert module.Kept().twice() == 1.0
    assert module.FACTORS == FACTORS
    made = module.jax_optimizer(None, types.SimpleNamespace(learning_rate=0.25))
    updates, _ = made.update({"w": np.float32(1)}, made.init({"w": np.float32(0)}))
    assert float(updates["w"]) == -2.0  # 0.25 ** 0.5 * 2 + 2 * 0.5


def test_the_same_functions_have_the_same_file_and_others_another(tmp_path):
    first = written.path_of((jax_optimizer,), tmp_path)
    assert written.path_of([jax_optimizer], tmp_path) == first
    assert Path(first).name == "notebook.py"
    changed = {"jax_optimizer": jax_optimizer, "DEFAULTS": {"learning_rate": 1}}
    assert written.path_of(changed, tmp_path) != first


def test_values_of_an_enclosing_function_are_written_too(tmp_path):
    power = 3

    def torch_optimizer(params):
        return power, scaled(4)

    module = import_file(written.path_of((torch_optimizer,), tmp_path))
    assert module.torch_optimizer(None) == (3, 4.0)
    assert module.DEFAULTS == {}


def test_a_function_of_another_name(tmp_path):
    def my_optimizer():
        return "mine"

    module = import_file(written.path_of({"torch_optimizer": my_optimizer}, tmp_path))
    assert module.torch_optimizer() == "mine"


def test_paths_names_and_modules_are_what_they_are(tmp_path):
    assert written.path_of("nadamw", tmp_path) == "nadamw"
    assert written.path_of(Path("mine.py"), tmp_path) == "mine.py"
    assert written.path_of(loading, tmp_path) == loading.__file__
    assert not list(tmp_path.iterdir())


def uses_nothing_there():
    return nothing_there  # noqa: F821


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "a submission is given as int; expected a path, a name, a module, functions"),
        ((), "a submission is given as tuple; expected"),
        ({"optimizer": jax_optimizer}, "a submission has no 'optimizer'; it has: jax_optimizer,"),
        ((scaled,), "a submission has no 'scaled'; it has: jax_optimizer, torch_optimizer"),
        ((torch_optimizer,), "submission: ARRAY is a ndarray, which cannot be written to a file"),
        ({"torch_optimizer": lambda: 1}, "torch_optimizer is no function with a def of its own"),
        ({"jax_optimizer": uses_nothing_there}, "uses nothing_there, which is not defined"),
        ({"DEFAULTS": {"rate": math.nan}}, "DEFAULTS is a dict, which cannot be written"),
        (types.ModuleType("made"), "submission made: a module without a file"),
    ],
)
def test_what_cannot_be_written_is_named(given, message, tmp_path):
    with pytest.raises(UserError) as raised:
        written.path_of(given, tmp_path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="submission name 'a b': expected letters"):
        written.path_of((jax_optimizer,), tmp_path, "a b")
