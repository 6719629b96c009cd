"""What a new user gets from few images: `tagmask run DIR` on a sample of a data set's training images, scored on val.

    python benchmarks/few_images.py DATA [--images 60] [--draws 0,1,2,3,4] [--work DIR] [KEY=VALUE ...]

DATA is a data set with splits and masks (VOC layout: MSRC, magnetic tiles). For each draw so many training images are
sampled (random.Random(draw), no stratification: a class may have one image or none), copied beside a table of their
tags, and run without a recipe; the model then predicts the val images, which nothing has seen. Scored are the classes
that occur in the sample and in val, background included; ignored pixels and those of classes outside the sample do not
count. Prints per draw the mean IoU, each class and the seconds of both commands; then mean and standard deviation.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tagmask.cli.recipes import shipped
from tagmask.metrics import iou_per_class
from tagmask.settings.loading import load_recipe
from tagmask.storage.pictures import load_mask
from tagmask.types import IGNORE_INDEX, DataSource


def draw(source: DataSource, folder: Path, n_images: int, seed: int) -> None:
    """Copy a sample and all val images, and write the sample's tags."""
    for name in ("photos", "new"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    by_id = {sample.id: sample for sample in source.split("train")}
    with (folder / "tags.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["image", "tags"])
        for name in sorted(random.Random(seed).sample(sorted(by_id), n_images)):
            path = by_id[name].image_path
            shutil.copy(path, folder / "photos")
            table.writerow([path.name, ";".join(source.classes.names[tag] for tag in by_id[name].tags)])
    for sample in source.split("val"):
        shutil.copy(sample.image_path, folder / "new")


def score(source: DataSource, masks: Path) -> dict[str, float]:
    """IoU in percent of the classes that occur in the sample and in val."""
    names = source.classes.names
    own = [names.index(line) for line in (masks / "classes.txt").read_text().split("\n") if line]
    to_source = np.full(256, IGNORE_INDEX)
    to_source[: len(own)] = own
    confusion = np.zeros((len(names), len(names)), np.int64)
    for sample in source.split("val"):
        truth = source.read_mask(sample).astype(int)
        found = to_source[load_mask(next(masks.rglob(f"{sample.image_path.stem}.png")))]
        counted = np.isin(truth, own) & (found != IGNORE_INDEX)
        pairs = truth[counted] * len(names) + found[counted]
        confusion += np.bincount(pairs, minlength=len(names) ** 2).reshape(confusion.shape)
    ious = 100 * iou_per_class(confusion)
    return {name: float(ious[label]) for label, name in enumerate(names) if confusion[label].any()}


def call(*arguments: str | Path) -> float:
    """Seconds of a command."""
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "tagmask", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--draws", default="0,1,2,3,4")
    parser.add_argument("--work", type=Path, default=Path("few-images"))
    options = parser.parse_args()
    source = load_recipe(shipped()["own"], [f"data.root={options.data.resolve()}"]).data.open()
    means = []
    for seed in map(int, options.draws.split(",")):
        folder = options.work / f"{options.images}-{seed}"
        draw(source, folder / "data", options.images, seed)
        seconds = call("run", folder / "data", *options.overrides, "--output", folder / "run")
        more = call("predict", folder / "run", folder / "data" / "new", "--output", folder / "masks")
        ious = score(source, folder / "masks")
        means.append(statistics.mean(ious.values()))
        classes = ", ".join(f"{name} {value:.0f}" for name, value in ious.items())
        print(
            f"draw {seed}: {means[-1]:.1f} over {len(ious)} classes: {classes}; {seconds:.0f} + {more:.0f} s",
            flush=True,
        )
    print(f"{statistics.mean(means):.1f} ± {statistics.pstdev(means):.1f}, lowest {min(means):.1f}")


if __name__ == "__main__":
    main()
