"""The arguments of `algoperf run`."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from algoperf.backends.computation import PRECISIONS
from algoperf.backends.ranks import SHARDS
from algoperf.cli import executor_arguments
from algoperf.cli.argument_types import (
    add_rows,
    positive,
    seconds,
    seed,
    words,
    words_or_path,
)
from algoperf.errors import UserError
from algoperf.study.request import (
    DEFAULT_OUT,
    ROUGE_TOKENIZERS,
    RULESETS,
    UNTIL,
    RunRequest,
    combine,
)
from algoperf.trial.plan import REFEREES


def declare(run: argparse.ArgumentParser) -> None:
    """Add the arguments to the subcommand's parser."""
    add = run.add_argument
    add(
        "--workload",
        required=True,
        type=words_or_path,
        metavar="NAME|FOLDER",
        help="a name from `algoperf workloads`, or the folder of a workload "
        "(docs/own_workload.md); several with commas",
    )
    add(
        "--suite",
        metavar="FILE",
        help="the file of `algoperf variants sample` that has the workload, a held-out variant",
    )
    add(
        "--submission",
        required=True,
        type=words_or_path,
        metavar="FILE|NAME",
        help="a Python file, or a name from `algoperf submissions`; several with commas",
    )
    add(
        "--name",
        help="the submission's name in run folders and tables, so that two variants of one file "
        "stand side by side (default: the file's)",
    )
    add(
        "--framework",
        type=words,
        metavar="jax|pytorch",
        help="or both, with a comma (default: the one that the submission serves; jax if both)",
    )
    add_rows(run)
    add(
        "--rouge-tokenizer",
        choices=ROUGE_TOKENIZERS,
        help="what words ROUGE counts: unicode those of any script, as rouge1_unicode and so on, "
        "without a target (default: rouge-score's, of a-z and 0-9 alone; docs/targets.md)",
    )
    add(
        "--drop-duplicates",
        action="store_true",
        help="leave training rows out that repeat, or that another split has as well",
    )
    add(
        "--balance",
        action="store_true",
        help="leave training rows out until every class has as many",
    )
    add(
        "--pretrained",
        metavar="FOLDER|NAME",
        help="start from saved weights: a folder of --save-model or of transformers, or a name on "
        "the hub (docs/pretraining.md)",
    )
    add(
        "--save-model",
        type=Path,
        metavar="DIR",
        help="at the end, write the evaluated parameters as transformers does, for --pretrained or "
        "its from_pretrained; of one trial",
    )
    add(
        "--tuning-ruleset",
        choices=RULESETS,
        help="external: 5 trials a study, each at a point drawn from the search space; "
        "population: 5 such trials, of which the worst copy the best at intervals "
        "(docs/population.md); "
        "self: no point, budget x 1.5 "
        "(default: one trial at the submission's DEFAULTS)",
    )
    add(
        "--search-space",
        metavar="FILE",
        help="AlgoPerf's JSON: ranges, feasible points, or a list of points, in place of the "
        "submission's own; without --tuning-ruleset too, each trial takes a point of it, not the "
        "DEFAULTS",
    )
    add(
        "--trials",
        type=positive,
        help="trials a study (default: 1; with --tuning-ruleset external or population 5)",
    )
    add(
        "--exchange-every-steps",
        type=positive,
        metavar="N",
        help="of a population: the steps from one exchange to the next (default: a tenth of the "
        "workload's step hint)",
    )
    add(
        "--exchange-share",
        type=float,
        metavar="SHARE",
        help="of a population: the share of its members that copies others at each exchange, from "
        "0 to 0.5 (default: 0.25)",
    )
    add(
        "--studies",
        type=positive,
        default=1,
        help="studies, each with points and seeds of its own (default: 1)",
    )
    add(
        "--trial-range",
        metavar="FIRST:LAST",
        help="run only these trials of each study, counted from 1",
    )
    add(
        "--study-range",
        metavar="FIRST:LAST",
        help="run only these of the studies, counted from 0",
    )
    add(
        "--seed",
        type=seed,
        default=0,
        help="seed of everything; every trial derives its own (default: 0)",
    )
    add(
        "--batch-size",
        type=positive,
        help="rows a step (default: the submission's, else the workload's)",
    )
    add("--compile", action="store_true", help="torch.compile the model (JAX always compiles)")
    _declare_computation(add)
    add(
        "--max-steps",
        type=positive,
        help="end after so many steps, whatever the time; such a run is marked not scoreable "
        "(default: none, and the step hint where there is no target)",
    )
    add(
        "--eval-every-steps",
        type=positive,
        help="evaluate by steps, not by time: reproducible bit for bit",
    )
    add(
        "--checkpoint-every-s",
        type=seconds,
        default=300.0,
        metavar="S",
        help="save the trial after each evaluation, and whenever so many seconds of wall time have "
        "passed; off the clock (default: 300)",
    )
    add(
        "--no-checkpoint",
        dest="checkpoints",
        action="store_false",
        help="save nothing, and go on from nothing",
    )
    add(
        "--keep-going",
        action="store_true",
        help="go on where a loss or a parameter is not finite, for submissions that recover "
        "(default: the trial ends as diverged)",
    )
    add(
        "--retry-failed",
        action="store_true",
        help="run trials that failed again, whatever the cause (those that a signal from outside "
        "ended are anyhow)",
    )
    add(
        "--overwrite",
        action="store_true",
        help="run anew what has been run; what was measured is kept, in replaced_0, replaced_1, "
        "... inside the trial's folder",
    )
    add(
        "--stop-outrun",
        action="store_true",
        help="of a study's trials, end each that has not reached the target by the best time to "
        "target of the others; its score is the same, at a part of the cost",
    )
    add(
        "--stop-late",
        action="store_true",
        help="end each trial that has not reached the target in four times what another submission "
        "of the same experiment took in each of the studies: the workload gives it no credit",
    )
    add(
        "--rerun-contended",
        action="store_true",
        help="run anew the trials that lost over 5 %% of their clock to other processes or to a "
        "stop; what was measured is kept as by --overwrite",
    )
    add(
        "--save-best",
        type=Path,
        metavar="FILE",
        help="at the end, write a copy of the submission with the best trial's point as its "
        "DEFAULTS: the fastest to the target, else the best on the validation split",
    )
    add(
        "--threads",
        type=positive,
        metavar="N",
        help="cores, and threads of the numeric libraries, of each trial (default: all); recorded "
        "as the hardware's, and runs of different N are not scored together",
    )
    add(
        "--devices",
        type=positive,
        metavar="N",
        help="train each trial on N devices, each on its share of every batch, and evaluate it on "
        "them, with the metrics of one (default: one of PyTorch's, or all of JAX's); without an "
        "accelerator a device is a process of the processor, in JAX some of its threads; recorded, "
        "and runs of different N are not scored together",
    )
    add(
        "--processes",
        type=positive,
        metavar="P",
        help="divide JAX's devices among P processes, which train by jax.distributed, N/P each "
        "(default: one process has all; PyTorch has one for each device); recorded, and runs of "
        "different P are not scored together",
    )
    add(
        "--shard",
        choices=SHARDS,
        default="none",
        help="what the devices divide among them, so that each holds a part: nothing, the "
        "optimizer's state, or parameters, gradients and state (default: %(default)s); recorded, "
        "and never scored together with another (docs/devices.md)",
    )
    add(
        "--change-devices",
        action="store_true",
        help="let an interrupted trial that was begun on another number of devices go on with "
        "--devices N, from its last checkpoint; recorded with the step, and never scored together "
        "with trials of one number or of other steps (docs/devices.md)",
    )
    add(
        "--hardware-class",
        metavar="FILE",
        help="take the budgets of a hardware class, a file of `algoperf calibrate`, of which this "
        "machine must be; recorded, and runs of different classes are never scored together "
        "(docs/hardware_class.md)",
    )
    add(
        "--referee",
        choices=REFEREES,
        help="judge each trial in a process of its own, which never runs the submission (the "
        "default), or inline in the submission's, where a second model does not fit on the "
        "accelerator; recorded, and the two are not scored together",
    )
    add(
        "--until",
        choices=UNTIL,
        default="validation",
        help="stop at the validation target, or (AlgoPerf's older rule) when the test "
        "target is met too, or go on "
        "past the target to --max-steps",
    )
    add(
        "--experiment",
        metavar="NAME",
        help="folder of the runs below --out (default: SCALE-DATA, "
        "and the precision where it is not the workload's)",
    )
    add(
        "--out",
        type=Path,
        default=DEFAULT_OUT,
        metavar="DIR",
        help="where run folders go (default: runs)",
    )
    add(
        "--carbon",
        action="store_true",
        help="add the energy and the CO2 equivalent that codecarbon measures or estimates, offline "
        "(extra carbon; docs/resources.md)",
    )
    add(
        "--carbon-country",
        metavar="CODE",
        help="whose electricity the CO2 is of, as USA, DEU or IND (default: the world average)",
    )
    add(
        "--wandb",
        action="store_true",
        help="log each trial to Weights & Biases too (extra wandb); WANDB_MODE=offline needs no "
        "account (docs/resources.md)",
    )
    executor_arguments.declare(run)
    add(
        "--workers",
        type=positive,
        metavar="N",
        help="jobs at a time, with --executor slurm (default: as many as it lets)",
    )
    add("--json", action="store_true", help="print the results as JSON")


