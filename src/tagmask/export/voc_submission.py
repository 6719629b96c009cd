"""Masks as the PASCAL VOC evaluation server takes them: results/VOC2012/Segmentation/COMP_SET_cls/ID.png.

Palette PNGs of the image's size, 0 background, 1..20 the classes in the server's order, no void. comp5 is for models
that saw VOC's training data only, comp6 for all others, such as those that start from ImageNet weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from tagmask.data.lists import match_ids
from tagmask.data.voc.source import VOC_CLASSES as CLASSES
from tagmask.errors import DataError, InputError
from tagmask.runs.workspace import Workspace
from tagmask.storage.pictures import load_mask, save_mask
from tagmask.types import BACKGROUND, IGNORE_INDEX

Competition = Literal["comp5", "comp6"]


def write_voc_submission(
    source: Path,
    output: Path,
    *,
    competition: Competition = "comp6",
    image_set: str = "test",
    images: Sequence[str] | None = None,
) -> Path:
    """Write a folder that can be packed and uploaded as it is.

    Args:
        source: a run (its predictions), or a folder of masks named after the images.
        output: where ``results/`` goes.
        competition: ``comp5`` or ``comp6``.
        image_set: name of the list of images.
        images: ids, or lines of a list of images, that must all be there, and no others are taken; None takes
            every mask.

    Returns:
        The folder of the masks.

    Raises:
        InputError: no masks, other classes than VOC's, or images without a mask.
        DataError: a mask holds a label that the server does not know.
        RunError: a mask is broken, or cannot be written.
    """
    masks = {unquote(path.stem): path for path in sorted(_masks(source).glob("*.png"))}
    if not masks:
        msg = f"{_masks(source)}: holds no masks (PNG). Predict the images of the set first: tagmask predict"
        raise InputError(msg)
    names = list(masks) if images is None else match_ids(images, masks)
    missing = [name for name in names if name not in masks]
    if missing:
        msg = f"{source}: {len(missing)} images of the list have no mask, the first: {missing[0]}"
        raise InputError(msg)
    folder = output / "results" / "VOC2012" / "Segmentation" / f"{competition}_{image_set}_cls"
    for name in names:
        mask = load_mask(masks[name])
        mask[mask == IGNORE_INDEX] = BACKGROUND
        if mask.max() > len(CLASSES):
            msg = f"{masks[name]}: holds label {mask.max()}; the server knows 0..{len(CLASSES)}"
            raise DataError(msg)
        save_mask(folder / f"{name}.png", mask)
    return folder


def _masks(source: Path) -> Path:
    """The folder of a run's predictions, after a look at its classes; else the folder itself."""
    if not (source / "manifest.json").is_file():
        return source
    space = Workspace(source)
    names = tuple(space.manifest().get("data", {}).get("classes", ()))
    if names[1:] != CLASSES:
        msg = f"{source}: its classes are not the 20 of PASCAL VOC in their order, so the server cannot read its masks"
        raise InputError(msg)
    return space.stage(space.result_stage()) / "predictions"
