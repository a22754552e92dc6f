"""The process of a trial in which the submission runs: it has the training rows, and nothing that
measures.

A referee in another process (`refereed`) starts it, holds the clock, and is told at the end of each
stretch what the parameters are. What the two say to one another is JSON, a line for each question
of the trainer and each answer of the referee; parameters and rows are in shared memory.
"""

import dataclasses
import functools
import json
import os
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from algoperf import backends, workload
from algoperf.backends import Backend
from algoperf.backends.ranks import ALONE, Ranks
from algoperf.errors import UserError
from algoperf.machine import own_code, stopping
from algoperf.machine.supervision import INTERRUPTED
from algoperf.run_folder import state_kinds
from algoperf.run_folder.checkpoint import Checkpoints
from algoperf.submission import blame, loading, older
from algoperf.trial import adapt, assemble, child, preservation, regroup, transplant
from algoperf.trial.clock import Ledger
from algoperf.trial.goal import Limits
from algoperf.trial.handover import Handover, SharedRows
from algoperf.trial.judgement import NotFinite, Signature
from algoperf.trial.plan import TrialPlan
from algoperf.trial.referee import Decision, Handed, Segment
from algoperf.trial.trust import Guard

FAILED = 1
FACTS = ("model", "notes", "tokenizer", "augmentation")  # of the data, beside the rows
ENDED = "ended"  # The status of a trial whose status the referee alone knows.


@dataclasses.dataclass(frozen=True)
class Given:
    """What the referee gives a trainer as it starts it.

    Attributes:
        plan: The trial's plan, as JSON, without what is the referee's alone.
        rows: The training rows; None where they are not in memory, so that the trainer loads them.
        facts: What training has to know of the data beside the rows, by the names in `FACTS`.
        handover: Where the parameters go.
        python_path: PYTHONPATH as the user has it, None for not set.
        rank: The number of this process among those that train together,
        meeting: and the file by which they find one another.
    """

    plan: str
    rows: SharedRows | None
    facts: Mapping[str, Any]
    handover: Handover
    python_path: str | None
    rank: int = 0
    meeting: str = ""


def serve(connection: Connection, given: Given) -> None:
    """Train, as the process's only work, and leave it: nothing that a submission left running, or
    to be done at the end, keeps it.
    """
    child.leave(_serve(connection, given))


def _serve(connection: Connection, given: Given) -> int:
    own_code.restore_path(given.python_path)
    stops = stopping.Stops(stopping.leave_at_once)
    stops.ignores_afterwards = True
    with stops:
        child.die_with_referee()
        stopping.let_through()
        child.redirect_output()
        referee = FarReferee(connection) if given.rank == 0 else Follower(connection)
        try:
            return _train(given, referee, stops)
        except UserError as error:
            referee.tell("user_error", text=str(error), traceback=traceback.format_exc())
            return FAILED
        except BaseException as error:  # What a submission raises to leave, or breaks for all.
            if not referee.is_heard:
                raise  # A process that it forked leaves as it wants to.
            plan = TrialPlan.from_json(given.plan)
            referee.tell("crashed", **blame.crash(error, plan.submission))
            return FAILED


