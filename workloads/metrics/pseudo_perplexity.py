"""Perplexity over masked tokens alone, whose weights say which they are (Salazar et al. 2020, who
mask one token at a time).
"""

from workloads.metrics.perplexity import Perplexity

METRICS = {"pseudo_perplexity": Perplexity}
