"""algoperf measures how fast training algorithms train neural networks, in JAX and in PyTorch."""

__version__ = "0.1.0"
