"""The machines that the submissions ran on, as far as one trial of each records it.

Two sets of keys are known: this library's (algoperf/machine/hardware.py) and AlgoPerf's. Nothing in
the files is trusted, and whatever cannot be read counts as not recorded.
"""

import collections
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scoring.analysis.leaderboard import Leaderboard
from scoring.benchmarks.pools import Entry
from scoring.output.page.texts import foreign
from scoring.reading.trials import TrialRun

TRIALS_TRIED = 5
FACTS = ("accelerators", "processor", "system", "driver", "Python", "packages", "code version")
HARDWARE = FACTS[:2]
_FILES = (re.compile(r"flags_([0-9]{1,9})\.json"), re.compile(r"meta_data_([0-9]{1,9})\.json"))


def machines(board: Leaderboard) -> dict[str, Any]:
    """Return the table of machines: the facts of each submission, best first.

    Returns:
        'facts', the names of the facts that any submission records; 'rows', the values of each
        submission; and 'differing', the names of the hardware facts that differ between
        submissions.
    """
    facts = [_of_entry(row.entry) for row in board.rows]
    differing = [
        name
        for name in HARDWARE
        if len({values[name] for _, values in facts if name in values}) > 1
    ]
    recorded = [name for name in FACTS if any(name in values for _, values in facts)]
    return {
        "facts": recorded,
        "rows": [
            {
                "label": row.entry.label,
                "trial": trial,
                "of": [values.get(name) for name in recorded],
            }
            for row, (trial, values) in zip(board.rows, facts, strict=True)
        ],
        "differing": differing,
    }


def _of_entry(entry: Entry) -> tuple[str, dict[str, str]]:
    """Return the first trial of an entry that records any facts, and these facts."""
    for run in entry.runs[:TRIALS_TRIED]:
        facts = _of_trial(run)
        if facts:
            return f"study {run.study}, {run.workload}, trial {run.trial}", facts
    return "", {}


def _of_trial(run: TrialRun) -> dict[str, str]:
    """Return the facts that the newest files of one trial record about its machine."""
    known: dict[str, Any] = {}
    for pattern in _FILES:
        known |= _newest(run.folder, pattern)
    facts = _of_algoperf(known) | _of_own(known.get("hardware"), known.get("versions"))
    return {name: foreign(facts[name]) for name in FACTS if facts.get(name)}


def _newest(folder: Path, pattern: re.Pattern[str]) -> dict[str, Any]:
    try:
        numbered = [
            (int(match[1]), path)
            for path in folder.iterdir()
            if (match := pattern.fullmatch(path.name))
        ]
        value = json.loads(max(numbered)[1].read_bytes()) if numbered else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _of_own(hardware: Any, versions: Any) -> dict[str, str]:
    facts: dict[str, str] = {}
    if isinstance(hardware, Mapping):
        names = hardware.get("accelerators")
        if isinstance(names, list):
            counts = collections.Counter(str(name) for name in names)
            listing = ", ".join(
                f"{count} \N{MULTIPLICATION SIGN} {model}" for model, count in counts.items()
            )
            facts["accelerators"] = listing or "none"
        threads = hardware.get("threads")
        suffix = f", {threads} threads" if isinstance(threads, int) else ""
        facts["processor"] = f"{_text(hardware, 'cpu')}{suffix}" if _text(hardware, "cpu") else ""
        facts["system"] = _text(hardware, "system")
    if isinstance(versions, Mapping):
        facts["Python"] = _text(versions, "python")
        facts["packages"] = ", ".join(
            f"{name} {version}" for name, version in versions.items() if name != "python"
        )
    return facts


def _of_algoperf(known: Mapping[str, Any]) -> dict[str, str]:
    facts = {
        "system": _text(known, "os_platform"),
        "driver": _text(known, "gpu_driver"),
        "Python": _text(known, "python_version"),
        "code version": _text(known, "git_commit_hash")[:12],
    }
    for name, count, model in (
        ("accelerators", "gpu_count", "gpu_model_name"),
        ("processor", "cpu_count", "cpu_model_name"),
    ):
        if _text(known, model) and name == "accelerators":
            number = (
                f"{_text(known, count)} \N{MULTIPLICATION SIGN} " if _text(known, count) else ""
            )
            facts[name] = number + _text(known, model)
        elif _text(known, model):
            number = f", {_text(known, count)} threads" if _text(known, count) else ""
            facts[name] = _text(known, model) + number
    return facts


def _text(known: Mapping[str, Any], key: str) -> str:
    value = known.get(key)
    return foreign(value) if isinstance(value, str | int | float) else ""
