"""Reading of one trial's eval_measurements.csv, as far as it can be read."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TIME_COLUMN = "accumulated_submission_time"
STEP_COLUMN = "global_step"

Rows = Mapping[str, NDArray[np.float64]]


def read_evaluations(path: Path) -> tuple[Rows, list[str]]:
    """Read the columns of one eval_measurements.csv file, leaving out what is damaged.

    Args:
        path: The CSV file. It need not exist.

    Returns:
        The columns and a list of problems. The columns map each name in the header to an array with
        one value per complete line; a value is NaN where the field is empty or is no number. The
        mapping is empty where nothing can be read. Each problem is a text that continues a sentence
        whose subject is the file, such as "is missing: no evaluation".
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        return {}, ["is missing: no evaluation"]
    except OSError as error:
        return {}, [f"cannot be read ({error.strerror})"]
    problems = []
    # The lines are split by hand, because a csv reader lets one stray quotation mark swallow all
    # lines after it.
    *lines, torn = text.split("\n")
    # A line without its end is not used even if it has all fields: its last number may have lost
    # digits.
    if torn.strip():
        problems.append("ends in a torn line, which is left out")
    table = [line.split(",") for line in lines if line.strip()]
    if '"' in text:
        table = [[field.strip().strip('"') for field in row] for row in table]
    if not table:
        return {}, [*problems, "is empty: no evaluation"]
    header, *body = table
    whole = [row for row in body if len(row) == len(header)]
    if len(whole) < len(body):
        left_out = len(body) - len(whole)
        lines_told = "1 line does not" if left_out == 1 else f"{left_out} lines do not"
        more = "is" if left_out == 1 else "are"
        problems.append(f"{lines_told} have {len(header)} fields and {more} left out")
    if not whole:
        problems.append("has no complete row: no evaluation")
    return _columns(header, whole, problems), problems


def _columns(
    header: list[str], table: list[list[str]], problems: list[str]
) -> dict[str, NDArray[np.float64]]:
    """Return the columns of complete lines as numbers; what is wrong is added to `problems`."""
    columns: dict[str, NDArray[np.float64]] = {}
    for index, name in enumerate(map(str.strip, header)):
        if name in columns:
            problems.append(f"has column {name} twice: the first counts")
            continue
        values = _numbers([row[index] for row in table])
        bad = values.count(None)
        if bad:
            what = "1 value that is no number" if bad == 1 else f"{bad} values that are no numbers"
            problems.append(f"column {name} has {what}")
        columns[name] = np.array(
            [math.nan if value is None else value for value in values], np.float64
        )
    return columns


def _numbers(fields: list[str]) -> list[float | None]:
    """Return fields as numbers: NaN where one is empty, None where it is no number."""
    try:
        return [float(field) for field in fields]
    except ValueError:
        return [_number(field) for field in fields]


def _number(field: str) -> float | None:
    if not field.strip():
        return math.nan  # This evaluation did not measure the metric.
    try:
        return float(field)
    except ValueError:
        return None
