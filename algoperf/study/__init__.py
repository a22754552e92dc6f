"""Trials times studies, and where they run."""
