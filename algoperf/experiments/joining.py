"""Share the runs of a campaign among machines that see its folder: what it runs, as a file there.

Paths below the folder are written from there, since machines may see it at different places; other
paths are written as they are on the machine that began, and must be the same on those that join.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from algoperf.data.validation_seed import ValidationSeed
from algoperf.errors import UserError
from algoperf.run_folder import run_log

FILE = "campaign.json"
SETTINGS = (
    *("workload", "suite", "tuning_ruleset", "trials", "submissions", "frameworks", "seeds"),
    *("learning_rate_factors", "steps", "until", "eval_every_steps", "targets"),
    *("rerun_contended", "hardware_class", "stop_outrun", "stop_late"),
)
_PATHS = ("workload", "suite", "submissions", "hardware_class")
_FOLDER = "{folder}"  # stands for the campaign's folder at the beginning of a path
_COMMITMENT = "validation_commitment"


def record(out: Path, settings: Mapping[str, Any], secret: ValidationSeed | None) -> None:
    """Write what a campaign runs to its folder, for those who join.

    Args:
        out: The folder.
        settings: A value for each of `SETTINGS`, as the command line gives them.
        secret: The secret that draws the validation rows, of which the commitment is written.

    Raises:
        OSError: The folder takes no file.
    """
    values = {name: settings[name] for name in SETTINGS}
    for name in _PATHS:
        values[name] = _each(values[name], lambda text: _written(text, out))
    values[_COMMITMENT] = None if secret is None else secret.commitment
    if run_log.read_json(out / FILE) != values:
        run_log.write_json(out / FILE, values)


def settings(out: Path) -> dict[str, Any]:
    """Return a value for each of `SETTINGS` of the campaign that was last begun in a folder.

    Raises:
        UserError: None was, or its file is damaged, or names what is not on this machine.
    """
    values = run_log.read_json(out / FILE)
    if values is None:
        raise UserError(
            f"--join {out}: no campaign was begun there, as there is no {FILE} that is whole; "
            "begin one with: algoperf campaign --out"
        )
    missing = [name for name in SETTINGS if name not in values]
    if missing:
        raise UserError(f"--join {out}: {FILE} has no {missing[0]!r}; is it of another version?")
    for name in _PATHS:
        values[name] = _each(values[name], lambda text: _read(text, out))
    return {name: values[name] for name in SETTINGS}


def check_secret(out: Path, secret: ValidationSeed | None) -> None:
    """Raise UserError unless a secret is the one that the campaign of a folder was begun with."""
    begun = (run_log.read_json(out / FILE) or {}).get(_COMMITMENT)
    if begun == (None if secret is None else secret.commitment):
        return
    if secret is None:
        raise UserError(f"--join {out}: its rows are drawn by a secret; give --validation-seed")
    raise UserError(f"--join {out}: --validation-seed is not the secret that it was begun with")


def _each(value: Any, change: Any) -> Any:
    """Return a value with each of its texts changed; of a text with commas, each part."""
    if isinstance(value, str):
        return ",".join(map(change, value.split(",")))
    return [change(text) for text in value] if isinstance(value, list) else value


def _written(text: str, out: Path) -> str:
    if not Path(text).exists():
        return text  # a name
    path = Path(text).resolve()
    if path.is_relative_to(out.resolve()):
        return f"{_FOLDER}/{path.relative_to(out.resolve()).as_posix()}"
    return str(path)


def _read(text: str, out: Path) -> str:
    path = text.replace(_FOLDER, str(out.resolve()), 1) if text.startswith(_FOLDER) else text
    if "/" in path and not Path(path).exists():
        raise UserError(
            f"--join {out}: {path} is not on this machine; the files of a campaign lie in its "
            "folder, or at the same place on all machines"
        )
    return path
