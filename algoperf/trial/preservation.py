"""Saving a trial and going on with it: when, what, and what is not charged for it."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from algoperf import errors
from algoperf.backends import Backend
from algoperf.machine.resources import Meter
from algoperf.run_folder import state, state_kinds
from algoperf.run_folder.checkpoint import Arrays, Checkpoints
from algoperf.run_folder.run_log import TrialLog
from algoperf.trial.clock import Ledger
from algoperf.trial.loop import State, Trial

FORMAT = 2
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint that fits the files of its run folder."""

    arrays: Arrays
    document: dict[str, Any]


def find(checkpoints: Checkpoints, log: TrialLog) -> Saved | None:
    """The newest checkpoint that is whole and whose rows are all in the run folder."""
    for arrays, document in checkpoints.read():
        if document.get("format") == FORMAT and log.holds(document["files"]):
            return Saved(arrays, document)
    return None


class Preservation:
    """The `Keeper` of a trial: saves after evaluations and every `every_s` seconds of wall time.

    Without `checkpoints` nothing is saved, and a trial that is asked to stop starts over. `asked`
    tells whether it was asked. A state that cannot be saved is said once. Compilation that JAX
    repeats in a new process is not charged to the submission, up to what it had been charged for
    compiling before; it is the ledger's `recompilation`.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        log: TrialLog,
        backend: Backend,
        every_s: float,
        asked: Callable[[], bool],
        say: Say,
        now: Callable[[], float] = time.perf_counter,
        meter: Meter | None = None,
    ) -> None:
        self._checkpoints = checkpoints
        self._log, self._backend = log, backend
        self._every_s, self._now = every_s, now
        self._saved_at_s = now()
        self._asked, self._say = asked, say
        self._meter = Meter() if meter is None else meter
        self._complained = False
        self._has_stepped = False  # since it was last saved
        self._compiled_s = 0.0  # charged to the submission, in this process and before
        self._forgivable_s = 0.0
        self._before_s = 0.0

    def is_due(self) -> bool:
        """Whether it was asked to stop, or there is something to save and the last checkpoint is
        old.
        """
        self._before_s = self._backend.compiled_s()
        is_old = self._now() - self._saved_at_s >= self._every_s
        return (is_old and self._has_stepped and self._checkpoints is not None) or self._asked()

    def after_step(self, ledger: Ledger) -> None:
        """Count what the step compiled; after a resume, take it off the submission's clock."""
        self._has_stepped = True
        compiled_s = self._backend.compiled_s() - self._before_s
        forgiven_s = min(compiled_s, self._forgivable_s)
        if forgiven_s > 0:
            self._forgivable_s -= forgiven_s
            ledger.forgive(forgiven_s)
        self._compiled_s += compiled_s - forgiven_s

    def must_stop(self) -> bool:
        """Whether it was asked to stop."""
        return self._asked()

    def save(self, trial: Trial) -> None:
        """Write a checkpoint; what hinders that is said, and the run goes on."""
        if self._checkpoints is None:
            return
        self._has_stepped = False
        try:
            arrays, structure = state.to_arrays(_tree(trial.state))
            document = {
                "format": FORMAT,
                "structure": structure,
                "position": trial.position(),
                "files": self._log.sizes(),
                "compiled_s": self._compiled_s,
                "resources": self._meter.totals(),
            }
            self._checkpoints.write(trial.state.step, arrays, document)
        except errors.UserError as error:
            self._checkpoints = None
            self._say(f"its state cannot be saved ({error}): if interrupted, it starts over")
        except OSError as error:
            if not self._complained:
                self._say(f"a checkpoint could not be written ({error.strerror}); the run goes on")
            self._complained = True
        self._saved_at_s = self._now()

    def go_on(self, trial: Trial, saved: Saved) -> None:
        """Put a fresh trial where the saved one was; the files of its run folder as well."""
        document = saved.document
        try:
            tree = state.restore(saved.arrays, document["structure"], _tree(trial.state))
        except errors.UserError as error:
            raise errors.UserError(
                f"{self._log.folder}: its checkpoint does not fit the submission ({error}); give "
                "--no-checkpoint to start over"
            ) from error
        state_kinds.set_generators(tree.pop("generators"))
        trial.go_on(State(**tree, step=document["position"]["step"]), document["position"])
        self._compiled_s = self._forgivable_s = document["compiled_s"]
        self._meter.go_on(document.get("resources", {}))
        self._log.go_back(document["files"])


def _tree(now: State) -> dict[str, Any]:
    return {**now.trees(), "generators": state_kinds.generators()}
