"""What is trained, as data; these names are what the module of a workload imports."""

from algoperf.workload.definition import (
    EVAL_SHARE,
    SPLITS,
    Data,
    Generation,
    Outside,
    Scale,
    Target,
    Text,
    Variant,
    WorkloadDefinition,
)
from algoperf.workload.rows import ArrayRows, Arrays, Augmentation, Drawn, Field, Rows

__all__ = [
    "EVAL_SHARE",
    "SPLITS",
    "ArrayRows",
    "Arrays",
    "Augmentation",
    "Data",
    "Drawn",
    "Field",
    "Generation",
    "Outside",
    "Rows",
    "Scale",
    "Target",
    "Text",
    "Variant",
    "WorkloadDefinition",
]
