"""Parameters by name, in NumPy: their roles, their initial values, and how the frameworks' layouts
differ.

A parameter's name is the path of module names and the leaf, joined by '/', as flax has it:
`block_0/attention/qkv/kernel`. Leaves are `kernel`, `bias`, `scale`, `embedding`. Both models of a
workload use the same module names, and these say a parameter's role: a module with `norm` in its
name is a layer norm (`batch_norm`: a batch norm); attention projections are called `query`, `key`,
`value`, `qkv`, `key_value` and `attention_out`.
"""

import zlib
from collections.abc import Callable, Mapping

import numpy as np

from algoperf.spec import Parameter, Parameters, ParameterType

ATTENTION = {
    "query": ParameterType.ATTENTION_Q,
    "key": ParameterType.ATTENTION_K,
    "value": ParameterType.ATTENTION_V,
    "qkv": ParameterType.ATTENTION_QKV,
    "key_value": ParameterType.ATTENTION_KV,
    "attention_out": ParameterType.ATTENTION_OUT,
}
Shape = tuple[int, ...]


def parameter_type(name: str, shape: Shape) -> ParameterType:
    """The role of a parameter, from its name and the number of its dimensions."""
    *folders, leaf = name.split("/")
    module = folders[-1] if folders else ""
    if "norm" in module:
        kind = "BATCH_NORM" if "batch_norm" in module else "LAYER_NORM"
        return ParameterType[f"{kind}_{'BIAS' if leaf == 'bias' else 'SCALE'}"]
    if leaf == "bias":
        return ParameterType.ATTENTION_BIAS if module in ATTENTION else ParameterType.BIAS
    if leaf == "embedding":
        return ParameterType.EMBEDDING
    if module in ATTENTION:
        return ATTENTION[module]
    return ParameterType.CONV_WEIGHT if len(shape) > 2 else ParameterType.WEIGHT


def initial_value(
    name: str, shape: Shape, std: Callable[[], float], seed: tuple[int, int]
) -> np.ndarray:
    """A parameter's first value in JAX's layout: norm scales 1, biases 0, the rest normal(0, std).

    Each draws from a stream of its own, by (seed, name), so that both frameworks start from the
    same function and a model's other parameters do not matter.
    """
    leaf = name.rsplit("/", 1)[-1]
    if leaf in ("scale", "var"):
        return np.ones(shape, np.float32)
    if leaf in ("bias", "mean"):
        return np.zeros(shape, np.float32)
    generator = np.random.Generator(
        np.random.Philox(np.random.SeedSequence([*seed, zlib.crc32(name.encode())]))
    )
    return generator.standard_normal(shape, np.float32) * np.float32(std())


def describe(
    shapes: Mapping[str, Shape],
    is_output: Callable[[str], bool],
    tensors: Mapping[str, object] | None = None,
) -> Parameters:
    """The parameters as an optimizer-form submission sees them."""
    return Parameters(
        Parameter(
            name, parameter_type(name, shape), shape, is_output(name), (tensors or {}).get(name)
        )
        for name, shape in shapes.items()
    )


def to_torch(name: str, value: np.ndarray) -> np.ndarray:
    """A JAX-layout parameter as PyTorch lays it out: dense (in, out) -> (out, in), convolution HWIO
    -> OIHW.
    """
    if not name.endswith("kernel"):
        return value
    return np.ascontiguousarray(np.moveaxis(value, (-1, -2), (0, 1)))


def from_torch(name: str, value: np.ndarray) -> np.ndarray:
    """The inverse of `to_torch`."""
    if not name.endswith("kernel"):
        return value
    return np.ascontiguousarray(np.moveaxis(value, (0, 1), (-1, -2)))


def jax_shape(name: str, shape: Shape) -> Shape:
    """The shape in JAX's layout of a parameter that has this one in PyTorch's."""
    if not name.endswith("kernel"):
        return shape
    outputs, inputs, *window = shape
    return (*window, inputs, outputs)


def fan_in(shape: Shape) -> int:
    """The number of inputs of a dense or convolution kernel in JAX's layout."""
    return int(np.prod(shape[:-1]))
