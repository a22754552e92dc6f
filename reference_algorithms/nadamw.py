"""NAdamW: Adam with Nesterov momentum and decoupled weight decay, warm-up and cosine decay.

Dozat 2016, "Incorporating Nesterov Momentum into Adam", algorithm 2 with constant mu and without
its factor on the second moment; weight decay as in AdamW. PyTorch schedules Dozat's mu as
beta1 (1 - 0.96^(t momentum_decay) / 2): a huge momentum_decay makes it constant, as optax's is.
"""

import functools

from reference_algorithms import adamw

DEFAULTS = adamw.DEFAULTS
SEARCH_SPACE = adamw.SEARCH_SPACE
learning_rate = adamw.learning_rate
jax_optimizer = functools.partial(adamw.jax_optimizer, name="nadamw")
torch_optimizer = functools.partial(
    adamw.torch_optimizer,
    name="NAdam",
    # There is no fused form; foreach halves the time on CPU.
    options={"momentum_decay": 1e6, "decoupled_weight_decay": True, "foreach": True},
)
