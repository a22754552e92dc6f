"""What a command loads: a framework only where it trains with it, and never the other one."""

import json
import re
import subprocess
import sys

import pytest

FRAMEWORKS = {"jax": {"jax", "jaxlib", "flax", "optax"}, "pytorch": {"torch"}}
NEVER_IN_A_MINI_RUN = {"transformers", "datasets", "pandas", "wandb", "codecarbon"}
COMMANDS = (
    *("run", "score", "workloads", "submissions", "campaign", "data", "check", "variants"),
    *("compare", "status", "commitment", "decide", "calibrate", "pack", "unpack"),
)
WATCHED = """
import atexit, json, pathlib, sys

DEFAULTS = {"learning_rate": 0.001}

def write():
    names = sorted({name.partition(".")[0] for name in sys.modules})
    pathlib.Path(__file__).with_name("modules.json").write_text(json.dumps(names))

atexit.register(write)

def jax_optimizer(hyperparameters):
    import optax
    return optax.adam(hyperparameters.learning_rate)

def torch_optimizer(params, hyperparameters):
    import torch
    return torch.optim.Adam(params.tensors(), lr=hyperparameters.learning_rate)
"""


def python(*words, cwd=None):
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_next_to_nothing(command):
    code = f"""
import sys
sys.argv = ["algoperf", *{command.split()!r}, "--help"]
from algoperf.cli import main
try:
    main()
except SystemExit as ended:
    print("CODE", ended.code, *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    ended = python("-c", code)
    text, _, rest = ended.stdout.partition("CODE ")
    code, *loaded = rest.split()
    assert code == "0", ended.stderr
    assert text.startswith(f"usage: algoperf {command}".rstrip())
    heavy = {"numpy", "scipy", "rich", "sklearn"} | NEVER_IN_A_MINI_RUN
    assert not set(loaded) & heavy.union(*FRAMEWORKS.values())
    if not command:
        assert set(re.findall(r"^    (\w+)", text, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize(
    "words",
    [
        ["workloads", "digits"],
        ["submissions"],
        ["status", "."],
        ["run", "--workload", "digits", "--submission", "no"],
        ["check", "no"],
    ],
)
def test_commands_that_do_not_train_load_no_framework(words):
    code = (
        f"import sys; from algoperf.cli import main; main({words!r}); print('LOADED', *sys.modules)"
    )
    ended = python("-c", code)
    loaded = {name.partition(".")[0] for name in ended.stdout.partition("LOADED ")[2].split()}
    assert "algoperf" in loaded, ended.stderr
    assert not loaded & NEVER_IN_A_MINI_RUN.union({"sklearn"}, *FRAMEWORKS.values())


def modules_of_a_run(folder, workload, framework):
    (folder / "watched.py").write_text(WATCHED)
    options = ["--framework", framework, "--max-steps", "12", "--eval-every-steps", "6"]
    # Inline, one process loads all that the two of a trial with a referee do.
    options += ["--referee", "inline"]
    words = ["run", "--workload", workload, "--submission", "watched.py", *options]
    ended = python("-m", "algoperf", *words, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    loaded = set(json.loads((folder / "modules.json").read_text()))
    assert {"numpy", "tensorboard"} | FRAMEWORKS[framework] <= loaded | {"optax"}
    return loaded


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_run_loads_its_own_framework_alone(tmp_path, framework):
    loaded = modules_of_a_run(tmp_path, "digits", framework)
    (other,) = set(FRAMEWORKS) - {framework}
    assert loaded & (FRAMEWORKS[other] | NEVER_IN_A_MINI_RUN) == set()


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_run_on_news_loads_no_library_that_takes_seconds(tmp_path, framework):
    loaded = modules_of_a_run(tmp_path, "ag_news", framework)
    (other,) = set(FRAMEWORKS) - {framework}
    assert loaded & (FRAMEWORKS[other] | NEVER_IN_A_MINI_RUN | {"sklearn"}) == set()
