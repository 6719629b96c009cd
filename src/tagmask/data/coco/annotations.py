"""Reading a COCO instances JSON: what is needed for tags now, what is needed for masks only when asked."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tagmask.errors import DataError


@dataclass(frozen=True, slots=True)
class CocoObject:
    """One annotation without its outline: category name, half-open pixel box (x0, y0, x1, y1), crowd or not."""

    category: str
    box: tuple[int, int, int, int] | None
    crowd: bool


@dataclass(slots=True)
class CocoImage:
    """One image entry with its objects; ``outlined`` = every object of it has a segmentation."""

    key: Any
    file_name: str
    objects: list[CocoObject] = field(default_factory=list)
    outlined: bool = True


@dataclass(frozen=True)
class CocoContent:
    """A JSON without its outlines. ``categories`` in the order of their ids, which is the order of labels."""

    path: Path
    categories: tuple[str, ...]
    images: tuple[CocoImage, ...]
    rejected: tuple[str, ...]
    has_outlines: bool


@dataclass(frozen=True, slots=True)
class CocoOutlines:
    """One image's outlines: (height, width) as the JSON gives it or None, and (category, segmentation) in order."""

    size: tuple[int, int] | None
    outlines: tuple[tuple[str, Any], ...]


def read_content(path: Path) -> CocoContent:
    """Categories, images and objects of a JSON; the outlines are dropped.

    Raises:
        DataError: missing, no JSON, or no COCO instances.
    """
    raw = _load(path)
    categories = _categories(path, raw)
    images = [CocoImage(item.get("id"), str(item.get("file_name", ""))) for item in _items(path, raw, "images")]
    by_key: dict[Any, CocoImage] = {}
    for image in images:
        by_key.setdefault(image.key, image)
    rejected = []
    has_outlines = False
    for item in _items(path, raw, "annotations"):
        image_of = by_key.get(item.get("image_id"))
        category = categories.get(item.get("category_id"))
        if image_of is None or category is None:
            what = f"image_id {item.get('image_id')}" if image_of is None else f"category_id {item.get('category_id')}"
            rejected.append(f"annotation {item.get('id')} names the unknown {what}; annotation left out")
            continue
        crowd = bool(item.get("iscrowd", 0))
        image_of.objects.append(CocoObject(category, _box(item.get("bbox")), crowd))
        outlined = bool(item.get("segmentation"))
        has_outlines |= outlined
        image_of.outlined &= outlined or crowd
    ordered = tuple(categories[key] for key in sorted(categories))
    return CocoContent(path, ordered, tuple(images), tuple(rejected), has_outlines)


def read_outlines(path: Path) -> dict[Any, CocoOutlines]:
    """Outlines by image id, without crowd regions, in the order of the annotations.

    Raises:
        DataError: as :func:`read_content`.
    """
    raw = _load(path)
    categories = _categories(path, raw)
    outlines: dict[Any, list[tuple[str, Any]]] = {item.get("id"): [] for item in _items(path, raw, "images")}
    for item in _items(path, raw, "annotations"):
        category = categories.get(item.get("category_id"))
        if category is not None and item.get("image_id") in outlines and not item.get("iscrowd", 0):
            outlines[item["image_id"]].append((category, item.get("segmentation")))
    sizes = {item.get("id"): _size(item) for item in _items(path, raw, "images")}
    return {key: CocoOutlines(sizes[key], tuple(pairs)) for key, pairs in outlines.items()}


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8-sig") as stream:
            raw = json.load(stream)
    except FileNotFoundError as error:
        msg = f"{path}: no such file. Correct data.annotations or data.val_annotations."
        raise DataError(msg) from error
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path}: cannot be read as JSON ({error}). Export it again."
        raise DataError(msg) from error
    if not isinstance(raw, dict):
        msg = f"{path}: is no COCO instances file: it holds no object with 'images' and 'categories'."
        raise DataError(msg)
    return raw


def _items(path: Path, raw: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items = raw.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        msg = f"{path}: is no COCO instances file: '{key}' is missing or no list. Export it as COCO instances."
        raise DataError(msg)
    return items


def _categories(path: Path, raw: dict[str, Any]) -> dict[Any, str]:
    categories: dict[Any, str] = {}
    for item in _items(path, raw, "categories"):
        number, name = item.get("id"), str(item.get("name", "")).strip()
        if not isinstance(number, int) or not name or number in categories:
            msg = f"{path}: category {item} needs an id of its own and a name. Correct it."
            raise DataError(msg)
        categories[number] = name
    return categories


def _size(item: dict[str, Any]) -> tuple[int, int] | None:
    height, width = item.get("height"), item.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _box(value: Any) -> tuple[int, int, int, int] | None:
    try:
        x, y, width, height = (float(part) for part in value)
        return (math.floor(x), math.floor(y), math.ceil(x + width), math.ceil(y + height))
    except (TypeError, ValueError, OverflowError):
        return None  # boxes are an extra: an annotation without a usable one still gives its tag
