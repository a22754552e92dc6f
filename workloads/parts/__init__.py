"""What several workloads share: models in each framework, text, and the names of saved weights."""
