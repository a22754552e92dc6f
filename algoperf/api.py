"""What a script or a notebook calls: the commands' work, with keyword arguments and results.

    import algoperf

    runs = algoperf.run("digits", "nadamw", studies=2)
    runs.frame()
    algoperf.score("runs").frame()

Nothing is printed unless `show=True`. A user's mistake raises `algoperf.UserError`. A trial that is
stopped (Ctrl-C, or a notebook's stop button) is saved; the same call goes on with it.

pandas is imported inside the methods that return frames.
"""

import contextlib
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algoperf.errors import UserError as UserError
from algoperf.errors import choose
from algoperf.experiments.calibrate import Calibrated, CalibrateRequest
from algoperf.experiments.calibrate import calibrate as measure
from algoperf.experiments.check.processes import WORKLOADS
from algoperf.experiments.check.processes import check as run_checks
from algoperf.experiments.check.verdicts import FAILED, Verdict
from algoperf.experiments.compare import document
from algoperf.experiments.compare import plots as compare_plots
from algoperf.experiments.compare import request as compare_request
from algoperf.machine.supervision import InterruptedRunError
from algoperf.run_folder import run_log, writing
from algoperf.study import outcome, run_plan
from algoperf.study.executors import local
from algoperf.study.progress import Progress, printer
from algoperf.study.request import RunRequest, combine
from algoperf.submission.written import Given, path_of
from algoperf.trial.own_loop import LoadedWorkload as LoadedWorkload
from algoperf.trial.own_loop import load as load_own_loop
from algoperf.trial.plan import TrialPlan
from scoring.analysis.analysis import Summary
from scoring.output import export
from scoring.reading.trials import Finding
from scoring.report import Options, Scored, write
from scoring.report import score as score_folders

if TYPE_CHECKING:
    import pandas as pd

