"""One folder a workload: its facts, its data, and its model in each framework."""
