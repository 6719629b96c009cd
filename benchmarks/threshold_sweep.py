"""Threshold sweep: the one-pass histogram against one confusion matrix per threshold, in one run.

    python benchmarks/threshold_sweep.py [--thresholds 256] [--images 4]

Two reference ways on the same maps, same process, one thread:

* definition: for every threshold put its plane in front of the maps, argmax, map to labels, count;
* prepared: best class and score once per image, then for every threshold select and count (as fast as a
  separate matrix per threshold gets in NumPy).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from tagmask.metrics import ThresholdSweep, mean_iou

N_CLASSES = 20
Image = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_images(n: int, height: int, width: int) -> list[Image]:
    """Smooth random maps of 1 or 2 classes (in turn), and masks with 5 % void."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    images = []
    for i in range(n):
        classes = np.sort(rng.permutation(N_CLASSES)[: 1 + i % 2])
        maps = []
        mask = np.zeros((height, width), np.uint8)
        for c in classes:
            cy, cx = rng.uniform(0.2, 0.8, 2) * (height, width)
            scale = rng.uniform(40, 120)
            distance = ((y - cy) ** 2 + (x - cx) ** 2) / scale**2
            maps.append(np.exp(-distance) * rng.uniform(0.9, 1.0, (height, width)))
            mask[distance < 0.8] = c + 1
        mask[rng.random((height, width)) < 0.05] = 255
        images.append((np.asarray(maps, np.float32), classes, mask))
    return images


def count(labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The usual confusion matrix: drop void, compose an index, bincount."""
    n = N_CLASSES + 1
    valid = mask != 255
    index = mask[valid].astype(np.int64) * n + labels[valid]
    return np.bincount(index, minlength=n * n).reshape(n, n)


def by_definition(images: list[Image], thresholds: np.ndarray) -> np.ndarray:
    total = np.zeros((len(thresholds), N_CLASSES + 1, N_CLASSES + 1), np.int64)
    for maps, classes, mask in images:
        names = np.concatenate([[0], classes + 1])
        for i, t in enumerate(thresholds):
            plane = np.full((1, *mask.shape), t, np.float32)
            total[i] += count(names[np.concatenate([plane, maps]).argmax(0)], mask)
    return np.array([mean_iou(matrix) for matrix in total])


def prepared(images: list[Image], thresholds: np.ndarray) -> np.ndarray:
    n = N_CLASSES + 1
    total = np.zeros((len(thresholds), n, n), np.int64)
    for maps, classes, mask in images:
        valid = mask != 255
        score = maps.max(0)[valid]
        label = (classes + 1)[maps.argmax(0)][valid]
        row = mask[valid].astype(np.int64) * n
        for i, t in enumerate(thresholds.astype(np.float32)):
            total[i] += np.bincount(row + label * (score > t), minlength=n * n).reshape(n, n)
    return np.array([mean_iou(matrix) for matrix in total])


def one_pass(images: list[Image], thresholds: np.ndarray) -> np.ndarray:
    sweep = ThresholdSweep(N_CLASSES, thresholds)
    for image in images:
        sweep.update(*image)
    return sweep.compute()


def timed(work: Callable[[], np.ndarray], repeats: int) -> tuple[float, np.ndarray]:
    """Best wall time of ``repeats`` runs, and the result."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--thresholds", type=int, default=256)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=(375, 500), metavar=("H", "W"))
    options = parser.parse_args()
    images = make_images(options.images, *options.size)
    thresholds = np.arange(options.thresholds) / (options.thresholds - 1)
    uneven = np.sort(np.random.default_rng(1).random(options.thresholds))

    ours, curve = timed(lambda: one_pass(images, thresholds), 5)
    ours_uneven, curve_uneven = timed(lambda: one_pass(images, uneven), 5)
    optimised, curve_prepared = timed(lambda: prepared(images, thresholds), 1)
    definition, curve_definition = timed(lambda: by_definition(images, thresholds), 1)
    _, uneven_prepared = timed(lambda: prepared(images, uneven), 1)

    print(f"{options.images} images {options.size[0]}x{options.size[1]}, {options.thresholds} thresholds")
    print(f"{'way':<40}{'ms/image':>10}{'ratio':>9}")
    for name, seconds in (
        ("one pass (ours)", ours),
        ("one pass (ours), uneven thresholds", ours_uneven),
        ("matrix per threshold, prepared", optimised),
        ("matrix per threshold, definition", definition),
    ):
        print(f"{name:<40}{1000 * seconds / options.images:>10.2f}{seconds / ours:>8.1f}x")
    worst = max(
        np.abs(curve - curve_definition).max(),
        np.abs(curve - curve_prepared).max(),
        np.abs(curve_uneven - uneven_prepared).max(),
    )
    print(f"largest difference of any mIoU: {worst:.1e}")
    if not worst <= 1e-12:
        raise SystemExit("the sweeps differ")


if __name__ == "__main__":
    main()
