"""algoperf measures how fast training algorithms train neural networks, in JAX and in PyTorch.

In a script or a notebook: `algoperf.run`, `check`, `compare`, `score`, `calibrate` and
`load_workload` (`algoperf.api`), which are loaded when they are first used.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from algoperf.api import (
        CalibrateResult,
        CheckResult,
        CompareResult,
        LoadedWorkload,
        RunResult,
        ScoreResult,
        TrialResult,
        UserError,
        calibrate,
        check,
        compare,
        load_workload,
        run,
        score,
    )

__all__ = [
    "CalibrateResult",
    "CheckResult",
    "CompareResult",
    "LoadedWorkload",
    "RunResult",
    "ScoreResult",
    "TrialResult",
    "UserError",
    "calibrate",
    "check",
    "compare",
    "load_workload",
    "run",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from algoperf import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
