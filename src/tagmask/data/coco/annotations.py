"""Reading a COCO instances JSON: what is needed for tags now, what is needed for masks only when asked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tagmask.errors import DataError

Key = int | str


@dataclass(frozen=True, slots=True)
class CocoObject:
    """One annotation without its outline: category name, half-open pixel box (x0, y0, x1, y1), crowd or not."""

    category: str
    box: tuple[int, int, int, int] | None
    crowd: bool


@dataclass(slots=True)
class CocoImage:
    """All that a JSON says of one image id; ``outlined`` = every object of it has a segmentation."""

    objects: list[CocoObject] = field(default_factory=list)
    outlined: bool = True


@dataclass(frozen=True)
class CocoContent:
    """A JSON without its outlines.

    ``entries`` are (image id, file name) as listed; an id may stand there twice, and so may a name: merged files are
    like that. ``categories`` are in the order of their ids, which is the order of labels.
    """

    path: Path
    categories: tuple[str, ...]
    entries: tuple[tuple[Key, str], ...]
    images: Mapping[Key, CocoImage]
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
    entries, rejected = [], []
    for item in _items(path, raw, "images"):
        key, name = _key(item.get("id")), item.get("file_name")
        if key is None or not isinstance(name, str) or not name.strip():
            rejected.append(f"image {item.get('id')} ('{name}') needs an id and a file_name; image left out")
        else:
            entries.append((key, name))
    images: dict[Key, CocoImage] = {key: CocoImage() for key, _ in entries}
    has_outlines = False
    for item in _items(path, raw, "annotations"):
        image_key, category_key = _key(item.get("image_id")), _key(item.get("category_id"))
        image = images.get(image_key) if image_key is not None else None
        category = categories.get(category_key) if category_key is not None else None
        if image is None or category is None:
            what = f"image_id {item.get('image_id')}" if image is None else f"category_id {item.get('category_id')}"
            rejected.append(f"annotation {item.get('id')} names the unknown {what}; annotation left out")
            continue
        crowd = _is_crowd(item)
        image.objects.append(CocoObject(category, _box(item.get("bbox")), crowd))
        outlined = bool(item.get("segmentation"))
        has_outlines |= outlined
        image.outlined &= outlined or crowd
    names = tuple(dict.fromkeys(categories[key] for key in _sorted(categories)))
    return CocoContent(path, names, tuple(entries), images, tuple(rejected), has_outlines)


def read_outlines(path: Path) -> dict[Key, CocoOutlines]:
    """Outlines by image id, without crowd regions, in the order of the annotations.

    Raises:
        DataError: as :func:`read_content`.
    """
    raw = _load(path)
    categories = _categories(path, raw)
    images = [(key, item) for item in _items(path, raw, "images") if (key := _key(item.get("id"))) is not None]
    outlines: dict[Key, list[tuple[str, Any]]] = {key: [] for key, _ in images}
    for item in _items(path, raw, "annotations"):
        image_key, category_key = _key(item.get("image_id")), _key(item.get("category_id"))
        category = categories.get(category_key) if category_key is not None else None
        if category is not None and image_key in outlines and not _is_crowd(item):
            outlines[image_key].append((category, item.get("segmentation")))
    sizes = {key: _size(item) for key, item in images}
    return {key: CocoOutlines(sizes[key], tuple(pairs)) for key, pairs in outlines.items()}


def _key(value: Any) -> Key | None:
    """An id as it is compared: tools write 7, "7" and 7.0 for the same; None for what can be no id."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        text = value.strip()
        return int(text) if re.fullmatch(r"0|[1-9]\d{0,17}", text) else text or None
    return value


def _sorted(keys: Iterable[Key]) -> list[Key]:
    """Numbers first, in their order; labels follow it, whatever gaps there are."""
    return sorted(keys, key=lambda key: (isinstance(key, str), key))


def _is_crowd(item: Mapping[str, Any]) -> bool:
    return str(item.get("iscrowd", 0)).casefold() in ("1", "1.0", "true")


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


def _categories(path: Path, raw: dict[str, Any]) -> dict[Key, str]:
    """Names by id. One name with several ids (merged files) is one class; one id with several names is none."""
    categories: dict[Key, str] = {}
    for item in _items(path, raw, "categories"):
        key, name = _key(item.get("id")), str(item.get("name") or "").strip()
        if key is None or not name or categories.get(key, name) != name:
            shown = {"id": item.get("id"), "name": item.get("name")}
            msg = f"{path}: category {shown} needs an id of its own and a name. Correct it."
            raise DataError(msg)
        categories[key] = name
    return categories


def _size(item: dict[str, Any]) -> tuple[int, int] | None:
    height, width = item.get("height"), item.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) and height > 0 < width else None


def _box(value: Any) -> tuple[int, int, int, int] | None:
    try:
        x, y, width, height = (float(part) for part in value)
        box = (math.floor(x), math.floor(y), math.ceil(x + width), math.ceil(y + height))
    except (TypeError, ValueError, OverflowError):
        return None  # boxes are an extra: an annotation without a usable one still gives its tag
    return box if box[0] < box[2] and box[1] < box[3] else None
