"""The process that checks submissions in one framework, which alone it may load.

It reads a request (JSON) from a file and appends verdicts to another, one JSON line each, so that
whatever a submission prints, and however it ends the process, the verdicts stand.
"""

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algoperf import backends, errors, workload
from algoperf.experiments.check import agreement, conformance, verdicts
from algoperf.experiments.check.case import Case
from algoperf.experiments.check.verdicts import Report, Verdict
from algoperf.machine import supervision
from algoperf.submission import loading, search_space
from algoperf.submission.blame import cause_of
from algoperf.trial import choices
from algoperf.trial.plan import TrialPlan
from algoperf.workload import catalogue

Emit = Callable[[Verdict], None]


def main(*files: str) -> None:
    """Check what each request's file says, `files` being pairs of request and verdicts."""
    answer(files, check_framework)
    sys.stdout.flush()
    os._exit(0)  # A submission's threads, and what it registered for the exit, may never end.


def answer(files: Sequence[str], check: Callable[[Mapping[str, Any], Emit], None]) -> None:
    """Make the check of each request, its verdicts appended to a file as they are given.

    Args:
        files: Pairs of a request's file (JSON) and the file of its verdicts.
        check: Called with a request and with what takes a verdict.
    """
    supervision.die_with_starter()
    for request, lines in zip(files[::2], files[1::2], strict=True):
        asked = json.loads(Path(request).read_text("utf-8"))
        check(asked, functools.partial(append, Path(lines)))


def append(lines: Path, verdict: Verdict) -> None:
    """Append a verdict to a file."""
    with lines.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(verdict)) + "\n")


def check_framework(asked: Mapping[str, Any], emit: Emit) -> None:
    """Make the checks of one framework; `asked` is one of `processes.request`'s."""
    framework = asked["framework"]
    report = Report(framework, "", verdicts.OF_A_FRAMEWORK, emit)
    reports = [
        Report(framework, each["name"], verdicts.OF_A_WORKLOAD, emit) for each in asked["workloads"]
    ]
    process_id = os.getpid()
    try:
        _examine(asked, report, reports)
    except BaseException as error:  # What a submission raises to leave, or breaks for all of us.
        if os.getpid() != process_id:
            raise  # A process that it forked leaves as it wants to.
        is_loaded = verdicts.LOADS not in report.waiting
        in_order = [*reports, report] if is_loaded else [report, *reports]
        first, *others = [each for each in in_order if each.waiting]
        first.fail_next(cause_of(error))
        for each in others:
            each.skip_rest(cause_of(error))


def _examine(asked: Mapping[str, Any], report: Report, reports: Sequence[Report]) -> None:
    """Make the checks of one framework, of which `report` is, and of its workloads."""
    framework = asked["framework"]
    backend = backends.load(framework)
    others = set(_foreign_modules(framework))
    loaded = _load(Path(asked["submission"]), framework, report)
    foreign = sorted(set(_foreign_modules(framework)) - others)
    if foreign:
        report.failed(verdicts.IMPORTS, f"loading it for {framework} imports {', '.join(foreign)}")
    undecided = loaded is not None and loaded.outline.is_full_form and foreign
    for each, workload_report in zip(asked["workloads"], reports, strict=True):
        if loaded is None or undecided:
            workload_report.skip_rest(f"needs {verdicts.IMPORTS if undecided else verdicts.LOADS}")
        else:
            _check_workload(asked, each, loaded, backend, workload_report)
    if loaded is not None and not foreign:
        late = sorted(set(_foreign_modules(framework)) - others)
        problem = f"training in {framework} imports {', '.join(late)}"
        report.judge(verdicts.IMPORTS, problem if late else None)
    report.skip_rest(f"needs {verdicts.LOADS}")


def _foreign_modules(framework: str) -> list[str]:
    """The packages of other frameworks that are loaded."""
    return [
        package
        for other, packages in backends.FRAMEWORKS.items()
        for package in packages
        if other != framework and package in sys.modules
    ]


def _load(path: Path, framework: str, report: Report) -> loading.Submission | None:
    try:
        loaded = loading.load(loading.inspect(path), framework)
    except errors.UserError as error:
        if error.__cause__ is not None:  # what running the file raised
            report.failed(verdicts.LOADS, str(error))
        else:
            report.ok(verdicts.LOADS)
            report.failed(verdicts.FUNCTIONS, str(error))
        return None
    report.ok(verdicts.LOADS)
    report.ok(verdicts.FUNCTIONS, ", ".join(sorted(loaded.functions)))
    return loaded


def _check_workload(
    asked: Mapping[str, Any],
    each: Mapping[str, Any],
    loaded: loading.Submission,
    backend: backends.Backend,
    report: Report,
) -> None:
    definition = catalogue.find(each["reference"])
    scale = definition.scales[each["scale"]].on(each["source_kind"])
    plan = TrialPlan(
        workload=each["name"],
        scale=each["scale"],
        data=each["source"],
        source_kind=each["source_kind"],
        framework=backend.name,
        submission=asked["submission"],
        out="",
        experiment="",
        study=0,
        trial=1,
        seed=asked["seed"],
    )
    try:
        points = _points(plan, loaded)
    except errors.UserError as error:
        report.failed(verdicts.SEARCH_SPACE, str(error))
        report.skip_rest(f"needs {verdicts.SEARCH_SPACE}")
        return
    with np.load(each["rows"]) as rows:
        train = dict(rows)
    case = Case(
        backend=backend,
        outline=loaded.outline,
        definition=definition,
        scale=scale,
        source_kind=each["source_kind"],
        data=workload.Data({"train": train}, model=each["model"]),
        num_train_examples=each["num_train_examples"],
        point=points.usual,
        seed=asked["seed"],
        files=frozenset(loaded.source_files.values()),
    )
    folder = asked.get("updates")
    updates = agreement.file(Path(folder), backend.name, each["name"]) if folder else None
    conformance.examine(case, points, _batch_size_note(each["name"], loaded), report, updates)


def _points(plan: TrialPlan, loaded: loading.Submission) -> conformance.Points:
    usual = choices.tuning_point(plan, loaded)
    literal = getattr(loaded.module, "SEARCH_SPACE", None)
    space = search_space.beside(loaded.outline.path, literal)
    drawn: Mapping[str, Any] | str
    if space is None:
        drawn = "no search space"
    elif space.size == 1:
        drawn = "the search space has one point"
    else:
        external = dataclasses.replace(plan, tuning_ruleset="external", trial=2)
        drawn = choices.tuning_point(external, loaded) or {}
    under_self_tuning = choices.tuning_point(
        dataclasses.replace(plan, tuning_ruleset="self"), loaded
    )
    same = under_self_tuning == usual
    return conformance.Points(
        usual, drawn, under_self_tuning if same else "it has a search space, for external tuning"
    )


def _batch_size_note(name: str, loaded: loading.Submission) -> str:
    """What get_batch_size says of a name that it cannot know, where that is something else."""
    own = loaded.functions.get("get_batch_size")
    if own is None:
        return ""
    sizes = []
    for asked in (name, conformance.OTHER_NAME):
        try:
            sizes.append(str(own(workload_name=asked)))
        except Exception as error:
            sizes.append(type(error).__name__)
    known, unknown = sizes
    return "" if known == unknown else f"get_batch_size: {name} {known}, another name {unknown}"
