"""What the facts of the workloads over GPT-2's blocks share (`gpt2_jax.py`, `gpt2_torch.py`)."""

from collections.abc import Mapping
from typing import Any

from workloads.parts.style import TransformerStyle

STYLE = TransformerStyle(activation="gelu_tanh", norm="layer", norm_place="pre")
MINI = {"positions": 64, "width": 128, "layers": 2, "heads": 4, "style": STYLE}
GPT2_SMALL = {"positions": 1024, "width": 768, "layers": 12, "heads": 12, "style": STYLE}


def initial_std(name: str, shape: tuple[int, ...], model: Mapping[str, Any]) -> float:
    """GPT-2's rule: 0.02, projections into the residual stream divided by sqrt(2 layers)."""
    residual = name.endswith(("attention_out/kernel", "down/kernel"))
    return 0.02 / (2 * model["layers"]) ** 0.5 if residual else 0.02
