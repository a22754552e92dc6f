"""The workloads, one folder each: its facts, its data, and its model in each framework."""
