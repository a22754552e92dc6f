"""What is worked out of a leaderboard: intervals, speed-ups, robustness, sensitivity."""
