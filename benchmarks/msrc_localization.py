"""Object localisation on images with one tag and masks: plain CAM against SCG and SSA on the same classifiers.

    python benchmarks/msrc_localization.py RUN [RUN ...] [--split val] [--scales 1.0] [--flip] [--method NAME=YAML ...]

Each run is a finished classifier (one per seed) on data with masks. Images with exactly one tag count; their true box
is that of the largest connected piece of the class in the mask (8-connected, void left out). 'one object': that piece
has at least 95 % of the class's pixels; 'one tag': all of them. No mask is looked at for anything else. Errors: boxes
of the union and of the largest component, IoU > 0.5, at the threshold that is best on the split. The relative change is
against the first method, paired by run. Means and standard deviations over the runs.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tagmask.experiments.rescore import Run
from tagmask.metrics.boxes import Component, boxes_of_levels
from tagmask.metrics.localization import BoxErrors, IouCurve, class_map, object_mask
from tagmask.models.classifier import load_classifier
from tagmask.ops.transforms import normalise
from tagmask.registry.validation import build_method
from tagmask.runs.run import open_run
from tagmask.settings.localize import LocalizeSettings
from tagmask.stages.localize.stage import activation_maps
from tagmask.storage.images import read_image

COMPONENTS: tuple[Component, ...] = ("union", "largest")
METHODS = {
    "cam": "{name: cam}",
    "scg, CUB's settings": "{name: scg, stages: [4, 5]}",
    "scg, fg 0.5, bg 0.3": "{name: scg, stages: [4, 5], foreground: 0.5, background: 0.3}",
    "ssa": "{name: ssa, stages: [4, 5], guidance: none, clip_negative: true}",
}
SETS = ("one object", "one tag")
THRESHOLDS = np.arange(100) / 100


class Scores:
    """Everything counted for one method on one run."""

    def __init__(self) -> None:
        self.errors = {component: BoxErrors(THRESHOLDS, component) for component in COMPONENTS}
        self.overlap = IouCurve()

    def figures(self) -> dict[str, float]:
        """Errors and thresholds by name."""
        found = {}
        for component, counted in self.errors.items():
            best = counted.result()
            for name in ("gt_known", "top1"):
                found[f"{name} {component}"] = 100 * best[name]
            found[f"t {component}"] = best["threshold"]
        curve = self.overlap.result()
        return {**found, "peak IoU": 100 * curve["peak"] if curve else 0.0}


def measure(
    run: Run, split: str, methods: dict[str, Any], views: dict[str, Any]
) -> tuple[dict[tuple[str, str], Scores], dict[str, int]]:
    """Scores of every method on one run by method and set of images, and the size of each set."""
    source = run.recipe.data.open()
    stage, settings = list(run.recipe.trainings.items())[-1]
    model = load_classifier(run.workspace.stage(stage) / "model.safetensors", settings, source.classes)
    model.requires_grad_(False)
    scores = {(name, images): Scores() for name in methods for images in SETS}
    n_images = dict.fromkeys(SETS, 0)
    for sample in source.split(split):
        if len(sample.tags) != 1 or not source.has_mask(sample):
            continue
        (label,) = sample.tags
        mask = object_mask(source.read_mask(sample), label)
        if not (mask == 1).any():
            continue
        box = boxes_of_levels((mask == 1).astype(np.int32), 1, "contour")
        ((x0, y0, x1, y1),) = box
        whole = (mask[y0:y1, x0:x1] == 1).sum() >= 0.95 * (mask == 1).sum()
        sets = SETS if whole else SETS[1:]
        for images in sets:
            n_images[images] += 1
        image = read_image(sample.image_path)
        logits = model(normalise(image, model.input_statistics)[None]).logits[0]
        rank = int((logits > logits[label - 1]).sum())
        for name, method in methods.items():
            options = LocalizeSettings(method=method, **views)
            full = class_map(activation_maps(model, image, (label,), options).maps[0], mask.shape)
            for found in (scores[name, images] for images in sets):
                for counted in found.errors.values():
                    counted.update(full, box, rank)
                found.overlap.update(full, mask)
    return scores, n_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0])
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--method", action="append", default=[], help="NAME=YAML of another localizer")
    arguments = parser.parse_args()
    texts = METHODS | dict(text.partition("=")[::2] for text in arguments.method)
    methods = {
        name: build_method("localizer", yaml.safe_load(text), where=name, base=Path()) for name, text in texts.items()
    }
    views = {"scales": tuple(arguments.scales), "flip": arguments.flip}
    rows: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in arguments.runs:
        scores, n_images = measure(open_run(path), arguments.split, methods, views)
        print(f"{path}: {n_images} images in {arguments.split}", flush=True)
        for place, found in scores.items():
            for key, value in found.figures().items():
                rows[place][key].append(value)
    baseline = next(iter(methods))
    print(f"\n{'images':10} {'method':22} {'measure':18} {'mean':>7} {'std':>6}   relative to {baseline}")
    for (name, images), measured in sorted(rows.items(), key=lambda row: SETS.index(row[0][1])):
        first = rows[baseline, images]
        for key, values in measured.items():
            against = ""
            if key.startswith(("gt_known", "top1")):
                against = (
                    f"{100 * np.mean([a / max(b, 1e-9) - 1 for a, b in zip(values, first[key], strict=True)]):+.1f} %"
                )
            digits = 2 if key.startswith("t ") else 1
            mean, spread = np.mean(values), np.std(values, ddof=len(values) > 1)
            print(f"{images:10} {name:22} {key:18} {mean:7.{digits}f} {spread:6.{digits}f}   {against}")


if __name__ == "__main__":
    main()
