"""Show a person how trials progress: a line that is updated in a terminal, and only there."""

import math
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algoperf.study import outcome
from algoperf.trial.plan import TrialPlan

if TYPE_CHECKING:
    from rich.console import Console


SPINNER = 2  # The columns of what turns before the line.
Show = Callable[[str], None]


class Progress:
    """Shows the events of `study.run` on a console.

    Args:
        console: Usually that of standard error, so that standard output stays clean.
        total: How many trials there are, so that each is named as one of so many.
        names_submissions: Whether each is named with its submission, where these are several.
        ended: Called with the result of each trial that ends, and of each that had ended before
            and is skipped; and with whether it was skipped.
    """

    def __init__(
        self,
        console: "Console",
        total: int = 1,
        ended: Callable[[dict[str, Any], bool], None] | None = None,
        *,
        names_submissions: bool = False,
    ) -> None:
        self._console = console
        self._say = printer(console)
        self._total, self._ended = total, ended
        self._names_submissions = names_submissions
        self._numbers: dict[tuple[str, str], int] = {}
        self._points: dict[str, Any] = {}
        self._status: Any = None
        self._start: dict[str, Any] = {}
        self._metrics: dict[str, float] = {}

    def __call__(self, plan: TrialPlan, event: dict[str, Any]) -> None:
        """Show one event of a trial."""
        name = f" {plan.name}" if self._names_submissions else ""
        where = f"{plan.workload} {plan.framework}{name} study {plan.study} trial {plan.trial}"
        number = self._numbers.setdefault((where, plan.submission), len(self._numbers) + 1)
        if self._total > 1:
            where += f" ({number} of {self._total})"
        match event["event"]:
            case "skip":
                status = event["result"]["status"]
                self._say(f"{where}: done before ({outcome.STATUS.get(status, status)}), skipped")
                self._end(event["result"], skipped=True)
            case "note":
                self._say(f"{where}: {event['text']}")
            case "start":
                self._start, self._metrics = event, {}
                if not self._is_next_turn(plan, where, event):
                    for line in _start_lines(where, event, is_alone=self._total == 1):
                        self._say(line)
                self._show(where, event)
            case "progress" | "evaluation":
                self._metrics = event.get("metrics", self._metrics)
                self._show(where, event)
            case "paused":
                self.close()
                self._say(f"{where}: {outcome.turn(event['result'])}")
            case "result":
                self.close()
                self._end(event["result"], skipped=False)

    def _is_next_turn(self, plan: TrialPlan, where: str, event: dict[str, Any]) -> bool:
        """Return whether a member of a population goes on at the point that was shown before."""
        point = event.get("point")
        shown, self._points[where] = self._points.get(where), point
        return plan.pause_at_step is not None and shown is not None and shown == point

    def _end(self, result: dict[str, Any], *, skipped: bool) -> None:
        if self._ended is not None:
            self._ended(result, skipped)

    def close(self) -> None:
        """Remove the line."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _show(self, where: str, event: dict[str, Any]) -> None:
        if not self._console.is_terminal:
            return
        parts = self._parts(where, event)
        # A line that wraps is hard to read as it changes; the trial was named when it started.
        for least in (where, "loss "):
            if len(" | ".join(parts)) > self._console.width - SPINNER:
                parts = [part for part in parts if not part.startswith(least)]
        text = " | ".join(parts)
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)

    def line(self, where: str, event: dict[str, Any]) -> str:
        """Return the text of the line.

        It has the step, the submission's time against its budget, the loss, the metric against its
        target, and the time left. A metric with a `~` is what a probe of a few rows predicts.
        """
        return " | ".join(self._parts(where, event))

    def _parts(self, where: str, event: dict[str, Any]) -> list[str]:
        clock_s, step, budget_s = event["clock_s"], event["step"], self._start["budget_s"]
        max_steps, target = self._start.get("max_steps"), self._start["target"]
        has_budget = budget_s is not None and math.isfinite(budget_s)
        steps = f"step {step}" if max_steps is None else f"step {step} of {max_steps}"
        clock = (
            f"clock {clock_s:.1f} of {budget_s:.0f} s" if has_budget else f"clock {clock_s:.1f} s"
        )
        parts = [where, steps, clock]
        if event.get("loss") is not None:
            parts.append(f"loss {event['loss']:.4f}")
        metric = target["metric"]
        value, aimed = self._metrics.get(f"validation/{metric}"), target["validation"]
        predicted = event.get("predicted")
        if value is not None or predicted is not None:
            shown = f"~{predicted:.4f}" if predicted is not None else f"{value:.4f}"
            parts.append(f"{metric} {shown}" + ("" if aimed is None else f" (target {aimed:g})"))
        lefts = [max(0.0, budget_s - clock_s)] if has_budget else []
        if max_steps is not None and step > 0:
            lefts.append(clock_s / step * max(0, max_steps - step))
        return [*parts, f"{min(lefts):.0f} s left"] if lefts else parts


def _start_lines(where: str, event: dict[str, Any], *, is_alone: bool) -> list[str]:
    """Return what is said when a trial starts; only one alone is told its folder, a long path."""
    folder = short_path(event["folder"])
    if "point_source" not in event:
        return [f"{where}: in {folder}"]
    source, point = event["point_source"], outcome.point_text(event["point"])
    if is_alone:
        return [f"{where}: in {folder}", f"  {source}{': ' if point else ''}{point}"]
    return [f"{where}: {source}", *([f"  {point}"] if point else [])]


def printer(console: "Console") -> Show:
    """Return a function that prints a line for the user, as it is.

    A terminal gets it wrapped between words, with the rest indented; a file gets it whole.
    """

    def say(text: str) -> None:
        lines = text.splitlines() if console.is_terminal else [text]
        for line in lines:
            shown = wrapped(line, console.width) if console.is_terminal else line
            console.print(shown, highlight=False, markup=False, soft_wrap=True)

    return say


def wrapped(line: str, width: int) -> str:
    """Return a line wrapped between words, the rest indented by four more than its beginning."""
    indent = " " * (len(line) - len(line.lstrip()))
    # A number stays with what it counts: `learning_rate 0.1`, `1.2 s`.
    joined = re.sub(r" (?=-?\d)|(?<=\d) (?=(?:s|steps?)\b)", "\xa0", line.lstrip())
    return textwrap.fill(
        joined,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}    ",
        break_long_words=False,
        break_on_hyphens=False,
    ).replace("\xa0", " ")


def short_path(path: str | Path) -> str:
    """Return a path relative to the working directory where it is below that, else as it is."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
