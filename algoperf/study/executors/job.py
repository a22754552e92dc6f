"""What a job of a cluster does: run one task of an order, and write how it ended."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from algoperf.errors import UserError
from algoperf.machine import hardware, stopping
from algoperf.machine.supervision import INTERRUPTED
from algoperf.run_folder import run_log
from algoperf.study.executors import executor, orders
from algoperf.study.executors.executor import PROGRAM
from algoperf.study.executors.local import Processes

MISTAKE = 2


def carry_out(path: str, index: int) -> int:
    """Run one task of an order, in its job; called by the cluster.

    Signals are passed on to the run, which saves its trial. How the run ended is written beside the
    order, unless it was stopped: then it is to be run again.

    Args:
        path: The order's file.
        index: The number of the task.

    Returns:
        The exit code of the run: `INTERRUPTED` where it was stopped.
    """
    content = run_log.read_json(Path(path)) or {}
    processes = Processes()
    try:
        words = list(content["tasks"][index]["command"])
        os.chdir(content["folder"])
        with hardware.limited_to(content["threads"]), processes.stops:
            code, line = _run(processes, words)
    except (OSError, UserError, LookupError, TypeError) as error:
        code, line = MISTAKE, f"{path} cannot be carried out here: {error!r}"
    if stopping.has_stopped(code, processes.are_stopped):
        return INTERRUPTED
    orders.write_outcome(Path(path), index, code, line)
    return code


def _run(processes: Processes, words: Sequence[str]) -> tuple[int, str]:
    """Run a command, again and again while another process works on its trial."""
    while True:
        ended = processes.run([*PROGRAM, *words], None)
        if ended is None:
            return INTERRUPTED, ""
        if not executor.is_taken(ended):
            return ended.returncode, executor.last_words(ended)
        for _ in range(int(executor.RETRY_S)):
            if not processes.are_stopped:
                time.sleep(1)
