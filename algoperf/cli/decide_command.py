"""`algoperf decide`: which submissions are ahead, from as few runs as it takes."""

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from algoperf.errors import UserError, choose
from algoperf.experiments import decide
from scoring import report
from scoring.decisions import replay
from scoring.decisions.contest import Contest
from scoring.decisions.priors import NO_PRIOR, Finished, Prior, learn
from scoring.decisions.rule import STOPS, Settings, told

if TYPE_CHECKING:
    from rich.console import Console

DONE, UNDECIDED = 0, 1
SHARES = (0.1, 0.33, 1.0)
APART = 0.1


def run(arguments: argparse.Namespace, console: "Console") -> int:
    """Carry out `algoperf decide`.

    Args:
        arguments: The parsed arguments.
        console: The console of standard output.

    Returns:
        The exit code: 1 where a pair is not decided, otherwise 0.

    Raises:
        UserError: A submission, a workload or a folder is not found, or an option is not valid.
    """

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if arguments.again is not None:
        for line in decide.again(arguments.again):
            say(line)
        return DONE
    settings = _settings(arguments)
    priors = _Priors(arguments)
    if arguments.replay is not None:
        return _replay(arguments, settings, priors, say)
    if len(arguments.submissions) < 2 or not arguments.workloads:
        raise UserError(
            "give at least two submissions, and --workloads with the names of what they run on, or "
            "finished logs with --replay; see: algoperf decide --help"
        )
    names = [Path(name).stem for name in arguments.submissions]
    prior = priors.without(names)
    question = decide.Question(
        arguments.submissions,
        arguments.workloads,
        arguments.framework,
        arguments.studies,
        arguments.out,
        arguments.tuning_ruleset,
        arguments.most,
    )
    outcome = decide.decide(question, dataclasses.replace(settings, prior=prior), say)
    for line in outcome.lines:
        say(line)
    say(f"{outcome.spent_s:,.1f} s of submission time were run; prior: {prior.name}")
    everything = len(outcome.verdicts) == len(outcome.lines)
    return DONE if everything else UNDECIDED


def _settings(arguments: argparse.Namespace) -> Settings:
    if not 0.5 < arguments.confidence < 1:
        raise UserError(f"--confidence {arguments.confidence:g}: expected above 0.5 and below 1")
    for name in arguments.stop_by:
        choose("--stop-by", name, STOPS)
    # To stop a run and go on later costs a live one its compilation, so it runs to its end.
    usual = Settings()
    is_live = arguments.replay is None
    return Settings(
        first=1.0 if is_live else usual.first,
        further=1.0 if is_live else usual.further,
        confidence=arguments.confidence,
        stops=tuple(arguments.stop_by),
        order=arguments.order,
        caps=not arguments.no_caps,
        curves=not arguments.no_curves,
        small=arguments.small,
    )


class _Priors:
    """The boards that `--prior` names, and what they give without the families of a pair."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        targets = arguments.prior_targets
        if targets and len(targets) != len(arguments.prior):
            raise UserError(
                f"{len(targets)} --prior-targets for {len(arguments.prior)} --prior: give as many"
            )
        families: dict[str, str] = {}
        if arguments.families is not None:
            try:
                families = json.loads(arguments.families.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise UserError(f"--families {arguments.families}: {error}") from error
        self._family: Callable[[str], str] = lambda name: families.get(name, name.split("_")[0])
        self._boards = [
            self._finished(path, target)
            for path, target in zip(
                arguments.prior, targets or [None] * len(arguments.prior), strict=True
            )
        ]

    def _finished(self, path: str, targets: str | None) -> Finished:
        recording = recorded(path, targets)
        family_of = {name: self._family(name) for name in recording.contest.submissions}
        return Finished(Path(path).name, recording.contest, recording.ended(), family_of)

    def without(self, names: Sequence[str]) -> Prior:
        """Return the prior without the families of some submissions."""
        if not self._boards:
            return NO_PRIOR
        return learn(self._boards, {self._family(name) for name in names})


def recorded(path: str, targets: str | None) -> replay.Recording:
    """Return the only board below a folder of logs as a recording.

    Raises:
        UserError: There is none, or more than one.
    """
    boards, _ = report.make_boards([path], report.Options(targets=targets, rules="by-the-rules"))
    if len(boards) != 1 or not boards[0].targets:
        raise UserError(
            f"{path} holds {len(boards)} pools of runs; a replay needs one with targets (--targets)"
        )
    return replay.record(boards[0], Path(path).name)


def _replay(
    arguments: argparse.Namespace,
    settings: Settings,
    priors: "_Priors",
    say: Callable[[str], None],
) -> int:
    """Play every pair of finished logs, and print what it cost and how it erred."""
    recording = recorded(arguments.replay, arguments.targets)
    for name in arguments.submissions:
        choose("submission", name, recording.contest.submissions)
    played = []
    for one in replay.play_all(
        recording,
        settings,
        rotations=arguments.rotations or 1,
        most=1.0 if arguments.most is None else arguments.most,
        prior_of=priors.without,
        only=arguments.submissions or None,
    ):
        played.append(one)
        if arguments.steps:
            for step in one.steps:
                workload = recording.contest.workloads[step.action.workload]
                say(f"  {workload}, study {step.action.study}: {step.action.reason}")
        text = told(_pair_of(one), (0, 1), one.verdict, settings.small)
        say(f"{text}; {one.cost:.1%} of the cost; by all data the difference is {one.truth:+.3f}")
    for apart, what in ((0.0, "all pairs"), (APART, f"pairs at least {APART} apart")):
        for share in SHARES:
            by_score = replay.tally(played, share, apart=apart)
            by_ratio = replay.tally(played, share, apart=apart, by_log_ratio=True)
            say(
                f"{what}, within {share:.0%} of the cost: {by_score} ({by_score.pairs} replays; by "
                f"the mean log ratio {100 * by_ratio.wrong / max(1, by_ratio.pairs):.1f} % wrong)"
            )
    return DONE


def _pair_of(one: replay.Replay) -> Contest:
    """Return the contest of a replayed pair, as far as its names matter."""
    return Contest(one.pair, (), (), {}, {}, 0)
