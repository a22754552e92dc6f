"""What goes along with each trial in the process that starts it: `--carbon` and `--wandb`.

It is not in the trial's process, whose threads and children are watched and whose processor time is
counted; and the trial waits while a companion works on what it was told, with the submission's
clock at rest.
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
    """One companion, for one trial after the other."""

    name: str

    def begin(self, plan: TrialPlan, folder: Path) -> None:
        """A process of a trial will start; nothing may be written into its run folder yet."""

    def event(self, event: dict[str, Any]) -> None:
        """What the trial's process tells (`study.run`); the trial waits at start and evaluation."""

    def end(self, result: dict[str, Any] | None) -> dict[str, Any]:
        """The process has ended, with a result or without one, to be gone on with. Return what the
        result's resources gain.
        """


class Companions:
    """Several of them. One that fails is left out from then on, and that is said: it never ends a
    trial.
    """

    def __init__(self, each: Sequence[Companion] = ()) -> None:
        self._each = list(each)

    def __bool__(self) -> bool:
        return bool(self._each)

    def begin(self, plan: TrialPlan, folder: Path, say: Say) -> None:
        """A process of the trial in `folder` will start."""
        for each in tuple(self._each):
            with self._kept_apart(each, say):
                each.begin(plan, folder)

    def event(self, event: dict[str, Any], say: Say) -> None:
        """Pass on what the trial's process tells."""
        for each in tuple(self._each):
            with self._kept_apart(each, say):
                each.event(event)

    def end(self, result: dict[str, Any] | None, folder: Path, say: Say) -> None:
        """The process has ended; what the companions found is added to the result and its file.

        Raises `writing.UnwritableError` where the run folder takes no more.
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
        except Exception as error:  # another library's, of whatever kind
            self._each.remove(companion)
            text = " ".join(str(error).split())
            say(f"{companion.name} failed and is left out: {type(error).__name__}: {text}")


def need(option: str, module: str, extra: str) -> None:
    """Raise UserError where an option's package is not installed."""
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"{option} needs the package {module}; install it with: pip install 'algoperf[{extra}]'"
        )
