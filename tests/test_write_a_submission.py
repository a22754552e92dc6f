"""Every file of docs/write_a_submission.md runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "write_a_submission.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
FILES = {source.partition("\n")[0].removeprefix("# "): source for source in BLOCKS}
ALL_FRAMEWORKS = [
    (name, framework)
    for name, source in FILES.items()
    for framework, serves in (("jax", "optax"), ("pytorch", "torch."))
    if serves in source
]


def test_every_block_is_a_file_with_a_name():
    assert len(FILES) == len(BLOCKS) == 7
    assert all(re.fullmatch(r"\w+\.py", name) for name in FILES)


@pytest.mark.parametrize("name", ["adam_optax.py", "adam_torch.py"])
def test_a_new_optimizer_is_at_most_fifteen_lines(name):
    assert len(FILES[name].splitlines()) <= 15


@pytest.mark.parametrize(("name", "framework"), ALL_FRAMEWORKS)
def test_it_runs(name, framework, tmp_path):
    (tmp_path / name).write_text(FILES[name])
    command = ["run", "--workload", "digits", "--submission", name, "--framework", framework]
    command += ["--max-steps", "60", "--eval-every-steps", "60"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "algoperf", *command],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"validation/accuracy (\d\.\d+)", done.stdout)
    assert float(accuracy[1]) > 0.8
