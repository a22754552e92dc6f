"""Where runs are started, and how many at a time."""
