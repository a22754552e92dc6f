"""The curves of screening runs in one small file, which outlives the folder of the runs: it can be
committed beside a suite, and says what the verdicts were made of.
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
Key = tuple[Any, ...]


class CurveBook:
    """Curves by the run that gave them; kept in a file, or with no path for this process alone."""

    def __init__(self, path: Path | None) -> None:
        """Raises UserError, naming the file, for one that holds something else."""
        self._path = path
        self._entries: dict[Key, dict[str, Any]] = {}
        if path is not None and path.exists():
            self._entries = _read(path)

    def find(self, job: Job, changes: Changes) -> Curve | None:
        """The curve of a run that did just this; None where there is none."""
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
        """Keep curves, and write the file where there are any."""
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
    """What decides a curve."""
    return {
        "workload": job.workload,
        "changes": dict(changes),
        "submission": job.submission,
        "framework": job.framework,
        "learning_rate_factor": job.factor,
        "seed": job.seed,
        "steps": job.steps,
        "eval_every_steps": job.eval_every_steps,
    }


def _key(run: Mapping[str, Any]) -> Key:
    return (*(run[name] for name in _NAMES), json.dumps(run["changes"], sort_keys=True))


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
