"""Keep the curves of screening runs in one small file, which outlasts the folder of the runs.

The file can be committed beside a suite, and it shows on what the verdicts are based.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf.errors import UserError
from algoperf.experiments.campaign import Job
from algoperf.experiments.held_out.screening import Curve
from algoperf.run_folder import run_log
from algoperf.workload.axes import Changes

FORMAT = 1
COMMITMENT = "validation_commitment"
Key = tuple[Any, ...]


class CurveBook:
    """The curves of screening runs, each by the run that it belongs to.

    Args:
        path: The file; None keeps the curves only in this process.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the curves that the file holds.

        Raises:
            UserError: The file holds something else.
        """
        self._path = path
        self._entries: dict[Key, dict[str, Any]] = {}
        if path is not None and path.exists():
            self._entries = _read(path)

    def find(self, job: Job, changes: Changes) -> Curve | None:
        """Return the curve of a run with the same settings, or None.

        Args:
            job: The run.
            changes: The changes of the variant that it trains.
        """
        entry = self._entries.get(_key(_of(job, changes)))
        if entry is None:
            return None
        return Curve(
            entry["steps_evaluated"],
            [_number(value) for value in entry["values"]],
            [_number(loss) for loss in entry["losses"]],
            entry["is_finite"],
        )

    def add(self, curves: Sequence[tuple[Job, Changes, Curve]]) -> None:
        """Keep curves, and write the file if there are any.

        Args:
            curves: A run, the changes of its variant, and its curve, for each.

        Raises:
            OSError: The file cannot be written.
        """
        if not curves:
            return
        for job, changes, curve in curves:
            run = _of(job, changes)
            self._entries[_key(run)] = {
                **run,
                "steps_evaluated": list(curve.steps),
                "values": [_told(value) for value in curve.values],
                "losses": [_told(loss) for loss in curve.losses],
                "is_finite": curve.is_finite,
            }
        if self._path is not None:
            entries = [self._entries[key] for key in sorted(self._entries, key=json.dumps)]
            run_log.write_json(self._path, {"format": FORMAT, "curves": entries})


def _of(job: Job, changes: Changes) -> dict[str, Any]:
    """Return the settings of a run that determine its curve."""
    return {
        "workload": job.workload,
        "changes": dict(changes),
        "submission": job.submission,
        "framework": job.framework,
        "learning_rate_factor": job.factor,
        "seed": job.seed,
        "steps": job.steps,
        "eval_every_steps": job.eval_every_steps,
        **({} if job.validation_seed is None else {COMMITMENT: job.validation_seed.commitment}),
    }


def _key(run: Mapping[str, Any]) -> Key:
    committed = [run[COMMITMENT]] if COMMITMENT in run else []
    return (*(run[name] for name in _NAMES), json.dumps(run["changes"], sort_keys=True), *committed)


_NAMES = (
    *("workload", "submission", "framework", "learning_rate_factor"),
    *("seed", "steps", "eval_every_steps"),
)


def _told(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _read(path: Path) -> dict[Key, dict[str, Any]]:
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}, expected {FORMAT}")
        entries = document["curves"]
        for entry in entries:
            rows = {len(entry[name]) for name in ("steps_evaluated", "values", "losses")}
            if len(rows) != 1 or rows == {0} or not isinstance(entry["is_finite"], bool):
                raise ValueError(f"a curve of {entry['workload']} is not whole")
        return {_key(entry): entry for entry in entries}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: holds no curves of `algoperf variants sample` "
            f"({type(error).__name__}: {error})"
        ) from error
