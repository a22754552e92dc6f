"""The checks by name, in the order in which they are reported, and what came of each."""

import dataclasses
from collections.abc import Callable, Iterable

STATUSES = OK, FAILED, SKIPPED = ("ok", "failed", "skipped")
# Of a framework:
LOADS = "loads"  # of a workload, its rows
FUNCTIONS = "functions"
IMPORTS = "imports"
# Of a submission on a workload in a framework:
INITIALISES = "initialises"
UPDATES = "updates"
PARAMETERS = "parameters"
BATCH = "batch"
FINITE = "finite"
MOVES = "moves"
HYPERPARAMETERS = "hyperparameters"
DETERMINISTIC = "deterministic"
EVALUATION = "evaluation"
NAME = "name"
SAVES = "saves"
SEARCH_SPACE = "search space"
SELF_TUNING = "self-tuning"
# Of a submission on a workload, where it serves both frameworks:
BOTH = "both"  # in place of a framework
AGREES = "agrees"
# Of a workload itself, before the gates of `workload_gates` and `parity`:
BUILDS = "builds"

OF_A_FRAMEWORK = (LOADS, FUNCTIONS, IMPORTS)
OF_A_WORKLOAD = (
    *(INITIALISES, UPDATES, PARAMETERS, BATCH, FINITE, MOVES, HYPERPARAMETERS),
    *(DETERMINISTIC, EVALUATION, NAME, SAVES, SEARCH_SPACE, SELF_TUNING),
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came of one check. `workload` is '' where the check belongs to the framework alone."""

    framework: str
    workload: str
    check: str
    status: str
    reason: str = ""


class Report:
    """The verdicts of some checks of one framework (and workload), one each, handed on at once."""

    def __init__(
        self,
        framework: str,
        workload: str,
        checks: Iterable[str],
        emit: Callable[[Verdict], None],
    ) -> None:
        self._framework = framework
        self._workload = workload
        self._waiting = list(checks)
        self._emit = emit

    def ok(self, check: str, note: str = "") -> None:
        """The check passes."""
        self._say(check, OK, note)

    def failed(self, check: str, reason: str) -> None:
        """The check fails."""
        self._say(check, FAILED, reason)

    def skipped(self, check: str, reason: str) -> None:
        """The check cannot be made, or does not apply."""
        self._say(check, SKIPPED, reason)

    def judge(self, check: str, problem: str | None, note: str = "") -> None:
        """Failed with the problem if there is one, else ok."""
        if problem is None:
            self.ok(check, note)
        else:
            self.failed(check, problem)

    def fail_next(self, reason: str) -> None:
        """The first check without a verdict fails, and the others are skipped."""
        self.failed(self._waiting[0], reason)
        self.skip_rest(reason)

    @property
    def waiting(self) -> tuple[str, ...]:
        """The checks without a verdict, in their order."""
        return tuple(self._waiting)

    def skip_rest(self, reason: str) -> None:
        """Skip what has no verdict yet."""
        for check in list(self._waiting):
            self.skipped(check, reason)

    def _say(self, check: str, status: str, reason: str) -> None:
        self._waiting.remove(check)
        self._emit(Verdict(self._framework, self._workload, check, status, reason))
