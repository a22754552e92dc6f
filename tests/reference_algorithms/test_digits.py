"""Every reference algorithm at its DEFAULTS reaches digits' target within the step hint."""

import time

import pytest

import reference_algorithms
from algoperf import assemble, result
from algoperf.clock import Ledger
from algoperf.trial_plan import TrialPlan


def run(name, framework, folder):
    """One trial in this process, since each process of its own would import everything again."""
    plan = TrialPlan(
        workload="digits",
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
        max_steps=600,
        eval_every_steps=20,
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
    ended = run(name, framework, tmp_path)
    assert ended["status"] == "reached", ended.get("error")
    assert ended["steps_to_target"] <= 600
    assert ended["flags"] == []
