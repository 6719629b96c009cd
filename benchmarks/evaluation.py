"""Evaluation of predicted masks: files to scores, against the straightforward NumPy way, in one run.

    python benchmarks/evaluation.py [--images 200] [--size 375 500] [--classes 21] [--threads 2]

Ours is ``tagmask evaluate --predictions``: reads both PNGs, counts confusion, boundary IoU and trimaps under both
void rules, keeps every image's counts, in threads. The references count from the same files in one thread:

* confusion only: drop void, compose an index, bincount;
* with boundaries: besides, the authors' boundary IoU (Cheng et al., CVPR 2021): erode the mask of every class that is
  present, d times by 3x3 (by shifts of NumPy arrays), under one void rule.

The stages alone are timed too, in one thread and without files.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tagmask.data.masks import PngMasks
from tagmask.experiments import rescore
from tagmask.metrics import boundary_counts, confusion_matrix
from tagmask.metrics.boundary import boundary_width
from tagmask.metrics.mask_scores import count_mask
from tagmask.storage.pictures import load_mask, save_mask
from tagmask.types import ClassList, DataSource, Sample

Pair = tuple[np.ndarray, np.ndarray]


def make_pairs(n: int, height: int, width: int, n_classes: int) -> list[Pair]:
    """(prediction, truth): wavy blobs of 1 to 3 classes with void outlines, moved and roughened."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    pairs = []
    for _ in range(n):
        truth = np.zeros((height, width), np.uint8)
        for _ in range(rng.integers(1, 4)):
            cy, cx = rng.uniform(0.2, 0.8, 2) * (height, width)
            radius = rng.uniform(0.08, 0.3) * height
            distance = np.hypot(y - cy, x - cx) + 4 * np.sin(x / 9) * np.cos(y / 7)
            truth[distance < radius + 3] = 255
            truth[distance < radius] = rng.integers(1, n_classes)
        prediction = np.roll(truth, rng.integers(-12, 13, 2), (0, 1))
        prediction[prediction == 255] = 0
        pairs.append((prediction, truth))
    return pairs


def write(pairs: list[Pair], root: Path, n_classes: int) -> DataSource:
    """Both masks as palette PNGs and a photograph of their size; the data source on them."""
    samples = []
    for i, (prediction, truth) in enumerate(pairs):
        paths = [root / folder / f"{i:05d}.png" for folder in ("found", "truth")]
        for path, mask in zip(paths, (prediction, truth), strict=True):
            save_mask(path, mask)
        photo = root / f"{i:05d}.jpg"
        Image.new("RGB", truth.shape[::-1]).save(photo)
        samples.append(Sample(f"{i:05d}", photo, (1,), paths[1]))
    names = ("background", *(f"class {c}" for c in range(1, n_classes)))
    reader = PngMasks(n_classes, 10**8)
    return DataSource("benchmark", ClassList(names), {"val": tuple(samples)}, "benchmark", mask_reader=reader)


def count(prediction: np.ndarray, truth: np.ndarray, n_classes: int) -> np.ndarray:
    """The usual confusion matrix."""
    known = truth != 255
    index = truth[known].astype(np.int64) * n_classes + prediction[known]
    return np.bincount(index, minlength=n_classes**2).reshape(n_classes, n_classes)


def band(mask: np.ndarray, width: int) -> np.ndarray:
    """The authors' mask_to_boundary: a ring of zeros, ``width`` erosions by 3x3, the difference."""
    eroded = np.pad(mask, 1)
    for _ in range(width):
        rows = eroded[:-2] & eroded[1:-1] & eroded[2:]
        eroded = np.pad(rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:], 1)
    return mask & ~eroded[1:-1, 1:-1]


def boundaries(prediction: np.ndarray, truth: np.ndarray, n_classes: int) -> np.ndarray:
    """[3, n] pixels in both bands, in the truth's, in the prediction's, class by class."""
    width = boundary_width((truth.shape[0], truth.shape[1]))
    prediction = np.where(truth == 255, 255, prediction)
    counts = np.zeros((3, n_classes), np.int64)
    for c in np.union1d(np.unique(truth), np.unique(prediction)):
        if c < n_classes:
            real, found = band(truth == c, width), band(prediction == c, width)
            counts[:, c] = (real & found).sum(), real.sum(), found.sum()
    return counts


def timed(work: Callable[[], object], repeats: int = 3) -> np.ndarray:
    """Best wall time, and least processor time, which other work on the machine does not change."""
    found = []
    for _ in range(repeats):
        wall, busy = time.perf_counter(), time.process_time()
        work()
        found.append((time.perf_counter() - wall, time.process_time() - busy))
    return np.min(found, axis=0)


def check(pairs: list[Pair], n_classes: int) -> None:
    """The references count what ours does."""
    for prediction, truth in pairs[:20]:
        np.testing.assert_array_equal(
            confusion_matrix(prediction, truth, n_classes), count(prediction, truth, n_classes)
        )
        ours = boundary_counts(prediction, truth, n_classes)
        direct = boundaries(prediction, truth, n_classes)
        np.testing.assert_array_equal(np.stack([ours.hits, ours.truth, ours.prediction]), direct)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=2, default=(375, 500), metavar=("H", "W"))
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    n, classes = options.images, options.classes
    pairs = make_pairs(n, *options.size, classes)
    check(pairs, classes)
    print(f"{n} pairs of masks {options.size[0]}x{options.size[1]}, {classes} classes")
    print(f"{'way':<52}{'ms/image':>10}{'images/s':>10}{'CPU ms/image':>14}{'CPU ratio':>11}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = write(pairs, root, classes)
        samples = source.splits["val"]

        def read(sample: Sample) -> Pair:
            return load_mask(root / "found" / f"{sample.id}.png"), source.read_mask(sample)

        rescore._cpus = lambda: options.threads
        ours = timed(lambda: rescore.score_folder(source, root / "found"))
        rescore._cpus = lambda: 1
        alone = timed(lambda: rescore.score_folder(source, root / "found"))
        plain = timed(lambda: sum(count(*read(sample), classes) for sample in samples))
        some = samples[: max(n // 10, 1)]
        eroded = timed(lambda: [(count(*read(s), classes), boundaries(*read(s), classes)) for s in some], 1)
        eroded *= n / len(some)
        reading = timed(lambda: [read(sample) for sample in samples])
    for name, (wall, busy) in (
        (f"ours, everything, {options.threads} threads", ours),
        ("ours, everything, 1 thread (the ratios' base)", alone),
        ("NumPy, confusion only", plain),
        ("NumPy, confusion and boundaries by erosion", eroded),
        ("reading the files alone", reading),
        ("without files: ours, everything", timed(lambda: [count_mask(*pair, classes) for pair in pairs])),
        ("without files: ours, confusion", timed(lambda: [confusion_matrix(*pair, classes) for pair in pairs])),
        ("without files: NumPy, confusion", timed(lambda: [count(*pair, classes) for pair in pairs])),
        (
            "without files: ours, boundaries (one void rule)",
            timed(lambda: [boundary_counts(*p, classes) for p in pairs]),
        ),
    ):
        print(f"{name:<52}{1000 * wall / n:>10.2f}{n / wall:>10.0f}{1000 * busy / n:>14.2f}{busy / alone[1]:>10.1f}x")


if __name__ == "__main__":
    main()
