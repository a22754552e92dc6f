"""A study whose trials are the members of a population: they train side by side, and at intervals
the worst go on with what the best have trained, at hyperparameters near theirs (Jaderberg et al.
2017, "Population Based Training of Neural Networks").

Members take turns. In a round each trains up to the same step, is evaluated and saved, and makes
room for the next one. Then the lowest share of them by the validation metric copies members that
are drawn from the highest share, each if that one is better: parameters, model state and optimizer
state, and its hyperparameters, explored (`search_space.explored`). The clock stays the member's
own, and so do the order of its rows, its random generators and its batch size. The study ends when
a member reaches the target, or when none is left: then the others end as `stopped`.

All that was exchanged is in `population.json`, which is written once a round has been carried out.
A round that was cut short is carried out again, with the same outcome: what is drawn depends on the
run's seed, the study and the round alone.
"""

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algoperf.errors import UserError
from algoperf.machine import environment, hardware, stopping, supervision
from algoperf.run_folder import crash_points, run_log, writing
from algoperf.run_folder.checkpoint import Checkpoints
from algoperf.study import study
from algoperf.study.companions import Companions
from algoperf.submission import loading, search_space
from algoperf.trial import preservation
from algoperf.trial.plan import PAUSED, STOPPED, TrialPlan

RULESET = "population"
ROUNDS = 10  # within the step hint, where nobody says how long a round is
SHARE = 0.25  # of the members, that copy others after a round
OWN = "batch_size"  # The hyperparameter that is not copied: the rows' order goes with it.
_PURPOSE = 0  # Of the random generator; trials have numbers from 1 in its place.
Result = dict[str, Any]


def every_steps(given: int | None, step_hint: int) -> int:
    """Return the steps of a round: what is given, else a tenth of the step hint."""
    return math.ceil(step_hint / ROUNDS) if given is None else given


