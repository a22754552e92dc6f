"""Scores from run folders. This package only reads files and imports no training framework.

For notebooks: `load_runs` -> `time_to_target` -> `score`, `bootstrap` and `ratios`, which take and
return pandas frames, and `performance_profile`, which takes arrays. The command line is in
`scoring.report`; docs/scoring.md explains it.
"""

from scoring.frames import bootstrap, load_runs, ratios, score, time_to_target
from scoring.rules.profiles import performance_profile

__all__ = [
    "bootstrap",
    "load_runs",
    "performance_profile",
    "ratios",
    "score",
    "time_to_target",
]
