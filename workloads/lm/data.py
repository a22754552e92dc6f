"""The rows of the language-modelling workload: text packed into rows of tokens.

The target of each position is the next token.
"""

from workloads.parts import plain_text

load = plain_text.windows
