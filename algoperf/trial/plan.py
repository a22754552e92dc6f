"""What one trial is asked to do: plain values that travel to its process as JSON, and
nothing else.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf import backends
from algoperf.backends.computation import Computation
from algoperf.run_folder import run_log

PROCESS, INLINE = "process", "inline"  # where a trial's referee is
REFEREES = (PROCESS, INLINE)
# The status of what the result would be of a trial that is left for a later process; of one that
# has ended because another member of its population has reached the target; and of those that have
# missed it by when another trial of the study, or far later than another submission, has met it.
PAUSED, STOPPED, OUTRUN, LATE = "paused", "stopped", "outrun", "late"
ANSWERED = frozenset({"start", "evaluation"})  # where a followed trial waits, off the clock


@dataclasses.dataclass(frozen=True)
class TrialPlan:
    """One trial of one study. `study` counts from 0, `trial` from 1, as in the run folder."""

    workload: str
    scale: str
    data: str  # 'builtin', 'hub' or a folder's path
    source_kind: str  # 'builtin', 'hub' or 'folder'
    framework: str
    submission: str  # the file's path
    out: str
    experiment: str
    study: int
    trial: int
    seed: int
    tuning_ruleset: str = "none"
    search_space: str | None = None
    batch_size: int | None = None
    compile: bool = False
    precision: str = "float32"
    accumulate: int = 1
    checkpoint_activations: bool = False
    offload: bool = False
    pretrained: str | None = None
    save_model: str | None = None  # the folder that the trained model goes into
    suite: str | None = None  # the file that has the workload, where that is a drawn variant
    base_workload: str | None = None  # what the workload is a variant of,
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # and in what it differs
    skip_bad_rows: bool = False
    rouge_tokenizer: str | None = None  # 'unicode', else that of rouge-score
    drop_duplicates: bool = False
    balance: bool = False
    # What validation and test rows are drawn by; only what loads these needs it. And what everybody
    # may know of it.
    validation_seed: int | None = dataclasses.field(default=None, repr=False)
    validation_commitment: str | None = None
    keep_going: bool = False
    checkpoints: bool = True
    checkpoint_every_s: float = 300.0
    max_steps: int | None = None
    eval_every_steps: int | None = None
    until: str = "validation"
    show_progress: bool = False
    workload_folder: str | None = (
        None  # what finds a workload outside the tree, instead of its name
    )
    workload_hash: str | None = None  # of its source
    followed: bool = False  # the starter answers what it was told; the trial waits for that
    referee: str = INLINE  # or PROCESS, where another process judges than the submission's
    command: str = ""
    name: str | None = None  # the submission's in the run folder; None for its file's
    threads: int | None = None  # how many cores the trial may use; None for all
    devices: int | None = None  # how many train it; None for one of PyTorch's, or all of JAX's
    shard: str | None = None  # what they divide among them (`backends.ranks`); None for nothing
    processes: int | None = None  # how many have JAX's devices, a share each; None for one
    change_devices: bool = False  # whether a trial may go on that was begun on another number
    # The hardware class whose budgets hold, by 'name' and 'id', and of this workload what it has:
    # 'budget_factor' and the times of the reference algorithm (`HardwareClass.recorded`).
    hardware_class: Mapping[str, str] | None = None
    class_times: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # The variables that move the clock, where they are set (`algoperf.machine.environment`).
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # Of a member of a population: the 'members', and after how many steps ('every_steps') which
    # share of them ('share') copies others. Its point where it has another than the drawn one, and
    # the step after which it makes room for the next.
    population: Mapping[str, Any] | None = None
    point: Mapping[str, Any] | None = None
    pause_at_step: int | None = None
    # The best time to target of its study's other trials in seconds, where that ends this one.
    outrun_s: float | None = None
    # The other submission beside which this trial is late 'after_s' (`study.outrun`): its name, how
    # many studies it has, and 'slowest_s', the time to target of the slowest; in seconds.
    late: Mapping[str, Any] | None = None
    planned: Sequence[Mapping[str, Any]] = ()  # what the same command runs, for `algoperf status`

    @property
    def out_folder(self) -> Path:
        """The folder that holds the experiments."""
        return Path(self.out)

    @property
    def budget_factor(self) -> float:
        """What the workload's own budget is multiplied by."""
        return float(self.class_times.get("budget_factor", 1.0))

    @property
    def late_s(self) -> float | None:
        """The submission time in seconds after which the trial is late; None if it never is."""
        return None if self.late is None else float(self.late["after_s"])

    @property
    def world_size(self) -> int:
        """How many processes train the trial together."""
        if self.devices is None:
            return 1
        return backends.world_size(self.framework, self.devices, self.processes)

    @property
    def evaluators(self) -> int:
        """How many devices evaluate beside the referee's first, as far as the plan says it."""
        return 0 if self.devices is None else self.devices - 1

    @property
    def workload_reference(self) -> str:
        """What `catalogue.find` finds the workload by."""
        return self.workload_folder or self.workload

    @property
    def has_referee(self) -> bool:
        """Whether the submission runs in another process than what judges it."""
        return self.referee == PROCESS

    @property
    def computation(self) -> Computation:
        """How the trial computes."""
        return Computation(
            self.precision, self.accumulate, self.checkpoint_activations, self.offload
        )

    def settings(self) -> dict[str, Any]:
        """What all trials of one folder must share, as far as the plan says it; part of the run's
        flags.
        """
        return {
            "workload": self.workload,
            "scale": self.scale,
            "data": self.source_kind,
            "data_source": self.data,
            "framework": self.framework,
            "seed": self.seed,
            "tuning_ruleset": self.tuning_ruleset,
            "batch_size_given": self.batch_size,
            "compile": self.compile,
            "max_steps": self.max_steps,
            "eval_every_steps": self.eval_every_steps,
            "until": self.until,
            "precision": self.precision,
            **self._choices(),
        }

    def _choices(self) -> dict[str, Any]:
        """What sets a run apart from the usual one, where it was asked for."""
        chosen = {name: getattr(self, name) for name in sorted(run_log.WHERE_CHOSEN)}
        # A trial of one process records nothing, as those of versions that knew no other.
        chosen["referee"] = self.referee if self.has_referee else None
        chosen["accumulate"] = self.accumulate if self.accumulate > 1 else None
        return {name: value for name, value in chosen.items() if value}

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "TrialPlan":
        """The inverse of `to_json`."""
        return cls(**json.loads(text))
