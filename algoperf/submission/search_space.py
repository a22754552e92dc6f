"""Search spaces in AlgoPerf's JSON format, and the tuning points drawn from them.

A space is a JSON object that maps each hyperparameter to {"min", "max", "scaling"} or
{"feasible_points"}, or it is a list of points that are used in order. Points of an object come
from a scrambled Halton sequence (Owen 2017, "A randomized Halton algorithm in R"), with one
sequence for each study.
"""

import dataclasses
import hashlib
import json
import keyword
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from algoperf.backends import FRAMEWORKS
from algoperf.errors import UserError, is_finite_number

Scalar = int | float | bool | str | None
Point = dict[str, Scalar]
FILE_NAME = "tuning_search_space.json"  # AlgoPerf's name for the file beside a submission.
FORM = (
    'give an object, name -> {"min", "max", "scaling"} or {"feasible_points"}, or a list of points'
)
SCALINGS = ("linear", "log")
# What a population does to the hyperparameters of a copy (Jaderberg et al. 2017, "Population Based
# Training of Neural Networks", section 4): a value is multiplied by one of the two factors, or with
# this probability drawn anew.
UP, DOWN = 1.2, 0.8
REDRAWN = 0.1


@dataclasses.dataclass(frozen=True)
class Interval:
    """An interval of values to draw from.

    Attributes:
        low: The smallest value.
        high: The largest value.
        log: Whether the logarithm of the value is uniform, else the value itself.
    """

    low: float
    high: float
    log: bool

    def at(self, share: float) -> float:
        """Return the value below which a share of the interval lies.

        Args:
            share: From 0, which gives `low`, to 1, which gives `high`.
        """
        if not self.log:
            return self.low + share * (self.high - self.low)
        value = math.exp(math.log(self.low) + share * math.log(self.high / self.low))
        return min(max(value, self.low), self.high)  # Rounding may go past an end.

    def near(self, value: float, up: bool) -> float:
        """Return a value times 1.2 or times 0.8, or the end of the interval that it would pass."""
        return min(max(value * (UP if up else DOWN), self.low), self.high)

    @property
    def form(self) -> dict[str, Any]:
        """The interval in AlgoPerf's JSON form."""
        return {"min": self.low, "max": self.high, "scaling": "log" if self.log else "linear"}


