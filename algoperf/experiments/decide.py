"""Run what tells most about which of some submissions is ahead, until that is decided.

What is known is read from the run folders each time, so a decision that was stopped goes on from
there. A study that tells nothing more is stopped, saved, and left as it is. A log keeps every look
and every choice, and gives the same decisions again.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algoperf.errors import UserError
from algoperf.experiments import campaign
from algoperf.study.executors import local
from algoperf.workload import catalogue
from scoring.decisions import contest as contests
from scoring.decisions.contest import Board, Contest, Seen
from scoring.decisions.priors import Prior
from scoring.decisions.rule import Referee, Settings, Verdict, told
from scoring.reading.evaluations import TIME_COLUMN, read_evaluations
from scoring.reading.runs import read_runs
from scoring.reading.trials import TrialRun
from scoring.rules.rules import INTERPOLATED
from scoring.rules.time_to_target import crossing_of, is_readable

LOG = "decisions.jsonl"
SELF_TUNING_FACTOR = 1.5
Note = Callable[[str], None]
Place = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Question:
    """What is to be decided.

    Attributes:
        submissions: Files, folders or names of at least two submissions.
        workloads: Names of workloads.
        framework: The framework that all of them run in.
        studies: How many studies of each workload there are when all have run.
        ruleset: 'self', or None to run every submission at its defaults.
        out: The folder of the runs and of the log.
        most_s: The submission time in seconds, over all, at which to give up; None is no limit.
    """

    submissions: Sequence[str]
    workloads: Sequence[str]
    framework: str
    studies: int
    out: Path
    ruleset: str | None = None
    most_s: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a question.

    Attributes:
        contest: What was compared.
        verdicts: What was decided, by pair; pairs that are not in it are not decided.
        spent_s: The submission time in seconds of all that has run.
        lines: The verdicts in plain words.
    """

    contest: Contest
    verdicts: Mapping[tuple[int, int], Verdict]
    spent_s: float
    lines: Sequence[str]


def decide(question: Question, settings: Settings, note: Note) -> Outcome:
    """Run studies until the order of every pair is decided, or the limit is reached.

    Args:
        question: What is to be decided.
        settings: The rule.
        note: Called with a line for the user about each choice.

    Raises:
        UserError: A submission or workload is not found, or a run cannot be started.
        InterruptedRunError: A signal stopped the runs, which have saved their trials.
    """
    contest, entries = _contest(question)
    question.out.mkdir(parents=True, exist_ok=True)
    referee = Referee(contest, settings)
    processes = local.Processes()
    with (question.out / LOG).open("w", encoding="utf-8") as log, processes.stops:
        board = read_board(contest, entries, question.out)
        _write(log, {"contest": _contest_json(contest), "settings": _settings_json(settings)})
        _write(log, {"known": _board_json(board)})
        changed: int | None = None
        while True:
            referee.look(board, changed)
            action = referee.next(board)
            spent_s = _spent_s(board)
            if action is None or (question.most_s is not None and spent_s >= question.most_s):
                break
            name = contest.workloads[action.workload]
            who = " and ".join(contest.submissions[s] for s in action.runs)
            note(f"next: {name}, study {action.study}, {who}: {action.reason}")
            after, cap_s = board, math.inf
            for s, goal_s in action.runs.items():
                key = s, action.workload, action.study
                _run(processes, entries[key], question.out, min(goal_s, cap_s))
                processes.stops.check(question.out)
                after = read_board(contest, entries, question.out)
                # What came of the first may cap the second.
                cap_s = referee.cap_s(after, action.pair, action.workload, action.study)
            new = {key: seen for key, seen in after.items() if seen != board[key]}
            if not new:
                raise UserError(f"{name}: {who} got no further; algoperf status shows why")
            board, changed = after, action.workload
            chosen = {"workload": name, "study": action.study, "reason": action.reason}
            _write(log, {"chosen": chosen, "known": _board_json(new)})
        verdicts = dict(referee.verdicts)
        lines = [told(contest, pair, verdicts.get(pair), settings.small) for pair in referee.pairs]
        _write(log, {"verdicts": lines, "spent_s": spent_s})
    return Outcome(contest, verdicts, spent_s, lines)


