"""From a path or a name to a submission's functions."""
