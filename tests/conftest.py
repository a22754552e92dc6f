"""How the libraries work in the tests: set before any of them loads, and inherited by whatever a
test starts.

Most of the time of the suites is JAX's compilation, and threads that wait for each other. Neither
is what is tested: the code under test is the same, and `.ci/run` uses the wheel as users do,
without any of this. Whoever sets one of these variables beforehand keeps it.
"""

import csv
import importlib.util
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from algoperf.machine import stopping

CACHE = "JAX_COMPILATION_CACHE_DIR"
SETTINGS = {
    # Small models, and as many processes at a time as cores: threads of either framework would spin
    # while they wait for each other. All four: in PyTorch MKL's wins over OMP's
    # (findings/torch_mkl_threads_win.sh).
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"), "1"),
    # Programs run for a fraction of a second after a compilation that takes seconds; `optimised`
    # is for the tests that train for longer.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    # What one process compiled the next one reads: most of them train the same small model.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)


def usual_handler(number):
    """How Python starts in a terminal."""
    return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL


@pytest.fixture
def usual_handlers():
    """Each signal that asks to stop has its usual handler, and its present one after the test."""
    before = {each: signal.signal(each, usual_handler(each)) for each in stopping.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def pytest_configure(config: pytest.Config) -> None:
    """A folder of compiled programs for each of xdist's workers, and no signal that is ignored.

    JAX does not write an entry at once, so workers that shared a folder could read half of one.
    What `nohup` or '&' of a script starts ignores SIGHUP or SIGINT, and so would what a test starts
    to send it these signals.
    """
    for number in stopping.SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual_handler(number))
    if os.environ.get("PYTEST_XDIST_WORKER"):
        os.environ[CACHE] = str(Path(os.environ[CACHE]) / os.environ["PYTEST_XDIST_WORKER"])
    elif CACHE not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="algoperf-compiled-")
        os.environ[CACHE] = folder.name
        config.add_cleanup(folder.cleanup)
    # A cache that holds nothing is recorded as cold, and sets the first trial apart from the next.
    Path(os.environ[CACHE]).mkdir(parents=True, exist_ok=True)
    (Path(os.environ[CACHE]) / "warm").touch()


@pytest.fixture(scope="module")
def optimised():
    """Have XLA optimise the runs that the module's tests start: those of ag_news and of the
    summarization workloads compute for long enough to gain by it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "0")
        yield


@pytest.fixture
def short_run(tmp_path):
    """`short_run(workload, framework)` trains nadamw for two steps, with an evaluation after each.

    It returns the trial's folder, the two rows of evaluations, and the rows of predictions.
    """
    from algoperf.cli import commands
    from algoperf.run_folder import run_log

    def run(workload, framework):
        words = ["--workload", workload, "--submission", "nadamw", "--framework", framework]
        words += ["--max-steps", "2", "--eval-every-steps", "1", "--out", str(tmp_path)]
        assert commands.main(["run", *words]) == 0
        place = "mini-builtin", "nadamw", 0, workload, framework, 1
        folder = run_log.trial_folder(tmp_path, *place)
        with (folder / "eval_measurements.csv").open(newline="") as file:
            evaluations = list(csv.DictReader(file))
        lines = (folder / "predictions.jsonl").read_text().splitlines()
        return folder, evaluations, [json.loads(line) for line in lines]

    return run


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
