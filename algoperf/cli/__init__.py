"""The command line of `algoperf`: nothing outside this package reads `sys.argv` or prints."""

from algoperf.cli.commands import main

__all__ = ["main"]
