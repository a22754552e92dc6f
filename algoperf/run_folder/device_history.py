"""On how many devices a trial has trained, and from which step on.

A trial goes on with as many devices as it began with, unless a user lets it go on with another
number (`--change-devices`). Then its configuration has, beside the number of now (`devices`), all
of them, under `FIELD`: a list of numbers with the step after which each began to train. Trials of
different histories are never pooled.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf.errors import UserError

FIELD = "devices_by_step"  # In a configuration, where there was more than one number.
OPTION = "--change-devices"
# Each entry has 'from_step' and 'devices', None where no number was asked for; in order.
History = list[dict[str, Any]]


def of(flags: Mapping[str, Any]) -> History:
    """Return the history of a trial by its configuration."""
    return [dict(each) for each in flags.get(FIELD) or [_entry(0, flags.get("devices"))]]


def after(flags: Mapping[str, Any], step: int, devices: int) -> History:
    """Return the history of a trial that goes on from a checkpoint.

    Args:
        flags: Its configuration before. What it says of later steps does not count: nothing of
            these is left.
        step: The step of the checkpoint.
        devices: On how many devices it goes on.
    """
    history = [each for each in of(flags) if each["from_step"] < step]
    if not history:
        return [_entry(0, devices)]
    before = history[-1]["devices"]
    if before is None and flags.get("framework") == "pytorch":
        before = 1
    return history if before == devices else [*history, _entry(step, devices)]


def recorded(flags: Mapping[str, Any], history: History) -> dict[str, Any]:
    """Return a configuration with a history, as it is recorded."""
    rest = {name: value for name, value in flags.items() if name not in ("devices", FIELD)}
    now = history[-1]["devices"]
    whole = {FIELD: history} if len(history) > 1 else {}
    return {**rest, **({} if now is None else {"devices": now}), **whole}


def as_begun(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as it was when its trial began."""
    return recorded(flags, of(flags)[:1])


def comparable(
    flags: Mapping[str, Any], before: Mapping[str, Any] | None, may_change: bool
) -> dict[str, Any]:
    """Return a trial's configuration as it compares with those of other trials.

    Args:
        flags: The configuration, or a part of it.
        before: The one that its folder has; None where it has not begun.
        may_change: Whether the number of devices may be another than it began with: then it is
            compared by that one.
    """
    if before is None or not may_change:
        return dict(flags)
    return recorded(flags, of(before)[:1])


def check_unchanged(folder: Path, before: Mapping[str, Any] | None, may_change: bool) -> None:
    """Check that a trial that has changed its number of devices goes on only where it may.

    Args:
        folder: The trial's run folder.
        before: The configuration that it has; None where it has not begun.
        may_change: Whether it may change the number.

    Raises:
        UserError: It has changed it, and may not.
    """
    if before is not None and FIELD in before and not may_change:
        raise UserError(
            f"{folder}: this trial has trained on {text(of(before))}; go on with --devices N "
            f"{OPTION}"
        )


def text(history: Sequence[Mapping[str, Any]]) -> str:
    """Return a history in words, as '2 devices, from step 10 on 1'."""
    first, *later = history
    return counted(first["devices"]) + "".join(
        f", from step {each['from_step']} on {each['devices']}" for each in later
    )


def counted(devices: int | None) -> str:
    """Return a number of devices in words."""
    if devices is None:
        return "the devices of the default"
    return "1 device" if devices == 1 else f"{devices} devices"


def _entry(step: int, devices: int | None) -> dict[str, Any]:
    return {"from_step": step, "devices": devices}