def copies(count: int, share: float) -> int:
    """Return how many of so many members copy others: their share, at least one, at most half.

    None do where the share is 0, or where there is but one.
    """
    return 0 if share == 0 else min(max(1, int(share * count)), count // 2)


def run(
    base: TrialPlan,
    outline: loading.Outline,
    chosen: study.Slice,
    observe: study.Observe,
    retry_failed: bool = False,
    overwrite: bool = False,
) -> list[Result]:
    """Run studies of a population each, and return the results of all their members.

    The arguments, and the errors that are raised, are those of `study.run`; `observe` is also told
    of `paused`. What a member that an outside cause ended leaves undone waits for the next call:
    its study goes on only with all members that have not ended by themselves.
    """
    base = dataclasses.replace(base, environment=environment.of_this_process())
    with hardware.limited_to(base.threads):
        settings = study.known_settings(base, outline)
        if overwrite:
            study.set_aside(base, outline, chosen, settings, observe)
        results = []
        with stopping.Stops(end=lambda: None) as stops, study.Workers() as workers:
            for number in range(chosen.first_study, chosen.first_study + chosen.studies):
                plan = dataclasses.replace(base, study=number)
                population = _Population(plan, outline, settings, observe, stops, workers)
                results += population.run(retry_failed, overwrite)
        stops.check(base.out_folder / base.experiment)
    return results


def summary(folder: Path) -> str:
    """Return a line on what came of a population; empty where it has not ended.

    Args:
        folder: The folder that holds the members' folders.
    """
    ended = (run_log.read_json(folder / run_log.POPULATION) or {}).get("ended")
    if not isinstance(ended, Mapping):
        return ""
    try:
        parts = f"{ended['submission_s']:.2f} s and {ended['steps']} steps of {ended['members']}"
        if ended["member"] is None:
            return f"no member reached the target; {parts} members in all"
        return f"member {ended['member']} reached the target; {parts} members in all until then"
    except (KeyError, TypeError, ValueError):
        return ""


class _Population:
    """One study."""

    def __init__(
        self,
        plan: TrialPlan,
        outline: loading.Outline,
        settings: dict[str, Any],
        observe: study.Observe,
        stops: stopping.Stops,
        workers: study.Workers,
    ) -> None:
        assert plan.population is not None
        self._plan, self._settings, self._observe = plan, settings, observe
        self._stops, self._workers = stops, workers
        self._every_steps: int = plan.population["every_steps"]
        self._share: float = plan.population["share"]
        self._plans = {
            member: dataclasses.replace(plan, trial=member)
            for member in range(1, plan.population["members"] + 1)
        }
        self._folders = {
            member: study.trial_folder(each, outline) for member, each in self._plans.items()
        }
        self._folder = self._folders[1].parent
        self._file = self._folder / run_log.POPULATION

    def run(self, retry_failed: bool, is_anew: bool) -> list[Result]:
        """Run it to its end, or as far as it comes; return the results that there are."""
        for folder in self._folders.values():
            run_log.check_same_configuration(folder, self._settings)
        with supervision.locked(self._folder):
            if is_anew:
                self._set_file_aside()
            self._rounds, is_closed = self._read()
            if not self._has_reached():
                self._retry(retry_failed)
            if not self._is_over():
                self._run()
            else:
                if not is_closed:
                    self._close()
                self._tell_that_it_is_done()
            self._stops.check(self._folder)
        results = map(self._result, self._plans)
        return [result for result in results if result is not None]

    def _retry(self, retry_failed: bool) -> None:
        """Let members go on that an outside cause ended, or that failed and are to be retried."""
        for folder in self._folders.values():
            if run_log.read_result(folder) and study.lasting_result(folder, retry_failed) is None:
                with writing.into(folder):
                    (folder / run_log.RESULT).unlink()

    def _tell_that_it_is_done(self) -> None:
        for member, plan in self._plans.items():
            folder, result = self._folders[member], self._result(member)
            if result is not None:
                self._observe(plan, {"event": "skip", "folder": str(folder), "result": result})

    def _run(self) -> None:
        while not self._is_over():
            number = len(self._rounds) + 1
            for member in self._plans:
                self._take_turn(member, number * self._every_steps)
                if self._is_from_outside(member):
                    text = "is ended from outside, and its population waits for it: the same "
                    text += "command goes on"
                    self._observe(self._plans[member], {"event": "note", "text": text})
                    return
                if self._is_over():
                    break
            else:
                self._exchange(number)
        self._close()

    def _take_turn(self, member: int, step: int) -> None:
        """Have a member train up to a step, unless it has ended or is there."""
        folder = self._folders[member]
        self._stops.check(folder)
        if self._has_ended(member) or self._step(member) >= step:
            return
        plan = dataclasses.replace(
            self._plans[member], point=self._point(member), pause_at_step=step
        )
        with supervision.locked(folder):
            self._check_copy(member)
            result = study.accompanied(
                plan, folder, self._settings, self._observe, Companions(), self._stops,
                self._workers,
            )  # fmt: skip
            if result["status"] == PAUSED:
                self._keep(member, result)
        self._stops.check(folder)

    def _keep(self, member: int, result: Result) -> None:
        """Record that a member has come to the end of its turn."""
        folder, step = self._folders[member], result["steps"]
        if next(Checkpoints(folder).read(with_arrays=False, step=step), None) is None:
            raise UserError(
                f"{folder}: no checkpoint of step {step} could be written; the members of a "
                "population are saved to make room for each other"
            )
        before = self._paused(member)
        flags = dict.fromkeys([*(before["flags"] if before else ()), *result["flags"]])
        with writing.into(folder):
            run_log.write_json(folder / run_log.PAUSED, {**result, "flags": list(flags)})

    def _check_copy(self, member: int) -> None:
        """Check that a member which copied another one still has what it copied.

        An older checkpoint is of what it was before, and starting over is no better.
        """
        folder = self._folders[member]
        copied_at = max(
            (
                each["step"]
                for each in self._rounds
                for copy in each["copies"]
                if copy["to"] == member
            ),
            default=0,
        )
        newest = next(Checkpoints(folder).read(with_arrays=False), None)
        step = 0 if newest is None else newest[1].get("position", {}).get("step", 0)
        if step < copied_at:
            raise UserError(
                f"{folder}: its checkpoint of step {copied_at}, copied from another member, is "
                "damaged or gone; run the study anew with --overwrite"
            )

    def _exchange(self, number: int) -> None:
        """Have the worst members copy the best, and record the round."""
        step = number * self._every_steps
        saved = {
            member: paused
            for member in self._plans
            if not self._has_ended(member) and (paused := self._paused(member)) is not None
        }
        members = [
            {"member": member, "value": _value(paused), "submission_s": _submission_s(paused)}
            for member, paused in saved.items()
        ]
        done = [self._copy(step, saved, *pair) for pair in self._pairs(number, saved)]
        self._rounds.append({"round": number, "step": step, "members": members, "copies": done})
        self._write()

    def _pairs(self, number: int, saved: Mapping[int, Result]) -> list[tuple[int, int, Any]]:
        """Return who copies whom: the member that is copied, the one that copies, and the generator
        that its hyperparameters are explored by.
        """
        import numpy as np

        seed = [self._plan.seed, self._plan.study, _PURPOSE, number]
        generator = np.random.default_rng(np.random.SeedSequence(seed))
        order = sorted(saved, key=lambda member: (_rank(saved[member]), member))
        count = copies(len(order), self._share)
        pairs = []
        for worst in order[len(order) - count :]:
            best = order[int(generator.integers(count))]
            own = np.random.default_rng(np.random.SeedSequence([*seed, worst]))
            if _rank(saved[best]) < _rank(saved[worst]):
                pairs.append((best, worst, own))
        return pairs

    def _copy(
        self, step: int, saved: Mapping[int, Result], source: int, member: int, generator: Any
    ) -> dict[str, Any]:
        """Have one member copy another; return what is recorded of it."""
        theirs, own = saved[source]["point"], saved[member]["point"]
        space = self._space(saved[source])
        try:
            explored = search_space.explored(space, theirs, generator)
        except (KeyError, TypeError) as error:  # What the trainer says of itself may be anything.
            raise UserError(
                f"{self._folders[source]}: its point is none of its search space ({space.where})"
            ) from error
        point = {name: own[name] if name == OWN else value for name, value in explored.items()}
        folders = self._folders[source], self._folders[member]
        source_saved, member_saved = (Checkpoints(folder) for folder in folders)
        with writing.into(folders[1]):
            is_done = preservation.copy(source_saved, member_saved, step, theirs)
        if not is_done:
            damaged = [*source_saved.damaged, *member_saved.damaged]
            raise UserError(
                f"{folders[0].parent}: the checkpoints of step {step} of trials {source} and "
                f"{member} are not whole ({', '.join(damaged) or 'gone'}); run the study anew with "
                "--overwrite"
            )
        crash_points.reach("copied")
        text = f"goes on with what trial {source} has trained, {_value(saved[source]):.4f} "
        text += f"against {_value(saved[member]):.4f}"
        self._observe(self._plans[member], {"event": "note", "text": text})
        return {"from": source, "to": member, "copied": theirs, "old": own, "new": point}

    def _space(self, paused: Result) -> search_space.SearchSpace:
        where = f"of trial {paused['trial']} of {self._folder}"
        if self._plan.search_space is not None:
            return search_space.read(self._plan.search_space)
        return search_space.parse(paused["search_space"], where)

    def _close(self) -> None:
        """End the members that are left, and record what came of the study."""
        for member, plan in self._plans.items():
            folder, paused = self._folders[member], self._paused(member)
            with supervision.locked(folder), writing.into(folder):
                if paused is not None and not self._has_ended(member):
                    left_out = ("point", "search_space")
                    result = {name: each for name, each in paused.items() if name not in left_out}
                    result["status"] = STOPPED
                    run_log.write_json(folder / run_log.RESULT, result)
                    self._observe(plan, {"event": "result", "result": result})
                if (self._result(member) or {}).get("status") == "failed":
                    continue  # --retry-failed goes on from its checkpoint.
                (folder / run_log.PAUSED).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # A leftover file does no harm.
                    Checkpoints(folder).clear()
        self._write(ended=self._ended())

    def _ended(self) -> dict[str, Any]:
        results = [each for each in map(self._result, self._plans) if each is not None]
        first = next((each for each in results if each["status"] == "reached"), None)
        return {
            "member": None if first is None else first["trial"],
            "members": len(self._plans),
            "submission_s": sum(map(_submission_s, results)),
            "steps": sum(int(each["steps"]) for each in results),
        }

    def _is_over(self) -> bool:
        """Return whether a member has reached the target, or none is left to train."""
        return self._has_reached() or all(map(self._has_ended, self._plans))

    def _has_reached(self) -> bool:
        results = map(self._result, self._plans)
        return any(result is not None and result["status"] == "reached" for result in results)

    def _is_from_outside(self, member: int) -> bool:
        return ((self._result(member) or {}).get("error") or {}).get("outside") is True

    def _has_ended(self, member: int) -> bool:
        return self._result(member) is not None

    def _result(self, member: int) -> Result | None:
        return run_log.read_result(self._folders[member])

    def _paused(self, member: int) -> Result | None:
        """Return what a member was at the end of its last turn; None where that is not known, so
        that it says so again.
        """
        paused = run_log.read_json(self._folders[member] / run_log.PAUSED)
        return paused if paused is not None and _is_whole(paused) else None

    def _step(self, member: int) -> int:
        """Return the step at which a member was left, 0 where it has not begun."""
        paused = self._paused(member)
        return 0 if paused is None else int(paused["steps"])

    def _point(self, member: int) -> Mapping[str, Any] | None:
        """Return the point that a member has by its last copy; None where it has its first."""
        points = [
            copy["new"] for each in self._rounds for copy in each["copies"] if copy["to"] == member
        ]
        return points[-1] if points else None

    def _read(self) -> tuple[list[dict[str, Any]], bool]:
        """Return the rounds that have been carried out, and whether the study has ended."""
        if not self._file.exists():
            return [], False
        document = run_log.read_json(self._file) or {}
        rounds = document.get("rounds")
        if not isinstance(rounds, list) or not all(map(_is_round, rounds)):
            raise UserError(
                f"{self._file} is damaged: not the rounds of a population; put it back, or run the "
                "study anew with --overwrite"
            )
        return rounds, document.get("ended") is not None

    def _write(self, ended: Mapping[str, Any] | None = None) -> None:
        with writing.into(self._folder):
            run_log.write_json(
                self._file,
                {
                    **(self._plan.population or {}),
                    "seed": self._plan.seed,
                    "study": self._plan.study,
                    "rounds": self._rounds,
                    "ended": ended,
                },
            )

    def _set_file_aside(self) -> None:
        if self._file.exists():
            number = len(list(self._folder.glob(f"replaced_*_{run_log.POPULATION}")))
            with writing.into(self._folder):
                self._file.rename(self._folder / f"replaced_{number}_{run_log.POPULATION}")


def _is_whole(paused: Mapping[str, Any]) -> bool:
    """Return whether a value can be what `paused.json` holds, as far as it is used here."""
    kinds = {"target": dict, "final": dict, "ledger": dict, "point": dict, "flags": list}
    has_kinds = all(isinstance(paused.get(name), kind) for name, kind in kinds.items())
    return has_kinds and isinstance(paused.get("steps"), int) and "time_to_target_s" in paused


def _is_round(value: Any) -> bool:
    """Return whether a value can be a round of `population.json`."""
    if not isinstance(value, dict) or not isinstance(value.get("step"), int):
        return False
    done: Sequence[Any] | Any = value.get("copies")
    return isinstance(done, list) and all(
        isinstance(copy, dict)
        and isinstance(copy.get("to"), int)
        and isinstance(copy.get("new"), dict)
        for copy in done
    )


def _value(result: Mapping[str, Any]) -> float:
    """Return the target's metric on the validation rows at the last evaluation; NaN is none."""
    return float(result["final"].get(f"validation/{result['target']['metric']}", math.nan))


def _rank(result: Mapping[str, Any]) -> float:
    """Return what members are sorted by, the best first."""
    value = _value(result)
    if math.isnan(value):
        return math.inf
    return -value if result["target"]["higher_is_better"] else value


def _submission_s(result: Mapping[str, Any]) -> float:
    """Return a member's clock: at the target where it has reached that, else at its end."""
    reached_s = result["time_to_target_s"]
    clock_s = reached_s if reached_s is not None else result["ledger"].get("submission_s")
    return 0.0 if clock_s is None else float(clock_s)
