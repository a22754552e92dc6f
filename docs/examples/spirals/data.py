"""Points of spirals that turn three quarters around the origin."""

import numpy as np

from algoperf.workload import Data


def load(source: str, rows: dict[str, int], noise: float) -> Data:
    """Return points, float32 (rows, 2), and the spiral of each, int32 (rows,)."""
    generator = np.random.default_rng(0)
    return Data({split: _points(generator, count, noise) for split, count in rows.items()})


def _points(generator: np.random.Generator, count: int, noise: float) -> dict[str, np.ndarray]:
    spiral_B = generator.integers(3, size=count)
    radius_B = np.sqrt(generator.uniform(0.05, 1, count))
    angle_B = 1.5 * np.pi * radius_B + 2 * np.pi / 3 * spiral_B
    angle_B += noise * generator.standard_normal(count)
    point_B2 = radius_B[:, None] * np.stack([np.cos(angle_B), np.sin(angle_B)], axis=1)
    return {"inputs": point_B2.astype(np.float32), "targets": spiral_B.astype(np.int32)}
