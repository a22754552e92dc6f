"""Scores from run folders: reads files only, and imports no training framework.

Each step is a function of its own: `load_runs` -> `make_pools` -> `build_leaderboard`, on top of
`time_to_target` (one trial) and `performance_profile` and `benchmark_score` (arrays).
"""

from scoring.leaderboard import build_leaderboard
from scoring.pools import make_pools
from scoring.profiles import benchmark_score, performance_profile, ratios_to_fastest
from scoring.report import score_command
from scoring.runs import Finding, Target, TrialRun, load_runs
from scoring.time_to_target import time_to_target

__all__ = [
    "Finding",
    "Target",
    "TrialRun",
    "benchmark_score",
    "build_leaderboard",
    "load_runs",
    "make_pools",
    "performance_profile",
    "ratios_to_fastest",
    "score_command",
    "time_to_target",
]
