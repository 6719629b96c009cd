"""Draw docs/pictures/refine-NAME.png, maps and masks before and after a refiner, from two runs on the same maps.

tagmask run demo refine=threshold segment=null name=plain
tagmask run demo refine="[pamr, threshold]" segment=null name=pamr --reuse runs/plain
python docs/pictures/refiners.py pamr runs/plain runs/pamr [ID ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from sheet import draw_sheet, heat, highest, painted
from tagmask.runs.run import open_run
from tagmask.storage.images import read_image
from tagmask.storage.pictures import load_mask

IDS = ("val_00124", "val_00078", "val_00145")
TITLES = ("image, with its tags", "maps before", "maps after", "mask before", "mask after", "truth")


def main() -> None:
    """Draw one row per image."""
    name, before, after = sys.argv[1], open_run(Path(sys.argv[2])), open_run(Path(sys.argv[3]))
    source = after.recipe.data.open()
    samples = {sample.id: sample for split in source.splits.values() for sample in split}
    rows = []
    for key in sys.argv[4:] or IDS:
        sample = samples[key]
        image = read_image(sample.image_path)
        cells = [image, *(heat(image, highest(after.workspace, key, stage)) for stage in ("localize", "refine"))]
        cells += [painted(load_mask(run.workspace.mask_path(key))) for run in (before, after)]
        rows.append(
            (", ".join(source.classes.names[tag] for tag in sample.tags), [*cells, painted(source.read_mask(sample))])
        )
    draw_sheet(TITLES, rows, Path(__file__).parent / f"refine-{name}.png")


if __name__ == "__main__":
    main()
