"""From a submission to its verdicts: data made once, a process for each framework."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algoperf import backends, workload
from algoperf.data.formats import sources
from algoperf.data.loading import load_data
from algoperf.errors import UserError, choose
from algoperf.experiments.check import agreement, verdicts, workload_child
from algoperf.experiments.check.verdicts import Report, Verdict
from algoperf.machine import hardware, own_code, stopping, supervision
from algoperf.submission import loading
from algoperf.workload import catalogue, outside

WORKLOADS = ("digits", "ag_news")
ROWS = 256
CHILD = "algoperf.experiments.check.child"
WORKLOAD_CHILD = "algoperf.experiments.check.workload_child"
SCALE = "mini"
LIMIT_S = 900.0
POLL_S = 0.2
Check = tuple[str, str, str]  # framework, workload, check


def check(
    given: str,
    framework: str | None = None,
    names: Sequence[str] = WORKLOADS,
    seed: int = 0,
    emit: Callable[[Verdict], None] = lambda verdict: None,
) -> list[Verdict]:
    """Return the verdicts on a submission (a path, a folder or a name), each also given to `emit`
    when it is there. Raises UserError for a mistake in what was asked.
    """
    if not names:
        raise UserError("--workloads names no workload; give names with commas")
    path, _ = loading.locate(given)
    definitions = [catalogue.find(name) for name in names]
    if framework is not None:
        backends.check_installed(framework)
    results: list[Verdict] = []

    def keep(verdict: Verdict) -> None:
        results.append(verdict)
        emit(verdict)

    try:
        outline = loading.inspect(path)
    except UserError as error:
        report = Report(framework or "", "", (verdicts.LOADS,), keep)
        report.failed(verdicts.LOADS, str(error))
        return results
    served = outline.frameworks
    if framework is not None:
        served = (loading.choose_framework(outline, framework),)
    for definition in definitions:
        for each in served:
            outside.check_model(definition, each)
    with tempfile.TemporaryDirectory() as scratch:
        prepared = [prepare(definition, Path(scratch)) for definition in definitions]
        compared = Path(scratch) if len(served) > 1 else None
        for each in served:
            run([request(path, each, prepared, seed, compared)], Path(scratch), keep)
        if compared is not None:
            for definition in definitions:
                keep(agreement.verdict(compared, definition.name, served))
    return results


def check_workload(
    given: str,
    scale_name: str = SCALE,
    framework: str | None = None,
    emit: Callable[[Verdict], None] = lambda verdict: None,
) -> list[Verdict]:
    """Return the verdicts of the conformance and parity gates on a workload, each also given to
    `emit` when it is there.

    Args:
        given: A workload's name, or the path of its folder.
        scale_name: One of its scales, whose own source of data is taken.
        framework: The only one to ask; None for each that the workload has a model in.
        emit: Called with each verdict.

    Raises:
        UserError: A mistake in what was asked.
    """
    definition = catalogue.find(given, check_metrics=False)  # a gate asks it
    choose(f"scale of {definition.name}", scale_name, list(definition.scales))
    kind, source = sources.resolve(definition, definition.scales[scale_name], None)
    skipped = _skipped(definition, framework)
    asked = {
        "framework": framework or "both",
        "name": definition.name,
        "reference": definition.reference,
        "scale": scale_name,
        "source": source,
        "source_kind": kind,
        "skipped": skipped,
    }
    results: list[Verdict] = []

    def keep(verdict: Verdict) -> None:
        results.append(verdict)
        emit(verdict)

    with tempfile.TemporaryDirectory() as scratch:
        run([asked], Path(scratch), keep, WORKLOAD_CHILD, _gates)
    return results


def _skipped(definition: workload.WorkloadDefinition, framework: str | None) -> dict[str, str]:
    """The frameworks that are not asked, and why; UserError where none is left."""
    skipped = {}
    if framework is not None:
        backends.check_installed(framework)
        outside.check_model(definition, framework)
        others = [name for name in backends.FRAMEWORKS if name != framework]
        return dict.fromkeys(others, f"only {framework} was asked for")
    for name in backends.FRAMEWORKS:
        if not outside.has_model(definition, name):
            skipped[name] = f"no {outside.MODELS[name]} in the folder"
            continue
        try:
            backends.check_installed(name)
        except UserError as error:
            skipped[name] = str(error)
    if len(skipped) == len(backends.FRAMEWORKS):
        raise UserError(f"workload {definition.name}: {'; '.join(skipped.values())}")
    return skipped


def request(
    path: Path,
    framework: str,
    prepared: Sequence[Mapping[str, Any]],
    seed: int = 0,
    updates: Path | None = None,
) -> dict[str, Any]:
    """What a process is asked: a file, a framework, and workloads as `prepare` has them.

    Args:
        path: The submission's file.
        framework: The framework.
        prepared: The workloads.
        seed: The seed of the trials.
        updates: A folder for the first updates, to be compared with the other framework's.
    """
    return {
        "updates": None if updates is None else str(updates),
        "submission": str(path),
        "framework": framework,
        "workloads": list(prepared),
        "seed": seed,
    }


def prepare(definition: workload.WorkloadDefinition, folder: Path) -> dict[str, Any]:
    """The first training rows of a workload in a file, for the processes of both frameworks."""
    scale_name = "mini" if "mini" in definition.scales else next(iter(definition.scales))
    scale = definition.scales[scale_name]
    kind, source = sources.resolve(definition, scale, None)
    with outside.blaming(definition):
        data = load_data(definition, scale.on(kind), source)
    train = data.splits["train"]
    rows = folder / f"{definition.name}.npz"
    first: dict[str, Any] = train.take(np.arange(min(ROWS, len(train))))
    np.savez(rows, **first)
    return {
        "name": definition.name,
        "reference": definition.reference,
        "scale": scale_name,
        "source": source,
        "source_kind": kind,
        "rows": str(rows),
        "model": dict(data.model),
        "num_train_examples": len(train),
    }


def run(
    requests: Sequence[Mapping[str, Any]],
    folder: Path,
    keep: Callable[[Verdict], None],
    program: str = CHILD,
    expected: Callable[[Mapping[str, Any]], list[Check]] = lambda asked: _checks(asked),
) -> None:
    """Have one process answer requests of one framework, one after the other, in a folder that
    holds their files; hand on the verdicts. A check in which the process ends fails, what comes
    after it is skipped: `expected` says which checks a request asks for, in their order.
    """
    files = []
    for asked in requests:
        stem = f"{len(list(folder.glob('*.jsonl')))}-{asked['framework']}"
        files += [folder / f"{stem}.json", folder / f"{stem}.jsonl"]
        files[-2].write_text(json.dumps(asked), "utf-8")
        files[-1].touch()
    complete_verdicts: list[list[Verdict]] = [[] for _ in requests]
    ended = ""
    with contextlib.closing(_run_child(files, folder, program)) as states:
        for state in states:
            ended = state  # at last, how it ended
            for verdicts_said, lines in zip(complete_verdicts, files[1::2], strict=True):
                complete = lines.read_text("utf-8").rpartition("\n")[0].splitlines()
                for line in complete[len(verdicts_said) :]:
                    verdicts_said.append(Verdict(**json.loads(line)))
                    keep(verdicts_said[-1])
    for asked, verdicts_said in zip(requests, complete_verdicts, strict=True):
        for verdict in _unsaid(expected(asked), verdicts_said, ended):
            keep(verdict)


def _checks(asked: Mapping[str, Any]) -> list[Check]:
    """The checks of a submission in a framework."""
    framework = asked["framework"]
    # `imports` is judged last, so it is not what the process was at when it ended.
    first = [check for check in verdicts.OF_A_FRAMEWORK if check != verdicts.IMPORTS]
    checks = [(framework, "", check) for check in first]
    for each in asked["workloads"]:
        checks += [(framework, each["name"], check) for check in verdicts.OF_A_WORKLOAD]
    return [*checks, (framework, "", verdicts.IMPORTS)]


def _gates(asked: Mapping[str, Any]) -> list[Check]:
    """The checks of a workload."""
    return [
        (framework, asked["name"], check)
        for framework, checks in workload_child.CHECKS.items()
        for check in checks
    ]


def _unsaid(checks: Sequence[Check], reported: Sequence[Verdict], ended: str) -> Iterator[Verdict]:
    """Verdicts in place of those that a process did not come to."""
    done = {(verdict.framework, verdict.workload, verdict.check) for verdict in reported}
    status = verdicts.FAILED
    for check in checks:
        if check not in done:
            yield Verdict(*check, status, ended)
            status = verdicts.SKIPPED


def _run_child(files: Sequence[Path], folder: Path, program: str) -> Generator[str, None, None]:
    """Run the process; say now and then, and at last, how it is. What a submission prints goes to
    standard error.
    """
    settings = {
        # Bit for bit: accelerators have operations whose order of summation varies.
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        # Most of the time is JAX's compilation of the same update, once for each fresh copy.
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    process = subprocess.Popen(
        [*own_code.program(program, "*sys.argv[1:]"), *map(str, files)],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno() if _has_descriptor() else subprocess.DEVNULL,
        env={**hardware.thread_environment(), **os.environ, **settings},
        process_group=0,  # with what it forks; a Ctrl-C is this process's to answer
    )
    ends_at_s = time.monotonic() + LIMIT_S * len(files) / 2
    try:
        with stopping.leaving():
            while process.poll() is None and time.monotonic() < ends_at_s:
                yield "running"
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
            code = process.poll()
    finally:
        supervision.end(process)
    if code is None:
        yield f"the process was still busy after {LIMIT_S:g} s for each framework"
    elif code < 0:
        yield f"the process was ended by {signal.Signals(-code).name}"
    else:
        yield f"the process ended with exit code {code}"


def _has_descriptor() -> bool:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return sys.stderr.fileno() >= 0
    return False