def _train(given: Given, referee: "FarReferee", stops: stopping.Stops) -> int:
    plan = TrialPlan.from_json(given.plan)
    state_kinds.seed_generators(plan.seed)
    subject = assemble.look_up(plan)
    if plan.devices is not None:
        referee.ranks = backends.join(
            *(plan.framework, given.rank, plan.devices, given.meeting),
            shard=plan.shard,
            processes=plan.processes,
        )
    ranks = referee.ranks
    instruments = assemble.load_instruments(plan, subject, ranks=ranks)
    backend = instruments.backend
    outline = assemble.outline_of(plan)
    bound = assemble.bind(plan, subject, backend, _data(plan, subject, given))
    # From the answer on the referee measures how long the submission takes to be imported: all
    # that can be done without it is done.
    referee.ask("loading")
    loaded = dataclasses.replace(loading.load(outline, plan.framework), outline=outline)
    submitted = assemble.submit(plan, loaded, subject)
    files = {name: str(path) for name, path in submitted.source_files.items()}
    answer = referee.ask("submitted", **{**dataclasses.asdict(submitted), "source_files": files})
    hyperparameters = assemble.hyperparameters_of(submitted)
    view = older.view(loaded.contract, bound.workload, backend.place, hyperparameters)
    guard = instruments.guard
    ledger = Ledger()
    referee.attend(
        backend=backend,
        view=view,
        handover=given.handover,
        ledger=ledger,
        guard=guard,
        check=functools.partial(adapt.check_all_read, loaded.outline, hyperparameters),
    )
    records = Records(referee, Path(answer["folder"]), answer["saved"])
    checkpoints = None
    if plan.checkpoints:
        checkpoints = Checkpoints(records.folder, ranks.rank, ranks.count)
    keeper = preservation.Together(
        ranks,
        checkpoints,
        records,
        backend,
        plan.checkpoint_every_s,
        lambda: stops.are_asked,
        referee.note,
        meter=records.meter,
        load=records.load,
    )
    counters = given.handover.counters

    def count(step: int) -> None:
        if ranks.rank == 0:
            counters[0] = step

    built = assemble.make_trial(
        plan, subject, loaded, submitted, bound, instruments, view, hyperparameters,
        report=lambda event, text: referee.note(text),
        limits=Limits(**answer["limits"]),
        ledger=ledger,
        referee=referee,
        keeper=keeper,
        on_step=count,
        preemptions=answer["preemptions"],
    )  # fmt: skip
    trial = built.trial
    referee.keeper = keeper
    if answer["saved"] is not None and trial.status is None:
        assert checkpoints is not None
        saved = _own_part(checkpoints, records, answer, plan, built, ranks)
        initialise = assemble.initialising(plan, loaded, bound, backend, view, trial)
        keeper.go_on(trial, transplant.fitted(saved, submitted.point, initialise))
        if answer["parts"] is not None and ranks.rank >= answer["parts"]:
            trial.seed_anew()
        count(trial.state.step)
    stops.ask = lambda: None  # From here on there is something to save.
    trial.run()
    share = None if built.buckets is None else built.buckets.real_share
    failed = (trial.interrupted and not trial.is_paused) or referee.has_failed
    checksum, communication_s = None, []
    if not failed:
        guard.inspect()
        checksum = trial.checksum()
        referee.compare(checksum)
        communication_s = ranks.gathered(ranks.communication_s())
    referee.ask(
        "closing",
        interrupted=trial.interrupted,
        checksum=checksum,
        real_token_share=share,
        flags=guard.flags,
        peak_device_bytes=backend.peak_device_memory_bytes(),
        communication_s=communication_s,
    )
    ranks.leave()
    return INTERRUPTED if trial.interrupted else 0


def _own_part(
    checkpoints: Checkpoints,
    records: "Records",
    answer: Mapping[str, Any],
    plan: TrialPlan,
    built: assemble.Made,
    ranks: Ranks,
) -> preservation.Saved:
    """Return the checkpoint that this process goes on from.

    Args:
        checkpoints: Those of this process.
        records: What knows which one it is.
        answer: The referee's, which says after which 'step' it was saved, and by how many processes
            ('parts') if they were on another number of devices; else None.
        plan: The trial's plan.
        built: The trial, newly initialised.
        ranks: The processes that train together.
    """
    parts = answer["parts"]
    if parts is None:
        # Where nothing was measured between two checkpoints their files have the same sizes.
        saved = preservation.find(checkpoints, records, step=answer["step"])
        if saved is None:
            raise UserError(f"{records.folder}: its checkpoint was removed meanwhile")
        return saved

    def make() -> preservation.Saved:
        all_parts = preservation.find_parts(records.folder, records, parts, answer["step"])
        if all_parts is None:
            raise UserError(f"{records.folder}: its checkpoint was removed meanwhile")
        fresh = built.trial.state.trees()
        return regroup.part_of(
            all_parts, ranks, plan.shard, fresh, built.functions.indices_of_others
        )

    return regroup.together(ranks, make)


def _data(plan: TrialPlan, subject: assemble.Subject, given: Given) -> workload.Data:
    """Return the training rows, with what the model has to know of all rows."""
    if given.rows is None:
        loaded = assemble.load_data(plan, subject.definition, subject.scale)
        rows: workload.Rows = loaded.splits["train"]
    else:
        rows = given.rows.rows()
    return workload.Data({"train": rows}, **given.facts)


