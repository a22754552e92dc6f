"""Facts shared by the workloads on GPT-2's form of the decoder (`decoder_jax.py`,
`decoder_torch.py`).
"""

from collections.abc import Mapping
from typing import Any

from workloads.parts.style import DecoderStyle

STYLE = DecoderStyle(activation="gelu_tanh", norm="layer", norm_place="pre")
MINI = {"positions": 64, "width": 128, "layers": 2, "heads": 4, "style": STYLE}
GPT2_SMALL = {"positions": 1024, "width": 768, "layers": 12, "heads": 12, "style": STYLE}


def initial_std(name: str, shape: tuple[int, ...], model: Mapping[str, Any]) -> float:
    """Return the standard deviation of a parameter's initial values, by GPT-2's rule.

    It is 0.02, divided by sqrt(2 layers) for projections into the residual stream.

    Args:
        name: The name of the parameter.
        shape: Its shape, which does not matter here.
        model: The settings of the model, of which 'layers' matters.
    """
    residual = name.endswith(("attention_out/kernel", "down/kernel"))
    return 0.02 / (2 * model["layers"]) ** 0.5 if residual else 0.02