@dataclasses.dataclass(frozen=True)
class Choice:
    """A list of values to draw from, all equally likely."""

    values: tuple[Scalar, ...]

    def at(self, share: float) -> Scalar:
        """Return the value at a share of the list's length.

        Args:
            share: From 0, which gives the first value, to 1, which gives the last.
        """
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def near(self, value: Scalar, up: bool) -> Scalar:
        """Return the neighbour of a value in the list, or the value where it is at the end.

        Values are told apart by their type as well: true is not 1.
        """
        indices = [index for index, each in enumerate(self.values) if repr(each) == repr(value)]
        if not indices:
            return value
        return self.values[min(max(indices[0] + (1 if up else -1), 0), len(self.values) - 1)]

    @property
    def form(self) -> dict[str, Any]:
        """The list in AlgoPerf's JSON form."""
        return {"feasible_points": list(self.values)}


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """A search space: either dimensions to draw from or a list of points.

    Attributes:
        where: Where the space is from, for messages.
        dimensions: What to draw each hyperparameter from, by its name; empty for a list.
        points: The points of a list, which are used in order.
    """

    where: str
    dimensions: Mapping[str, Interval | Choice]
    points: tuple[Point, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the hyperparameters that every point has."""
        return tuple(self.points[0] if self.points else self.dimensions)

    @property
    def form(self) -> Any:
        """The space in AlgoPerf's JSON form, which `parse` reads."""
        return [dict(each) for each in self.points] or {
            name: values.form for name, values in self.dimensions.items()
        }

    @property
    def digest(self) -> str:
        """A hash of the space in 16 hex digits.

        It does not depend on how the space's file orders the names or writes the numbers.
        """
        content = {name: dataclasses.asdict(self.dimensions[name]) for name in self.dimensions}
        text = json.dumps([content, self.points], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def size(self) -> int | None:
        """The number of points; None where any number of points can be drawn."""
        return len(self.points) or None


def read(path: str | Path) -> SearchSpace:
    """Read a search space from a JSON file.

    Raises:
        UserError: The file cannot be read or is no search space; the message names the place in it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(f"search space {path}: {reason}; give a JSON file") from error
    return parse(text, str(path))


def file_of(submission: Path) -> Path | None:
    """Return the file of the search space that belongs to a submission, or None.

    It is the `tuning_search_space.json` beside the submission's file. Where the submission's folder
    is named for a framework (`jax`, `pytorch`), it may also be in the folder above, for both.

    Args:
        submission: The submission's main file.
    """
    folders = [submission.parent]
    if submission.parent.name in FRAMEWORKS:
        folders.append(submission.parent.parent)
    files = (folder / FILE_NAME for folder in folders)
    return next((file for file in files if file.is_file()), None)


def beside(submission: Path, literal: Any) -> SearchSpace | None:
    """Return the search space that belongs to a submission, or None.

    Args:
        submission: The submission's main file. A space in a file beside it counts first.
        literal: The value of SEARCH_SPACE in the submission, or None.

    Raises:
        UserError: It is no search space.
    """
    file = file_of(submission)
    if file is not None:
        return read(file)
    return None if literal is None else parse(literal, f"SEARCH_SPACE in {submission}")


def repeated_text(file: Path | None) -> str:
    """Return a warning about names that occur more than once in an object of a search space's file.

    JSON readers keep only the last of them.

    Args:
        file: The file, or None.

    Returns:
        The warning; empty where no name is repeated, and where the file is no JSON.
    """
    repeated: set[str] = set()

    def note(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        repeated.update(name for name in names if names.count(name) > 1)

    if file is None:
        return ""
    try:
        json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=note)
    except (OSError, ValueError):  # Reading the space for the trial reports it.
        return ""
    names = ", ".join(sorted(repeated))
    return f"{file.name} gives {names} more than once; the last counts" if names else ""


def parse(text_or_object: Any, where: str) -> SearchSpace:
    """Return the search space that JSON text, or its parsed content, describes.

    Args:
        text_or_object: The text, or the object or list.
        where: Where it is from, for messages.

    Raises:
        UserError: It is no search space; the message names the place and what is allowed there.
    """
    content = text_or_object
    if isinstance(content, str):
        content = _load(content, where)
    if not isinstance(content, Mapping | list | tuple):
        raise UserError(f"search space {where} is {_kind(content)}; {FORM}")
    if not content:
        raise UserError(f"search space {where} is empty; {FORM}")
    if isinstance(content, Mapping):
        return SearchSpace(
            where, {name: _dimension(name, content[name], where) for name in content}
        )
    return SearchSpace(where, {}, _points(content, where))


def point(space: SearchSpace, seed: int, study: int, trial_index: int) -> Point:
    """Return the hyperparameters of one trial.

    A drawn point depends on nothing but the four arguments, so the trials of a study may be divided
    over several runs. Entry k of a list is point k in every study.

    Args:
        space: The search space.
        seed: The seed of the run.
        study: The study, counted from 0.
        trial_index: The trial, counted from 0.

    Raises:
        UserError: The space is a list with fewer points.
    """
    if space.points:
        if trial_index >= len(space.points):
            raise UserError(
                f"search space {space.where} lists {len(space.points)} points, none for trial "
                f"{trial_index + 1}; run at most {len(space.points)} trials a study"
            )
        return dict(space.points[trial_index])
    shares = _halton(len(space.dimensions), [seed, study, _fingerprint(space)], trial_index)
    by_name = dict(zip(sorted(space.dimensions), shares, strict=True))
    return {name: values.at(by_name[name]) for name, values in space.dimensions.items()}


def explored(space: SearchSpace, given: Mapping[str, Any], generator: Any) -> Point:
    """Return a point near another one: what a population does to the hyperparameters of a copy.

    Each value of an interval is multiplied by `UP` or `DOWN` and stays within it, each feasible
    point becomes a neighbour in its list; with probability `REDRAWN` it is drawn anew. Of a list of
    points it is a neighbour of the point, or any point.

    Args:
        space: The search space.
        given: The point, with a value of each name of the space; it may have others, which stay.
        generator: NumPy's random generator; how often it is asked depends on the space alone.
    """

    def near(values: Any, value: Any) -> Any:
        is_redrawn, up = generator.random() < REDRAWN, generator.random() < 0.5
        share = generator.random()
        return values.at(share) if is_redrawn else values.near(value, up)

    if space.points:
        numbers = Choice(tuple(range(len(space.points))))
        own = [all(given.get(name) == each[name] for name in each) for each in space.points]
        return {**given, **space.points[near(numbers, own.index(True) if any(own) else 0)]}
    dimensions = sorted(space.dimensions.items())
    return {**given, **{name: near(values, given[name]) for name, values in dimensions}}


def _halton(dimensions: int, entropy: list[int], index: int) -> list[float]:
    """Return one point, in [0, 1), of the scrambled Halton sequence that `entropy` seeds."""
    import numpy as np
    from scipy.stats import qmc

    sequence = qmc.Halton(dimensions, scramble=True, rng=np.random.default_rng(entropy))
    sequence.fast_forward(index)
    return [float(share) for share in sequence.random(1)[0]]


def _fingerprint(space: SearchSpace) -> int:
    """Return a number that identifies the space, however its file orders or writes it."""
    content = {name: dataclasses.asdict(space.dimensions[name]) for name in space.dimensions}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _load(text: str, where: str) -> Any:
    if not text.strip():
        raise UserError(f"search space {where} is empty; {FORM}")

    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"{where}:{error.lineno}:{error.colno}"
        raise UserError(f"search space {at}: not JSON ({error.msg}); {FORM}") from error


def _dimension(name: str, given: Any, where: str) -> Interval | Choice:
    at = f"search space {where}: {_checked_name(name, where)}"
    if not isinstance(given, Mapping):
        raise UserError(
            f"{at} is {_kind(given)}; "
            'give {"min", "max", "scaling"}, or {"feasible_points": [value, ...]}'
        )
    allowed = ("feasible_points",) if "feasible_points" in given else ("min", "max", "scaling")
    for key in given:
        if key not in allowed:
            raise UserError(f"{at}: unknown key {key!r}; allowed here: {', '.join(allowed)}")
    for key in allowed:
        if key not in given:
            raise UserError(
                f"{at}: {key} is missing; give min, max and scaling, or feasible_points"
            )
    return _choice(at, given["feasible_points"]) if len(allowed) == 1 else _interval(at, given)


def _choice(at: str, values: Any) -> Choice:
    if not isinstance(values, list | tuple) or not values:
        raise UserError(
            f"{at}: feasible_points is {_kind(values)}; give a list of at least one value"
        )
    return Choice(tuple(_scalar(f"{at}: a feasible point", value) for value in values))


def _interval(at: str, given: Mapping[str, Any]) -> Interval:
    low, high = (_number(f"{at}: {key}", given[key]) for key in ("min", "max"))
    if given["scaling"] not in SCALINGS:
        allowed = " or ".join(SCALINGS)
        raise UserError(f"{at}: unknown scaling {given['scaling']!r}; give {allowed}")
    if low > high:
        raise UserError(f"{at}: min {low:g} is greater than max {high:g}; swap them")
    log = given["scaling"] == "log"
    if log and low <= 0:
        raise UserError(
            f"{at}: min {low:g} with log scaling; give a min above 0, or scaling linear"
        )
    return Interval(low, high, log)


def _points(entries: list[Any] | tuple[Any, ...], where: str) -> tuple[Point, ...]:
    for position, entry in enumerate(entries, 1):
        at = f"search space {where}: point {position}"
        if not isinstance(entry, Mapping) or not entry:
            raise UserError(f"{at} is {_kind(entry)}; give an object, name -> value")
        if differing := sorted(set(entry) ^ set(entries[0])):
            raise UserError(
                f"{at} and point 1 differ in {', '.join(map(str, differing))}; "
                "give every point the same names"
            )
        for name, value in entry.items():
            _scalar(f"{at}: {_checked_name(name, where)}", value)
    return tuple(dict(entry) for entry in entries)


def _checked_name(name: Any, where: str) -> str:
    usable = isinstance(name, str) and name.isidentifier() and not keyword.iskeyword(name)
    if not usable or name.startswith("_"):
        raise UserError(
            f"search space {where}: {name!r} cannot name a hyperparameter; "
            "give a Python identifier that starts with a letter and is no keyword"
        )
    return str(name)


def _number(at: str, value: Any) -> float:
    if not is_finite_number(value):
        raise UserError(f"{at} is {_kind(value)}; give a finite number")
    return float(value)


def _scalar(at: str, value: Any) -> Scalar:
    if value is None or isinstance(value, bool | str):
        return value
    if not is_finite_number(value):
        raise UserError(
            f"{at} is {_kind(value)}; give a finite number, a string, true, false or null"
        )
    return value


def _kind(value: Any) -> str:
    """Describe a value in JSON's words, for a message."""
    if isinstance(value, Mapping):
        return "an object" if value else "an empty object"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    return repr(value) if isinstance(value, str | float) else json.dumps(value, default=repr)
