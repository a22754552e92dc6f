"""What a technique adds to a flax model (see `algoperf.workload.trainable`): it acts on the outputs
of layers, found by their paths, and the model knows nothing of it.

Shapes: B batch, T tokens, P virtual tokens, D width of a layer's output.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from algoperf.workload.trainable import Trainable

Layer = Mapping[str, Any]  # the parameters of a layer, with those of what was added below


def _lora(layer: Layer, hidden: jax.Array, output: jax.Array, scale: float) -> jax.Array:
    """Add (alpha / rank) B A x, by two thin products (Hu et al. 2022, section 4.1)."""
    added: jax.Array = hidden @ layer["lora_a"]["kernel"] @ layer["lora_b"]["kernel"]
    return output + scale * added


def _adapter(layer: Layer, hidden: jax.Array, output: jax.Array, scale: float) -> jax.Array:
    """Add up(gelu(down(output))) (Houlsby et al. 2019, section 2.1)."""
    down, up = layer["adapter_down"], layer["adapter_up"]
    inner = nn.gelu(output @ down["kernel"] + down["bias"], approximate=False)
    added: jax.Array = inner @ up["kernel"] + up["bias"]
    return output + added


def _prompt(layer: Layer, token_BT: jax.Array, output_BTD: jax.Array, scale: float) -> jax.Array:
    """Put the virtual tokens before the others: (B, P + T, D)."""
    prompt_PD = layer["prompt"]["embedding"]
    prompt_BPD = jnp.broadcast_to(prompt_PD, (len(output_BTD), *prompt_PD.shape))
    return jnp.concatenate([prompt_BPD, output_BTD], 1)


ADD: Mapping[str, Callable[..., jax.Array]] = {
    "lora": _lora,
    "adapter": _adapter,
    "prompt": _prompt,
}


@dataclasses.dataclass(frozen=True)
class TunedModel:
    """A model with what is added to some layers: `kinds` are (path, kind). Its variables are the
    model's, with the added parameters among those of their layers. Equal ones share what is
    compiled.
    """

    model: Any
    kinds: tuple[tuple[str, str], ...]
    scale: float

    def apply(self, *arguments: Any, **keywords: Any) -> Any:
        """As flax's own."""
        with nn.intercept_methods(self._add):
            return self.model.apply(*arguments, **keywords)

    def _add(self, function: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        output = function(*arguments, **keywords)
        kind = dict(self.kinds).get("/".join(context.module.path))
        if kind is None or context.method_name != "__call__":
            return output
        return ADD[kind](context.module.variables["params"], arguments[0], output, self.scale)

    def empty_cache(self, rows: int, length: int) -> Any:
        """The model's own."""
        return self.model.empty_cache(rows, length)


def tuned(model: nn.Module, trainable: Trainable) -> Any:
    """Return the model with what is added to it; itself where nothing is."""
    kinds = tuple(sorted(trainable.kinds.items()))
    return TunedModel(model, kinds, trainable.scale) if kinds else model


def merged(params: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict[str, Any]:
    """Return one tree with the leaves of both nested dicts."""
    tree = dict(frozen)
    for name, value in params.items():
        both = isinstance(value, Mapping) and name in tree
        tree[name] = merged(value, tree[name]) if both else value
    return tree
