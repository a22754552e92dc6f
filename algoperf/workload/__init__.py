"""What is trained, as data; these names are what the module of a workload imports."""

from algoperf.workload.definition import (
    SPLITS,
    Arrays,
    Data,
    Generation,
    Outside,
    Scale,
    Target,
    Text,
    Variant,
    WorkloadDefinition,
)

__all__ = [
    "SPLITS",
    "Arrays",
    "Data",
    "Generation",
    "Outside",
    "Scale",
    "Target",
    "Text",
    "Variant",
    "WorkloadDefinition",
]
