"""Parameters by name, in NumPy: their roles, initial values, and layouts in the two frameworks.

A parameter's name is the path of module names and the leaf, joined by '/', as in flax:
`block_0/attention/qkv/kernel`. The leaves are `kernel`, `bias`, `scale` and `embedding`. Both
models of a workload use the same module names, which determine a parameter's role. A module with
`norm` in its name is a layer norm, or with `batch_norm` a batch norm. Attention projections are
called `query`, `key`, `value`, `qkv`, `key_value` and `attention_out`. All kernels in a module that
is called `convolution` count as a convolution's. A module with `transposed` in its name is a
transposed convolution, whose window is not turned round (as PyTorch has it).
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
    """Return the role of a parameter.

    Args:
        name: Its name.
        shape: Its shape; a kernel with more than two dimensions is one of a convolution.
    """
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
    in_convolution = len(shape) > 2 or "convolution" in folders
    is_convolution = leaf == "kernel" and in_convolution
    return ParameterType.CONV_WEIGHT if is_convolution else ParameterType.WEIGHT


def initial_value(
    name: str,
    shape: Shape,
    std: Callable[[], float],
    seed: tuple[int, int],
    norm_scale: Callable[[], float] = lambda: 1.0,
    mean: Callable[[], float] = lambda: 0.0,
) -> np.ndarray:
    """Return the initial value of a parameter, in JAX's layout.

    Scales of norms are what the workload says (1 by default), running variances are 1, biases (and
    running means) are 0, and all others are normal, with mean 0 unless the workload says another.
    Each parameter draws from a random stream of its own, determined by the seed and its name. So
    both frameworks start from the same function, and it does not matter which other parameters a
    model has.

    Args:
        name: Its name.
        shape: Its shape in JAX's layout.
        std: Returns the standard deviation; called only where the value is normal.
        seed: The seed.
        norm_scale: Returns the value of a norm's scale.
        mean: Returns the mean of what is normal.
    """
    leaf = name.rsplit("/", 1)[-1]
    if leaf == "scale":
        return np.full(shape, norm_scale(), np.float32)
    if leaf == "var":
        return np.ones(shape, np.float32)
    if leaf in ("bias", "mean"):
        return np.zeros(shape, np.float32)
    generator = np.random.Generator(
        np.random.Philox(np.random.SeedSequence([*seed, zlib.crc32(name.encode())]))
    )
    values = generator.standard_normal(shape, np.float32)
    values *= np.float32(std())  # in its own memory, which a table of embeddings has a lot of
    if offset := mean():
        values += np.float32(offset)
    return values


def describe(
    shapes: Mapping[str, Shape],
    is_output: Callable[[str], bool],
    tensors: Mapping[str, object] | None = None,
) -> Parameters:
    """Return the parameters in the form in which an optimizer-form submission sees them.

    Args:
        shapes: Their shapes by name, in the framework's own layout.
        is_output: Returns whether the parameter of a name belongs to the output layer.
        tensors: PyTorch's tensors by name; None in JAX.
    """
    return Parameters(
        Parameter(
            name, parameter_type(name, shape), shape, is_output(name), (tensors or {}).get(name)
        )
        for name, shape in shapes.items()
    )


def to_torch(name: str, value: np.ndarray) -> np.ndarray:
    """Return a parameter in PyTorch's layout.

    A dense kernel goes from (in, out) to (out, in), a kernel of a convolution from HWIO to OIHW,
    and that of a transposed one to IOHW. All others are the same in both frameworks.

    Args:
        name: Its name.
        value: Its value in JAX's layout.
    """
    if not name.endswith("kernel"):
        return value
    return np.ascontiguousarray(np.moveaxis(value, _channels(name), (0, 1)))


def _channels(name: str) -> tuple[int, int]:
    """The axes of a kernel in JAX's layout that are PyTorch's first and second."""
    is_transposed = any("transposed" in module for module in name.split("/")[-2:-1])
    return (-2, -1) if is_transposed else (-1, -2)


def from_torch(name: str, value: np.ndarray) -> np.ndarray:
    """Return a parameter in JAX's layout; this is the inverse of `to_torch`.

    Args:
        name: Its name.
        value: Its value in PyTorch's layout.
    """
    if not name.endswith("kernel"):
        return value
    return np.ascontiguousarray(np.moveaxis(value, (0, 1), _channels(name)))


def jax_shape(name: str, shape: Shape) -> Shape:
    """Return the shape of a parameter in JAX's layout, from its shape in PyTorch's."""
    if not name.endswith("kernel"):
        return shape
    first, second, *window = shape
    return (*window, first, second) if _channels(name) == (-2, -1) else (*window, second, first)


def fan_in(shape: Shape) -> int:
    """Return the number of inputs of a dense or convolution kernel.

    Args:
        shape: Its shape in JAX's layout.
    """
    return int(np.prod(shape[:-1]))
