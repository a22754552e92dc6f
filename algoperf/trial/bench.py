"""What the trials of a study share on the referee's side: rows, a model that evaluates, devices.

The referee's process makes it once. It starts the server that forks trainers and those who evaluate
beside it, so that none of them has anything in its memory that a trainer must not read.
"""

import multiprocessing
import os
from multiprocessing import forkserver
from typing import Any

from algoperf import backends, workload
from algoperf.machine import hardware, own_code, stopping
from algoperf.trial import assemble, child, evaluators, handover, outputs, seeds
from algoperf.trial.evaluate import Evaluator
from algoperf.trial.judgement import Signature
from algoperf.trial.plan import TrialPlan


class Bench:
    """What the trials of one study share: the rows, a model to evaluate with, what it compiled.

    Args:
        plan: The plan of the first of these trials; the others differ in study and trial alone.
    """

    def __init__(self, plan: TrialPlan) -> None:
        self.context = multiprocessing.get_context("forkserver")
        # The process of a referee has the server already (`fork_server.start`).
        modules = child.modules(plan.framework)
        self.context.set_forkserver_preload([*modules, "algoperf.machine.fork_server"])
        # A signal to all processes of a job must not end the server.
        with stopping.held_back(), own_code.importable():
            forkserver.ensure_running()
        if plan.framework == "jax":  # The trainer has the accelerator's memory, by its own setting.
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
            if plan.devices is not None:
                backends.evaluate_on(plan.framework, 0, plan.devices)
        self.subject = assemble.look_up(plan)
        self.instruments = assemble.load_instruments(plan, self.subject, trains=False)
        data = assemble.load_data(plan, self.subject.definition, self.subject.scale)
        self.shared_rows: handover.SharedRows | None = None
        train = data.splits["train"]
        if isinstance(train, workload.ArrayRows):
            self.shared_rows = handover.SharedRows(self.context, train)
            splits = {**data.splits, "train": self.shared_rows.rows()}
            data = data.with_splits(splits)
        self.bound = assemble.bind(plan, self.subject, self.instruments.backend, data)
        self._plan = plan
        self.trials = 0
        self.signature: Signature = {}
        self._is_warm = False
        self._initialised(0)
        self._processes: evaluators.Processes | None = None
        self.evaluator = self._evaluator(plan)

    def _evaluator(self, plan: TrialPlan) -> Evaluator:
        """Return what evaluates, on all devices of the trials."""
        backend, *others = self.instruments.backend.on_each_device()
        arguments = (
            *(self.bound.workload, self.subject.definition),
            *(self.bound.data, self.subject.scale),
        )
        helpers: outputs.Helpers | None = None
        if plan.framework == "pytorch" and plan.evaluators:
            self._processes = helpers = evaluators.Processes(
                self.context, plan, plan.evaluators, self.signature
            )
        elif others:
            count = 1 + len(others)
            helpers = evaluators.Threads(
                [
                    outputs.Outputs(other, *arguments, (rank, count))
                    for rank, other in enumerate(others, start=1)
                ]
            )
        return Evaluator(backend, *arguments, helpers)

    @property
    def evaluators(self) -> int:
        """How many devices evaluate beside the first one."""
        return self.evaluator.helper_count

    def start_evaluators(self) -> None:
        """Start the processes that evaluate beside this one, where they do not run. What is started
        later is a trainer's.
        """
        if self._processes is not None:
            self._processes.start()

    def spread(self, shared: handover.Handover) -> None:
        """Let all that evaluate have the parameters that a trainer has handed over."""
        if self._processes is not None:
            self._processes.give(shared)

    def close(self) -> None:
        """End the processes that evaluate beside this one."""
        if self._processes is not None:
            self._processes.close()

    def initialise(self, seed: int) -> tuple[Any, Any]:
        """Return (parameters, model state) as a trial of that seed starts with them."""
        if self._processes is not None:
            self._processes.begin(seed)
        return self._initialised(seed)

    def _initialised(self, seed: int) -> tuple[Any, Any]:
        backend = self.instruments.backend
        state = backend.random_state(seeds.pair(seed, seeds.INIT))
        params, model_state = self.bound.workload.init_model_fn(state)
        self.signature = backend.signature(params, model_state)
        return params, model_state

    def have_rows_changed(self) -> bool:
        """Return whether the training rows are others than were loaded."""
        return self.shared_rows is not None and self.shared_rows.have_changed()

    def restore_rows(self) -> None:
        """Load the training rows again, where somebody has changed them."""
        if self.shared_rows is not None and self.shared_rows.have_changed():
            data = assemble.load_data(self._plan, self.subject.definition, self.subject.scale)
            train = data.splits["train"]
            assert isinstance(train, workload.ArrayRows)
            self.shared_rows.restore(train)

    def warm_up(self, params: Any, model_state: Any) -> str | None:
        """Compile what evaluations need, once.

        Returns:
            A note, where the memory does not suffice for other devices to evaluate beside the first
            one, which works alone from then on; else None.
        """
        self.evaluator.restart()
        is_first = not self._is_warm
        if is_first:
            self.evaluator.warm_up(params, model_state)
            self._is_warm = True
        if self._processes is not None:
            self._processes.wait()
        if not (is_first and self.evaluators) or self._has_room():
            return None
        self.close()
        self._processes = None
        self.evaluator.work_alone()
        return (
            "the memory does not suffice for evaluations on several devices at a time: the first "
            "one makes them all"
        )

    def _has_room(self) -> bool:
        """Return whether all devices may evaluate at a time, beside what trains.

        What an evaluation takes for a while is known from the first one's: how much more this
        process has held than it does now. On an accelerator each device has its own memory.
        """
        backend = self.instruments.backend
        if backend.free_device_memory_bytes() is not None:
            return True
        balance, _ = assemble.check_memory(self._plan, self.bound, backend)
        passing = hardware.peak_process_memory_bytes() - hardware.process_memory_bytes()
        needed = balance["needed_bytes"] + (1 + self.evaluators) * passing
        return bool(needed <= balance["available_bytes"])
