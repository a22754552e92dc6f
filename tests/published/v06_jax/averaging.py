import jax
from submissions.self_tuning.v06_jax.constants import KEEP


@jax.jit
def step(average, params):
    return jax.tree.map(lambda a, p: KEEP * a + (1 - KEEP) * p, average, params)
