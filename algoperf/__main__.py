"""`python -m algoperf` is the command `algoperf`."""

import sys

from algoperf import cli

if __name__ == "__main__":
    sys.exit(cli.main())
