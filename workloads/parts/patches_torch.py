"""The embedding of an image's patches in PyTorch.

Shapes: N rows, H height, W width, C channels, T patches, D width of the embedding.
"""

import torch
from torch import nn

from workloads.parts.patches import sine_positions


class PatchEmbedding(nn.Module):
    """A convolution that sees each square patch once, and the patches' fixed positions.

    Args:
        width: The width D of the embedding.
        patch: The side of a patch in pixels.
        channels: The number C of channels.
    """

    def __init__(self, width: int, patch: int, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, patch, patch)

    def forward(self, pixels_NCHW: torch.Tensor) -> torch.Tensor:
        """Return embeddings (N, T, D), row by row of patches."""
        grid = self.conv(pixels_NCHW)
        D, rows, columns = grid.shape[1:]
        positions_TD = torch.from_numpy(sine_positions(rows, columns, D)).to(grid)
        embedded_NTD: torch.Tensor = grid.flatten(2).transpose(1, 2) + positions_TD
        return embedded_NTD
