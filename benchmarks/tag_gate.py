"""What the tag gate and a dense CRF bring to finished runs, without training again.

    python benchmarks/tag_gate.py runs/msrc-best [RUN ...] [--threshold 0.05] [--crf deeplab]

Predicts val of each run with its network as it is and behind the gate of its tag classifier, each without and with the
CRF; prints mIoU with void ignored and void as background, mean ± std over the runs.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tagmask.methods.dense_crf.refiner import PRESETS
from tagmask.metrics import confusion_matrix, mean_iou
from tagmask.models.classifier import load_classifier
from tagmask.models.tag_gate import TagGated
from tagmask.predict.predictor import Predictor
from tagmask.runs.run import open_run
from tagmask.storage.images import read_image


def scores(path: Path, threshold: float, crf: str) -> dict[str, float]:
    """Percent by what was done and how void counts."""
    run = open_run(path)
    source = run.recipe.data.open()
    n_labels = len(source.classes.names)
    predictor = Predictor(path / "segment" / "model.safetensors")
    name, settings = list(run.recipe.trainings.items())[-1]
    classifier = load_classifier(path / name / "model.safetensors", settings, source.classes)
    plain: Any = predictor.model.model if isinstance(predictor.model, TagGated) else predictor.model
    gated = predictor.engine.place(TagGated(plain, classifier, threshold))
    ways = [("plain", plain, None), ("gated", gated, None), ("plain + CRF", plain, crf), ("gated + CRF", gated, crf)]
    counts: dict[str, Any] = {}
    for sample in source.split("val"):
        image, truth = read_image(sample.image_path), source.read_mask(sample)
        for key, model, kernels in ways:
            predictor.model, predictor.inference = model, replace(predictor.inference, crf=kernels)
            mask = predictor.labels(image)
            for void, gt in (("ignored", truth), ("background", np.where(truth == 255, 0, truth))):
                found = confusion_matrix(mask, gt, n_labels)
                counts[f"{key}, void {void}"] = counts.get(f"{key}, void {void}", 0) + found
    return {key: 100 * float(mean_iou(value, classes="occurring")) for key, value in counts.items()}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--threshold", type=float, default=0.05)
    parser.add_argument("--crf", default="deeplab", choices=list(PRESETS))
    options = parser.parse_args()
    rows = [scores(path, options.threshold, options.crf) for path in options.runs]
    for key in rows[0]:
        values = [row[key] for row in rows]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        print(f"{key}: {statistics.fmean(values):.1f}{spread}   {[round(value, 1) for value in values]}")


if __name__ == "__main__":
    main()