class FarReferee:
    """A trial's referee, which is in another process.

    Args:
        connection: The line to it.

    Attributes:
        ranks: The processes that train together. What the referee answers to rank 0 all of them
            hear, and each question is where they wait for one another.
        status: None, or `ENDED`.
        keeper: What saves the trial.
        has_failed: Whether the submission has raised an error.
        kept: What the referee wants to be saved with the trial.
    """

    def __init__(self, connection: Connection) -> None:
        self.ranks: Ranks = ALONE
        self.status: str | None = None
        self.error: Mapping[str, str] | None = None
        self.evaluations: list[tuple[int, float, dict[str, float]]] = []
        self.last_loss: float | None = None
        self.predicted: float | None = None  # The referee knows.
        self.not_finite = NotFinite()
        self.keeper: preservation.Preservation | None = None
        self.has_failed = False
        self.kept: Mapping[str, Any] = {}
        self._connection = connection
        self._process_id = os.getpid()
        self._are_all_finite = True
        self._inspects = True
        self._signature: Signature = {}

    @property
    def is_heard(self) -> bool:
        """Whether this is the trainer, and not a process that the submission forked."""
        return os.getpid() == self._process_id

    def attend(
        self,
        *,
        backend: Backend,
        view: older.View,
        handover: Handover,
        ledger: Ledger,
        guard: Guard,
        check: Callable[[], None],
    ) -> None:
        """Take what is needed to hand parameters over.

        Args:
            backend: Copies them.
            view: Converts them to the form that the rest of the library uses.
            handover: Where they go.
            ledger: The trainer's own stopwatches, which follow the referee's.
            guard: Watches what the submission does to this process.
            check: Called before an evaluation; raises UserError for a user's mistake.
        """
        self._backend, self._view, self._ledger = backend, view, ledger
        self._guard, self._check = guard, check
        self._parameters: dict[str, np.ndarray] = handover.parameters()
        self._expected = handover.signature

    def tell(self, kind: str, **values: Any) -> None:
        """Say something that is not answered."""
        if self.is_heard:
            self._connection.send_bytes(json.dumps({"kind": kind, **values}).encode())

    def ask(self, kind: str, **values: Any) -> dict[str, Any]:
        """Say something, and return the answer; a process that the submission forked leaves."""
        if not self.is_heard:
            os._exit(0)
        self.tell(kind, **values)
        answer: dict[str, Any] = json.loads(self._connection.recv_bytes())
        if self.has_failed:  # The others may be anywhere.
            return answer
        heard: dict[str, Any] = self.ranks.from_first(answer)
        return heard

    def note(self, text: str) -> None:
        """Have the user told something."""
        self.tell("note", text=text)

    def begin(self, signature: Signature, handed: Handed) -> None:
        """Hand the first parameters over; the initialisation is timed from the answer on."""
        self.take(handed)
        self.ask("begin", signature=self._signature)

    def initialised(self, handed: Handed, compiled_s: float) -> None:
        """Hand the parameters over, as the initialisation left them."""
        self.take(handed)
        self._follow(self.ask("initialised", compiled_s=compiled_s))

    def before_run(self) -> None:
        """Say that a stretch can begin; its clock runs from the answer on."""
        if self._inspects:
            self._guard.inspect()
        self._share_flags()
        saved_bytes = 0
        if self.keeper is not None:
            saved_bytes, self.keeper.saved_bytes = self.keeper.saved_bytes, 0
        self.ask("ready", flags=self._guard.flags, saved_bytes=saved_bytes)

    def _share_flags(self) -> None:
        """Let rank 0 have what the guards of the others have seen."""
        if self.ranks.count > 1:
            flags = [flag for own in self.ranks.gathered(self._guard.flags) for flag in own]
            self._guard.flags[:] = dict.fromkeys(flags)

    def compare(self, checksum: int) -> None:
        """Flag a trial whose processes have trained different parameters."""
        if len(set(self.ranks.gathered(checksum))) > 1:
            self._guard.flags.append(
                "the devices trained different parameters: their gradients were not added up"
            )
        self._share_flags()

    def take(self, handed: Handed) -> None:
        """Copy the parameters to be evaluated into the shared memory, once all devices are there:
        the slowest one decides how long a stretch takes.
        """
        self.ranks.wait()
        params, model_state = handed.evaluated()
        first, first_state = self._view.first(params), self._view.first_state(model_state)
        self._signature = self._backend.signature(first, first_state)
        # Else the referee says what has changed.
        if not self._any(self._signature != self._expected):
            self._backend.write(first, first_state, self._parameters)
        trained, _ = handed.trained()
        # The referee looks at what it gets; what is trained may be something else.
        self._are_all_finite = trained is params or handed.are_finite()

    def _any(self, value: bool) -> bool:
        """Return whether it is so in any of the processes, where each hands over a part."""
        return bool(self.ranks.largest(value)) if self.ranks.hand_over_parts else value

    def between(self, segment: Segment, handed: Handed) -> Decision:
        """Say what a stretch of training was; return what the referee has decided."""
        self.has_failed = segment.error is not None
        if segment.evaluates and not self.has_failed:
            self._check()
        whole = dataclasses.replace(
            segment,
            signature={} if self.has_failed else self._signature,
            has_finite_params=self._are_all_finite,
        )
        decision = self._follow(self.ask("segment", **dataclasses.asdict(whole)))
        # Probes are many and cheap: to inspect this process would take longer than they do.
        self._inspects = decision.metrics is not None or not segment.evaluates
        return decision

    def fail(self, cause: str, details: str = "") -> None:
        """Say that the submission's initialisation raised an error."""
        self.has_failed = True
        self._follow(self.ask("failed", cause=cause, traceback=details))

    def position(self) -> dict[str, Any]:
        """Return what the referee knows of where the trial is."""
        return dict(self.kept["position"])

    def go_on(self, position: Mapping[str, Any]) -> None:
        """Do nothing: the referee has taken it up, and its clock came with its last answer."""

    def _follow(self, answer: Mapping[str, Any]) -> Decision:
        decision = Decision(**answer["decision"])
        self._ledger.follow(decision.totals)
        self.kept = answer["kept"]
        if decision.has_ended:
            self.status = ENDED
        return decision


