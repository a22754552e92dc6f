"""Print the baselines and the ceiling of the built-in fastmri rows, in SSIM.

    python tests/benchmarks/fastmri_baselines.py [--seed SEED]

'zero-filled' is the image of the kept columns, the model's input; 'blurred' that under the best of
some Gaussian blurs, chosen on the same rows. The ceiling is the image without noise, which nobody
can tell from the target by more than the target's own noise.
"""

import argparse

import numpy as np
from scipy import ndimage

from algoperf.workload import SPLITS
from workloads.fastmri import WORKLOAD, data, generator
from workloads.metrics.ssim import ssim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the built-in rows")
    seed = parser.parse_args().seed
    loaded = data.load("builtin", **WORKLOAD.scales["mini"].data, seed=seed)
    print(f"{'':12}{'zero-filled':>14}{'blurred':>14}{'ceiling':>14}")
    for split in SPLITS:
        rows = loaded.splits[split]
        batch = rows.take(np.arange(len(rows)))
        slices = generator.generate(split, seed)
        print(f"{split:12}", end="")
        blurs = [
            mean_ssim(batch, [ndimage.gaussian_filter(each, width) for each in batch["inputs"]])
            for width in (0.3, 0.5, 0.7, 1.0)
        ]
        std, mean = (batch[name][:, None, None] for name in ("std", "mean"))
        clean = (slices.clean_NSS - mean) / std
        for value in (mean_ssim(batch, batch["inputs"]), max(blurs), mean_ssim(batch, clean)):
            print(f"{value:14.4f}", end="")
        print()


def mean_ssim(batch, images) -> float:
    values = []
    for row, image in enumerate(images):
        std, mean = float(batch["std"][row]), float(batch["mean"][row])
        pair = (each.astype(np.float64) * std + mean for each in (image, batch["targets"][row]))
        values.append(ssim(*pair, float(batch["volume_max"][row])))
    return float(np.mean(values))


if __name__ == "__main__":
    main()
