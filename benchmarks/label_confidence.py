"""How often pseudo labels are wrong, by the margin that they won with: what segment.confidence weighs pixels by.

    python benchmarks/label_confidence.py RUN [RUN ...]

For the pseudo masks of each run and those of its rounds of self-training: share of pixels and of errors by margin, on
the training images, void ignored. Ground truth is used here only to measure.
"""

from __future__ import annotations

import argparse

import numpy as np

from tagmask.engine.engine import Engine
from tagmask.progress.listeners import SilentProgress
from tagmask.runs.context import Context
from tagmask.runs.run import Run, open_run
from tagmask.settings.segment import ConfidenceSettings
from tagmask.stages.segment.guides import weights_reader
from tagmask.storage.pictures import load_mask
from tagmask.types import IGNORE_INDEX

EDGES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


def rows(run: Run, stage: str) -> list[str]:
    """One row per range of margins."""
    source, workspace = run.recipe.data.open(), run.workspace
    context = Context(run.recipe, workspace, Engine(run.recipe.engine, seed=0), source.weak(), SilentProgress())
    margin_of = weights_reader(context, ConfidenceSettings(width=1.0), stage)
    of_masks = "refine" if stage == "segment" else stage
    pixels, wrong = np.zeros(len(EDGES) - 1), np.zeros(len(EDGES) - 1)
    for sample in source.split("train"):
        path = workspace.mask_path(sample.id, of_masks)
        margin = margin_of(sample) if path.exists() and source.has_mask(sample) else None
        if margin is None:
            continue
        truth, labels = source.read_mask(sample), load_mask(path)
        counted = (truth != IGNORE_INDEX) & (labels != IGNORE_INDEX)
        bins = np.clip(np.digitize(margin[counted], EDGES) - 1, 0, len(pixels) - 1)
        pixels += np.bincount(bins, minlength=len(pixels))
        wrong += np.bincount(bins, weights=(truth != labels)[counted], minlength=len(pixels))
    return [
        f"| {run.path.name} | {of_masks} | {EDGES[i]:g} to {EDGES[i + 1]:g} | {100 * pixels[i] / pixels.sum():.1f} | "
        f"{100 * wrong[i] / max(1, pixels[i]):.1f} | {100 * wrong[i] / max(1, wrong.sum()):.1f} |"
        for i in range(len(pixels))
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="finished run directories")
    options = parser.parse_args()
    print("| run | masks | margin | % of pixels | % of them wrong | % of all errors |")
    print("|---|---|---|---|---|---|")
    for path in options.runs:
        run = open_run(path)
        stages = run.recipe.segment.stages if run.recipe.segment else ("segment",)
        for stage in stages:
            for row in rows(run, stage):
                print(row, flush=True)


if __name__ == "__main__":
    main()
