"""Nesterov: SGD with Nesterov momentum, a linear warm-up and a linear decay.

Nesterov 1983, "A method for solving the convex programming problem with convergence rate
O(1/k^2)", as rewritten by Bengio et al. 2013, "Advances in Optimizing Recurrent Networks", with
the learning rate outside the sum. All but that is as in `momentum`.
"""

import functools

from reference_algorithms import momentum

DEFAULTS = momentum.DEFAULTS
SEARCH_SPACE = momentum.SEARCH_SPACE
learning_rate = momentum.learning_rate
jax_optimizer = functools.partial(momentum.jax_optimizer, nesterov=True)
torch_optimizer = functools.partial(momentum.torch_optimizer, nesterov=True)
