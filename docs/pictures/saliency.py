"""Draw docs/pictures/saliency.png: images of PartsWorld, their minimum barrier saliency, what is salient, and truth.

python docs/pictures/saliency.py [ID ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from sheet import draw_sheet, heat, painted
from tagmask.functional import minimum_barrier_saliency
from tagmask.settings.loading import load_recipe
from tagmask.storage.images import read_image

IDS = ("val_00124", "val_00078", "val_00145")


def main() -> None:
    """Draw one row per image."""
    source = load_recipe({"data": "partsworld"}).data.open()
    samples = {sample.id: sample for split in source.splits.values() for sample in split}
    rows = []
    for key in sys.argv[1:] or IDS:
        image, truth = read_image(samples[key].image_path), source.read_mask(samples[key])
        found = minimum_barrier_saliency(image)
        published = minimum_barrier_saliency(image, centre=0.5)
        cells = [image, heat(image, published), heat(image, found), painted((found >= 0.5).astype(np.uint8))]
        rows.append((", ".join(source.classes.names[tag] for tag in samples[key].tags), [*cells, painted(truth)]))
    titles = ("image, with its tags", "centre 0.5 (paper)", "centre otsu", "salient (otsu)", "truth")
    draw_sheet(titles, rows, Path(__file__).parent / "saliency.png")


if __name__ == "__main__":
    main()