Event = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """What came of one trial.

    Attributes:
        folder: Its run folder.
        details: The whole of its `result.json`.
    """

    workload: str
    framework: str
    submission: str
    study: int
    trial: int
    status: str
    steps: int
    time_to_target_s: float | None
    steps_to_target: int | None
    folder: Path
    details: Mapping[str, Any]

    @property
    def has_failed(self) -> bool:
        """Whether the submission, or an outside cause, ended it with an error."""
        return self.status == "failed"

    def evaluations(self) -> "pd.DataFrame":
        """Return one row an evaluation: the columns of `eval_measurements.csv`.

        Among them `accumulated_submission_time` (seconds), `global_step`, and a column a metric and
        split, such as `validation/accuracy`.
        """
        import pandas as pd

        frame = pd.DataFrame(run_log.evaluations(self.folder))
        whole = frame.columns.intersection(["global_step", "preemption_count"])
        return frame.astype(dict.fromkeys(whole, int))


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What came of the trials of one `run`.

    Attributes:
        trials: The trials in the order of their studies and numbers.
        folder: The folder that `score` takes.
    """

    trials: tuple[TrialResult, ...]
    folder: Path

    def __iter__(self) -> Iterator[TrialResult]:
        return iter(self.trials)

    def frame(self) -> "pd.DataFrame":
        """Return one row a trial: what tells it apart, status, times and steps to the target."""
        import pandas as pd

        fields = [field.name for field in dataclasses.fields(TrialResult)]
        columns = [name for name in fields if name != "details"]
        rows = [{name: getattr(trial, name) for name in columns} for trial in self.trials]
        return pd.DataFrame(rows, columns=columns)

    def curves(self) -> "pd.DataFrame":
        """Return one row an evaluation of any trial; see `TrialResult.evaluations`."""
        import pandas as pd

        parts = []
        for trial in self.trials:
            names = ("workload", "framework", "submission", "study", "trial")
            parts.append(
                trial.evaluations().assign(**{name: getattr(trial, name) for name in names})
            )
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """The verdicts on a submission, in the order in which they were made."""

    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not any(verdict.status == FAILED for verdict in self.verdicts)

    def frame(self) -> "pd.DataFrame":
        """Return one row a check: framework, workload, check, status, reason."""
        import pandas as pd

        return pd.DataFrame([dataclasses.asdict(verdict) for verdict in self.verdicts])


@dataclasses.dataclass(frozen=True)
class CompareResult:
    """What has ended of a comparison.

    Attributes:
        comparison: Its rows, with their trials.
        notes: What the reader of the numbers should know, a line each.
        failed: How many runs failed in this call.
    """

    comparison: document.Comparison
    notes: tuple[str, ...]
    failed: int

    def frame(self) -> "pd.DataFrame":
        """Return one row an arm, with each measure's median and range, as `compare.csv` has them:
        NaN is unknown, infinite a target that was missed.
        """
        import pandas as pd

        columns, rows = document.cells(self.comparison)
        return pd.DataFrame(rows, columns=columns)

    def plot(self, folder: str | Path) -> list[Path]:
        """Write the plots of `algoperf compare` into a folder and return their files."""
        folder = Path(folder)
        writing.make_folder("folder", folder)
        with writing.asked("folder", folder):
            return compare_plots.write(self.comparison, folder)


@dataclasses.dataclass(frozen=True)
class CalibrateResult:
    """The hardware class of this machine.

    Attributes:
        name: The class's name.
        id: Its id, by which runs are pooled.
        path: Its file, for `run(..., hardware_class=path)`.
        joins: Whether it is the class that this machine was measured against.
    """

    name: str
    id: str
    path: Path
    joins: bool
    _calibrated: Calibrated

    def frame(self) -> "pd.DataFrame":
        """Return one row a workload and framework that was measured.

        `step_s` and `evaluation_s` are medians in seconds, with the lowest and highest run beside
        them; `step_ratio` is over the other class (NaN without one); `factor` and `budget_s` are
        the budget's.
        """
        import pandas as pd

        known = self._calibrated.hardware_class
        ratios = {(one.key, one.framework): one.step for one in self._calibrated.ratios}
        rows = []
        for each in self._calibrated.measurements:
            budget = known.budget(each.key)
            assert budget is not None, each.key
            row: dict[str, Any] = {**each.key._asdict(), "framework": each.framework}
            for name, spread in (("step", each.step), ("evaluation", each.evaluation)):
                row[f"{name}_s"] = spread.median_s
                row |= {f"{name}_low_s": spread.low_s, f"{name}_high_s": spread.high_s}
            row |= {"runs": each.runs, "contended": each.contended}
            row["step_ratio"] = ratios.get((each.key, each.framework), math.nan)
            rows.append(row | {"factor": budget.factor, "budget_s": budget.budget_s})
        return pd.DataFrame(rows)


@dataclasses.dataclass(frozen=True)
class ScoreResult:
    """Leaderboards, one for each pool of runs that may be compared.

    Attributes:
        findings: What was odd, missing or damaged in the run folders.
    """

    findings: tuple[Finding, ...]
    _scored: Scored
    _options: Options

    def frame(self) -> "pd.DataFrame":
        """Return one row a pool and submission, best first, with the columns of `scores.csv`
        (docs/scoring.md): score, rank, their 95 % intervals, speed-up.
        """
        import pandas as pd

        rows = [
            export.score_values(summary, index)
            for summary in self._summaries()
            for index in range(len(summary.board.rows))
        ]
        return pd.DataFrame(rows)

    def times(self) -> "pd.DataFrame":
        """Return one row a submission, workload and study: `time_to_target.csv`'s columns."""
        import pandas as pd

        columns = export.TIMES.split()
        rows = [row for each in self._summaries() for row in export.time_rows(each.board)]
        return pd.DataFrame(rows, columns=columns)

    def restated(self) -> "pd.DataFrame":
        """Return estimates of the times in another hardware class, as `restate` asks for them.

        One row a submission and workload, with the columns of `restated.csv` (docs/scoring.md).
        """
        import pandas as pd

        rows = [
            row
            for each in self._summaries()
            if each.restated is not None
            for row in export.restated_rows(each.restated, each.board.pool.name)
        ]
        return pd.DataFrame(rows, columns=export.RESTATED.split())

    def write(self, folder: str | Path) -> list[Path]:
        """Write the CSV files, plots and the page of `algoperf score --out`; return the files."""
        return write(self._scored, dataclasses.replace(self._options, out=Path(folder)))

    def _summaries(self) -> list[Summary]:
        return [each for each in self._scored.summaries if each.board.targets]


