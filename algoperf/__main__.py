"""`python -m algoperf` is the command `algoperf`."""

import sys

from algoperf.cli import commands

if __name__ == "__main__":
    sys.exit(commands.main())
