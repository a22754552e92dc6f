import jax.numpy as jnp


def warm_up(peak, step_hint):
    steps = max(1, int(0.05 * step_hint))
    return lambda step: peak * jnp.clip((step + 1) / steps, a_max=1.0)
