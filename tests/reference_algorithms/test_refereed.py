"""No reference algorithm is flagged by a referee in a process of its own.

One referee for each framework, in this process, judges one trial of each algorithm after another:
each trial has a trainer's process of its own.
"""

import time

import pytest

import reference_algorithms
from algoperf.machine import stopping
from algoperf.trial import refereed
from algoperf.trial.bench import Bench
from algoperf.trial.clock import Ledger
from algoperf.trial.plan import PROCESS, TrialPlan

# By the state that they keep, what they evaluate, and when they compile.
IN_THE_DEFAULT_RUN = {("momentum", "pytorch")}
SLOW = {"schedule_free_adamw", "adamw", "shampoo"}


def plan_of(name, framework, out):
    return TrialPlan(
        workload="digits",
        scale="mini",
        data="builtin",
        source_kind="builtin",
        framework=framework,
        submission=str(reference_algorithms.path(name)),
        out=str(out),
        experiment="test",
        study=0,
        trial=1,
        seed=1,
        referee=PROCESS,
        max_steps=30,
        eval_every_steps=10,
        until="end",
    )


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    folder, benches = tmp_path_factory.mktemp("refereed"), {}

    def run(name, framework):
        plan = plan_of(name, framework, folder)
        if framework not in benches:
            benches[framework] = Bench(plan)
        ledger = Ledger(started_at_s=time.perf_counter())
        return refereed.run(
            benches[framework], plan, ledger, lambda *_, **__: None, stopping.Stops()
        )

    return run


def marked():
    for framework in ("pytorch", "jax"):
        for name in reference_algorithms.names():
            marks = [pytest.mark.slow] if name in SLOW else [pytest.mark.exhaustive]
            usual = (name, framework) in IN_THE_DEFAULT_RUN
            yield pytest.param(name, framework, marks=[] if usual else marks)


@pytest.mark.parametrize(("name", "framework"), list(marked()))
def test_no_flag(benches, name, framework):
    ended = benches(name, framework)
    assert (ended["status"], ended["steps"]) == ("complete", 30), ended["error"]
    assert ended["flags"] == []