def run(
    workload: str | Path | Sequence[str | Path],
    submission: Given | list[str | Path],
    *,
    name: str | None = None,
    show: bool = False,
    observe: Callable[[TrialPlan, dict[str, Any]], None] | None = None,
    **options: Any,
) -> RunResult:
    """Train a workload with a submission and measure its time to target, as `algoperf run` does.

    Args:
        workload: A name from `algoperf workloads`, or the folder of one; or several.
        submission: A Python file, a folder, a reference algorithm's name, a module, or functions:
            `(jax_optimizer, torch_optimizer)`, or a mapping from the contract's names such as
            `{"torch_optimizer": function, "DEFAULTS": {"learning_rate": 1e-3}}`; or a list of
            files and names.
        name: The submission's name in run folders and tables; None for its file's, or 'notebook'
            where functions are given.
        show: Whether notes, progress and what came of each trial go to standard error.
        observe: Called with the plan of a trial and an event: a dict whose "event" is skip, note,
            start, progress, evaluation or result, of a member of a population also paused.
        **options: The other fields of `RunRequest`, which are the options of the command; of
            `framework` there may be several.

    Returns:
        The trials, those that had ended before as well.

    Raises:
        UserError: It cannot be run.
        KeyboardInterrupt: The run was stopped; its trial is saved, and the same call goes on.
    """
    from rich.console import Console

    options = _paths(options)
    out = options.get("out", RunRequest.out)
    console = Console(stderr=True)
    say = printer(console)
    requests = _requests(workload, submission, out, name, options)
    plans = run_plan.make_all(requests, show_progress=show and console.is_terminal)
    total = sum(plan.chosen.count for plan in plans)

    def ended(result: dict[str, Any], skipped: bool) -> None:
        if not skipped:
            say(outcome.of_trial(result, brief=total > 1))

    several = len({plan.outline.path for plan in plans}) > 1
    progress = Progress(console, total, ended, names_submissions=several)

    def tell(trial: TrialPlan, event: dict[str, Any]) -> None:
        if show:
            progress(trial, event)
        if observe is not None:
            observe(trial, event)

    if show:
        for text in dict.fromkeys(text for plan in plans for text in plan.notes):
            say(text)
    trials: list[TrialResult] = []
    for plan in plans:
        try:
            with _interruptible(plan.request):
                results = plan.carry_out(tell)
        finally:
            progress.close()
        trials += [_trial_result(plan.trial, each) for each in results]
        saved = plan.save_best(results)
        if saved and show:
            say(saved)
    return RunResult(tuple(trials), requests[0].out)


def _requests(
    workload: str | Path | Sequence[str | Path],
    submission: Given | list[str | Path],
    out: Path,
    name: str | None,
    options: Mapping[str, Any],
) -> list[RunRequest]:
    """What `run` is asked, for each submission, workload and framework."""
    shared = dict(options)
    frameworks = shared.pop("framework", None)
    workloads = [workload] if isinstance(workload, str | Path) else workload
    is_list = isinstance(submission, list) and all(isinstance(s, str | Path) for s in submission)
    submissions: Any = submission if is_list else [submission]
    paths = [path_of(each, out / "submissions", name or "notebook") for each in submissions]
    is_written = not isinstance(submissions[0], str | Path) and not is_list
    for option in shared:
        choose("option", option, [field.name for field in dataclasses.fields(RunRequest)])
    return combine(
        [str(each) for each in workloads],
        paths,
        [frameworks] if frameworks is None or isinstance(frameworks, str) else frameworks,
        name=None if is_written else name,
        **shared,
    )


