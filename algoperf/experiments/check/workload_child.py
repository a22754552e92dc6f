"""The process that checks a workload: its rows, its model in each framework, and that they agree.

As `child`, it reads a request (JSON) from a file and appends verdicts to another.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from algoperf.data.loading import load_data
from algoperf.errors import UserError
from algoperf.experiments.check import child, gates, parity, verdicts, workload_gates
from algoperf.experiments.check.verdicts import Report
from algoperf.submission.blame import cause_of
from algoperf.workload import Data, Scale, WorkloadDefinition, catalogue, outside

ANY, BOTH = "any", "both"  # in place of a framework
MODEL_CHECKS = (verdicts.BUILDS, *workload_gates.CONFORMANCE)
CHECKS: Mapping[str, tuple[str, ...]] = {
    ANY: (verdicts.LOADS, *workload_gates.SHARED),
    "jax": MODEL_CHECKS,
    "pytorch": MODEL_CHECKS,
    BOTH: tuple(parity.PARITY),
}
# Where one of these fails, the others of the same column say nothing of their own.
NEEDED = frozenset({"data", "logits", "same parameters", "same logits"})
SECRET = 2**255 + 7  # any validation seed
T = TypeVar("T")


def main(*files: str) -> None:
    """Check what each request's file says, `files` being pairs of request and verdicts."""
    child.answer(files, check)


def check(asked: Mapping[str, Any], emit: child.Emit) -> None:
    """Ask all gates of a workload; `asked` is one of `processes.check_workload`'s requests."""
    definition = catalogue.find(asked["reference"], check_metrics=False)
    scale = definition.scales[asked["scale"]].on(asked["source_kind"])
    reports = {
        framework: Report(framework, definition.name, checks, emit)
        for framework, checks in CHECKS.items()
    }
    skipped: dict[str, str] = dict(asked["skipped"])
    without_logits: list[str] = []
    rows = _rows(definition, scale, asked["source"], reports[ANY])
    if rows is None:
        skipped = dict.fromkeys(CHECKS, "needs the workload's rows") | skipped
    for framework in ("jax", "pytorch"):
        if framework not in skipped and rows is not None:
            bind = functools.partial(
                workload_gates.bind, definition, scale, asked["source_kind"], rows, framework
            )
            unit = _judge(reports[framework], verdicts.BUILDS, definition, bind)
            if unit is None:
                skipped[framework] = f"needs {verdicts.BUILDS}"
                skipped.setdefault(BOTH, f"needs {framework} {verdicts.BUILDS}")
            elif not _ask(workload_gates.CONFORMANCE, unit, definition, reports[framework]):
                without_logits.append(framework)
        elif framework in skipped:
            skipped.setdefault(BOTH, f"compares the frameworks: {skipped[framework]}")
        reports[framework].skip_rest(skipped.get(framework, ""))
    if BOTH not in skipped and rows is not None:
        pair = parity.bind(definition, scale, asked["source_kind"], rows)
        asks = dict(parity.PARITY)
        for name in parity.OF_LOGITS if without_logits else ():
            del asks[name]
        _ask(asks, pair, definition, reports[BOTH])
    reports[BOTH].skip_rest(skipped.get(BOTH, f"needs {' and '.join(without_logits)} logits"))


def _rows(definition: WorkloadDefinition, scale: Scale, source: str, report: Report) -> Data | None:
    """The rows that the models are asked with; None where they do not pass."""

    def load() -> Data:
        return load_data(definition, scale, source)

    data = _judge(report, verdicts.LOADS, definition, load)
    if data is None:
        report.skip_rest(f"needs {verdicts.LOADS}")
        return None
    load_secret = functools.partial(load_data, definition, scale, source, SECRET)
    subject = workload_gates.Subject(definition, scale, data, load, source, load_secret)
    passes = _ask(workload_gates.SHARED, subject, definition, report)
    return gates.first_rows(data) if passes else None


def _ask(
    gates_by_name: Mapping[str, Callable[[T], None]],
    subject: T,
    definition: WorkloadDefinition,
    report: Report,
) -> bool:
    """Ask the gates in order; where one fails that the others need, skip them and return False."""
    for name, gate in gates_by_name.items():
        answer = _judge(report, name, definition, functools.partial(_passes, gate, subject))
        if answer is None and name in NEEDED:
            report.skip_rest(f"needs {name}")
            return False
    return True


def _passes(gate: Callable[[T], None], subject: T) -> bool:
    gate(subject)
    return True


def _judge(
    report: Report, name: str, definition: WorkloadDefinition, function: Callable[[], T]
) -> T | None:
    """Return what a function returns, which passes the check; None where it raises."""
    try:
        with outside.blaming(definition):
            returned = function()
    except gates.NotApplicableError as reason:
        report.skipped(name, str(reason))
    except (gates.GateError, UserError) as error:
        report.failed(name, str(error))
    except Exception as error:
        report.failed(name, cause_of(error))
    else:
        report.ok(name)
        return returned
    return None
