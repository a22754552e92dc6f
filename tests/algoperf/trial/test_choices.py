"""What a plan's settings come to."""

import math

import pytest

from algoperf.trial import choices
from algoperf.trial.plan import TrialPlan
from algoperf.workload import catalogue


@pytest.mark.parametrize(
    ("source", "max_steps", "steps", "seconds"),
    [
        ("builtin", None, None, 150.0),
        ("builtin", 900, 900, math.inf),
        ("folder", None, 400, 150.0),  # no target there: the step hint
        ("folder", 900, 900, math.inf),
    ],
)
def test_where_a_trial_ends(source, max_steps, steps, seconds):
    plan = TrialPlan(
        workload="ag_news",
        scale="mini",
        data=source,
        source_kind=source,
        framework="jax",
        submission="a.py",
        out="runs",
        experiment="test",
        study=0,
        trial=1,
        seed=1,
        max_steps=max_steps,
    )
    limits = choices.limits(plan, catalogue.find("ag_news").scales["mini"])
    assert (limits.max_steps, limits.budget_s) == (steps, seconds)
