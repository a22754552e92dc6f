"""The command `algoperf`: one function a subcommand. Nothing else reads argv or prints.

What a subcommand needs is imported inside it, so that `--help` loads neither a framework nor NumPy.
"""

import argparse
import json
import math
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from algoperf import __version__

if TYPE_CHECKING:
    from algoperf.trial_plan import TrialPlan

DONE, TRIAL_FAILED, USER_MISTAKE = 0, 1, 2
EPILOG = """exit codes: 0 done (target reached or not), 1 a trial failed, 2 a mistake in what was asked"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit code."""
    arguments = _parser().parse_args(argv)
    from algoperf.spec import UserError

    try:
        code: int = arguments.command(arguments)
    except UserError as error:
        if arguments.debug:
            traceback.print_exc()
        print(f"algoperf: {error}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        print("algoperf: interrupted; what was measured is in the run folder", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return DONE
    return code


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in the arguments in one line, as every other mistake."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_MISTAKE, f"algoperf: {message}; see: {self.prog} --help\n")


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def _seed(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="algoperf",
        description="Measure how fast training algorithms train neural networks, in JAX and in PyTorch.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"algoperf {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    score = _add(
        commands, "score", score_command, "time to target, performance profile and score of runs"
    )
    score.add_argument(
        "paths", nargs="+", metavar="PATH", help="folders that hold runs, at any depth"
    )
    score.add_argument("--out", type=Path, metavar="DIR", help="write CSV files and plots there")
    score.add_argument("--json", action="store_true", help="print JSON instead of tables")
    listing = _add(commands, "workloads", workloads_command, "list the workloads, or show one")
    listing.add_argument(
        "name", nargs="?", help="show this workload's scales, targets and baselines"
    )
    listing.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _add_campaign(commands)
    algorithms = _add(commands, "submissions", submissions_command, "list the reference algorithms")
    algorithms.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _add(commands: Any, name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text[0].upper() + help_text[1:] + ".", epilog=EPILOG
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of a mistake")
    parser.set_defaults(command=function)
    return parser


def _add_run(commands: Any) -> None:
    run = _add(
        commands,
        "run",
        run_command,
        "train a workload with a submission and measure its time to target",
    )
    add = run.add_argument
    add("--workload", required=True, help="a name from `algoperf workloads`")
    add("--submission", required=True, help="a Python file, or a name from `algoperf submissions`")
    add(
        "--framework",
        help="jax or pytorch (default: the one that the submission serves; jax if both)",
    )
    add("--scale", default="mini", help="size of model and data (default: %(default)s)")
    add(
        "--data",
        metavar="builtin|hub|FOLDER",
        help="where the rows come from (default: the scale's own)",
    )
    add(
        "--tuning-ruleset",
        choices=("external", "self"),
        help="external: 5 trials a study, each at a point drawn from the search space; self: no point, budget x 1.5 "
        "(default: one trial at the submission's DEFAULTS)",
    )
    add(
        "--search-space",
        metavar="FILE",
        help="AlgoPerf's JSON: ranges, feasible points, or a list of points",
    )
    add(
        "--trials",
        type=_positive,
        help="trials a study (default: 1; with --tuning-ruleset external 5)",
    )
    add(
        "--studies",
        type=_positive,
        default=1,
        help="studies, each with points and seeds of its own (default: 1)",
    )
    add(
        "--trial-range",
        metavar="FIRST:LAST",
        help="run only these trials of each study, counted from 1",
    )
    add(
        "--seed",
        type=_seed,
        default=0,
        help="seed of everything; every trial derives its own (default: 0)",
    )
    add(
        "--batch-size",
        type=_positive,
        help="rows a step (default: the submission's, else the workload's)",
    )
    add("--compile", action="store_true", help="torch.compile the model (JAX always compiles)")
    add(
        "--max-steps",
        type=_positive,
        help="end after so many steps; such a run is marked not scoreable",
    )
    add(
        "--eval-every-steps",
        type=_positive,
        help="evaluate by steps, not by time: reproducible bit for bit",
    )
    add(
        "--until",
        choices=("validation", "test", "end"),
        default="validation",
        help="stop at the validation target, or (AlgoPerf's older rule) when the test target is met too, or go on "
        "past the target to the end of the budget",
    )
    add("--experiment", metavar="NAME", help="folder of the runs below --out (default: SCALE-DATA)")
    add(
        "--out",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where run folders go (default: runs)",
    )
    add("--json", action="store_true", help="print the results as JSON")


def _add_campaign(commands: Any) -> None:
    campaign = _add(
        commands,
        "campaign",
        campaign_command,
        "many runs of one workload, counted in steps, to set or check its target",
    )
    add = campaign.add_argument
    add("--workload", required=True, help="a name from `algoperf workloads`")
    add(
        "--submissions",
        type=_words,
        default=[],
        help="reference algorithms, with commas (default: all)",
    )
    add("--frameworks", type=_words, default=["jax", "pytorch"], help="default: jax,pytorch")
    add("--seeds", type=_positive, default=3, help="runs of each, seeds from 0 (default: 3)")
    add(
        "--learning-rate-factors",
        type=_numbers,
        default=[1.0],
        help="multiples of the default rate (default: 1)",
    )
    add("--steps", type=_positive, help="length of each run (default: the workload's step hint)")
    add("--eval-every-steps", type=_positive, default=20, help="default: 20")
    add(
        "--targets",
        type=_numbers,
        default=[],
        help="values to count reached runs for (default: the workload's)",
    )
    add("--workers", type=_positive, default=2, help="one-thread processes at a time (default: 2)")
    add(
        "--out",
        type=Path,
        default=Path("campaign"),
        metavar="DIR",
        help="run folders and curves.csv (default: campaign)",
    )


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[float]:
    return [float(word) for word in _words(text)]


def campaign_command(arguments: argparse.Namespace) -> int:
    """Run what is missing of a campaign, and print how many runs reached each target."""
    import reference_algorithms
    from algoperf import campaign, workload

    definition = workload.find(arguments.workload)
    scale = definition.scales["mini"]
    todo = campaign.jobs(
        definition.name,
        arguments.submissions or reference_algorithms.names(),
        arguments.frameworks,
        arguments.seeds,
        arguments.learning_rate_factors,
        arguments.steps or scale.step_hint,
        arguments.eval_every_steps,
    )
    failed = campaign.run(
        todo, arguments.out, arguments.workers, lambda text: print(text, flush=True)
    )
    rows = campaign.curves(todo, arguments.out)
    campaign.write_curves(rows, arguments.out / "curves.csv")
    targets = arguments.targets or [target.validation for target in scale.targets.values()]
    print("\n".join(campaign.table(rows, targets, definition.higher_is_better)))
    return TRIAL_FAILED if failed else DONE


def run_command(arguments: argparse.Namespace) -> int:
    """Run trials and print what came of each."""
    from rich.console import Console

    from algoperf import study
    from algoperf.progress import Progress

    console = Console(stderr=True)
    plan, outline, chosen = _plan(arguments, console)
    progress = Progress(console)
    try:
        results = study.run(plan, outline, chosen, progress)
    finally:
        progress.close()
    if arguments.json:
        print(json.dumps(_finite(results), indent=2))
    else:
        _print_results(results, arguments.out / plan.experiment)
    return TRIAL_FAILED if any(result["status"] == "failed" for result in results) else DONE


def _plan(arguments: argparse.Namespace, console: Any) -> "tuple[TrialPlan, Any, Any]":
    """Check what was asked, before any framework is loaded."""
    from algoperf import backends, study, submission, workload
    from algoperf.data import sources
    from algoperf.trial_plan import TrialPlan

    definition = workload.find(arguments.workload)
    scale_name = workload.choose(
        f"scale of {definition.name}", arguments.scale, list(definition.scales)
    )
    kind, source = sources.resolve(definition, definition.scales[scale_name], arguments.data)
    path, found = submission.locate(arguments.submission)
    outline = submission.inspect(path)
    framework = submission.choose_framework(outline, arguments.framework)
    backends.check_installed(framework)
    ruleset = arguments.tuning_ruleset or "none"
    size = study.check_search_space(outline, ruleset, arguments.search_space)
    chosen = study.choose_slice(
        ruleset, arguments.trials, arguments.studies, arguments.trial_range, size
    )
    chosen_by = (
        ""
        if arguments.framework
        else f" ({'the one that it serves' if len(outline.frameworks) == 1 else 'default'})"
    )
    console.print(
        f"submission: {found} ({path}), framework: {framework}{chosen_by}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    plan = TrialPlan(
        workload=definition.name,
        scale=scale_name,
        data=source,
        source_kind=kind,
        framework=framework,
        submission=str(path),
        out=str(arguments.out.resolve()),
        experiment=study.check_name(arguments.experiment or f"{scale_name}-{kind}"),
        study=0,
        trial=1,
        seed=arguments.seed,
        tuning_ruleset=ruleset,
        search_space=None
        if arguments.search_space is None
        else str(Path(arguments.search_space).resolve()),
        batch_size=arguments.batch_size,
        compile=arguments.compile and framework == "pytorch",
        max_steps=arguments.max_steps,
        eval_every_steps=arguments.eval_every_steps,
        until=arguments.until,
        show_progress=console.is_terminal,
        command="algoperf " + shlex.join(sys.argv[1:]),
    )
    return plan, outline, chosen


def _finite(value: Any) -> Any:
    """The value with None for NaN and the infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_results(results: list[dict[str, Any]], folder: Path) -> None:
    from algoperf import summary

    for result in results:
        print(summary.of_trial(result))
    print(f"runs are in {folder}; score them with: algoperf score {folder.parent}")


def score_command(arguments: argparse.Namespace) -> int:
    """Score the runs below the given folders."""
    from rich.console import Console

    import scoring

    return scoring.score_command(arguments.paths, arguments.out, arguments.json, Console())


def workloads_command(arguments: argparse.Namespace) -> int:
    """List the workloads, or show one."""
    from algoperf import summary, workload

    chosen = workload.names() if arguments.name is None else [arguments.name]
    described = [summary.of_workload(workload.find(name)) for name in chosen]
    if arguments.json:
        print(json.dumps(described, indent=2))
    else:
        print("\n".join(summary.workload_lines(described, details=arguments.name is not None)))
    return DONE


def submissions_command(arguments: argparse.Namespace) -> int:
    """List the reference algorithms."""
    import reference_algorithms
    from algoperf import submission

    described = [
        {
            "name": name,
            "frameworks": list(submission.inspect(reference_algorithms.path(name)).frameworks),
            "summary": reference_algorithms.summary(name),
            "path": str(reference_algorithms.path(name)),
        }
        for name in reference_algorithms.names()
    ]
    if arguments.json:
        print(json.dumps(described, indent=2))
        return DONE
    for row in described:
        print(f"{row['name']:12} {', '.join(row['frameworks']):14} {row['summary']}")
    return DONE
