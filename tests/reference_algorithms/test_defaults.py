"""Every reference algorithm at its DEFAULTS reaches digits' target within the step hint, and on
ag_news its target or a lower loss than momentum.
"""

import functools
import tempfile
import time
from pathlib import Path

import pytest

import reference_algorithms
from algoperf.trial import assemble, result
from algoperf.trial.clock import Ledger
from algoperf.trial.plan import TrialPlan


def run(name, framework, folder, workload, **settings):
    """One trial in this process, since each process of its own would import everything again."""
    plan = TrialPlan(
        workload=workload,
        scale="mini",
        data="builtin",
        source_kind="builtin",
        framework=framework,
        submission=str(reference_algorithms.path(name)),
        out=str(folder / "runs"),
        experiment="test",
        study=0,
        trial=1,
        seed=1,
        **settings,
    )
    assembled = assemble.assemble(
        plan, Ledger(started_at_s=time.perf_counter()), lambda *_, **__: 0
    )
    assemble.run(assembled)
    return result.of(assembled)


@pytest.mark.slow
@pytest.mark.parametrize(
    "framework", [pytest.param("jax", marks=pytest.mark.exhaustive), "pytorch"]
)
@pytest.mark.parametrize("name", reference_algorithms.names())
def test_reaches_the_target(name, framework, tmp_path):
    ended = run(name, framework, tmp_path, "digits", max_steps=600, eval_every_steps=20)
    assert ended["status"] == "reached", ended.get("error")
    assert ended["steps_to_target"] <= 600
    assert ended["flags"] == []


def on_ag_news(name, framework, until):
    """A run of the step hint's 400 steps."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"max_steps": 400, "eval_every_steps": 50, "until": until}
        ended = run(name, framework, Path(folder), "ag_news", **settings)
    assert ended["status"] in ("reached", "complete"), ended.get("error")
    assert ended["flags"] == []
    return ended


@functools.cache
def loss_of_momentum(framework):
    """The validation loss after the step hint's steps."""
    ended = on_ag_news("momentum", framework, "end")
    assert ended["steps"] == 400
    return ended["final"]["validation/loss"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("framework", ["jax", "pytorch"])
@pytest.mark.parametrize("name", [n for n in reference_algorithms.names() if n != "momentum"])
def test_learns_the_news(name, framework, record_property):
    ended = on_ag_news(name, framework, "validation")
    loss = ended["final"]["validation/loss"]
    seen = (ended["status"], ended["steps"], ended["best"]["validation/accuracy"], loss)
    # Shown by --junit-xml FILE -o junit_family=legacy.
    record_property("status, steps, best accuracy, last loss", seen)
    assert ended["status"] == "reached" or loss < loss_of_momentum(framework)