def _trial_result(plan: TrialPlan, result: Mapping[str, Any]) -> TrialResult:
    folder = run_log.trial_folder(
        *(plan.out_folder, plan.experiment, result["submission"], result["study"]),
        *(result["workload"], result["framework"], result["trial"]),
    )
    names = [field.name for field in dataclasses.fields(TrialResult)]
    kept = {name: result[name] for name in names if name not in ("folder", "details")}
    return TrialResult(**kept, folder=folder, details=result)


def check(
    submission: Given,
    *,
    framework: str | None = None,
    workloads: Sequence[str] = WORKLOADS,
    seed: int = 0,
    name: str = "notebook",
    out: str | Path = RunRequest.out,
) -> CheckResult:
    """Check in a few steps that a submission honours the contract, as `algoperf check` does.

    Args:
        submission: As of `run`.
        framework: 'jax' or 'pytorch'; None for each that the submission serves.
        workloads: Names from `algoperf workloads`.
        seed: The seed of all runs.
        name: The submission's name where functions are given.
        out: The folder below which their file is written.

    Raises:
        UserError: There is no such submission, framework or workload.
    """
    path = path_of(submission, Path(out) / "submissions", name)
    return CheckResult(tuple(run_checks(path, framework, workloads, seed)))


def compare(
    workload: str,
    submission: Given = "nadamw",
    *,
    submissions: Sequence[Given] | Mapping[str, Given] | None = None,
    may_run: bool = True,
    show: bool = False,
    name: str = "notebook",
    **options: Any,
) -> CompareResult:
    """Run what is missing of a comparison and return what has ended, as `algoperf compare` does.

    Args:
        workload: A name from `algoperf workloads`.
        submission: As of `run`.
        submissions: Several in place of it, each as of `run`; of a mapping the keys name those
            that are given as functions.
        may_run: Whether runs are started; without, what has ended is read.
        show: Whether each run that ends is told on standard error.
        name: The submission's name where functions are given.
        **options: The fields of `compare_request.CompareRequest` (techniques, frameworks,
            batch_sizes, shards, learning_rates, trials, max_steps, eval_every_steps, target,
            workers, threads, out), and those of `RunRequest` that all runs share.

    Raises:
        UserError: It cannot be compared.
        KeyboardInterrupt: It was stopped; its runs are saved, and the same call goes on.
    """
    options = _paths(options)
    own = {field.name for field in dataclasses.fields(compare_request.CompareRequest)}
    out = options.get("out") or Path("compare") / Path(workload).name
    folder = out / "submissions"
    paths = None if submissions is None else _named_paths(submissions, folder, name)
    path = path_of(submission, folder, name) if not paths else paths[0]
    shared = {key: value for key, value in options.items() if key not in own}
    request = compare_request.CompareRequest(
        run=_request(RunRequest, workload=workload, submission=path, **shared),
        submissions=paths,
        may_run=may_run,
        **{key: value for key, value in options.items() if key in own},
    )
    plan = compare_request.make(request)
    failed = 0
    note = functools.partial(_print, show)
    if may_run:
        writing.make_folder("out", plan.out)
        with _interruptible():
            failed = local.run(
                *(plan.runs, plan.out, request.workers, note, plan.threads, plan.standard_input)
            )
    comparison = document.make(plan)
    return CompareResult(comparison, tuple(comparison.notes), failed)


def _named_paths(
    submissions: Sequence[Given] | Mapping[str, Given], folder: Path, name: str
) -> list[str]:
    """Return the paths or names of several submissions."""
    if isinstance(submissions, Mapping):
        return [path_of(given, folder, key) for key, given in submissions.items()]
    if isinstance(submissions, str) or not isinstance(submissions, Sequence):
        raise UserError(f"submissions is {submissions!r}, expected a list or a mapping")
    return [path_of(given, folder, name) for given in submissions]


