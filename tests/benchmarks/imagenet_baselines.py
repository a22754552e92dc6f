"""What trivial methods reach on the generated images of the ImageNet workloads (docs/targets.md).

python tests/benchmarks/imagenet_baselines.py
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from workloads.parts import imagenet, textured_shapes

BINS = 8  # of each colour


def histograms(images_NSSC):
    """The counts of every colour in 8 x 8 x 8 bins, and of each channel in 32."""
    binned = images_NSSC.astype(int) * BINS // 256
    joint = (binned[..., 0] * BINS + binned[..., 1]) * BINS + binned[..., 2]
    joint_counts = [np.bincount(each.ravel(), minlength=BINS**3) for each in joint]
    channels = [
        [np.bincount(image[..., c].ravel() // 8, minlength=32) for c in range(3)]
        for image in images_NSSC
    ]
    return np.concatenate([joint_counts, np.reshape(channels, (len(images_NSSC), -1))], axis=1)


def pixels(images_NSSC):
    return images_NSSC.reshape(len(images_NSSC), -1)


def main():
    size = imagenet.MINI["size"]
    train, validation = (
        textured_shapes.generate(split, imagenet.MINI_ROWS[split], size, 0)
        for split in ("train", "validation")
    )
    for name, features in (("pixels", pixels), ("colour histograms", histograms)):
        scaler = StandardScaler().fit(features(train["inputs"]).astype(np.float32))
        seen, new = (
            scaler.transform(features(each["inputs"]).astype(np.float32))
            for each in (train, validation)
        )
        for strength in (1e-4, 1e-3, 1e-2):
            model = LogisticRegression(C=strength, max_iter=200).fit(seen, train["targets"])
            accuracy = model.score(new, validation["targets"])
            print(f"logistic regression on {name}, C {strength:g}: {accuracy:.4f}")
    clean = textured_shapes.generate(
        "validation",
        len(validation["targets"]),
        size,
        0,
        textured_shapes.Difficulty(label_noise=0.0),
    )
    print(f"right labels: {(clean['targets'] == validation['targets']).mean():.4f}")


if __name__ == "__main__":
    main()
