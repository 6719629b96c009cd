"""What annotation tools export as one JSON: Label Studio, FiftyOne, VGG Image Annotator. Read for its tags alone.

Outlines and boxes in such files name what they surround, and that is a tag; an image that nobody has annotated yet is
left out and listed, for it would else count as one without any object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tagmask.data.table.columns import Columns
from tagmask.data.table.names import tag_names
from tagmask.errors import DataError
from tagmask.types import Problem

Row = tuple[str, list[str] | None]


def read_export(path: Path, document: Any) -> Columns | None:
    """Columns 'image' and 'tags' of an export, None where the document is no known one.

    Raises:
        DataError: COCO, with the setting that reads it.
    """
    if is_coco(document):
        msg = f"{path}: is a COCO file. Read it with data.format=coco data.annotations={path.name}."
        raise DataError(msg)
    for tool, fits, rows in (
        ("Label Studio", _is_label_studio, _label_studio),
        ("FiftyOne", _is_fiftyone, _fiftyone),
        ("VGG Image Annotator", _is_via, _via),
    ):
        if fits(document):
            return columns_of(path, tool, list(rows(document)))
    return None


def columns_of(path: Path, tool: str, rows: list[Row]) -> Columns:
    """Columns of rows (image, tags); rows without a list of tags were not annotated and are left out."""
    reason = f"is not annotated in {tool}: left out, for it would count as an image without objects"
    problems = tuple(Problem("data", image, str(path), reason) for image, tags in rows if tags is None)
    done = [(number, image, tags) for number, (image, tags) in enumerate(rows, start=1) if tags is not None]
    values: dict[str, list[Any]] = {"image": [row[1] for row in done], "tags": [row[2] for row in done]}
    return Columns(path, values, [row[0] for row in done], problems)


def is_coco(document: Any) -> bool:
    """Whether a document is a COCO instances file."""
    return isinstance(document, Mapping) and all(
        isinstance(document.get(key), list) for key in ("images", "annotations", "categories")
    )


def _is_label_studio(document: Any) -> bool:
    return (
        isinstance(document, list)
        and bool(document)
        and all(isinstance(task, Mapping) and isinstance(task.get("data"), Mapping) for task in document)
    )


def _label_studio(document: list[Mapping[str, Any]]) -> Iterator[Row]:
    for task in document:
        texts = [value for value in task["data"].values() if isinstance(value, str)]
        image = next((text for text in texts if re.search(r"\.\w{2,5}(\?|$)", text)), texts[0] if texts else "")
        done = [
            item
            for item in task.get("annotations") or task.get("completions") or ()
            if isinstance(item, Mapping) and not item.get("was_cancelled")
        ]
        results = [result for item in done for result in item.get("result") or () if isinstance(result, Mapping)]
        tags = [name for result in results for name in tag_names(result.get("value"), "")]
        yield local_name(image), tags if done else None


def local_name(address: str) -> str:
    """The path behind a web address or one of Label Studio's: '/data/local-files/?d=a/b.jpg' is 'a/b.jpg'."""
    if "://" not in address and not address.startswith("/data/"):
        return address
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else unquote(parts.path)


def _is_fiftyone(document: Any) -> bool:
    return isinstance(document, Mapping) and isinstance(document.get("labels"), Mapping) and "classes" in document


def _fiftyone(document: Mapping[str, Any]) -> Iterator[Row]:
    classes = document["classes"] or ()

    def name(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(classes):
            return value
        return classes[value]

    for image, value in document["labels"].items():
        labels = value if isinstance(value, list) else [value]
        labels = [name(item.get("label") if isinstance(item, Mapping) else item) for item in labels]
        yield image, None if value is None else list(tag_names(labels, ""))


def _is_via(document: Any) -> bool:
    if not isinstance(document, Mapping):
        return False
    images = document.get("_via_img_metadata", document)
    return (
        isinstance(images, Mapping)
        and bool(images)
        and all(isinstance(item, Mapping) and "filename" in item and "regions" in item for item in images.values())
    )


def _via(document: Mapping[str, Any]) -> Iterator[Row]:
    for item in document.get("_via_img_metadata", document).values():
        regions = item["regions"] or ()
        regions = regions.values() if isinstance(regions, Mapping) else regions
        attributes = [region.get("region_attributes") or {} for region in regions]
        attributes.append(item.get("file_attributes") or {})
        tags = [name for mapping in attributes for name in _attribute_names(mapping)]
        yield str(item["filename"]), tags


def _attribute_names(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a region: under the usual key, or the only attribute whatever it is called."""
    if len(attributes) == 1:
        (value,) = attributes.values()
        return tag_names(value, "")
    return tag_names(attributes, "")
