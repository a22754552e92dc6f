"""What a failing submission's user reads: one line that says what is missing and how to get it."""

import sys

import numpy as np
import pytest

from algoperf.errors import UserError
from algoperf.submission import blame, loading

JAX = """DEFAULTS = {}
def jax_optimizer(): ...
"""


def missing(name):
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("chex", "install it with: pip install 'algoperf[algorithms]'"),
        ("schedulefree.wrap", "install it with: pip install 'algoperf[algorithms]'"),
        ("pytorch_optimizer", "install it with: pip install 'algoperf[algorithms]'"),
        ("codecarbon", "install it with: pip install 'algoperf[carbon]'"),
        ("numpy.gone", f"numpy {np.__version__} is installed"),
        ("no_such_module", "neither installed nor a file beside it"),
        ("_submission_mine.helper", "neither installed nor a file beside it"),
    ],
)
def test_how_to_get_a_module_that_is_missing(monkeypatch, name, remedy):
    top = name.partition(".")[0]
    if top != "numpy":
        monkeypatch.setitem(sys.modules, top, None)
    expected = f"ModuleNotFoundError: No module named {name!r} ({remedy})"
    assert blame.cause_of(missing(name)) == expected


def test_a_name_that_a_package_lacks_is_told_with_its_version():
    with pytest.raises(ImportError) as caught:
        from numpy import no_such_name  # noqa: F401
    assert blame.cause_of(caught.value).endswith(f"(numpy {np.__version__} is installed)")


def test_other_errors_are_told_as_they_are():
    assert blame.cause_of(ValueError("one\ntwo")) == "ValueError: one"
    assert blame.cause_of(ImportError("no name")) == "ImportError: no name"


@pytest.mark.parametrize("file", ["submission.py", "helper.py"])
def test_a_missing_package_is_one_line_with_its_place(
    tmp_path, monkeypatch, loading_taken_back, file
):
    monkeypatch.setitem(sys.modules, "chex", None)
    (tmp_path / "submission.py").write_text(JAX + "import helper\n")
    (tmp_path / "helper.py").write_text("")
    with (tmp_path / file).open("a") as source:
        source.write("import chex\n")
    with pytest.raises(UserError) as caught:
        loading.load(loading.inspect(tmp_path / "submission.py"), "jax")
    line = 4 if file == "submission.py" else 1
    assert f"{file}:{line}: ModuleNotFoundError: " in str(caught.value)
    assert str(caught.value).endswith("(install it with: pip install 'algoperf[algorithms]')")
