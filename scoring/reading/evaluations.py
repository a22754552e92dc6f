"""The columns of one eval_measurements.csv, as far as they can be read."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TIME_COLUMN = "accumulated_submission_time"
STEP_COLUMN = "global_step"

Rows = Mapping[str, NDArray[np.float64]]


def read_evaluations(path: Path) -> tuple[Rows, list[str]]:
    """The columns of eval_measurements.csv ({} where nothing can be read) and what is wrong."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}, ["is missing: no evaluation"]
    except OSError as error:
        return {}, [f"cannot be read ({error.strerror})"]
    problems = []
    # Split by hand: a csv reader lets one stray quotation mark swallow the lines after it.
    *lines, torn = text.split("\n")
    if torn.strip():  # even with all its fields, the last number may have lost digits
        problems.append("ends in a torn line, which is left out")
    table = [
        [field.strip().strip('"') for field in line.split(",")] for line in lines if line.strip()
    ]
    if not table:
        return {}, [*problems, "is empty: no evaluation"]
    header, *body = table
    whole = [row for row in body if len(row) == len(header)]
    if len(whole) < len(body):
        problems.append(
            f"{len(body) - len(whole)} lines do not have {len(header)} fields and are left out"
        )
    if not whole:
        problems.append("has no complete row: no evaluation")
    return _columns(header, whole, problems), problems


def _columns(
    header: list[str], table: list[list[str]], problems: list[str]
) -> dict[str, NDArray[np.float64]]:
    columns: dict[str, NDArray[np.float64]] = {}
    for index, name in enumerate(header):
        if name in columns:
            problems.append(f"has column {name} twice: the first counts")
            continue
        values = [_number(row[index]) for row in table]
        if None in values:
            problems.append(f"column {name} has {values.count(None)} values that are no numbers")
        columns[name] = np.array(
            [math.nan if value is None else value for value in values], np.float64
        )
    return columns


def _number(field: str) -> float | None:
    if not field:
        return math.nan  # a metric that this evaluation did not measure
    try:
        return float(field)
    except ValueError:
        return None
