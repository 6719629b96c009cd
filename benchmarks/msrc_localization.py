"""Object localisation on images with one tag and masks: plain CAM against SCG and SSA on the same classifiers.

    python benchmarks/msrc_localization.py RUN [RUN ...] [--split val] [--scales 1.0] [--flip] [--method NAME=YAML ...]

Each run is a finished classifier (one per seed) on data with masks. Images with exactly one tag count; their true box
is that of the largest connected piece of the class in the mask (8-connected, void left out). No mask is looked at for
anything else. Errors: boxes of the union and of the largest component, IoU > 0.5, at the threshold that is best on
the split. The relative change is against the first method, paired by run. Means and standard deviations over the runs.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tagmask.building import build_method
from tagmask.classify.model import load_classifier
from tagmask.data.images import read_image
from tagmask.data.transforms import normalise
from tagmask.evaluate.boxes import Component, boxes_of_levels
from tagmask.evaluate.localization import BoxErrors, IouCurve, class_map, object_mask
from tagmask.localize.stage import activation_maps
from tagmask.rescore import Run, open_run
from tagmask.settings import LocalizeSettings

COMPONENTS: tuple[Component, ...] = ("union", "largest")
METHODS = {
    "cam": "{name: cam}",
    "scg": "{name: scg}",
    "ssa": "{name: ssa, guidance: none, clip_negative: true}",
}
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


def measure(run: Run, split: str, methods: dict[str, Any], views: dict[str, Any]) -> tuple[dict[str, Scores], int]:
    """Scores of every method on one run, and the number of images."""
    source = run.recipe.data.open()
    stage, settings = list(run.recipe.trainings.items())[-1]
    model = load_classifier(run.workspace.stage(stage) / "model.safetensors", settings, source.classes)
    model.requires_grad_(False)
    scores = {name: Scores() for name in methods}
    n_images = 0
    for sample in source.split(split):
        if len(sample.tags) != 1 or not source.has_mask(sample):
            continue
        (label,) = sample.tags
        mask = object_mask(source.read_mask(sample), label)
        if not (mask == 1).any():
            continue
        n_images += 1
        box = boxes_of_levels((mask == 1).astype(np.int32), 1, "contour")
        image = read_image(sample.image_path)
        logits = model(normalise(image)[None]).logits[0]
        rank = int((logits > logits[label - 1]).sum())
        for name, method in methods.items():
            options = LocalizeSettings(method=method, **views)
            full = class_map(activation_maps(model, image, (label,), options).maps[0], mask.shape)
            for counted in scores[name].errors.values():
                counted.update(full, box, rank)
            scores[name].overlap.update(full, mask)
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
    rows: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in methods}
    for path in arguments.runs:
        scores, n_images = measure(open_run(path), arguments.split, methods, views)
        print(f"{path}: {n_images} images with one tag in {arguments.split}", flush=True)
        for name, found in scores.items():
            for key, value in found.figures().items():
                rows[name][key].append(value)
    first = rows[next(iter(rows))]
    print(f"\n{'method':24} {'measure':20} {'mean':>7} {'std':>6}   relative to {next(iter(rows))}")
    for name, measured in rows.items():
        for key, values in measured.items():
            against = ""
            if key.startswith(("gt_known", "top1")):
                against = (
                    f"{100 * np.mean([a / max(b, 1e-9) - 1 for a, b in zip(values, first[key], strict=True)]):+.1f} %"
                )
            digits = 2 if key.startswith("t ") else 1
            mean, spread = np.mean(values), np.std(values, ddof=len(values) > 1)
            print(f"{name:24} {key:20} {mean:7.{digits}f} {spread:6.{digits}f}   {against}")


if __name__ == "__main__":
    main()
