"""Draw docs/pictures/demo.png from a finished demo run: python docs/pictures/make.py runs/demo"""

from __future__ import annotations

import sys
from pathlib import Path

from sheet import draw_sheet, heat, highest, painted
from tagmask.runs.run import open_run
from tagmask.storage.images import read_image
from tagmask.storage.pictures import load_mask

IDS = ("val_00124", "val_00078", "val_00145", "val_00003")
TITLES = ("image, with its tags", "activation map", "after the colour walk", "pseudo mask", "prediction", "truth")


def main() -> None:
    """Draw one row per image."""
    run = open_run(Path(sys.argv[1]))
    source, workspace = run.recipe.data.open(), run.workspace
    samples = {sample.id: sample for sample in source.split("val")}
    rows = []
    for name in IDS:
        sample = samples[name]
        image = read_image(sample.image_path)
        masks = [load_mask(workspace.mask_path(name)), load_mask(workspace.prediction_path(name))]
        cells = [image, *(heat(image, highest(workspace, name, stage)) for stage in ("localize", "refine"))]
        cells += [painted(mask) for mask in (*masks, source.read_mask(sample))]
        rows.append((", ".join(source.classes.names[tag] for tag in sample.tags), cells))
    draw_sheet(TITLES, rows, Path(__file__).parent / "demo.png")


if __name__ == "__main__":
    main()
