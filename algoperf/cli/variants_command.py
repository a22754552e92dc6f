"""`algoperf variants`: carry out each of its actions."""

import argparse
from collections.abc import Callable
from pathlib import Path

from algoperf.cli import executor_arguments
from algoperf.data import validation_seed
from algoperf.errors import UserError
from algoperf.experiments.held_out import sample, seal
from algoperf.run_folder import run_log, writing
from algoperf.workload import axes, catalogue, registry

Say = Callable[[str], None]
DONE, NOT_VERIFIED = 0, 1
WORKERS = 2


def run(arguments: argparse.Namespace, say: Say) -> int:
    """Carry out the action that was asked for.

    Args:
        arguments: The parsed arguments.
        say: Called with each line of output.

    Returns:
        The exit code: 1 if a suite is not the one that was committed to, else 0.

    Raises:
        UserError: The arguments or the files that they name contain a mistake.
    """
    match arguments.action:
        case "axes":
            _list_axes(say)
        case "sample":
            _sample(arguments, say)
        case "seal":
            say(seal.seal(arguments.suite, _salt(arguments)))
        case "verify":
            if not seal.verify(arguments.suite, _salt(arguments), arguments.commitment):
                say(f"{arguments.suite} is not what the commitment was made of")
                return NOT_VERIFIED
            say(f"{arguments.suite} is what the commitment was made of")
    return DONE


def _list_axes(say: Say) -> None:
    width = max(map(len, axes.AXES))
    for name, axis in axes.AXES.items():
        values = ", ".join(map(str, axis.values))
        say(f"{name:{width}}  {values}  ({axis.summary}; changes {axis.alters})")


def _sample(arguments: argparse.Namespace, say: Say) -> None:
    definitions = [catalogue.find(name) for name in arguments.workloads or registry.names()]
    names = [definition.name for definition in definitions]
    outside = [definition.name for definition in definitions if definition.outside is not None]
    if outside:
        raise UserError(
            f"--workloads: {outside[0]} is outside the tree, and a suite names workloads alone; "
            "give it named variants (docs/own_workload.md)"
        )
    variants = [name for name in names if name not in registry.names()]
    if variants:
        raise UserError(f"--workloads: {variants[0]} is a variant itself; give base workloads")
    fewest, most = arguments.axes
    secret = validation_seed.resolve(arguments.validation_seed)
    if secret is not None:
        for definition in definitions:
            validation_seed.check(definition, sample.SOURCE)
    request = sample.Request(arguments.seed, names, arguments.per_workload, fewest, most, secret)
    if arguments.dry_run:
        for line in sample.drawn(request):
            say(line)
        return
    for option, path in (("--out", arguments.out), ("--curves", arguments.curves)):
        if path is not None:
            writing.check_file(option, path)
    workers = arguments.workers
    if workers is None and arguments.executor == executor_arguments.LOCAL:
        workers = WORKERS
    chosen = executor_arguments.executor(arguments, 1, workers)
    executor_arguments.check_secret(chosen, secret)
    sampler = sample.Sampler(request, arguments.runs, chosen, say, arguments.curves)
    writing.make_folder("--runs", arguments.runs)
    document = sampler.suite()
    with writing.asked("--out", arguments.out):
        run_log.write_json(arguments.out, document)
    for line in sample.table(document):
        say(line)
    say(f"written: {arguments.out}; run it with: algoperf run --suite {arguments.out} ...")


def _salt(arguments: argparse.Namespace) -> Path:
    given: Path | None = arguments.salt
    return given or arguments.suite.with_name(f"{arguments.suite.name}.salt")
