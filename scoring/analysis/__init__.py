"""Statistics worked out from a leaderboard: intervals, speed-ups, robustness and sensitivity."""
