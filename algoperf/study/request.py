"""What a run is asked to be, before anything is looked up or loaded."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf.backends.computation import PRECISIONS
from algoperf.backends.ranks import SHARDS
from algoperf.data import validation_seed
from algoperf.data.validation_seed import ValidationSeed
from algoperf.errors import UserError, choose
from algoperf.trial.plan import REFEREES

RULESETS = ("external", "self", "population")
UNTIL = ("validation", "test", "end")
ROUGE_TOKENIZERS = ("unicode",)  # beside rouge-score's own, which is the default
SCALE = "mini"  # where none is given
DEFAULT_OUT = Path("runs")


@dataclasses.dataclass(frozen=True)
class RunRequest:
    """What `algoperf run` and `algoperf.run` are asked; each field is an option of the command.

    The option of a field is its name with dashes: `max_steps` is `--max-steps`. Two differ:
    `checkpoints=False` is `--no-checkpoint`, and `out` is a path.

    Attributes:
        workload: A name from `algoperf workloads`, a variant's, or the path of a workload's folder.
        submission: A Python file, a folder with a `submission.py`, or a reference algorithm's name.
        framework: 'jax' or 'pytorch'; None for the one that the submission serves, jax if both.
        scale: The size of model and data, a name among the workload's scales.
        data: 'builtin', 'hub' or a folder; None for the scale's own source.
        skip_bad_rows: Count rows that cannot be read, and go on.
        rouge_tokenizer: 'unicode' to count words of any script; None for rouge-score's.
        drop_duplicates: Leave out training rows that repeat, or that another split has too.
        balance: Leave out training rows until every class has as many.
        validation_seed: An organiser's secret that draws other validation and test rows: a file's
            path, '-' for standard input, 'env:NAME' or 'text:SECRET'.
        pretrained: A folder of saved weights, or a name on the hub, to start from.
        save_model: A folder for the trained model; of one trial.
        tuning_ruleset: 'external' (points are drawn, 5 trials a study), 'population' (5 members,
            which copy each other), 'self' (no point, budget x 1.5), or None: one trial at the
            submission's DEFAULTS.
        search_space: A file in AlgoPerf's JSON form, in place of the submission's own space.
        trials: Trials a study; None for 1, or under the external and the population ruleset 5.
        exchange_every_steps: How many steps the members of a population train between exchanges;
            None for a tenth of the workload's step hint.
        exchange_share: Which share of the members copies others at each exchange, from 0 to 0.5;
            None for 0.25.
        studies: Studies, each with points and seeds of its own.
        trial_range: 'FIRST:LAST', counted from 1: run only these trials of each study.
        study_range: 'FIRST:LAST', counted from 0: run only these studies.
        seed: The seed of everything; every trial derives its own.
        batch_size: Rows a step; None for the submission's, else the workload's.
        compile: Compile the PyTorch model (JAX always compiles).
        precision: Of the forward and backward pass, one of `computation.PRECISIONS`; None for the
            workload's.
        accumulate: In how many parts each batch is computed.
        checkpoint_activations: Recompute each block in the backward pass.
        offload: Keep the optimizer's state in the host's memory between steps.
        max_steps: End after so many steps, whatever the time; such a run is not scoreable.
        eval_every_steps: Evaluate by steps instead of by seconds of submission time.
        checkpoint_every_s: Save the trial whenever so many seconds of wall time have passed.
        checkpoints: Whether trials are saved at all.
        keep_going: Go on where a loss or a parameter is not finite.
        retry_failed: Run trials again that failed.
        until: Stop at the 'validation' target, the 'test' target too, or at the 'end'.
        experiment: The folder of the runs below `out`; None for SCALE-DATA[-PRECISION].
        out: Where run folders go.
        carbon: Add the energy and CO2 that codecarbon measures or estimates.
        carbon_country: Whose electricity the CO2 is of, three letters.
        wandb: Log each trial to Weights & Biases too.
        suite: A file that has held-out variants, where the workload is one of them.
        threads: How many cores each trial may use, and threads the numeric libraries; None for all
            that the process may use.
        devices: How many devices train a trial together, each on its share of every batch; None for
            one of PyTorch's, or all of JAX's. Without an accelerator a device is a process
            (PyTorch) or a thread (JAX) of the processor.
        processes: How many processes have JAX's devices, each an equal share; None for one. In
            PyTorch each device has a process of its own.
        shard: What the devices divide among them: 'none', 'optimizer' (its state) or 'parameters'
            (with their gradients and state).
        change_devices: Let an interrupted trial that was begun on another number of devices go on
            with `devices`; it is recorded, and never pooled with trials of one number.
        hardware_class: The file of `algoperf calibrate` whose budgets hold; this machine must be of
            that class, and runs of one class are pooled.
        referee: 'process' to judge each trial in another process than the submission's, or 'inline'
            in the same one, which an accelerator's memory may need; None for 'process', or for what
            the run folder has that goes on.
        overwrite: Run anew what has been run; what was measured is kept, in `replaced_<n>` inside
            the trial's folder.
        stop_outrun: End a trial that misses the target after the best time of its study's other
            trials; the study's score is the same.
        stop_late: End a trial that misses the target in four times what another submission of the
            experiment took in each of the `studies`; the scores of both are the same.
        rerun_contended: Run anew, as `overwrite` does, the trials whose clock counted others' work.
        name: The submission's name in run folders and tables; None for its file's.
        save_best: A new Python file: a copy of the submission with the best trial's point as its
            DEFAULTS.

    Raises:
        UserError: A value can be no value of its field. What a field names (a workload, a file) is
            looked up later, by `run_plan.make`.
    """

    workload: str
    submission: str
    framework: str | None = None
    scale: str = SCALE
    data: str | None = None
    skip_bad_rows: bool = False
    rouge_tokenizer: str | None = None
    drop_duplicates: bool = False
    balance: bool = False
    validation_seed: ValidationSeed | None = None
    pretrained: str | None = None
    save_model: Path | None = None
    tuning_ruleset: str | None = None
    search_space: str | None = None
    trials: int | None = None
    exchange_every_steps: int | None = None
    exchange_share: float | None = None
    studies: int = 1
    trial_range: str | None = None
    study_range: str | None = None
    seed: int = 0
    batch_size: int | None = None
    compile: bool = False
    precision: str | None = None
    accumulate: int = 1
    checkpoint_activations: bool = False
    offload: bool = False
    max_steps: int | None = None
    eval_every_steps: int | None = None
    checkpoint_every_s: float = 300.0
    checkpoints: bool = True
    keep_going: bool = False
    retry_failed: bool = False
    until: str = "validation"
    experiment: str | None = None
    out: Path = DEFAULT_OUT
    carbon: bool = False
    carbon_country: str | None = None
    wandb: bool = False
    suite: str | None = None
    threads: int | None = None
    devices: int | None = None
    processes: int | None = None
    shard: str = "none"
    change_devices: bool = False
    hardware_class: str | None = None
    referee: str | None = None
    overwrite: bool = False
    stop_outrun: bool = False
    stop_late: bool = False
    rerun_contended: bool = False
    name: str | None = None
    save_best: Path | None = None

    def __post_init__(self) -> None:
        secret = validation_seed.resolve(self.validation_seed)
        object.__setattr__(self, "validation_seed", secret)  # the instance is frozen
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not None or name in _NEEDED:
                check(name, value)

    def words(self) -> list[str]:
        """Return the arguments of `algoperf run` that ask for the same, without the word `run`.

        Flags come first, then workload, submission and seed, and every other option whose value is
        not the default. A secret is no word: it is to be given to standard input.
        """
        flags: list[str] = []
        options: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            option = f"--{field.name.replace('_', '-')}"
            if field.name == "checkpoints":
                flags += [] if value else ["--no-checkpoint"]
            elif isinstance(field.default, bool):
                flags += [option] if value else []
            elif isinstance(value, ValidationSeed):
                options += [option, validation_seed.STANDARD_INPUT]
            elif value != field.default or field.name in _ALWAYS_TOLD:
                options += [option, f"{value:g}" if isinstance(value, float) else str(value)]
        return flags + options


def combine(
    workloads: Sequence[str],
    submissions: Sequence[str],
    frameworks: Sequence[str | None] = (None,),
    **shared: Any,
) -> list[RunRequest]:
    """Return a request for each submission, workload and framework, in this order.

    Args:
        workloads: The workloads.
        submissions: The submissions.
        frameworks: 'jax' or 'pytorch'; None for the one that the submission serves.
        shared: The other fields of `RunRequest`, which all of them share.

    Raises:
        UserError: A list is empty, or a value can be no value of its field.
    """
    lists = {"workload": workloads, "submission": submissions, "framework": frameworks}
    for name, values in lists.items():
        if not values:
            raise UserError(f"{name} names nothing; give at least one")
    if "validation_seed" in shared:  # It may be readable only once.
        shared["validation_seed"] = validation_seed.resolve(shared["validation_seed"])
    combinations = itertools.product(*(dict.fromkeys(each) for each in (submissions, workloads)))
    return [
        RunRequest(workload=workload, submission=submission, framework=framework, **shared)
        for submission, workload in combinations
        for framework in dict.fromkeys(frameworks)
    ]


_NEEDED = frozenset({"workload", "submission", "studies", "seed", "accumulate", "out"})
_ALWAYS_TOLD = frozenset({"workload", "submission", "seed"})


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise UserError(f"{name} is {value!r}, expected a text")


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Raise UserError unless a value is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name} is {value!r}, expected a whole number of at least {least}")


def _whole(least: int) -> Callable[[str, Any], None]:
    return lambda name, value: check_whole(name, value, least)


def _seconds(name: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:
        raise UserError(f"{name} is {value!r}, expected a number of seconds above 0")


def _share(name: str, value: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 0.5:
        raise UserError(f"{name} is {value!r}, expected a number from 0 to 0.5")


def _one_of(*allowed: str) -> Callable[[str, Any], None]:
    return lambda name, value: (choose(name, value, allowed), None)[1]


def _path(name: str, value: Any) -> None:
    if not isinstance(value, Path):
        raise UserError(f"{name} is {value!r}, expected a path")


_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(("workload", "submission", "framework", "scale", "data", "name"), _text),
    "hardware_class": _text,
    **dict.fromkeys(("trials", "studies", "batch_size", "accumulate"), _whole(1)),
    **dict.fromkeys(("max_steps", "eval_every_steps", "threads"), _whole(1)),
    **dict.fromkeys(("devices", "processes"), _whole(1)),
    "exchange_every_steps": _whole(1),
    "exchange_share": _share,
    "seed": _whole(0),
    "checkpoint_every_s": _seconds,
    "tuning_ruleset": _one_of(*RULESETS),
    "precision": _one_of(*PRECISIONS),
    "until": _one_of(*UNTIL),
    "shard": _one_of(*SHARDS),
    "rouge_tokenizer": _one_of(*ROUGE_TOKENIZERS),
    "referee": _one_of(*REFEREES),
    **dict.fromkeys(("out", "save_model", "save_best"), _path),
}
