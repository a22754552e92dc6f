"""`--wandb`: log each trial as a run of Weights & Biases, from the contents of its run folder.

The folder that W&B writes to is inside the run folder. A trial that is resumed stays the same W&B
run, and steps that were sent before are not sent again.
"""

import importlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from algoperf.errors import UserError
from algoperf.run_folder import run_log
from algoperf.study import companions
from algoperf.trial.plan import TrialPlan

OPTION = "--wandb"
PROJECT = "algoperf"
FINISH_S = 120.0  # The most time for the upload at the end of a run.
ID, SENT = "id", "sent"
# The last step that was sent is kept for each kind of values, since the scalars of a step may be
# sent after its evaluation.
SCALARS, EVALUATIONS = "training", "evaluations"


class WandbRun:
    """Follows each trial with a W&B run, in the process that starts the trial."""

    name = OPTION

    def __init__(self) -> None:
        self._run: Any = None
        self._plan: TrialPlan | None = None
        self._folder = Path()
        self._sent: dict[str, int] = {}
        self._end = 0  # The position up to which training scalars were read, in bytes.

    def begin(self, plan: TrialPlan, folder: Path) -> None:
        """Load W&B and start its service, before anything is timed."""
        importlib.import_module("wandb").setup()
        self._run, self._plan, self._folder = None, plan, folder
        self._sent, self._end = dict.fromkeys((SCALARS, EVALUATIONS), -1), 0

    def event(self, event: dict[str, Any]) -> None:
        """Start the W&B run, or send the new training scalars and the evaluation."""
        if event["event"] == "start":
            self._start()
        elif event["event"] == "evaluation":
            self._send_scalars()
            values = {**event["metrics"], "submission_clock_s": event["clock_s"]}
            self._send(EVALUATIONS, event["step"], values)
            self._keep()

    def end(self, result: dict[str, Any] | None) -> dict[str, Any]:
        """Send the result and end the W&B run.

        Without a result the run is ended as failed and can be resumed. If the trial was a user's
        mistake, its W&B folder is removed.
        """
        if self._run is None:
            return {}
        if run_log.read_flags(self._folder) is None:  # A user's mistake leaves no trial.
            self._run.finish(exit_code=1)
            shutil.rmtree(self._folder / run_log.WANDB, ignore_errors=True)
            return {}
        self._send_scalars()
        self._keep()
        if result is not None:
            known = {key: value for key, value in result.items() if value is not None}
            self._run.summary.update(known)
        failed = result is None or result["status"] == "failed"
        self._run.finish(exit_code=int(failed))
        return {}

    def _start(self) -> None:
        plan, folder = self._plan, self._folder
        assert plan is not None
        wandb = importlib.import_module("wandb")
        flags = run_log.read_flags(folder) or {}
        before = run_log.read_json(folder / run_log.WANDB_RUN) or {}
        self._sent |= before.get(SENT, {})
        where = f"study {plan.study} trial {plan.trial}"
        self._run = wandb.init(
            project=wandb.setup().settings.project or PROJECT,
            id=before.get(ID),
            resume="allow" if before else None,
            name=f"{flags.get('submission')} {plan.workload} {plan.framework} {where}",
            group=plan.experiment,
            config=flags,
            dir=str(folder),
            reinit="create_new",
            settings=_settings(wandb),
        )
        self._keep()

    def _send_scalars(self) -> None:
        """Send the training scalars that were added to the run folder since the last call."""
        rows, self._end = run_log.scalars(self._folder, self._end)
        for row in rows:
            step = int(row.pop("global_step"))
            self._send(SCALARS, step, {f"training/{name}": row[name] for name in row})

    def _send(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Send the values of a step, unless an earlier process of the trial has sent them."""
        if step > self._sent[kind]:
            self._run.log(values, step=step)
            self._sent[kind] = step

    def _keep(self) -> None:
        (self._folder / run_log.WANDB).mkdir(exist_ok=True)
        kept = {ID: self._run.id, SENT: self._sent}
        run_log.write_json(self._folder / run_log.WANDB_RUN, kept)


def _settings(wandb: Any) -> Any:
    """Return settings that keep W&B from measuring the machine and reading other files."""
    return wandb.Settings(
        console="off",
        silent=True,
        disable_git=True,
        save_code=False,
        finish_timeout=FINISH_S,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )


def check() -> None:
    """Check that `--wandb` can be used.

    Raises:
        UserError: W&B is not installed, or it is to send data and has no account.
    """
    companions.need(OPTION, "wandb", "wandb")
    wandb = importlib.import_module("wandb")
    if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False, verify=False):
        raise UserError(
            f"{OPTION}: W&B has no account here; run `wandb login`, or set WANDB_MODE=offline"
        )