def score(*paths: str | Path, **options: Any) -> ScoreResult:
    """Score the runs below some folders, as `algoperf score` does.

    Args:
        *paths: Folders that hold runs, at any depth, or files of `algoperf pack`.
        **options: The fields of `scoring.report.Options`, which are the options of the command:
            rules, targets, tuning_ruleset, suite, held_out, exclude, framework, restate, reference,
            interval, resamples, count_unfinished.

    Raises:
        UserError: A path holds no runs, or an option names nothing.
    """
    chosen = _request(Options, **options)
    scored = score_folders(paths, chosen)
    return ScoreResult(tuple(scored.findings), scored, chosen)


def calibrate(
    workloads: str | Sequence[str], *, show: bool = False, **options: Any
) -> CalibrateResult:
    """Measure this machine and write its hardware class, as `algoperf calibrate` does.

    Args:
        workloads: The workloads to measure.
        show: Whether a line is printed for each run.
        **options: The other fields of `algoperf.experiments.calibrate.CalibrateRequest`, which are
            the options of the command: frameworks, scale, data, steps, repeats, threads, against,
            name, out.

    Raises:
        UserError: A workload is not found, or the class to compare with cannot be.
        KeyboardInterrupt: It was stopped; the same call goes on after the runs that have ended.
    """
    named = [workloads] if isinstance(workloads, str) else list(workloads)
    request = _request(CalibrateRequest, workloads=named, **_paths(options))
    with _interruptible():
        done = measure(request, functools.partial(_print, show))
    known = done.hardware_class
    return CalibrateResult(known.name, known.id, done.path, done.joins, done)


def load_workload(
    name: str | Path,
    framework: str,
    *,
    scale: str = "mini",
    data: str | Path | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    study: int = 0,
    trial: int = 1,
) -> LoadedWorkload:
    """Load a workload for a training loop of one's own, with the batches of a benchmark's trial.

    Args:
        name: A name from `algoperf workloads`, or the folder of one.
        framework: 'jax' or 'pytorch'.
        scale: The size of model and data, a name among the workload's scales.
        data: 'builtin', 'hub' or a folder; None for the scale's own source.
        batch_size: Rows of a training batch; None for the workload's own.
        seed: The seed of the run whose trial this is to be like.
        study: The trial's study, from 0.
        trial: Its number in the study, from 1.

    Returns:
        The workload of the contract, its training batches, and `evaluate(split, params)`.

    Raises:
        UserError: There is no such workload, framework, scale or data.
    """
    return load_own_loop(
        str(name),
        framework,
        scale=scale,
        data=None if data is None else str(data),
        batch_size=batch_size,
        seed=seed,
        study=study,
        trial=trial,
    )


@contextlib.contextmanager
def _interruptible(request: RunRequest | None = None) -> Iterator[None]:
    """Turn an interruption into Python's own, which says what is saved."""
    try:
        yield
    except InterruptedRunError as interrupted:
        text = f"{interrupted} is saved, and the same call goes on with it"
        if request is not None and not request.checkpoints:
            text = f"{interrupted} is not saved (checkpoints=False); the same call starts it over"
        if request is not None and request.overwrite:
            text += " (without overwrite)"
        raise KeyboardInterrupt(text) from interrupted


def _print(show: bool, text: str) -> None:
    from rich.console import Console

    if show:
        Console(stderr=True).print(text, highlight=False, soft_wrap=True, markup=False)


def _paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with paths for texts where a path is expected."""
    names = ("out", "save_model", "save_best")
    texts = {key: Path(options[key]) for key in names if isinstance(options.get(key), str)}
    also = ("search_space", "suite", "data", "pretrained", "hardware_class", "against")
    paths = {key: str(options[key]) for key in also if isinstance(options.get(key), Path)}
    return {**options, **texts, **paths}


def _request(kind: Callable[..., Any], **options: Any) -> Any:
    allowed = list(inspect.signature(kind).parameters)
    for option in options:
        choose("option", option, allowed)
    return kind(**options)
