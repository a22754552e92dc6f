"""Workloads, targets and budgets to score by."""
