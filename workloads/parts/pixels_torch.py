"""The normalisation of pixels in PyTorch.

Shapes: N rows, H height, W width, C channels.
"""

import torch

from workloads.parts import pixels


def normalised(inputs_NHWC: torch.Tensor) -> torch.Tensor:
    """Return pixels from 0 to 255 less their means, over their standard deviations, (N, C, H, W).

    Args:
        inputs_NHWC: The pixels, integers or floats.
    """
    inputs_NHWC = inputs_NHWC.float()
    mean_C, std_C = (inputs_NHWC.new_tensor(each) for each in (pixels.MEAN_C, pixels.STD_C))
    return ((inputs_NHWC - mean_C) / std_C).permute(0, 3, 1, 2)
