"""The embedding of an image's patches in flax.

Shapes: N rows, H height, W width, C channels, T patches, D width of the embedding.
"""

import jax
from flax import linen as nn

from workloads.parts.patches import sine_positions


class PatchEmbedding(nn.Module):
    """A convolution that sees each square patch once, and the patches' fixed positions.

    Attributes:
        width: The width D of the embedding.
        patch: The side of a patch in pixels.
    """

    width: int
    patch: int

    @nn.compact
    def __call__(self, pixels_NHWC: jax.Array) -> jax.Array:
        """Return embeddings (N, T, D), row by row of patches."""
        side = (self.patch, self.patch)
        conv = nn.Conv(self.width, side, side, padding="VALID", name="conv")
        grid = conv(pixels_NHWC)
        N, rows, columns, D = grid.shape
        positions_TD = sine_positions(rows, columns, D).astype(grid.dtype)
        embedded_NTD: jax.Array = grid.reshape(N, rows * columns, D) + positions_TD
        return embedded_NTD
