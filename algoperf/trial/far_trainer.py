"""The processes that train, from the referee's side: they are started, heard, stopped and ended."""

import contextlib
import dataclasses
import json
import multiprocessing.util
import os
import re
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from algoperf import errors
from algoperf.machine import memory, stopping, supervision
from algoperf.trial import handover, messages, trainer
from algoperf.trial.bench import Bench
from algoperf.trial.plan import TrialPlan

GRACE_S = 5.0  # For a trainer to leave once it has closed.
# What the traceback of a process has that has lost another one it trains with.
TORN = re.compile(r"gloo|nccl|connection (reset|closed)|DistBackendError", re.IGNORECASE)


class TrainerDiedError(Exception):
    """The trainer's process has ended, or ends, without a word of the trial's end.

    Args:
        error: The 'cause', in words, 'outside', and what else the result says of it.
        has_stopped: Whether it was asked to stop before there was anything to save.

    Attributes:
        cpu_s: The processor time of the trial so far, in seconds.
    """

    def __init__(self, error: dict[str, Any], *, has_stopped: bool = False) -> None:
        super().__init__(error["cause"])
        self.error = error
        self.has_stopped = has_stopped
        self.cpu_s = 0.0


def died(cause: str) -> TrainerDiedError:
    """Return the error of a trainer whose trial has failed by what it did."""
    return TrainerDiedError({"cause": cause, "outside": False})


