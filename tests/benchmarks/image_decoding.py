"""How fast image files are decoded, cropped and changed, on one and on two threads, and whether
memory stays flat while they are.

    python tests/benchmarks/image_decoding.py [IMAGES] [WIDTH]

It writes so many JPEGs (10,000 of 256 x 192 pixels by default) to a temporary folder, in ten
classes, and trains on them for an epoch without a model, at 224 pixels with RandAugment and mixup.
"""

import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from algoperf.data import prefetch
from algoperf.data.batches import TrainingQueue
from workloads.parts.imagenet import load

CLASSES, BATCH = 10, 50


def write(folder, count, width):
    rng = np.random.default_rng(0)
    height = width * 3 // 4
    small = rng.integers(0, 256, (count, height // 16, width // 16, 3)).astype(np.uint8)
    for number, pixels in enumerate(small):
        path = folder / "train" / str(number % CLASSES) / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(path)


def epoch(folder, threads):
    prefetch.thread_count = lambda: threads
    data = load(str(folder), 224, (0.08, 1.0), operations=2, mixup_alpha=0.2)
    rows = data.splits["train"]
    queue = TrainingQueue(rows, BATCH, 0, augmentation=data.augmentation)
    process, digest, resident = psutil.Process(), hashlib.sha256(), []
    started_at_s, cpu_at_s = time.perf_counter(), time.process_time()
    steps = len(rows) // BATCH
    for step in range(steps):
        batch = next(queue)
        digest.update(batch["inputs"].tobytes())
        if step >= steps // 10 and step % max(steps // 20, 1) == 0:
            resident.append(process.memory_info().rss / 2**20)
    elapsed_s = time.perf_counter() - started_at_s
    cpu_s = time.process_time() - cpu_at_s
    queue.close()
    print(
        f"{threads} threads: {steps * BATCH / elapsed_s:.0f} images a second, "
        f"{1e3 * cpu_s / (steps * BATCH):.2f} ms of CPU an image, "
        f"resident memory {min(resident):.0f} to {max(resident):.0f} MiB, "
        f"pixels {digest.hexdigest()[:12]}"
    )


def main():
    count, width = (int(each) for each in [*sys.argv[1:], "10000", "256"][:2])
    print(f"{count} images of {width} pixels, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), count, width)
        for threads in (1, 2):
            epoch(Path(folder), threads)


if __name__ == "__main__":
    main()
