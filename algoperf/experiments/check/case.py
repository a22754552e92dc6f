"""What is rehearsed (a submission on a workload, at a point), and what a rehearsal finds."""

import dataclasses
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algoperf import backends, spec, workload
from algoperf.run_folder import state
from algoperf.submission import loading, siblings

Checksums = dict[str, int]  # a parameter's name -> CRC-32 of its bytes


@dataclasses.dataclass(frozen=True)
class Case:
    """A submission in a framework on a workload, at one hyperparameter point (None: no point).

    `data` holds the first training rows; `num_train_examples` says how many there really are.
    `files` are the submission's own.
    """

    backend: backends.Backend
    outline: loading.Outline
    definition: workload.WorkloadDefinition
    scale: workload.Scale
    source_kind: str
    data: workload.Data
    num_train_examples: int
    point: Mapping[str, Any] | None
    seed: int
    files: frozenset[Path]

    def bind(self, name: str | None) -> spec.Workload:
        """The workload as a submission sees it, under its own name or another."""
        bound = self.backend.workload(self.definition, self.scale, self.source_kind, self.data)
        bound.num_train_examples = self.num_train_examples
        bound.name = bound.name if name is None else name
        return bound

    def load(self) -> loading.Submission:
        """The submission, its file and those beside it run anew."""
        return load_anew(self.outline, self.backend.name, self.files)


@dataclasses.dataclass(frozen=True)
class Saved:
    """All that a trial needs to go on, after `step` updates; `position` is the queue's."""

    step: int
    position: Mapping[str, Any]
    arrays: state.Arrays
    structure: state.Structure
    generators: Mapping[str, Any]


@dataclasses.dataclass
class Rehearsal:
    """What happened.

    `problem` is the (check, reason) that ended it early, `saved` a reason where the state cannot be
    saved. `first`, `early` and `last` are the parameters before the first update, after a few and
    after the last one, `updates` their checksums after each. `notes` is what the initialisation has
    a user know, `evaluates` names what there is of prepare_for_eval and eval_params.
    """

    updates: list[Checksums] = dataclasses.field(default_factory=list)
    problem: tuple[str, str] | None = None
    batch_problem: str | None = None
    saved: Saved | str | None = None
    hyperparameters: Any = None
    losses: list[float] = dataclasses.field(default_factory=list)
    first: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    early: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    last: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    evaluates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def load_anew(
    outline: loading.Outline, framework: str, files: Collection[Path]
) -> loading.Submission:
    """Load a submission as a new process would: no module made of its files is kept."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] not in siblings.RESERVED and file and Path(file) in files:
            del sys.modules[name]
    return loading.load(outline, framework)
