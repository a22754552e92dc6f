"""Benchmarks to score by: workloads, their targets and budgets, and pools of comparable runs."""
