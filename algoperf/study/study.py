"""Trials times studies: each trial in a process of its own, one after the other; what is done is
skipped.
"""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from algoperf.errors import UserError
from algoperf.machine import (
    environment,
    hardware,
    launchers,
    memory,
    own_code,
    processor_time,
    resources,
    stopping,
    supervision,
)
from algoperf.run_folder import crash_points, device_history, run_log, writing
from algoperf.study import outrun
from algoperf.study.companions import Companions
from algoperf.study.outrun import Ends
from algoperf.submission import loading, search_space, submission_source
from algoperf.trial import choices
from algoperf.trial.plan import ANSWERED, INLINE, LATE, OUTRUN, PROCESS, TrialPlan
from algoperf.workload import catalogue

EXTERNAL_TRIALS = POPULATION_TRIALS = 5
GRACE_S = 5.0  # for a trial's process to end after its result
Observe = Callable[[TrialPlan, dict[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Slice:
    """Which trials of which studies: `studies` of them from `first_study`, counted from 0; trials
    from `first` to `last`, counted from 1.
    """

    studies: int
    first: int
    last: int
    first_study: int = 0

    @property
    def count(self) -> int:
        """How many trials these are."""
        return self.studies * (self.last - self.first + 1)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(study, trial) in the order in which they run."""
        return (
            (study, trial)
            for study in range(self.first_study, self.first_study + self.studies)
            for trial in range(self.first, self.last + 1)
        )


def choose_slice(
    ruleset: str,
    trials: int | None,
    studies: int,
    trial_range: str | None,
    space_size: int | None,
    study_range: str | None = None,
) -> Slice:
    """The trials to run; `trial_range` FIRST:LAST (inclusive, from 1) cuts a piece out
    of a study, and `study_range` FIRST:LAST (inclusive, from 0) out of the studies.
    """
    first_study, last_study = _studies(studies, study_range)
    usual = {"external": EXTERNAL_TRIALS, "population": POPULATION_TRIALS}.get(ruleset, 1)
    count = usual if trials is None else trials
    if ruleset == "population":
        _check_population(count, trial_range)
    if trials is None and space_size is not None:
        count = min(count, space_size)
    if space_size is not None and count > space_size:
        raise UserError(f"--trials {count}: the search space lists only {space_size} points")
    if trial_range is None:
        return Slice(last_study - first_study + 1, 1, count, first_study)
    first, colon, last = trial_range.partition(":")
    if not (colon and first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last) <= count):
        raise UserError(f"--trial-range {trial_range!r}: expected FIRST:LAST within 1:{count}")
    return Slice(last_study - first_study + 1, int(first), int(last), first_study)


def _check_population(members: int, trial_range: str | None) -> None:
    if members < 2:
        raise UserError(f"--trials {members}: a population has at least 2 members")
    if trial_range is not None:
        raise UserError(
            f"--trial-range {trial_range!r} with --tuning-ruleset population: its members copy "
            "each other, so all of a study run together"
        )


def _studies(studies: int, study_range: str | None) -> tuple[int, int]:
    """Return the first and the last study to run, counted from 0."""
    if study_range is None:
        return 0, studies - 1
    first, colon, last = study_range.partition(":")
    is_range = bool(colon) and first.isdigit() and last.isdigit()
    if not (is_range and int(first) <= int(last) < studies):
        raise UserError(
            f"--study-range {study_range!r}: expected FIRST:LAST within 0:{studies - 1}"
        )
    return int(first), int(last)


def check_name(option: str, name: str) -> str:
    """Return a name that an option gives, if it can be a folder's, below --out."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(f"{option} {name!r}: expected letters, digits, '.', '_' and '-'")
    return name


def check_search_space(outline: loading.Outline, ruleset: str, given: str | None) -> int | None:
    """Read the search space that a run will use, if it can be read without running the submission.

    Return how many points it lists; None where points are drawn.
    """
    if given is not None and ruleset == "self":
        raise UserError("--search-space with --tuning-ruleset self: self-tuning draws no points")
    if given is not None:
        return search_space.read(given).size
    if ruleset not in choices.DRAWING_RULESETS:
        return None
    space = search_space.beside(outline.path, outline.search_space)
    return space.size if space is not None else None


def run(
    base: TrialPlan,
    outline: loading.Outline,
    chosen: Slice,
    observe: Observe,
    retry_failed: bool = False,
    companions: Companions | None = None,
    overwrite: bool = False,
    rerun_contended: bool = False,
    ends: Ends = outrun.AT_BUDGET,
) -> list[dict[str, Any]]:
    """Run the trials that have no result yet, and those that an outside cause ended, with
    `retry_failed` all that failed, with `overwrite` all of them, with `rerun_contended` those whose
    clock counted others' work; return every trial's result. What is run anew is kept in its folder,
    in `replaced_<n>`. `ends` says which trials end before their budget, since no score can come of
    them any more.

    `observe(plan, event)` is told what happens, `event["event"]` being one of skip, note, start,
    progress, evaluation, result. `companions` go along with each trial. Raises UserError for a
    mistake that only the trial's process can see, `supervision.InterruptedRunError` where the run
    was asked to stop, and `writing.UnwritableError` where a run folder takes no more.
    """
    base = dataclasses.replace(base, environment=environment.of_this_process())
    with hardware.limited_to(base.threads):
        settings = known_settings(base, outline)
        if overwrite or rerun_contended:
            set_aside(base, outline, chosen, settings, observe, only_contended=not overwrite)
        return _run(base, outline, chosen, observe, retry_failed, companions, settings, ends)


def _run(
    base: TrialPlan,
    outline: loading.Outline,
    chosen: Slice,
    observe: Observe,
    retry_failed: bool,
    companions: Companions | None,
    settings: dict[str, Any],
    ends: Ends,
) -> list[dict[str, Any]]:
    companions = companions or Companions()
    base = dataclasses.replace(base, followed=bool(companions))
    results = []
    with stopping.Stops(end=lambda: None) as stops, Workers() as workers:
        for study, trial in chosen:
            plan = dataclasses.replace(base, study=study, trial=trial)
            folder = trial_folder(plan, outline)
            run_log.check_same_as_begun(folder, settings, may_change_devices=plan.change_devices)
            done = lasting_result(folder, retry_failed)
            if done is None:
                with supervision.locked(folder):
                    # Another process may have ended it.
                    done = lasting_result(folder, retry_failed)
                    if done is None:
                        before = run_log.read_flags(folder)
                        device_history.check_unchanged(folder, before, plan.change_devices)
                        plan = ends.planned(plan, folder, settings)
                        _set_ended_early_aside(plan, folder, observe)
                        with writing.into(folder):
                            (folder / run_log.RESULT).unlink(missing_ok=True)
                        results.append(
                            accompanied(plan, folder, settings, observe, companions, stops, workers)
                        )
                        stops.check(folder)
                        continue
            observe(plan, {"event": "skip", "folder": str(folder), "result": done})
            results.append(done)
            stops.check(folder)
    stops.check(base.out_folder / base.experiment)
    return results


def trial_folder(plan: TrialPlan, outline: loading.Outline) -> Path:
    """Return the run folder of a planned trial."""
    return run_log.trial_folder(
        *(plan.out_folder, plan.experiment, outline.name, plan.study),
        *(plan.workload, plan.framework, plan.trial),
    )


def usual_referee(plan: TrialPlan) -> str:
    """Return where a trial's referee is if nobody says: in a process of its own, unless trials are
    in the run folder that had none, and that are to go on.
    """
    name = plan.name or loading.inspect(Path(plan.submission)).name
    parts = (plan.out_folder, plan.experiment, name, plan.study, plan.workload, plan.framework)
    folder = run_log.trial_folder(*parts, plan.trial)
    return INLINE if run_log.begun_without(folder, "referee") else PROCESS


class Workers:
    """The processes that run trials: one for each trial, or a referee that stays for the next."""

    def __init__(self) -> None:
        self._waiting: subprocess.Popen[bytes] | None = None

    def start(self, plan: TrialPlan) -> "subprocess.Popen[bytes]":
        """Return a process that takes a plan: a new one, or the one that waits for the next."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting.poll() is None:
            return waiting
        if waiting is not None:
            supervision.end(waiting)
        with stopping.held_back():
            return subprocess.Popen(
                own_code.program(
                    "algoperf.trial.process", repr(plan.framework if plan.has_referee else None)
                ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_environment(plan),
                process_group=0,  # with what it forks
            )

    def keep(self, process: "subprocess.Popen[bytes]") -> None:
        """Have a process that waits for a plan stay for the next trial."""
        self._waiting = process

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting is not None:
            supervision.end(self._waiting)


def set_aside(
    base: TrialPlan,
    outline: loading.Outline,
    chosen: Slice,
    settings: dict[str, Any],
    observe: Observe,
    *,
    only_contended: bool = False,
) -> None:
    """Move what the chosen trials measured aside, all before the first one is run anew."""
    plans = [dataclasses.replace(base, study=study, trial=trial) for study, trial in chosen]
    folders = {trial_folder(plan, outline): plan for plan in plans}
    if only_contended:
        folders = {folder: plan for folder, plan in folders.items() if run_log.is_contended(folder)}
    for folder in folders:
        run_log.check_same_configuration(folder, settings, folders)
    for folder, plan in folders.items():
        if not folder.is_dir():
            continue
        result = run_log.read_result(folder)
        with supervision.locked(folder):
            aside = run_log.set_aside(folder, "replaced")
        if aside is not None:
            what = "no result yet" if result is None else f"it was {result['status']}"
            what += ", contended" if only_contended else ""
            text = f"is run anew; what was measured ({what}) is kept in {aside}"
            observe(plan, {"event": "note", "text": text})


def lasting_result(folder: Path, retry_failed: bool = False) -> dict[str, Any] | None:
    """The result of a trial that is not to be run (again); None where it starts or goes on."""
    result = run_log.read_result(folder)
    if result is None or not outrun.is_still_early(folder, result):
        return None
    if result["status"] != "failed":
        return result
    is_outside = (result.get("error") or {}).get("outside", False)
    return None if retry_failed or is_outside else result


def _set_ended_early_aside(plan: TrialPlan, folder: Path, observe: Observe) -> None:
    """Move aside what a trial measured that was outrun, or late, by nobody, as it turns out."""
    status = (run_log.read_result(folder) or {}).get("status")
    if status in (OUTRUN, LATE):
        before = "no other trial of its study" if status == OUTRUN else "no other submission"
        aside = run_log.set_aside(folder, "replaced")
        text = f"is run anew, as {before} is before it now; see {aside}"
        observe(plan, {"event": "note", "text": text})


def known_settings(plan: TrialPlan, outline: loading.Outline) -> dict[str, Any]:
    """The part of a trial's flags that needs neither the data nor the submission's code."""
    return {
        **asked_settings(plan, outline),
        **choices.machine_settings(plan),
    }


def asked_settings(plan: TrialPlan, outline: loading.Outline) -> dict[str, Any]:
    """The part of a trial's flags that is the same on every machine that has the submission."""
    space = None if plan.search_space is None else search_space.read(plan.search_space).digest
    definition = catalogue.find(plan.workload_reference, plan.suite)
    scale = definition.scales[plan.scale].on(plan.source_kind)
    return {
        **plan.settings(),
        "target": choices.goal(plan, definition, scale).flags(),
        "submission": outline.name,
        "submission_hash": submission_source.source_hash(outline.path),
        "search_space": space,
    }


def accompanied(
    plan: TrialPlan,
    folder: Path,
    settings: dict[str, Any],
    observe: Observe,
    companions: Companions,
    stops: stopping.Stops,
    workers: Workers,
) -> dict[str, Any]:
    """Run a trial with what goes along."""
    ended: dict[str, Any] | None = None

    def say(text: str) -> None:
        observe(plan, {"event": "note", "text": text})

    def observe_all(plan: TrialPlan, event: dict[str, Any]) -> None:
        nonlocal ended
        if event["event"] == "result":
            ended = event  # It is told once the companions have added to the result.
        else:
            observe(plan, event)
        companions.event(event, say)

    result = None
    companions.begin(plan, folder, say)
    try:
        result = _run_trial(plan, folder, settings, observe_all, stops, workers)
    finally:
        companions.end(result, folder, say)
    if ended is not None:
        observe(plan, ended)
    return result


def _run_trial(
    plan: TrialPlan,
    folder: Path,
    settings: dict[str, Any],
    observe: Observe,
    stops: stopping.Stops,
    workers: Workers,
) -> dict[str, Any]:
    stops.check(folder)
    process = workers.start(plan)
    killed_before, spent_before_s = memory.oom_kills(), processor_time.of_process_s(process.pid)
    waited_for_s = processor_time.waited_for_s()
    watchdog = supervision.Watchdog(process.kill)
    result = death = None
    stays = False
    try:
        with _passing_on(stops, process):
            result, death = _watch(process, plan, observe, watchdog, stops)
            has_ended = result is not None or death is not None
            stays = plan.has_referee and has_ended and not stops.are_asked
            if not stays:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_S if has_ended else None)
    finally:
        watchdog.stop()
        if stays:
            workers.keep(process)
        else:
            supervision.end(process)
    crash_points.reach("trial ended")
    if result is None:
        result = run_log.read_result(folder)  # it died after it was written
        if result is not None:
            observe(plan, {"event": "result", "result": result})
    code = process.returncode
    left = watchdog.cause is None and code is not None and death is None
    if left and stopping.has_stopped(code, stops.are_asked):
        stops.remember()  # Whoever ended the trial wants no other to begin.
        if result is None:
            stops.check(folder)
    if result is None:
        if death is not None:
            error, cpu_s = death["error"], death["cpu_s"]
        else:
            who = "the referee" if plan.has_referee else supervision.TRIAL
            error = supervision.cause_of_death(code, _rose(killed_before), who)
            cpu_s = processor_time.waited_for_s() - waited_for_s - spent_before_s
        if watchdog.cause is not None:
            error = {"cause": watchdog.cause, "outside": False}
            error["traceback"] = watchdog.traceback
        with writing.into(folder):
            result = _died(plan, folder, settings, error, cpu_s)
        observe(plan, {"event": "result", "result": result})
    return result


@contextlib.contextmanager
def _passing_on(stops: stopping.Stops, process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Pass what this process is asked on to the trial's process while in the block."""
    before = stops.ask, stops.end
    stops.ask, stops.end = process.terminate, process.kill
    try:
        if stops.are_asked:  # since before there was a process
            process.terminate()
        yield
    finally:
        stops.ask, stops.end = before


def _environment(plan: TrialPlan) -> dict[str, str]:
    own = launchers.without(os.environ)
    if plan.threads is not None:
        pinned = hardware.thread_environment(plan.threads)
        return {**hardware.waiting_environment(), **own, **pinned}
    return {**hardware.waiting_environment(), **hardware.thread_environment(), **own}


def _rose(oom_kills_before: int | None) -> bool | None:
    now = memory.oom_kills()
    return None if oom_kills_before is None or now is None else now > oom_kills_before


def _watch(
    process: "subprocess.Popen[bytes]",
    plan: TrialPlan,
    observe: Observe,
    watchdog: supervision.Watchdog,
    stops: stopping.Stops,
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Pass on what the trial's process tells; return its result, if it has one, and how the trainer
    died, if a referee says that.

    Where `observe` raises an error, the trial is saved before that is raised here.
    """
    failure: Exception | None = None
    result: dict[str, Any] | None = None
    for event in _events(process, plan):
        if event["event"] == "user_error":
            error = UserError(event["text"])
            error.add_note(event["traceback"])
            raise error
        if event["event"] == "unwritable":
            raise writing.UnwritableError(event["text"])
        if event["event"] == "crashed":
            watchdog.cause, watchdog.traceback = event["cause"], event["traceback"]
            continue
        if event["event"] == "died":
            return None, event
        if event["event"] == "start":
            watchdog.limit(event["budget_s"])
        if failure is None:
            try:
                observe(plan, event)
            except Exception as error:
                failure = error
                process.terminate()
        if plan.followed and event["event"] in ANSWERED:
            _answer(process)
        if event["event"] in ("result", "paused"):
            if event["was_asked_to_stop"]:
                stops.remember()
            result = event["result"]
            break  # what the submission left running may hold the pipe open
    if failure is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        raise failure
    return result, None


def _events(process: "subprocess.Popen[bytes]", plan: TrialPlan) -> Iterator[dict[str, Any]]:
    assert process.stdin is not None
    try:
        process.stdin.write(plan.to_json().encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return
    for line in supervision.lines(process):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            yield event


def _answer(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended, which is seen elsewhere
        process.stdin.write(b"\n")
        process.stdin.flush()


def _died(
    plan: TrialPlan, folder: Path, settings: dict[str, Any], error: dict[str, Any], cpu_s: float
) -> dict[str, Any]:
    """The result of a trial whose process ended without one, after `cpu_s` seconds of processor
    time: written here, from what its folder holds.
    """
    last = (run_log.evaluations(folder) or [{}])[-1]
    flags = run_log.read_flags(folder)
    if flags is None:  # it died while the submission's file was being imported
        flags = run_log.with_hashes(settings)
        run_log.TrialLog(folder, (), ()).begin(flags, {"command": plan.command}, None)
    result = {
        **flags,
        "study": plan.study,
        "trial": plan.trial,
        "status": "failed",
        "scoreable": plan.max_steps is None,
        "steps": int(last.get("global_step", 0)),
        "time_to_target_s": None,
        "steps_to_target": None,
        "final": {name: value for name, value in last.items() if "/" in name},
        "ledger": {"submission_s": last.get("accumulated_submission_time")},
        "resources": resources.without_result(cpu_s),
        "error": {"traceback": "", **error},
    }
    run_log.write_json(folder / run_log.RESULT, result)
    return result
