"""Variants of workloads: a workload with named changes of its model or data.

`axes` is the table of changes, `rows` those of training rows. A workload's own variants are in its
facts (`WorkloadDefinition.variants`); a suite's are drawn by seed.
"""
