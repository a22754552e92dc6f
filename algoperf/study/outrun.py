"""Which trials can no longer matter to a score, so that they may end before their budget.

A study is scored by its best trial: one that is later than that is outrun. A workload gives no
credit to a submission whose median over studies is later than `LATE_RATIO` times the fastest median
(`scoring.rules.profiles`). The fastest is not above the slowest study of any submission, whichever
of its studies are drawn, so a trial that is later than that many times this one is late.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from algoperf.errors import UserError
from algoperf.run_folder import run_log
from algoperf.trial.plan import LATE, OUTRUN, TrialPlan

LATE_RATIO = 4.0  # of a time to the fastest; from there on a workload gives no credit


@dataclasses.dataclass(frozen=True)
class Ends:
    """What ends trials before their budget.

    Attributes:
        outrun: Whether another trial of the same study does, by a better time to target.
        late_of: How many studies another submission has to have, all of which reached the target,
            to end trials that are late; None where it ends none.
    """

    outrun: bool = False
    late_of: int | None = None

    def planned(self, plan: TrialPlan, folder: Path, settings: Mapping[str, Any]) -> TrialPlan:
        """Return the plan of a trial with the times at which it ends without the target.

        Args:
            plan: The plan.
            folder: The trial's run folder.
            settings: Its configuration, as far as it is known.
        """
        outrun_s = best_time_s(folder) if self.outrun else None
        late = None if self.late_of is None else fastest_rival(folder, settings, self.late_of)
        return dataclasses.replace(plan, outrun_s=outrun_s, late=late)


AT_BUDGET = Ends()  # no sooner


def check_late(suite: str | None, bases: Iterable[str | None]) -> None:
    """Raise UserError where trials may not end as late: where held-out variants are scored, too.

    Args:
        suite: The file of the suite of held-out variants, or None.
        bases: The base workload of each workload; None of one that is no variant.
    """
    if suite is not None or any(base is not None for base in bases):
        raise UserError(
            "--stop-late with held-out variants: a submission that is slow on one may lose the "
            "credit by which others are late"
        )


def best_time_s(folder: Path) -> float | None:
    """Return the best time to target of the other trials of a trial's study, in seconds; None where
    none has met it.
    """
    return _best_s(other for other in folder.parent.glob("trial_*") if other != folder)


def _best_s(folders: Iterable[Path]) -> float | None:
    results = [run_log.read_result(folder) or {} for folder in folders]
    times_s = [result["time_to_target_s"] for result in results if result.get("scoreable")]
    return min((time_s for time_s in times_s if time_s is not None), default=None)


def fastest_rival(
    folder: Path, settings: Mapping[str, Any], studies: int
) -> dict[str, str | int | float] | None:
    """Return which other submission of the experiment has reached the target soonest in the slowest
    of its studies, on the workload and in the framework of a trial.

    Args:
        folder: The trial's run folder.
        settings: The trial's configuration, or a part of it. Of what scoring pools by, and of the
            target, the other submission's trials have to agree with all that is in it.
        studies: How many studies the other one must have; if one of them has not reached the
            target, it is not looked at.

    Returns:
        The submission, the number of studies, 'slowest_s', the best time to target of the slowest
        study, and 'after_s', from when on a trial is late; both in seconds. None where there is no
        such submission.
    """
    own, known = folder.parents[2], run_log.as_written(settings)
    rivals = []
    for other in sorted(own.parent.iterdir()) if own.parent.is_dir() else []:
        if other == own:
            continue
        of_studies = [
            _best_s(
                trial
                for trial in (other / f"study_{study}" / folder.parent.name).glob("trial_*")
                if _is_alike(trial, known)
            )
            for study in range(studies)
        ]
        reached = [time_s for time_s in of_studies if time_s is not None]
        if len(reached) == studies:
            rivals.append((max(reached), other.name))
    if not rivals:
        return None
    slowest_s, name = min(rivals)
    after_s = late_after_s(slowest_s, studies)
    return {"submission": name, "studies": studies, "slowest_s": slowest_s, "after_s": after_s}


def late_after_s(fastest_s: float, studies: int) -> float:
    """Return the time from which on a study's time to target makes its median too late for credit.

    Args:
        fastest_s: A time that the fastest submission's median does not exceed, in seconds.
        studies: The number of studies. The median of an even number is the mean of two times, of
            which the earlier one could be 0.
    """
    return LATE_RATIO * fastest_s * (2 if studies % 2 == 0 else 1)


def _is_alike(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether a trial's results are scored together with those of a configuration."""
    flags = run_log.read_flags(folder) or {}
    return all(
        flags.get(name) == settings.get(name)
        for name in ("target", *run_log.POOLED)
        if name in settings or name in run_log.WHERE_CHOSEN
    )


def is_still_early(folder: Path, result: Mapping[str, Any]) -> bool:
    """Return whether what ended a trial before its budget is still there.

    The better time may be gone, once the trial that had it was run anew. Of trials that ended
    otherwise this is True.

    Args:
        folder: The trial's run folder.
        result: Its result.
    """
    clock_s = float((result.get("ledger") or {}).get("submission_s") or 0.0)
    if result.get("status") == OUTRUN:
        best_s = best_time_s(folder)
        return best_s is not None and best_s <= clock_s
    if result.get("status") == LATE:
        studies = (result.get("late") or {}).get("studies")
        if not isinstance(studies, int) or studies < 1:
            return False  # a damaged result
        rival = fastest_rival(folder, run_log.read_flags(folder) or {}, studies)
        return rival is not None and float(rival["after_s"]) <= clock_s
    return True
