"""Show a person how trials progress: a line that is updated in a terminal, and only there."""

from typing import TYPE_CHECKING, Any

from algoperf.trial.plan import TrialPlan

if TYPE_CHECKING:
    from rich.console import Console


class Progress:
    """Shows the events of `study.run` on a console.

    Args:
        console: Usually that of standard error, so that standard output stays clean.
    """

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._status: Any = None
        self._budget_s = 0.0
        self._metrics: dict[str, float] = {}
        self._target: dict[str, Any] = {}

    def __call__(self, plan: TrialPlan, event: dict[str, Any]) -> None:
        """Show one event of a trial."""
        where = f"{plan.workload} {plan.framework} study {plan.study} trial {plan.trial}"
        match event["event"]:
            case "skip":
                self._console.print(
                    f"{where}: done before ({event['result']['status']}), skipped", highlight=False
                )
            case "note":
                self._console.print(
                    f"{where}: {event['text']}", highlight=False, markup=False, soft_wrap=True
                )
            case "start":
                self._budget_s, self._target, self._metrics = event["budget_s"], event["target"], {}
                self._console.print(
                    f"{where}: in {event['folder']}", highlight=False, markup=False, soft_wrap=True
                )
                self._show(where, event)
            case "progress" | "evaluation":
                self._metrics = event.get("metrics", self._metrics)
                self._show(where, event)
            case "result":
                self.close()

    def close(self) -> None:
        """Remove the line."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _show(self, where: str, event: dict[str, Any]) -> None:
        if not self._console.is_terminal:
            return
        text = self.line(where, event)
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)

    def line(self, where: str, event: dict[str, Any]) -> str:
        """Return the text of the line.

        It has the step, the submission's time against its budget, the loss, the metric against its
        target, and the time left.
        """
        clock_s = event["clock_s"]
        parts = [where, f"step {event['step']}", f"clock {clock_s:.1f} of {self._budget_s:.0f} s"]
        if event.get("loss") is not None:
            parts.append(f"loss {event['loss']:.4f}")
        metric = self._target["metric"]
        value, target = self._metrics.get(f"validation/{metric}"), self._target["validation"]
        if value is not None:
            aim = "" if target is None else f" (target {target:g})"
            parts.append(f"{metric} {value:.4f}{aim}")
        parts.append(f"{max(0.0, self._budget_s - clock_s):.0f} s left")
        return " | ".join(parts)
