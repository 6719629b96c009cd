"""Recall of the activated area {R > 0} (InferCam, WACV 2022, section 3.1) of finished runs, by class.

    python benchmarks/activated_area.py RUN [RUN ...] [--split train] [--classes]

For each run (localize done, ground truth there): the maps that the run has stored (all its scales and flips merged),
and plain CAM of one view, the image as it is. Both are stretched to the image's size; void is left out; means go over
the classes that occur. recall: share of a class's pixels that its map activates. precision: share of what it activates
that is of the class. extent: share of the image it activates. --classes adds a row for each class.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from tagmask.experiments.rescore import Run
from tagmask.functional import cam, upsample_maps
from tagmask.metrics import ActivatedArea
from tagmask.models.classifier import load_classifier
from tagmask.ops.map_grids import MapGrids
from tagmask.ops.transforms import normalise
from tagmask.runs.run import open_run
from tagmask.storage.images import read_image

FIGURES = ("recall", "precision", "extent")


def areas(run: Run, split: str) -> dict[str, ActivatedArea]:
    """Activated areas of one split: 'stored maps' and 'one view'."""
    source = run.recipe.data.open()
    stage, settings = list(run.recipe.trainings.items())[-1]
    model = load_classifier(run.workspace.stage(stage) / "model.safetensors", settings, source.classes)
    n_classes = len(source.classes.foreground)
    found = {name: ActivatedArea(n_classes) for name in ("stored maps", "one view")}
    for sample in source.split(split):
        if not sample.tags or not source.has_mask(sample):
            continue
        mask, channels = source.read_mask(sample), np.array(sample.tags) - 1
        stored = run.workspace.load_maps(sample.id)
        found["stored maps"].update(MapGrids.of(stored).at(stored.image_size), stored.classes - 1, mask)
        with torch.inference_mode():
            features = model(normalise(read_image(sample.image_path), model.input_statistics)[None]).features
            maps = cam(features, model.class_weights[torch.from_numpy(channels)])[0]
        found["one view"].update(upsample_maps(maps, mask.shape), channels, mask)
    return found


def figures(area: ActivatedArea) -> np.ndarray:
    """Percent, [3, C]: recall, precision, extent."""
    seen = np.where(area.counts[:, 0] > 0, 100.0, np.nan)  # classes without a pixel count nowhere
    return np.stack([getattr(area, name)() for name in FIGURES]) * seen


def spread(values: np.ndarray) -> str:
    """Mean ± standard deviation over runs."""
    deviation = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{deviation}"


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--split", default="train")
    parser.add_argument("--classes", action="store_true")
    options = parser.parse_args()
    found: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    names: dict[str, tuple[str, ...]] = {}
    for path in options.runs:
        run = open_run(path)
        names[run.recipe.name] = run.recipe.data.open().classes.foreground
        for which, area in areas(run, options.split).items():
            found[run.recipe.name, which].append(figures(area))
    print(f"| recipe | maps | class | {' | '.join(FIGURES)} |")
    print("|---" * (3 + len(FIGURES)) + "|")
    for (recipe, which), each in found.items():
        table = np.stack(each)  # [runs, 3, C]
        overall = np.nanmean(table, axis=2)
        print(f"| {recipe} | {which} | mean | {' | '.join(spread(overall[:, i]) for i in range(3))} |")
        for channel, name in enumerate(names[recipe]) if options.classes else ():
            if not np.isnan(table[:, 0, channel]).any():
                cells = " | ".join(spread(table[:, i, channel]) for i in range(3))
                print(f"| {recipe} | {which} | {name} | {cells} |")


if __name__ == "__main__":
    main()
