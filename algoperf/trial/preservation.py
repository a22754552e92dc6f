"""Save a trial and resume it, without charging the submission for either."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from algoperf import errors
from algoperf.backends import Backend
from algoperf.backends.ranks import Ranks
from algoperf.machine.load import Load
from algoperf.machine.resources import Meter
from algoperf.run_folder import state, state_kinds
from algoperf.run_folder.checkpoint import PROCESSES, Arrays, Checkpoints, moment
from algoperf.trial.clock import Ledger
from algoperf.trial.loop import State, Trial

FORMAT = 2
COPIED = "copied"  # In a checkpoint's document: the 'point' that its state was trained at.
TREES = ("params", "model_state", "optimizer_state")  # What is copied from one trial to another.
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint that agrees with the files of its run folder.

    Attributes:
        arrays: The arrays of the state by name.
        document: The structure of the state, the trial's position, and the sizes of the files.
    """

    arrays: Arrays
    document: dict[str, Any]

    @property
    def step(self) -> int | None:
        """The step after which it was saved; None where the library has not written it."""
        position = self.document.get("position")
        step = position.get("step") if isinstance(position, Mapping) else None
        return step if isinstance(step, int) else None


class Records(Protocol):
    """What `Preservation` asks of a trial's log."""

    folder: Path

    def sizes(self) -> dict[str, int]:
        """Return how many bytes of each file have been written, by its name."""
        ...

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Return whether the files still have all rows that they had at these sizes."""
        ...

    def go_back(self, sizes: Mapping[str, int]) -> None:
        """Cut the files to earlier sizes."""


class Totals(Protocol):
    """What counts over all processes of a trial: a `Meter`, a `Load`."""

    def totals(self) -> dict[str, Any]:
        """Return what another process can go on from."""
        ...

    def go_on(self, totals: Mapping[str, Any]) -> None:
        """Go on from there."""


def find(
    checkpoints: Checkpoints, log: Records, *, with_arrays: bool = True, step: int | None = None
) -> Saved | None:
    """Return the newest usable checkpoint of a trial, or None.

    It is usable if it is undamaged, of the current format, and all rows that were written before it
    are still in the run folder.

    Args:
        checkpoints: The trial's checkpoints.
        log: Its log.
        with_arrays: Whether its arrays are read as well.
        step: The step after which it was saved; None for any.
    """
    for arrays, document in checkpoints.read(with_arrays=with_arrays, step=step):
        if document.get("format") == FORMAT and log.holds(document["files"]):
            return Saved(arrays, document)
    return None


def find_parts(
    folder: Path, log: Records, processes: int, step: int | None = None
) -> list[Saved] | None:
    """Return the parts of a trial's newest usable checkpoint, of all processes that wrote it.

    Args:
        folder: The trial's run folder.
        log: Its log, which knows the checkpoint by the sizes of its files.
        processes: How many processes wrote it.
        step: The step after which it was saved; None for any.

    Returns:
        The parts by rank; None where one is missing.
    """
    parts: list[Saved] = []
    for rank in range(processes):
        checkpoints = Checkpoints(folder, rank, processes)
        for arrays, document in checkpoints.read(step=step, with_others=False):
            is_meant = document.get("format") == FORMAT and log.holds(document["files"])
            if is_meant and (not parts or moment(document) == moment(parts[0].document)):
                parts.append(Saved(arrays, document))
                break
    return parts if len(parts) == processes else None


def copy(theirs: Checkpoints, own: Checkpoints, step: int, point: Mapping[str, Any]) -> bool:
    """Have a trial go on with what another one has trained.

    Parameters, model state and optimizer state are the other's; the clock, the rows' order, the
    evaluations and the random generators stay the trial's own. It may be repeated.

    Args:
        theirs: The other trial's checkpoints.
        own: The trial's, of which the new one is all that is left.
        step: The step after which both were saved.
        point: The hyperparameters that the other trial was trained at.

    Returns:
        Whether there were undamaged checkpoints of that step.

    Raises:
        OSError: The disk does not take it.
    """
    both = [next(each.read(step=step), None) for each in (theirs, own)]
    if both[0] is None or both[1] is None:
        return False
    (their_arrays, their_document), (own_arrays, own_document) = both[0], both[1]
    nodes = {
        "generators": _node(own_document["structure"], "generators"),
        **{name: _node(their_document["structure"], name) for name in TREES},
    }
    structure = {**own_document["structure"]}
    structure["items"] = [[key, nodes[key["value"]]] for key, _ in structure["items"]]
    document = {**own_document, "structure": structure, COPIED: {"point": dict(point)}}
    arrays = {
        name: array
        for arrays, is_own in ((their_arrays, False), (own_arrays, True))
        for name, array in arrays.items()
        if name.startswith("state/generators/") == is_own
    }
    own.write(step, arrays, document, alone=True)
    return True


def _node(structure: Mapping[str, Any], name: str) -> Any:
    """Return the node of one of the trees that a checkpoint holds."""
    return next(node for key, node in structure["items"] if key["value"] == name)


class Preservation:
    """The `Keeper` of a trial: saves checkpoints and resumes from them.

    A checkpoint is written after each evaluation and whenever `every_s` seconds have passed. If the
    state of a submission cannot be saved, that is said once, and nothing is saved from then on.

    JAX compiles again in a new process. This is not charged to the submission, up to the time that
    it was charged for compiling before; the ledger counts it as `recompilation`.

    Args:
        checkpoints: The checkpoints of the trial; None saves nothing, so that a trial that is asked
            to stop starts over.
        log: The trial's log.
        backend: The framework's backend.
        every_s: The wall time between checkpoints, in seconds.
        asked: Returns whether the trial was asked to stop.
        say: Called with a line for the user.
        now: Returns the wall clock's time in seconds.
        meter: Measures what the trial uses; its totals are saved, too.
        load: Counts what others took of its clock; its totals as well.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        log: Records,
        backend: Backend,
        every_s: float,
        asked: Callable[[], bool],
        say: Say,
        now: Callable[[], float] = time.perf_counter,
        meter: Totals | None = None,
        load: Totals | None = None,
    ) -> None:
        self._checkpoints = checkpoints
        self._log, self._backend = log, backend
        self._every_s, self._now = every_s, now
        self._saved_at_s = now()
        self._asked, self._say = asked, say
        self._meter: Totals = Meter() if meter is None else meter
        self._load: Totals = Load(dict) if load is None else load
        self.saved_bytes = 0  # The size of the last checkpoint.
        self._complained = False
        self._has_stepped = False  # Whether it made a step since it was last saved.
        self._compiled_s = 0.0  # Charged to the submission, in this process and earlier ones.
        self._forgivable_s = 0.0
        self._before_s = 0.0

    def is_due(self) -> bool:
        """Return whether the trial should pause, to be saved or to stop.

        It should if it was asked to stop, or if the last checkpoint is older than `every_s` seconds
        and the trial has made a step since.
        """
        self._before_s = self._backend.compiled_s()
        is_old = self._now() - self._saved_at_s >= self._every_s
        return (is_old and self._has_stepped and self._checkpoints is not None) or self._asked()

    def after_step(self, ledger: Ledger) -> None:
        """Account for the compilation in the step that was just made.

        After a resume, it is taken off the submission's clock.

        Args:
            ledger: The trial's ledger.
        """
        self._has_stepped = True
        compiled_s = self._backend.compiled_s() - self._before_s
        forgiven_s = min(compiled_s, self._forgivable_s)
        if forgiven_s > 0:
            self._forgivable_s -= forgiven_s
            ledger.forgive(forgiven_s)
        self._compiled_s += compiled_s - forgiven_s

    def must_stop(self) -> bool:
        """Return whether the trial was asked to stop."""
        return self._asked()

    def save(self, trial: Trial) -> None:
        """Write a checkpoint of the trial.

        If that fails, the reason is reported and the trial continues.
        """
        if self._checkpoints is None:
            return
        self._has_stepped = False
        try:
            arrays, structure = state.to_arrays(_tree(trial.state), copy=False)
            document = {
                "format": FORMAT,
                "structure": structure,
                "position": trial.position(),
                "files": self._log.sizes(),
                "compiled_s": self._compiled_s,
                "resources": self._meter.totals(),
                "load": self._load.totals(),
                **self._beside(),
            }
            self.saved_bytes = self._checkpoints.write(trial.state.step, arrays, document)
        except errors.UserError as error:
            self._checkpoints = None
            self._say(f"its state cannot be saved ({error}): if interrupted, it starts over")
        except OSError as error:
            if not self._complained:
                self._say(f"a checkpoint could not be written ({error.strerror}); the run goes on")
            self._complained = True
        self._saved_at_s = self._now()

    def _beside(self) -> dict[str, Any]:
        """Return what else the document of a checkpoint holds."""
        return {}

    def go_on(self, trial: Trial, saved: Saved) -> None:
        """Put a fresh trial and its run folder in the state of a checkpoint.

        Args:
            trial: The trial, newly initialised.
            saved: The checkpoint, from `find`.

        Raises:
            UserError: The checkpoint does not fit the submission.
        """
        document = saved.document
        try:
            fresh = _tree(trial.give_up_state())
            tree = state.restore(saved.arrays, document["structure"], fresh)
        except errors.UserError as error:
            raise errors.UserError(
                f"{self._log.folder}: its checkpoint does not fit the submission ({error}); give "
                "--no-checkpoint to start over"
            ) from error
        state_kinds.set_generators(tree.pop("generators"))
        trial.go_on(State(**tree, step=document["position"]["step"]), document["position"])
        self._compiled_s = self._forgivable_s = document["compiled_s"]
        self._meter.go_on(document.get("resources", {}))
        self._load.go_on(document.get("load", {}))
        self._log.go_back(document["files"])


class Together(Preservation):
    """The `Keeper` of one of several processes that train a trial together.

    Rank 0 saves last, so that where it has a checkpoint all others have one of the same step.

    Args:
        ranks: The processes.
        arguments, settings: Of `Preservation`.
    """

    def __init__(self, ranks: Ranks, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._ranks = ranks

    def save(self, trial: Trial) -> None:
        """Write this process's checkpoint."""
        if self._ranks.rank > 0:
            super().save(trial)
        self._ranks.wait()
        if self._ranks.rank == 0:
            super().save(trial)

    def _beside(self) -> dict[str, Any]:
        return {PROCESSES: self._ranks.count}

    def must_stop(self) -> bool:
        """Return whether any of the processes was asked to stop."""
        return bool(self._ranks.largest(super().must_stop()))


def _tree(now: State) -> dict[str, Any]:
    return {**now.trees(), "generators": state_kinds.generators()}
