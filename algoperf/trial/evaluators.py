"""The devices that evaluate beside the first one: processes in PyTorch, threads in JAX.

A referee starts the processes before any trainer, from its own server, and keeps them for all
trials of a study. They are closed to others as it is, run no line of a submission, and get the
parameters in memory that no trainer shares. What they compute comes back batch by batch; one that
is ahead of the others waits until its batch has been counted.
"""

import contextlib
import dataclasses
import signal
import traceback
from collections.abc import Iterator, Sequence
from concurrent import futures
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

from algoperf import backends
from algoperf.data import prefetch
from algoperf.errors import UserError
from algoperf.machine import memory, stopping, supervision
from algoperf.submission.blame import cause_of
from algoperf.trial import assemble, child, seeds
from algoperf.trial.handover import Handover
from algoperf.trial.judgement import Signature
from algoperf.trial.outputs import END, Outputs, Question
from algoperf.trial.plan import TrialPlan
from algoperf.workload.rows import ArrayRows

AHEAD = 2  # Batches of a thread that are computed and not yet counted, or being computed.
GRACE_S = 5.0  # For a process that has closed its line to end.


class EvaluatorDiedError(Exception):
    """A process that evaluates has ended.

    Args:
        error: The 'cause', in words, 'outside', and what else the result says of it.
    """

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["cause"])
        self.error = error


class EvaluationError(Exception):
    """An error in a process that evaluates.

    Args:
        cause: What it was, in one line.
        details: Its traceback.
    """

    def __init__(self, cause: str, details: str) -> None:
        super().__init__(cause)
        self.error: dict[str, Any] = {"cause": cause, "traceback": details, "outside": False}


class Threads:
    """Devices of this process, each with a thread that computes its batches.

    Args:
        shares: What each of them computes.
    """

    def __init__(self, shares: Sequence[Outputs]) -> None:
        self._shares = shares
        self.count = len(shares)

    def warm_up(self, params: Any, model_state: Any) -> None:
        """Compile what evaluation needs, on all of them at a time."""
        with futures.ThreadPoolExecutor(self.count) as pool:
            list(pool.map(lambda share: share.warm_up(params, model_state), self._shares))

    def ask(self, question: Question, params: Any, model_state: Any) -> Sequence[Iterator[Any]]:
        """Return what each device makes of its batches, computed from now on."""
        answers = [share.answer(question, params, model_state) for share in self._shares]
        return [_ahead(answer) for answer in answers]


def _ahead(answer: Iterator[Any]) -> Iterator[Any]:
    """Return an iterator over the same, computed by a thread from now on."""

    def compute(_: None) -> Any:
        return next(answer, END)

    thread = prefetch.Prefetch(compute, AHEAD, 1)
    for _ in range(AHEAD):
        thread.ask(None)

    def outputs() -> Iterator[Any]:
        try:
            output: Any = thread.next()
            while output is not END:
                thread.ask(None)
                yield output
                output = thread.next()
        finally:
            thread.close()

    return outputs()


@dataclasses.dataclass(frozen=True)
class Given:
    """What a process is given as it is started, when its memory may still be read by others.

    Attributes:
        rank: The number of its device,
        count: of so many.
        handover: Where the parameters are.
    """

    rank: int
    count: int
    handover: Handover


class Processes:
    """Processes that evaluate, each on a device of its own.

    Args:
        context: Starts them.
        plan: The plan of the first trial of the study.
        count: How many there are.
        signature: The shape and the type of each parameter and running statistic, by name.
    """

    def __init__(
        self, context: ForkServerContext, plan: TrialPlan, count: int, signature: Signature
    ) -> None:
        self._context, self._plan = context, plan
        self.count = count
        self._handover = Handover(context, signature)
        self._version = 0
        self._each: list[_Process] = []
        backends.evaluate_on(plan.framework, 0, 1 + count)

    def start(self) -> None:
        """Start those that do not run."""
        if any(each.has_ended for each in self._each):
            self.close()
        for rank in range(1 + len(self._each), 1 + self.count):
            given = Given(rank, 1 + self.count, self._handover)
            self._each.append(_Process(self._context, given, self._plan))

    def begin(self, seed: int) -> None:
        """Have them get ready for a trial of that seed, meanwhile."""
        for each in self._each:
            each.send("begin", seed)

    def wait(self) -> None:
        """Return once they are ready."""
        for each in self._each:
            each.drain()

    def give(self, handover: Handover) -> None:
        """Copy the parameters that are to be evaluated from where a trainer has put them."""
        self.wait()
        self._version += 1
        self._handover.copy(handover)

    def warm_up(self, params: Any, model_state: Any) -> None:
        """Do nothing: they do so as they begin."""

    def ask(self, question: Question, params: Any, model_state: Any) -> Sequence[Iterator[Any]]:
        """Return what each makes of its batches, computed from now on with the parameters that
        `give` has copied.

        Raises:
            EvaluatorDiedError: One of them has ended.
            EvaluationError: One of them has raised an error, as the iterators do.
            UserError: The same, of a user's mistake.
        """
        for each in self._each:
            each.send("answer", question, self._version)
        return [each.answers() for each in self._each]

    def close(self) -> None:
        """End them all."""
        for each in self._each:
            each.end()
        self._each.clear()


