"""Code that several workloads share: models in each framework, text, and names of saved weights."""
