"""How informative saliency maps are, and folders of maps that are better or worse on purpose.

    python benchmarks/saliency_value.py FOLDER [FOLDER ...] --recipe recipes/msrc/cam.yaml
    python benchmarks/saliency_value.py --make DIR --recipe recipes/msrc/cam.yaml

The first form measures folders of grey PNGs named by image id (a run keeps its own in RUN/saliency/maps): IoU of what
is salient (>= 0.5) with the foreground of the ground truth, best IoU over all levels, and shares of foreground and
background that are salient, on the training images, void ignored.

The second writes three folders: DIR/mixed, ground truth and minimum barrier maps in a random mixture per image, as a
trained detector that is right more often than not (it looks at masks, so it serves to study the loss, not to train
with); DIR/shuffled, the minimum barrier maps of other images; DIR/blank, zeros.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from tagmask.functional import minimum_barrier_saliency
from tagmask.methods.saliency_folder.saliency import FolderSaliency
from tagmask.settings.loading import load_recipe
from tagmask.storage.files import artifact_name
from tagmask.storage.images import read_image
from tagmask.storage.pictures import save_grey
from tagmask.types import IGNORE_INDEX, DataSource, FloatArray, Sample, UInt8Array

LEVELS = np.arange(1, 20) / 20


def measure(source: DataSource, folder: Path) -> str:
    """One row of the table."""
    both, either = np.zeros(len(LEVELS)), np.zeros(len(LEVELS))
    salient, total = np.zeros(2), np.zeros(2)
    reader, n = FolderSaliency(path=folder), 0
    for sample in source.split("train"):
        name = artifact_name(sample.id)
        if not source.has_mask(sample) or not (folder / f"{name}.png").is_file():
            continue
        mask = source.read_mask(sample)
        found = reader.find(name, np.zeros((*mask.shape, 3), np.uint8))
        counted, foreground = mask != IGNORE_INDEX, (mask > 0) & (mask != IGNORE_INDEX)
        for index, level in enumerate(LEVELS):
            marked = (found >= level) & counted
            both[index] += (marked & foreground).sum()
            either[index] += (marked | foreground).sum()
        for side, pixels in enumerate((foreground, counted & ~foreground)):
            salient[side] += (pixels & (found >= 0.5)).sum()
            total[side] += pixels.sum()
        n += 1
    iou, (front, back) = 100 * both / either.clip(1), 100 * salient / total.clip(1)
    middle = int(abs(LEVELS - 0.5).argmin())
    best = int(iou.argmax())
    return f"| {folder} | {n} | {iou[middle]:.1f} | {iou[best]:.1f} at {LEVELS[best]:.2f} | {front:.1f} | {back:.1f} |"


def mixed(image: UInt8Array, mask: UInt8Array, rng: np.random.Generator) -> FloatArray:
    """w * blurred ground truth + (1 - w) * minimum barrier saliency, w uniform in [0.2, 1]; void is background."""
    truth = Image.fromarray(np.uint8(255) * ((mask > 0) & (mask != IGNORE_INDEX)).astype(np.uint8))
    soft = np.asarray(truth.filter(ImageFilter.GaussianBlur(0.02 * max(mask.shape)))) / np.float32(255)
    weight = np.float32(rng.uniform(0.2, 1))
    return np.asarray(weight * soft + (1 - weight) * minimum_barrier_saliency(image), np.float32)


def make(source: DataSource, folder: Path) -> None:
    """The three folders."""
    samples = [sample for sample in source.split("train") if source.has_mask(sample)]
    order = np.random.default_rng(0).permutation(len(samples))
    for index, sample in enumerate(samples):
        image, other = read_image(sample.image_path), samples[order[index]]

        def save(kind: str, values: FloatArray, to: Sample = sample) -> None:
            save_grey(folder / kind / f"{to.id}.png", values)

        save("mixed", mixed(image, source.read_mask(sample), np.random.default_rng([0, index])))
        save("shuffled", minimum_barrier_saliency(image), other)
        save("blank", np.zeros(image.shape[:2], np.float32))


def main() -> None:
    """Print the table, or write the folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--make", type=Path)
    parser.add_argument("--recipe", default="recipes/msrc/cam.yaml")
    options = parser.parse_args()
    source: DataSource = load_recipe(options.recipe).data.open()
    if options.make:
        make(source, options.make)
    folders: list[Path] = options.folders or [options.make / kind for kind in ("mixed", "shuffled", "blank")]
    print("| maps | images | IoU at 0.5 | best IoU | foreground salient | background salient |")
    print("|---|---|---|---|---|---|")
    for folder in folders:
        print(measure(source, folder), flush=True)


if __name__ == "__main__":
    main()