class _Process:
    """One of the processes, and the line to it."""

    def __init__(self, context: ForkServerContext, given: Given, plan: TrialPlan) -> None:
        self._rank = given.rank
        self._killed_before = memory.oom_kills()
        self._is_answering = False
        self._line, far_end = context.Pipe()
        self._process = context.Process(
            target=serve, args=(far_end, given), name=f"evaluator {given.rank}"
        )
        with stopping.held_back():
            self._process.start()
        far_end.close()
        # The plan may have a secret, which waits until its memory is closed to others.
        self._receive()
        self.send(plan.to_json())

    @property
    def has_ended(self) -> bool:
        return not self._process.is_alive()

    def send(self, *words: Any) -> None:
        """Tell it what to do, once it has done what it was told before."""
        self.drain()
        self._is_answering = True
        try:
            self._line.send(words)
        except OSError as error:
            raise self._death() from error

    def answers(self) -> Iterator[Any]:
        """Yield what it computes."""
        while self._is_answering:
            output = self._receive()
            if self._is_answering:
                yield output

    def drain(self) -> None:
        """Wait until it has done what it was told."""
        for _ in self.answers():
            pass  # Of an evaluation that was left, for an error.

    def _receive(self) -> Any:
        try:
            kind, value = self._line.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        if kind == "output":
            return value
        self._is_answering = False
        if kind == "mistake":
            mistake = UserError(value[0])
            mistake.add_note(value[1])
            raise mistake
        if kind == "error":
            raise EvaluationError(*value)
        return None

    def _death(self) -> EvaluatorDiedError:
        self._process.join(GRACE_S)
        code, now = self._process.exitcode, memory.oom_kills()
        who = f"the evaluator of device {self._rank}"
        if code is None:
            return EvaluatorDiedError({"cause": f"{who} closed its line", "outside": False})
        was_killed = None
        if now is not None and self._killed_before is not None:
            was_killed = now > self._killed_before
        return EvaluatorDiedError(supervision.cause_of_death(code, was_killed, who))

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self._line.close()


def serve(connection: Connection, given: Given) -> None:
    """Evaluate, as the process's only work, and leave it."""
    supervision.refuse_to_be_read()
    for number in stopping.SIGNALS:  # Its referee decides what they mean, and when this one ends.
        signal.signal(number, signal.SIG_IGN)
    child.die_with_referee()
    child.redirect_output()
    with contextlib.suppress(EOFError, OSError):  # The referee has ended.
        _serve(connection, given)
    child.leave(0)


def _serve(connection: Connection, given: Given) -> None:
    connection.send((END, None))
    (text,) = connection.recv()
    work: _Work | None = None
    words: tuple[Any, ...] = ("load",)
    while True:
        try:
            if work is None:
                work = _Work(TrialPlan.from_json(text), given)
            for output in work.do(*words):
                connection.send(("output", output))
        except UserError as error:
            connection.send(("mistake", (str(error), traceback.format_exc())))
        except Exception as error:
            connection.send(("error", (cause_of(error), traceback.format_exc())))
        else:
            connection.send((END, None))
        words = connection.recv()


class _Work:
    """What a process needs to evaluate, loaded in the same steps as the referee's."""

    def __init__(self, plan: TrialPlan, given: Given) -> None:
        self._handover = given.handover
        subject = assemble.look_up(plan)
        backends.evaluate_on(plan.framework, given.rank, given.count)
        self._backend = backends.load(
            plan.framework, compile_model=plan.compile, computation=plan.computation
        )
        bound = assemble.bind(plan, subject, self._backend)
        self._workload = bound.workload
        data, few = bound.data, subject.scale.eval_train_rows
        train = data.splits["train"]
        if isinstance(train, ArrayRows):  # The others need not be held.
            rows = ArrayRows({name: array[:few].copy() for name, array in train.items()})
            data = data.with_splits({**data.splits, "train": rows})
        turn = given.rank, given.count
        self._outputs = Outputs(
            self._backend, self._workload, subject.definition, data, subject.scale, turn
        )
        self._own: tuple[Any, Any] | None = None
        self._version = 0

    def do(self, task: str, *words: Any) -> Iterator[Any]:
        """Yield the outputs of a task, of which 'begin' has none."""
        if task == "begin":
            self._begin(*words)
        elif task == "answer":
            yield from self._answer(*words)

    def _begin(self, seed: int) -> None:
        """Initialise the model as a trial of that seed does: what is frozen is not handed over.

        Everything else is, so that no initial value is kept: large models fill the memory.
        """
        is_first = self._own is None
        state = self._backend.random_state(seeds.pair(seed, seeds.INIT))
        own = self._workload.init_model_fn(state)
        if is_first:
            self._outputs.warm_up(*own)
        self._own = self._backend.read(*own, self._handover.parameters())

    def _answer(self, question: Question, version: int) -> Iterator[Any]:
        assert self._own is not None
        if version != self._version:
            self._own = self._backend.read(*self._own, self._handover.parameters())
            self._version = version
        return self._outputs.answer(question, *self._own)
