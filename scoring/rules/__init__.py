"""Scoring rules: from a trial to its time to target, and from times to a score."""
