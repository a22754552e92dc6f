"""With evaluation by steps the same seed gives the same run bit for bit; another seed another."""

import csv
from pathlib import Path

import pytest

from algoperf.cli import commands

TIMES = {
    "accumulated_submission_time",
    "accumulated_eval_time",
    "accumulated_logging_time",
    "score",
    "total_duration",
}


def written(folder: Path, framework: str, seed: int) -> list[dict[str, str]]:
    """The text of every evaluation and training scalar of one run, but for the times."""
    words = ["run", "--workload", "digits", "--submission", "nadamw", "--framework", framework]
    words += ["--seed", str(seed), "--max-steps", "45", "--eval-every-steps", "15"]
    assert commands.main([*words, "--out", str(folder)]) == 0
    rows = []
    for name in ("eval_measurements.csv", "measurements.csv"):
        (path,) = folder.rglob(name)
        with path.open(newline="") as file:
            rows += [
                {key: value for key, value in row.items() if key not in TIMES}
                for row in csv.DictReader(file)
            ]
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
def test_the_same_seed_gives_the_same_numbers(tmp_path, framework):
    first = written(tmp_path / "first", framework, seed=0)
    assert len(first) == 4 + 5  # evaluations after 1, 15, 30, 45; scalars of steps 0, 10, ..., 40
    assert all(row["loss"] != "" for row in first[4:])
    assert written(tmp_path / "again", framework, seed=0) == first
    other = written(tmp_path / "other", framework, seed=1)
    assert len(other) == len(first)
    assert all(ours != theirs for ours, theirs in zip(first, other, strict=True))
