"""The arguments that say where runs run: on this machine, or as jobs of a cluster."""

import argparse
from typing import TYPE_CHECKING

from algoperf.cli.argument_types import gigabytes, positive, sbatch_option
from algoperf.errors import UserError

if TYPE_CHECKING:
    from algoperf.study.executors.executor import Executor

LOCAL, SLURM, RAY = "local", "slurm", "ray"
# What each executor takes, beside the number of cores.
OPTIONS = {
    LOCAL: ("workers",),
    SLURM: ("workers", "time_limit_min", "memory_gb", "gpus", "sbatch"),
    RAY: ("memory_gb", "gpus", "ray_address"),
}


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a subcommand's parser, but for --workers."""
    add = parser.add_argument
    add(
        "--executor",
        choices=tuple(OPTIONS),
        default=LOCAL,
        help="run on this machine, or as jobs of SLURM or Ray, which go on when this command ends; "
        "the same command finds them again (docs/cluster.md; default: local)",
    )
    add(
        "--time-limit-min",
        type=positive,
        metavar="MINUTES",
        help="of a job of SLURM, which is saved before and waits for its turn again (default: a "
        "day)",
    )
    add("--memory-gb", type=gigabytes, metavar="GB", help="memory of each job (default: its own)")
    add("--gpus", type=positive, metavar="N", help="GPUs of each job (default: none)")
    add(
        "--sbatch",
        type=sbatch_option,
        action="append",
        metavar="NAME=VALUE",
        help="another option of sbatch for each job, as partition=long (may be repeated)",
    )
    add(
        "--ray-address",
        metavar="ADDRESS",
        help="of Ray's cluster: auto, or HOST:PORT (default: RAY_ADDRESS, else an instance that "
        "ends with this command)",
    )


def executor(arguments: argparse.Namespace, threads: int, workers: int | None) -> "Executor":
    """Return the executor that the arguments describe.

    Args:
        arguments: The parsed arguments.
        threads: The cores of each run.
        workers: How many run at a time; None for as many as the executor lets, or one on this
            machine.

    Raises:
        UserError: An option belongs to another executor.
    """
    name = arguments.executor
    given = {
        option: getattr(arguments, option)
        for option in ("time_limit_min", "memory_gb", "gpus", "sbatch", "ray_address")
        if getattr(arguments, option) is not None
    }
    for option in given:
        if option not in OPTIONS[name]:
            takers = [other for other, options in OPTIONS.items() if option in options]
            flag = f"--{option.replace('_', '-')}"
            raise UserError(f"{flag} goes with --executor {' or '.join(takers)}, not {name}")
    if workers is not None and "workers" not in OPTIONS[name]:
        raise UserError(
            f"--workers goes with --executor local or slurm: {name} takes as many jobs as have room"
        )
    match name:
        case "slurm":
            from algoperf.study.executors.slurm import Slurm

            options = dict(given.pop("sbatch", []))
            return Slurm(threads, workers, options=options, **given)
        case "ray":
            from algoperf.study.executors.ray_cluster import RayCluster

            if "ray_address" in given:
                given["address"] = given.pop("ray_address")
            return RayCluster(threads, **given)
    from algoperf.study.executors.local import Local

    return Local(workers or 1, threads)


def check_secret(executor: "Executor", secret: object) -> None:
    """Raise UserError where runs need a secret that an executor would have to write down."""
    if secret is not None and not executor.keeps_secrets:
        raise UserError(
            "--validation-seed goes with --executor local: jobs would find the secret written down"
        )
