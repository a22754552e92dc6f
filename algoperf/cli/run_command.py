"""`algoperf run`: start the trials, say what came of each when it ends, and of all in the end."""

import argparse
import itertools
import json
import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from algoperf.cli import executor_arguments, run_arguments, summary
from algoperf.cli.argument_types import USER_MISTAKE
from algoperf.errors import UserError
from algoperf.machine import launchers
from algoperf.machine.supervision import INTERRUPTED, InterruptedRunError
from algoperf.run_folder import writing
from algoperf.study import outcome, run_plan, trial_tasks
from algoperf.study.progress import Progress, Show, printer, short_path

if TYPE_CHECKING:
    from rich.console import Console

DONE, TRIAL_FAILED = 0, 1


def run(arguments: argparse.Namespace, command: str, console: "Console", notes: "Console") -> int:
    """Carry out `algoperf run`.

    Args:
        arguments: The parsed arguments.
        command: The command line, for the runs' meta data.
        console: The console of standard output.
        notes: The console of standard error.

    Returns:
        The exit code: the worst of all runs.

    Raises:
        UserError: The arguments contain a mistake, or the only run does.
    """
    show, note = printer(console), printer(notes)
    requests = run_arguments.requests(arguments)
    launched = launchers.launch(os.environ)
    if launched is not None and launched.rank:
        note(f"rank {launched.rank} of {launched.count}: rank 0 starts a process for each device")
        return DONE
    plans = run_plan.make_all(requests, command, notes.is_terminal)
    for text in dict.fromkeys(text for plan in plans for text in plan.notes):
        note(text)
    total = sum(plan.chosen.count for plan in plans)

    def ended(result: dict[str, Any], skipped: bool) -> None:
        if arguments.json:
            if not skipped:
                note(outcome.headline(result))
        elif not (skipped and total > 1 and console.is_terminal):  # The table has it once more.
            show(outcome.of_trial(result, brief=total > 1))
        trace = (result.get("error") or {}).get("traceback")
        if arguments.debug and trace:
            notes.print(trace.rstrip(), highlight=False, markup=False, soft_wrap=True)

    if arguments.executor != executor_arguments.LOCAL:
        jobs_code, listed = _as_jobs(arguments, plans, note)
        for result in itertools.chain(*listed):
            ended(result, True)  # It was told when its job ended.
        return _close(arguments, plans, listed, jobs_code, console, show, note)
    if arguments.workers is not None:
        raise UserError("--workers goes with --executor slurm: here trials run one by one")
    executor_arguments.executor(arguments, 1, None)  # Its options would say nothing here.
    several = len({plan.outline.path for plan in plans}) > 1
    progress = Progress(notes, total, ended, names_submissions=several)
    results: list[list[dict[str, Any]]] = []
    code = DONE
    for plan in plans:
        try:
            results.append(plan.carry_out(progress))
        except UserError as error:
            if len(plans) == 1:
                raise
            note(f"algoperf: {error}")
            results.append([])
            code = USER_MISTAKE
        except writing.UnwritableError as error:
            note(f"algoperf: {error}")
            return writing.UNWRITABLE
        except InterruptedRunError as interrupted:
            note(f"algoperf: {_stopped(arguments, plan, str(interrupted))}")
            return INTERRUPTED
        finally:
            progress.close()
    return _close(arguments, plans, results, code, console, show, note)


def _as_jobs(
    arguments: argparse.Namespace, plans: Sequence[run_plan.RunPlan], note: Show
) -> tuple[int, list[list[dict[str, Any]]]]:
    """Run the trials as jobs of a cluster; return the exit code and the results of each plan."""
    out = plans[0].request.out
    chosen = executor_arguments.executor(arguments, arguments.threads or 1, arguments.workers)
    executor_arguments.check_secret(chosen, plans[0].request.validation_seed)
    listed = [trial_tasks.tasks(plan) for plan in plans]
    writing.make_folder("--out", out)
    failed = chosen.run(list(itertools.chain(*listed)), out, note)
    return TRIAL_FAILED if failed else DONE, [trial_tasks.results(each, out) for each in listed]


def _close(
    arguments: argparse.Namespace,
    plans: Sequence[run_plan.RunPlan],
    results: Sequence[list[dict[str, Any]]],
    code: int,
    console: "Console",
    show: Show,
    note: Show,
) -> int:
    """Show all results together, and write what was asked for; return the exit code."""
    everything = [result for each in results for result in each]
    if arguments.json:
        console.print(json.dumps(summary.finite(everything), indent=2), soft_wrap=True)
    else:
        _show_all(plans, results, console, show)
        for plan in plans:
            for text in plan.populations():
                show(text)
    for plan, each in zip(plans, results, strict=True):
        saved = plan.save_best(each)
        if saved:
            (note if arguments.json else show)(saved)
    if not arguments.json:
        show(_where(everything, plans))
    has_failed = any(result["status"] == "failed" for result in everything)
    return code or (TRIAL_FAILED if has_failed else DONE)


def _stopped(arguments: argparse.Namespace, plan: run_plan.RunPlan, folder: str) -> str:
    """Return what a run says that was asked to stop."""
    folder = short_path(folder)
    same = "the same command without --overwrite" if arguments.overwrite else "the same command"
    if not plan.request.checkpoints:
        return f"stopped; {folder} is not saved (--no-checkpoint), and {same} starts it over"
    look = shlex.join(["algoperf", "status", str(plan.request.out)])
    return f"stopped; {folder} is saved, and {same} goes on with it; to look: {look}"


def _show_all(
    plans: Sequence[run_plan.RunPlan],
    results: Sequence[Sequence[dict[str, Any]]],
    console: "Console",
    show: Show,
) -> None:
    """Show all trials of each submission, workload and framework, if they are several."""
    ended = [
        outcome.read(plan.trial.out_folder, plan.trial.experiment, result)
        for plan, each in zip(plans, results, strict=True)
        for result in each
    ]
    if len(ended) < 2:
        return
    groups = list(outcome.by_group(ended).values())
    for group in groups:
        if len(group) > 1:
            console.print()
            for each in outcome.table(group, console.width):
                if isinstance(each, str):
                    show(each)
                else:
                    console.print(each)
            show(outcome.best_line(group))
    alone = [group[0] for group in groups if len(group) == 1]
    if alone:
        console.print()
        console.print(outcome.table_of_one_each(alone))


def _where(results: Sequence[dict[str, Any]], plans: Sequence[run_plan.RunPlan]) -> str:
    """Return the line that says where the runs are, and what can be done with them."""
    folders = list(dict.fromkeys(plan.request.out / plan.trial.experiment for plan in plans))
    listed = ", ".join(map(str, folders))
    if any(result["status"] != "failed" for result in results):
        score = shlex.join(["algoperf", "score", str(plans[0].request.out)])
        if all(plan.request.max_steps is not None for plan in plans):
            return f"runs are in {listed}; {score} ranks no runs that --max-steps limits"
        return f"runs are in {listed}; score them with: {score}"
    if any((result.get("error") or {}).get("traceback") for result in results):
        return f"runs are in {listed}; the result.json of each has its error's traceback"
    return f"runs are in {listed}"
