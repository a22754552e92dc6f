"""What the command line says of a workload."""

import dataclasses

from algoperf.cli import summary
from algoperf.workload import Target, Variant, catalogue


def test_workloads():
    definition = catalogue.find("digits")
    target = Target(0.97, "ten seeds", ceiling=0.99, baselines={"nearest neighbour": 0.9512345})
    mini = dataclasses.replace(definition.scales["mini"], targets={"builtin": target})
    variants = {"wide": Variant({"width": 2.0, "norm": "rms"})}
    definition = dataclasses.replace(definition, scales={"mini": mini}, variants=variants)
    described = summary.of_workload(definition)
    assert (described["name"], described["loss_type"]) == ("digits", "SOFTMAX_CROSS_ENTROPY")
    lines = summary.workload_lines([described], details=True)
    assert lines == [
        f"digits: {definition.summary}",
        f"  mini: batch {mini.batch_size}, step hint {mini.step_hint}, budget {mini.budget_s:g} s, "
        "evaluation at most 19% of the time, data: builtin (or no other)",
        "    target on builtin: accuracy 0.97",
        "      baseline: nearest neighbour 0.9512",
        "      ceiling: 0.9900",
        "      set by: ten seeds",
        "  variant digits_wide: width 2.0, norm rms",
    ]
    assert summary.workload_lines([described], details=False) == [*lines[:3], lines[-1]]
