"""Hardware classes: what a machine is, how fast the reference algorithm trains on it, and budgets.

A budget in seconds means something on one kind of machine alone. A class is that kind, written to a
file by `algoperf calibrate`: the machine, the measured times with their spread, and by which factor
each workload's own budget is multiplied there. The factor of the first class is 1; that of a class
measured against another one is the ratio of their step times, times the other's factor.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from algoperf.errors import UserError
from algoperf.machine import environment, hardware

SAME_WITHIN = 0.05  # How far step times may be apart in one class.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Key(NamedTuple):
    """What a budget is of: a workload, its scale, its rows ('builtin', 'hub' or 'folder')."""

    workload: str
    scale: str
    data: str

    def __str__(self) -> str:
        return f"{self.workload} ({self.scale}, {self.data})"


@dataclasses.dataclass(frozen=True)
class Spread:
    """A measured number of seconds.

    Attributes:
        median_s: The median over the runs.
        low_s: The lowest of the runs.
        high_s: The highest of them.
    """

    median_s: float
    low_s: float
    high_s: float

    @property
    def share(self) -> float:
        """How far the runs lie apart, as a share of the median; 0 where that is 0."""
        return (self.high_s - self.low_s) / self.median_s if self.median_s else 0.0


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The times of the reference algorithm on one workload in one framework.

    Attributes:
        workload: The workload.
        scale: Its scale.
        data: The kind of its rows: 'builtin', 'hub' or 'folder'.
        framework: 'jax' or 'pytorch'.
        steps: The length of each run.
        batch_size: The rows of a step.
        work: A digest of all that two machines must have done alike for their times to be compared.
        runs: How many runs were measured.
        contended: How many of them lost over 5 % of their clock to other processes.
        step: Seconds a step of the submission's clock, after the first step.
        evaluation: Seconds of an evaluation, after the first one, which is compiled.
        first_step: Seconds of the first step, with what is compiled in it.
    """

    workload: str
    scale: str
    data: str
    framework: str
    steps: int
    batch_size: int
    work: str
    runs: int
    contended: int
    step: Spread
    evaluation: Spread
    first_step: Spread

    @property
    def key(self) -> Key:
        """The workload, the scale and the kind of rows."""
        return Key(self.workload, self.scale, self.data)

    def __str__(self) -> str:
        return f"{self.key} in {self.framework}"


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times the step time of one class that of another is, on one workload.

    Attributes:
        workload: The workload.
        scale: Its scale.
        data: The kind of its rows.
        framework: The framework.
        step: The ratio of the median step times.
        low: The lowest step time over the highest of the other class.
        high: The highest over the lowest.
        evaluation: The ratio of the median evaluation times; it changes no budget.
    """

    workload: str
    scale: str
    data: str
    framework: str
    step: float
    low: float
    high: float
    evaluation: float

    @property
    def key(self) -> Key:
        """The workload, the scale and the kind of rows."""
        return Key(self.workload, self.scale, self.data)


@dataclasses.dataclass(frozen=True)
class Budget:
    """A workload's budget in a class.

    Attributes:
        workload: The workload.
        scale: Its scale.
        data: The kind of its rows.
        factor: What the workload's own budget is multiplied by.
        budget_s: The product, in seconds of submission time.
    """

    workload: str
    scale: str
    data: str
    factor: float
    budget_s: float

    @property
    def key(self) -> Key:
        """The workload, the scale and the kind of rows."""
        return Key(self.workload, self.scale, self.data)


@dataclasses.dataclass(frozen=True)
class Against:
    """The class that budgets are relative to, and by how much this one is slower.

    Attributes:
        name: The other class's name.
        id: Its id.
        ratios: This class over the other.
    """

    name: str
    id: str
    ratios: tuple[Ratio, ...]


@dataclasses.dataclass(frozen=True)
class HardwareClass:
    """What the file of a hardware class holds.

    Attributes:
        name: Its name, which tables show.
        machine: What a machine of the class is: 'hardware', 'versions', 'environment' and
            'library_threads', as `describe` returns them.
        reference: The name of the algorithm whose times were measured.
        measurements: The times.
        budgets: The budgets.
        against: What the budgets are relative to; None where the class's budgets are the
            workloads' own.
        confirmations: Ratios of later measurements that turned out to be of the same class, each
            over this one. They do not enter the id.
    """

    name: str
    machine: Mapping[str, Any]
    reference: str
    measurements: tuple[Measurement, ...]
    budgets: tuple[Budget, ...]
    against: Against | None = None
    confirmations: tuple[tuple[Ratio, ...], ...] = ()

    @property
    def id(self) -> str:
        """A digest of all but the confirmations, by which results are pooled."""
        content = dataclasses.asdict(self)
        del content["confirmations"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def measurement(self, key: Key, framework: str) -> Measurement | None:
        """Return the times of a workload in a framework; None where they were not measured."""
        return next(
            (each for each in self.measurements if (each.key, each.framework) == (key, framework)),
            None,
        )

    def budget(self, key: Key) -> Budget | None:
        """Return the budget of a workload; None where it was not measured."""
        return next((each for each in self.budgets if each.key == key), None)

    def recorded(self, key: Key, framework: str) -> dict[str, Any]:
        """Return what a trial records of the class beside its name and id.

        Args:
            key: The workload, which has a budget here.
            framework: The framework of the trial; without times in it only the factor is recorded.
        """
        budget, times = self.budget(key), self.measurement(key, framework)
        assert budget is not None, key
        facts = {"budget_factor": budget.factor}
        return (
            facts
            if times is None
            else facts | {"work": times.work, "step": dataclasses.asdict(times.step)}
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"


def describe(threads: int | None = None) -> dict[str, Any]:
    """Return what decides which class this machine is of, read without loading a framework.

    Args:
        threads: How many cores a trial is given; None for all that this process may use.
    """
    machine = hardware.describe()
    return {
        "hardware": machine | {"threads": machine["threads"] if threads is None else threads},
        "versions": hardware.versions(),
        "environment": environment.of_this_process(),
        "library_threads": hardware.thread_environment(threads)["OMP_NUM_THREADS"],
    }


def usual_name(machine: Mapping[str, Any]) -> str:
    """Return a name for a class of which none is given: its accelerators', or processor and cores.

    Args:
        machine: What `describe` returned.
    """
    parts = machine["hardware"]
    devices = parts["accelerators"]
    text = (
        f"{len(devices)}x {devices[0]}" if devices else f"{parts['cpu']} {parts['threads']} cores"
    )
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "class"


def check_name(name: str) -> str:
    """Return a name that a class may have; UserError otherwise."""
    if not NAME.fullmatch(name):
        raise UserError(f"name {name!r} of a class: expected letters, digits, '.', '_' and '-'")
    return name


def differences(here: Mapping[str, Any], there: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return in which facts two machines differ, each as 'name here, there', sorted.

    Args:
        here: What `describe` returned on the one.
        there: The other's.
        prefix: What the names begin with.
    """
    texts = []
    for name in sorted({*here, *there}):
        ours, theirs = here.get(name), there.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            texts += differences(ours, theirs, f"{prefix}{name}.")
        elif ours != theirs:
            texts.append(f"{prefix}{name} {_shown(ours)}, not {_shown(theirs)}")
    return texts


