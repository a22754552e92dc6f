"""From a command line to text: nothing else reads argv or prints."""

from algoperf.cli.commands import main

__all__ = ["main"]
