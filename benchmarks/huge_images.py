"""Seconds, peak memory and masks of photographs of 12 and 48 megapixels, predicted at a working size.

    python benchmarks/huge_images.py RUN_OR_FILE PHOTO... [--max-side 512] [--threads 2] [--megapixels 12 48]

Every photograph is enlarged to those sizes (JPEG, quality 90) and brought to the working size (PNG: a JPEG of 512
pixels differs from its original by more than the large one does). ``predict_images`` is what ``tagmask predict`` calls,
overlays and all; the small copies are predicted first, so that nothing is loaded or compiled while the large ones are
timed. Printed: seconds an image, two at a time with two threads; the peak memory of the process; and the share of equal
pixels and the IoU of the large mask with the small one at the large size. The IoU is the mean over the classes that
have a hundredth of either mask or more: a class of twenty pixels, there or not, would halve it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tagmask.engine.memory import peak_megabytes, reset_peak
from tagmask.metrics import confusion_matrix
from tagmask.models.enlarging import enlarged_labels
from tagmask.predict.images import collect, predict_images
from tagmask.predict.predictor import load
from tagmask.storage.pictures import load_mask
from tagmask.types import UInt8Array


def save_copies(photos: list[Path], folder: Path, *, side: int | None = None, megapixels: float = 0) -> None:
    """The photographs at a long side (PNG), or at a number of pixels (JPEG)."""
    folder.mkdir()
    for number, photo in enumerate(photos):
        with Image.open(photo) as image:
            width, height = image.size
            scale = side / max(image.size) if side else (1e6 * megapixels / (width * height)) ** 0.5
            size = round(width * scale), round(height * scale)
            image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(
                folder / f"{number}.{'png' if side else 'jpg'}", quality=90
            )


def agreement(one: UInt8Array, other: UInt8Array) -> tuple[float, float]:
    """Share of equal pixels, and mean IoU over the classes with a hundredth of either mask or more."""
    confusion = confusion_matrix(one, other, n_classes=int(max(one.max(), other.max())) + 1)
    rows, columns, both = confusion.sum(0), confusion.sum(1), np.diag(confusion)
    counted = np.maximum(rows, columns) >= 0.01 * one.size
    return float(both.sum() / one.size), float((both / np.maximum(1, rows + columns - both))[counted].mean())


def main() -> None:
    """Make the copies, predict them, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--max-side", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--megapixels", type=float, nargs="*", default=[12.0, 48.0])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    predictor = load(options.model, device="cpu", max_side=options.max_side)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_copies(options.photos, folder / "small", side=options.max_side)
        predict_images(predictor, collect([str(folder / "small")]), folder / "of-small")
        for megapixels in options.megapixels:
            large, output = folder / f"{megapixels:g}", folder / f"of-{megapixels:g}"
            save_copies(options.photos, large, megapixels=megapixels)
            reset_peak()
            start = time.perf_counter()
            predict_images(predictor, collect([str(large)]), output)
            seconds, peak = (time.perf_counter() - start) / len(options.photos), peak_megabytes() / 1024
            pairs = []
            for number in range(len(options.photos)):
                mask = load_mask(output / "masks" / f"{number}.png")
                small = load_mask(folder / "of-small" / "masks" / f"{number}.png")
                pairs.append(agreement(mask, enlarged_labels(small, (mask.shape[0], mask.shape[1]))))
            equal, ious = np.array(pairs).T
            print(f"{megapixels:g} megapixels: {seconds:.1f} s an image, {peak:.2f} GB")
            print(f"  equal pixels {equal.mean():.4f}, IoU {ious.mean():.4f}, each: {np.round(ious, 3).tolist()}")


if __name__ == "__main__":
    main()