def again(log: Path, settings: Settings | None = None) -> list[str]:
    """Return the verdicts that a log gives when its looks are repeated.

    Args:
        log: The file `decisions.jsonl` of a decision.
        settings: The rule; None is the log's own.

    Raises:
        UserError: The file is no such log.
    """
    try:
        head, *rest = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        contest = _contest_of(head["contest"])
        settings = settings or _settings_of(head["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{log} is no log of algoperf decide ({error})") from error
    referee, board = Referee(contest, settings), contests.nothing_seen(contest)
    for entry in rest:
        if "known" not in entry:
            continue
        for s, w, n, facts in entry["known"]:
            board[s, w, n] = _seen_of(facts)
        name = entry.get("chosen", {}).get("workload")
        referee.look(board, None if name is None else contest.workloads.index(name))
    return [
        told(contest, pair, referee.verdicts.get(pair), settings.small) for pair in referee.pairs
    ]


def _contest(question: Question) -> tuple[Contest, dict[Place, campaign.Entry]]:
    """Return what is compared, and the run of each study of it."""
    todo = campaign.entries(
        question.workloads,
        question.submissions,
        [question.framework],
        question.ruleset,
        1,
        question.studies,
        alone=True,
    )
    names = tuple(dict.fromkeys(entry.submission for entry in todo))
    if len(names) < 2:
        raise UserError(f"{', '.join(names)}: give at least two submissions to decide between")
    factor = SELF_TUNING_FACTOR if question.ruleset == "self" else 1.0
    budgets_s = {}
    for given in question.workloads:
        definition = catalogue.find(given)
        budgets_s[definition.name] = factor * definition.scales["mini"].budget_s
    workloads = tuple(sorted(budgets_s))
    contest = Contest(names, workloads, workloads, {}, budgets_s, question.studies)
    entries = {
        (names.index(entry.submission), workloads.index(entry.workload), entry.study): entry
        for entry in todo
    }
    return contest, entries


def read_board(contest: Contest, entries: Mapping[Place, campaign.Entry], out: Path) -> Board:
    """Return what the run folders say of a contest.

    Args:
        contest: What is compared.
        entries: The run of each study.
        out: The folder of the runs.
    """
    board = contests.nothing_seen(contest)
    experiments = sorted({entry.experiment for entry in entries.values()})
    folders = [out / name for name in experiments if (out / name).is_dir()]
    runs, _ = read_runs(*folders) if folders else ([], [])
    run_at = {run.path.resolve(): run for run in runs}
    for key, entry in entries.items():
        run = run_at.get(entry.folder(out, 1).resolve())
        if run is not None:
            board[key] = _seen(run)
    return board


def _seen(run: TrialRun) -> Seen:
    """Return what is known of the only trial of a study."""
    is_over = run.unfinished is None
    times_s = run.rows.get(TIME_COLUMN, np.empty(0))
    if not is_readable(run) or run.target is None or run.target.validation is None:
        return Seen(is_over=is_over)
    goal, higher = run.target.validation, run.target.higher_is_better
    known_s, gaps = contests.curve(
        times_s, run.rows[run.target.column], goal, higher_is_better=higher
    )
    crossing = crossing_of(run, INTERPOLATED)
    clock_s = float(times_s[-1]) if len(times_s) else 0.0
    return Seen(
        clock_s, crossing.time_s, is_over or crossing.reached, known_s.tolist(), gaps.tolist()
    )


def _run(processes: local.Processes, entry: campaign.Entry, out: Path, goal_s: float) -> None:
    """Run a study until its clock, or its end."""
    rows = entry.folder(out, 1) / "eval_measurements.csv"

    def is_enough() -> bool:
        times_s = read_evaluations(rows)[0].get(TIME_COLUMN, np.empty(0))
        return bool(len(times_s)) and bool(times_s[-1] >= goal_s)

    watch = is_enough if math.isfinite(goal_s) else None
    processes.run([*local.PROGRAM, *entry.command(out)], None, watch)


def _spent_s(board: Board) -> float:
    return sum(seen.clock_s for seen in board.values())


def _write(log: Any, value: Mapping[str, Any]) -> None:
    """Append a line to the log, with the time of day."""
    log.write(json.dumps({"at": round(time.time(), 1), **value}) + "\n")
    log.flush()


def _contest_json(contest: Contest) -> dict[str, Any]:
    return {field.name: getattr(contest, field.name) for field in dataclasses.fields(contest)}


def _contest_of(value: Mapping[str, Any]) -> Contest:
    known = {field.name: value[field.name] for field in dataclasses.fields(Contest)}
    tuples = ("submissions", "workloads", "base_workloads")
    return Contest(**known | {name: tuple(value[name]) for name in tuples})


def _settings_json(settings: Settings) -> dict[str, Any]:
    return dataclasses.asdict(settings)


def _settings_of(value: Mapping[str, Any]) -> Settings:
    values = dict(value)
    values["stops"] = tuple(values["stops"])
    return Settings(**values | {"prior": Prior(**values["prior"])})


def _board_json(board: Mapping[Place, Seen]) -> list[list[Any]]:
    """Return what is known of studies that have begun, as JSON values: inf is null."""
    return [
        [*key, [seen.clock_s, _finite(seen.hit_s), seen.is_over, *map(_list, _curve(seen))]]
        for key, seen in board.items()
        if seen != Seen()
    ]


def _curve(seen: Seen) -> tuple[Sequence[float], Sequence[float]]:
    return list(seen.times_s), list(seen.gaps)


def _list(values: Sequence[float]) -> list[float | None]:
    return [_finite(value) for value in values]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _seen_of(facts: Sequence[Any]) -> Seen:
    clock_s, hit_s, is_over, times_s, gaps = facts
    known = [math.inf if gap is None else gap for gap in gaps]
    return Seen(clock_s, math.inf if hit_s is None else hit_s, is_over, times_s, known)
