"""What a trial works with: what training changes, a submission's functions, and what saves it."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from algoperf.clock import Ledger

if TYPE_CHECKING:
    from algoperf.trial import Trial

Function = Callable[..., Any]
# Given a function that returns the parameters, watches a stretch in which the clock stands still.
Untimed = Callable[[Callable[[], Any]], contextlib.AbstractContextManager[None]]
Evaluate = Callable[[str, Any, Any], dict[str, float]]  # split, params, model state -> metrics


@dataclasses.dataclass
class State:
    """What training changes."""

    params: Any
    model_state: Any
    optimizer_state: Any = None
    step: int = 0

    def trees(self) -> dict[str, Any]:
        """What is saved of it beside the step, by name."""
        return {
            "params": self.params,
            "model_state": self.model_state,
            "optimizer_state": self.optimizer_state,
        }


@dataclasses.dataclass(frozen=True)
class Functions:
    """The submission's functions, in the full form; each takes keywords and picks those that it
    names.

    `eval_params(params=, optimizer_state=)` returns other parameters to evaluate than those that
    train.
    """

    init_optimizer_state: Function
    update_params: Function
    data_selection: Function
    prepare_for_eval: Function | None = None
    eval_params: Function | None = None
    wants_train_state: bool = False
    logs_scalars: bool = True
    selects_data: bool = False  # by a function of its own
    is_own: Callable[[Path], bool] = lambda file: False  # whether a file is the submission's


class Keeper(Protocol):
    """What saves a trial, so that another process can go on with it (see `preservation`)."""

    def is_due(self) -> bool:
        """Whether the trial is to be saved, or to stop, before the next step."""

    def after_step(self, ledger: Ledger) -> None:
        """Told after each step, while the submission clock runs."""

    def save(self, trial: "Trial") -> None:
        """Save it; the device is drained."""

    def must_stop(self) -> bool:
        """Whether the trial was asked to stop."""


def times(ledger: Ledger, step: int, preemptions: int) -> dict[str, float]:
    """The columns of an evaluation's row that are no metrics, in seconds."""
    submission_s, evaluation_s = ledger.submission.elapsed_s, ledger.evaluation.elapsed_s
    logging_s = ledger.logging.elapsed_s
    return {
        "accumulated_submission_time": submission_s,
        "accumulated_eval_time": evaluation_s,
        "accumulated_logging_time": logging_s,
        "global_step": step,
        "preemption_count": preemptions,
        "score": submission_s,
        "total_duration": submission_s + evaluation_s + logging_s,
    }
