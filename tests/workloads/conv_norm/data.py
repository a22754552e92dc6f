"""Stripes in four directions, of a random phase, brightness and contrast, under noise.

Shapes: N rows, H height, W width, C channels.
"""

import numpy as np

from algoperf.workload import Arrays, Data

SIZE, CHANNELS = 8, 3
SLOPES = np.array([(0.0, 1.0), (1.0, 0.0), (0.7, 0.7), (0.7, -0.7)])  # a class each: down, across


def load(source: str, train_rows: int, other_rows: int, seed: int) -> Data:
    """Return the rows of a seed: inputs_NHWC in float32, and targets 0 to 3, the direction."""
    generator = np.random.default_rng(seed)
    rows = {"train": train_rows, "validation": other_rows, "test": other_rows}
    return Data({split: _rows(generator, count) for split, count in rows.items()})


def _rows(generator: np.random.Generator, count: int) -> Arrays:
    targets_N = generator.integers(0, len(SLOPES), count)
    down_H, across_W = np.arange(SIZE)[:, None], np.arange(SIZE)[None, :]
    phase_N, brightness_N, contrast_N = generator.random((3, count, 1, 1))
    slope_N = SLOPES[targets_N][..., None, None]
    wave_NHW = slope_N[:, 0] * down_H + slope_N[:, 1] * across_W + 8 * phase_N
    clean_NHW = brightness_N + (0.5 + contrast_N) * np.sin(1.5 * wave_NHW)
    noise_NHWC = generator.standard_normal((count, SIZE, SIZE, CHANNELS))
    inputs_NHWC = (clean_NHW[..., None] + 0.5 * noise_NHWC).astype(np.float32)
    return {"inputs": inputs_NHWC, "targets": targets_N.astype(np.int32)}