def _shown(value: Any) -> str:
    return "none" if value in (None, [], "") else str(value)


def ratios(ours: Sequence[Measurement], other: HardwareClass) -> tuple[Ratio, ...]:
    """Return how many times another class's step times some measured ones are.

    Args:
        ours: The measured times.
        other: The other class.

    Raises:
        UserError: The other class lacks one of them, or measured other work there.
    """
    results = []
    for one in ours:
        theirs = other.measurement(one.key, one.framework)
        if theirs is None:
            raise UserError(f"hardware class {other} has no times of {one}; it has {known(other)}")
        if theirs.work != one.work:
            raise UserError(
                f"hardware class {other} did other work on {one} ({theirs.steps} steps of "
                f"{theirs.batch_size} rows, digest {theirs.work}) than this machine ({one.steps} "
                f"of {one.batch_size}, {one.work}): rows, model or algorithm differ; calibrate "
                "both with the same version and --steps"
            )
        results.append(
            Ratio(
                *one.key,
                one.framework,
                one.step.median_s / theirs.step.median_s,
                one.step.low_s / theirs.step.high_s,
                one.step.high_s / theirs.step.low_s,
                one.evaluation.median_s / theirs.evaluation.median_s,
            )
        )
    return tuple(results)


def known(each: HardwareClass) -> str:
    """Return what a class has times of, as text."""
    return ", ".join(map(str, each.measurements))


def is_same(machine: Mapping[str, Any], measured: Sequence[Ratio], other: HardwareClass) -> bool:
    """Return whether a machine is of a class: equal facts, and step times within `SAME_WITHIN`.

    Args:
        machine: What `describe` returned on it.
        measured: Its times over the class's.
        other: The class.
    """
    near = all(1 / (1 + SAME_WITHIN) <= each.step <= 1 + SAME_WITHIN for each in measured)
    return near and not differences(machine, other.machine)


def budgets(
    own_s: Mapping[Key, float],
    measured: Sequence[Ratio] = (),
    other: HardwareClass | None = None,
) -> tuple[Budget, ...]:
    """Return the budgets of a class.

    The factor of a workload is the geometric mean of its step ratios over the frameworks, times the
    other class's factor: a budget is one for both frameworks, which are scored together.

    Args:
        own_s: The workloads' own budgets in seconds.
        measured: The class's times over another's.
        other: That other class; None where the budgets stay what they are.
    """
    results = []
    for key, budget_s in own_s.items():
        factor = 1.0
        if other is not None:
            logs = [math.log(each.step) for each in measured if each.key == key]
            theirs = other.budget(key)
            assert logs, key
            assert theirs is not None, key
            factor = math.exp(sum(logs) / len(logs)) * theirs.factor
        results.append(Budget(*key, factor, factor * budget_s))
    return tuple(results)
