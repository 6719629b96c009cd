"""Annotations/*.xml of PASCAL VOC: names and boxes of all objects, 'difficult' ones included (docs/own-data.md)."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from tagmask.errors import DataError


@dataclass(frozen=True, slots=True)
class VocObject:
    """One object: class name, and its half-open pixel box (x0, y0, x1, y1) or None."""

    name: str
    box: tuple[int, int, int, int] | None


def read_objects(path: Path) -> tuple[VocObject, ...]:
    """All objects of one annotation file. Boxes in the file are 1-based and inclusive.

    Raises:
        DataError: missing or broken file; its text is the reason.
    """
    try:
        tree = ElementTree.parse(path)
    except FileNotFoundError as error:
        msg = f"no annotation {path}"
        raise DataError(msg) from error
    except (ElementTree.ParseError, OSError, ValueError) as error:
        msg = f"{path} is not a readable annotation ({error})"
        raise DataError(msg) from error
    objects = []
    for element in tree.getroot().iter("object"):
        name = (element.findtext("name") or "").strip()
        if name:
            objects.append(VocObject(name, _box(element.find("bndbox"), path)))
    return tuple(objects)


def _box(element: ElementTree.Element | None, path: Path) -> tuple[int, int, int, int] | None:
    if element is None:
        return None
    try:
        left, top, right, bottom = (float(element.findtext(key) or "") for key in ("xmin", "ymin", "xmax", "ymax"))
        return (math.floor(left) - 1, math.floor(top) - 1, math.ceil(right), math.ceil(bottom))
    except (ValueError, OverflowError) as error:
        msg = f"{path} holds a box without four numbers"
        raise DataError(msg) from error