def requests(parsed: argparse.Namespace) -> list[RunRequest]:
    """Return the requests that the parsed arguments of `algoperf run` describe.

    Each argument has the name of the field of `RunRequest` that it fills; of workloads, submissions
    and frameworks there may be several.
    """
    names = [field.name for field in dataclasses.fields(RunRequest)]
    shared = {name: getattr(parsed, name) for name in names}
    workloads, submissions = shared.pop("workload"), shared.pop("submission")
    frameworks = shared.pop("framework")
    return combine(workloads, submissions, [None] if frameworks is None else frameworks, **shared)


def request(parsed: argparse.Namespace) -> RunRequest:
    """Return the only request that the parsed arguments of `algoperf run` describe.

    Raises:
        UserError: They describe several.
    """
    several = requests(parsed)
    if len(several) > 1:
        raise UserError("one workload, submission and framework, not several")
    return several[0]


def _declare_computation(add: Callable[..., Any]) -> None:
    """Add the arguments for how gradients are computed (`algoperf.backends.computation`)."""
    add(
        "--precision",
        choices=PRECISIONS,
        help="of the forward and backward pass; parameters and optimizer stay float32; fp16 scales "
        "the loss (default: the workload's, float32 but for finewebedu_lm at full scale; "
        "docs/techniques.md)",
    )
    add(
        "--accumulate",
        type=positive,
        default=1,
        metavar="N",
        help="compute each batch in N parts and add up their gradients: the same update with less "
        "memory (default: 1)",
    )
    add(
        "--checkpoint-activations",
        action="store_true",
        help="compute each block anew in the backward pass instead of keeping what is inside: the "
        "same update with less memory",
    )
    add(
        "--offload",
        action="store_true",
        help="keep the optimizer's state in the host's memory between steps, and on the device "
        "within them; optimizer form, in PyTorch with an accelerator; recorded, and never scored "
        "together with runs without it (docs/devices.md)",
    )
