"""Held-out variants of workloads: draw them by seed, screen them, and set their targets.

A variant is a workload with named changes of its model or data. `algoperf.workload.axes` has the
table of possible changes, and `algoperf.data.row_changes` applies those of training rows. A
workload's own variants are part of its definition (`WorkloadDefinition.variants`); those of a
suite are drawn here.
"""