class Follower(FarReferee):
    """The referee, as the other processes than rank 0 know it: rank 0 tells them what it says."""

    ENDS_TRIAL = frozenset({"user_error", "crashed"})

    def tell(self, kind: str, **values: Any) -> None:
        """Say what ends the trial, and nothing else."""
        if kind in self.ENDS_TRIAL:
            super().tell(kind, **values)

    def ask(self, kind: str, **values: Any) -> dict[str, Any]:
        """Return what rank 0 is answered."""
        if not self.is_heard:
            os._exit(0)
        answer: dict[str, Any] = self.ranks.from_first(None)
        return answer

    def take(self, handed: Handed) -> None:
        """Wait for the others: rank 0 hands the parameters over, with the parts of all."""
        if self.ranks.hand_over_parts:
            self._parameters = {}
            super().take(handed)
        else:
            self.ranks.wait()

    def between(self, segment: Segment, handed: Handed) -> Decision:
        """Return what the referee has decided; an error of the submission's ends this process."""
        if segment.error is not None:
            self._leave(segment.error["cause"], segment.error["traceback"])
        return super().between(segment, handed)

    def fail(self, cause: str, details: str = "") -> None:
        """End this process."""
        self._leave(cause, details)

    def _leave(self, cause: str, details: str) -> None:
        self.tell("crashed", cause=cause, traceback=details)
        os._exit(FAILED)


class Records:
    """What `Preservation` asks of the log and of what is counted, all of which is the referee's.

    Args:
        referee: The referee.
        folder: The run folder.
        files: The sizes of its files at the checkpoint that the trial goes on from, or None.
    """

    def __init__(self, referee: FarReferee, folder: Path, files: Mapping[str, int] | None) -> None:
        self.folder = folder
        self._referee = referee
        self._files = files
        self.meter, self.load = Kept(referee, "resources"), Kept(referee, "load")

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the files, as the referee gave them."""
        return dict(self._referee.kept["files"])

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Return whether these are the sizes that the referee goes on from."""
        return sizes == self._files

    def go_back(self, sizes: Mapping[str, int]) -> None:
        """Do nothing: the referee cuts its files itself."""


class Kept:
    """A figure that the referee counts, and that is saved with the trial."""

    def __init__(self, referee: FarReferee, name: str) -> None:
        self._referee, self._name = referee, name

    def totals(self) -> dict[str, Any]:
        """Return it as the referee gave it."""
        return dict(self._referee.kept[self._name])

    def go_on(self, totals: Mapping[str, Any]) -> None:
        """Do nothing: the referee goes on from it itself."""
