"""Companions follow each trial in the process that starts it: `--carbon` and `--wandb`.

They do not run in the trial's process, since its threads and child processes are watched and its
processor time is counted. The trial waits while a companion handles an event, with the
submission's clock at rest.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from algoperf.errors import UserError
from algoperf.run_folder import run_log, writing
from algoperf.trial.plan import TrialPlan

Say = Callable[[str], None]


class Companion(Protocol):
    """An object that follows one trial after another.

    Attributes:
        name: The command-line option that asks for it.
    """

    name: str

    def begin(self, plan: TrialPlan, folder: Path) -> None:
        """Prepare for a process of a trial, which will start next.

        Nothing may be written to the run folder yet.

        Args:
            plan: The trial's plan.
            folder: Its run folder.
        """

    def event(self, event: dict[str, Any]) -> None:
        """Handle an event of the trial's process (see `study.run`).

        The trial waits for this at the events 'start' and 'evaluation'.
        """

    def end(self, result: dict[str, Any] | None) -> dict[str, Any]:
        """Finish after the trial's process has ended.

        Args:
            result: The trial's result; None if the process ended without one, so that the trial may
                be resumed.

        Returns:
            Entries to add to the resources in the result.
        """


class Companions:
    """Several companions as one.

    A companion that raises an error is left out from then on, and the user is told; it never ends a
    trial.
    """

    def __init__(self, each: Sequence[Companion] = ()) -> None:
        self._each = list(each)

    def __bool__(self) -> bool:
        return bool(self._each)

    def begin(self, plan: TrialPlan, folder: Path, say: Say) -> None:
        """Prepare for a process of the trial in `folder`, which will start next.

        Args:
            plan: The trial's plan.
            folder: Its run folder.
            say: Called with a line for the user.
        """
        for each in tuple(self._each):
            with self._kept_apart(each, say):
                each.begin(plan, folder)

    def event(self, event: dict[str, Any], say: Say) -> None:
        """Pass an event of the trial's process to each companion."""
        for each in tuple(self._each):
            with self._kept_apart(each, say):
                each.event(event)

    def end(self, result: dict[str, Any] | None, folder: Path, say: Say) -> None:
        """Finish after the trial's process has ended, and add the companions' figures.

        Args:
            result: The trial's result, which is changed and written again, or None.
            folder: The run folder.
            say: Called with a line for the user.

        Raises:
            writing.UnwritableError: The run folder cannot be written.
        """
        for each in tuple(self._each):
            with self._kept_apart(each, say):
                gained = each.end(result)
                if result is None or not gained:
                    continue
                result.setdefault("resources", {}).update(gained)
                with writing.into(folder):
                    run_log.write_json(folder / run_log.RESULT, result)

    @contextlib.contextmanager
    def _kept_apart(self, companion: Companion, say: Say) -> Any:
        try:
            yield
        except writing.UnwritableError:
            raise
        except Exception as error:  # Other libraries may raise anything.
            self._each.remove(companion)
            text = " ".join(str(error).split())
            say(f"{companion.name} failed and is left out: {type(error).__name__}: {text}")


def need(option: str, module: str, extra: str) -> None:
    """Raise UserError if the package that an option needs is not installed.

    Args:
        option: The command-line option.
        module: The package's name.
        extra: The extra of this library that installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"{option} needs the package {module}; install it with: pip install 'algoperf[{extra}]'"
        )