class Trainer:
    """The trainer's process, and the line to it; with the others of a trial on several devices.

    Rank 0 speaks for all. The others say nothing but what ends them, and when one of them has
    ended, so has the trial.

    Args:
        bench: What the trials of the study share.
        plan: The trial's plan.
        note: Called with what the trainer has a user told.
    """

    def __init__(self, bench: Bench, plan: TrialPlan, note: Callable[[str], None]) -> None:
        data = bench.bound.data
        facts = {name: getattr(data, name) for name in trainer.FACTS}
        self.handover = handover.Handover(bench.context, bench.signature)
        without_secret = dataclasses.replace(plan, validation_seed=None)
        given = trainer.Given(
            without_secret.to_json(),
            bench.shared_rows,
            facts,
            self.handover,
            os.environ.get("PYTHONPATH"),
            # The server that forks them removes the folder.
            meeting=str(Path(multiprocessing.util.get_temp_dir()) / f"meeting_{bench.trials}"),
        )
        self._note = note
        self._killed_before = memory.oom_kills()
        self._others = set(supervision.descendants(os.getpid()))  # the fork server, and its kind
        self._line, self._process = self._start(bench, given)
        self._followers = [
            self._start(bench, dataclasses.replace(given, rank=rank))
            for rank in range(1, plan.world_size)
        ]
        assert self._process.pid is not None
        self.process_id = self._process.pid
        self.pause = supervision.Pause(self.processes, first=self.process_id)
        self.has_closed = False

    @staticmethod
    def _start(bench: Bench, given: trainer.Given) -> tuple[Any, Any]:
        """Start one process, and return the line to it and the process."""
        line, far_end = bench.context.Pipe()
        process = bench.context.Process(
            target=trainer.serve, args=(far_end, given), name=f"trainer {given.rank}"
        )
        with stopping.held_back():
            process.start()
        far_end.close()
        return line, process

    def processes(self) -> list[int]:
        """Return the trainer's process and all that it has started."""
        started = set(supervision.descendants(os.getpid())) - self._others
        return [self.process_id, *sorted(started - {self.process_id})]

    def ranks(self) -> list[int]:
        """Return the processes that train together, by rank."""
        return [process.pid for _, process in ((self._line, self._process), *self._followers)]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Keep the trainer and all that it has started from working while in the block."""
        self.pause.begin()
        try:
            yield
        finally:
            self.pause.end()

    def ask_to_stop(self) -> None:
        """Ask the trainer to be saved and to leave."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process_id, stopping.SIGNALS[0])

    def answer(self, **values: Any) -> None:
        """Answer the trainer's last question."""
        with contextlib.suppress(OSError):  # It has ended, which is seen at the next look.
            self._line.send_bytes(json.dumps(values).encode())

    def hear(self, *expected: str) -> dict[str, Any]:
        """Wait for what the trainer says next, and return it.

        Args:
            expected: The kinds of what it may say now.

        Raises:
            TrainerDiedError: It has ended instead, or says something else.
            UserError: It says that a user made a mistake.
        """
        while True:
            try:
                message = self._next(*expected)
            except messages.InvalidMessageError as error:
                raise died(f"the trainer's message is not valid: {error}") from error
            kind = message["kind"]
            failure = message if kind == "crashed" else message.get("error")
            if self._followers and failure:
                self._blame_follower(failure["traceback"])
            if kind == "note":
                self._note(message["text"])
            elif kind == "user_error":
                raise _mistake(message)
            elif kind == "crashed":
                raise _crash(message)
            else:
                return message

    def _next(self, *expected: str) -> dict[str, Any]:
        ends = [process.sentinel for _, process in self._followers]
        ready = wait([self._line, self._process.sentinel, *ends])
        if self._line not in ready and self._process.sentinel not in ready:
            # If the submission failed on all devices, rank 0 says more of it.
            ready = wait([self._line, self._process.sentinel], GRACE_S / 5)
            if not ready:
                self._blame_follower()
        if self._line in ready:
            try:
                line = self._line.recv_bytes(messages.LONGEST_MESSAGE)
            except (EOFError, OSError):
                pass  # It has ended, closed the line, or sent more than anybody has to say.
            else:
                values = messages.parse(line)
                kind = values.get("kind")
                if kind not in (*expected, "note", "user_error", "crashed"):
                    shown = messages.text(str(kind))[:40]
                    raise died(f"the trainer said {shown!r}, expected {' or '.join(expected)}")
                return messages.read(values)
        self._process.join(GRACE_S)
        raise self._death(self._process, "the trainer closed its line to the referee")

    def _death(self, process: Any, still_there: str, of_rank: str = "") -> TrainerDiedError:
        """Return the error of a process that has ended, or closed its line."""
        code = process.exitcode
        if code is None:
            return died(still_there)
        now = memory.oom_kills()
        was_killed = None
        if now is not None and self._killed_before is not None:
            was_killed = now > self._killed_before
        has_stopped = stopping.has_stopped(code, was_asked=False) and code > 0
        death = supervision.cause_of_death(code, was_killed)
        death["cause"] = f"{of_rank}{death['cause']}"
        return TrainerDiedError(death, has_stopped=has_stopped)

    def _blame_follower(self, traceback: str | None = None) -> None:
        """Raise what ended another process than rank 0, if that is why rank 0 has failed.

        Args:
            traceback: Of the error that rank 0 has raised; None where it says nothing.
        """
        if traceback is not None and not TORN.search(traceback):
            return
        for rank, (line, process) in enumerate(self._followers, start=1):
            process.join(0 if traceback is None else GRACE_S / 5)
            if process.is_alive():
                continue
            if line.poll():
                with contextlib.suppress(EOFError, OSError):
                    message = messages.read(
                        messages.parse(line.recv_bytes(messages.LONGEST_MESSAGE))
                    )
                    if message["kind"] == "user_error":
                        raise _mistake(message)
                    if not TORN.search(message["traceback"]):
                        raise _crash(message, f"rank {rank}: ")
                    continue  # It has lost the others, as rank 0 has.
            raise self._death(process, "", f"rank {rank}: ")

    def end(self) -> None:
        """End the trainer and all that it started."""
        if self.has_closed:
            self._process.join(GRACE_S)
        supervision.kill(self.processes())
        self.pause.end()
        for line, process in ((self._line, self._process), *self._followers):
            process.join()
            line.close()
            process.close()


def _crash(message: Mapping[str, Any], of_rank: str = "") -> TrainerDiedError:
    error = {"cause": f"{of_rank}{message['cause']}", "traceback": message["traceback"]}
    return TrainerDiedError({**error, "outside": False})


def _mistake(message: Mapping[str, Any]) -> errors.UserError:
    mistake = errors.UserError(message["text"])
    mistake.add_note(message["traceback"])
    return mistake
