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
    limits = choices.limits(plan(source, max_steps=max_steps), scale())
    assert (limits.max_steps, limits.budget_s) == (steps, seconds)


def test_evaluations_come_by_cost_where_there_is_a_target_to_cross():
    assert choices.limits(plan("builtin"), scale()).eval_share == 0.19
    assert choices.limits(plan("builtin"), scale(), begun_by_period=True).eval_share is None
    assert choices.limits(plan("builtin", eval_every_steps=5), scale()).eval_share is None
    assert choices.limits(plan("folder"), scale()).eval_share is None


def scale():
    return catalogue.find("ag_news").scales["mini"]


def plan(source, **settings):
    return TrialPlan(
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
        **settings,
    )
