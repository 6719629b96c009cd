"""Draw docs/pictures/demo.png from a finished demo run: python docs/pictures/make.py runs/demo"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from tagmask.data.images import read_image
from tagmask.interfaces import UInt8Array
from tagmask.refine import upsample_maps
from tagmask.rescore import open_run
from tagmask.workspace import Workspace, voc_palette

IDS = ("val_00124", "val_00078", "val_00145", "val_00003")
TITLES = ("image, with its tags", "activation map", "after the colour walk", "pseudo mask", "prediction", "truth")
CELL, GAP, HEAD = 160, 6, 22
PALETTE = np.array(voc_palette(), np.uint8).reshape(-1, 3)


def heat(image: UInt8Array, score: np.ndarray) -> UInt8Array:
    """Image under a black-red-yellow-white heat map."""
    stops = np.array([[0, 0, 0], [130, 20, 90], [240, 90, 30], [255, 220, 80], [255, 255, 255]], float)
    place = np.clip(score, 0, 1) * (len(stops) - 1)
    low = np.minimum(place.astype(int), len(stops) - 2)
    colour = stops[low] + (stops[low + 1] - stops[low]) * (place - low)[..., None]
    return (0.35 * image + 0.65 * colour).astype(np.uint8)


def main() -> None:
    """Draw one row per image."""
    run = open_run(Path(sys.argv[1]))
    source, workspace = run.recipe.data.open(), run.workspace
    samples = {sample.id: sample for sample in source.split("val")}
    size = (len(TITLES) * (CELL + GAP) + GAP, HEAD + len(IDS) * (CELL + GAP))
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, title in enumerate(TITLES):
        draw.text((GAP + column * (CELL + GAP), 4), title, fill=(40, 40, 40), font=font)
    for row, name in enumerate(IDS):
        sample = samples[name]
        image = read_image(sample.image_path)

        def best(stage: str, name: str = name) -> np.ndarray:
            stored = workspace.load_maps(name, stage=stage)
            return upsample_maps(torch.from_numpy(stored.maps), stored.image_size).amax(0).numpy()

        walked = best("refine")
        masks = [Workspace.load_mask(workspace.mask_path(name)), Workspace.load_mask(workspace.prediction_path(name))]
        painted = [np.where(m[..., None] > 0, PALETTE[m], 235) for m in (*masks, source.read_mask(sample))]
        cells = [image, heat(image, best("localize")), heat(image, walked / max(walked.max(), 1e-6)), *painted]
        for column, cell in enumerate(cells):
            place = (GAP + column * (CELL + GAP), HEAD + row * (CELL + GAP))
            sheet.paste(Image.fromarray(cell.astype(np.uint8)).resize((CELL, CELL)), place)
        label = ", ".join(source.classes.names[tag] for tag in sample.tags)
        top = HEAD + row * (CELL + GAP)
        draw.rectangle((GAP, top, GAP + 7 * len(label) + 6, top + 17), "white")
        draw.text((GAP + 3, top + 1), label, fill=(20, 20, 20), font=font)
    sheet.quantize(192).save(Path(__file__).parent / "demo.png", optimize=True)


if __name__ == "__main__":
    main()
