"""The file of every image's confusion counts, and the list of images from worst to best, in a run's evaluate/.

``SPLIT-images.npz`` (no pickle): ``schema``, ``data`` (fingerprint of the data), ``classes`` and ``ids`` (texts),
``measures`` (texts), and for each measure ``MEASURE.images`` (places in ``ids``), ``.offsets``, ``.truth``,
``.prediction``, ``.count`` as in :class:`tagmask.metrics.ImageCounts`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagmask.errors import RunError
from tagmask.metrics.image_counts import ImageCounts
from tagmask.metrics.mask_scores import image_table
from tagmask.runs.workspace import Workspace
from tagmask.storage.arrays import SCHEMA, stored_arrays
from tagmask.storage.files import atomic_write

WHAT = "image counts"


@dataclass(frozen=True, eq=False)
class SplitCounts:
    """The counts of one split by measure; ``classes`` has the background first, ``data`` is the data's fingerprint."""

    classes: tuple[str, ...]
    data: str
    measures: Mapping[str, ImageCounts]


def write_split_counts(workspace: Workspace, split: str, counts: SplitCounts) -> None:
    """Write SPLIT-images.npz and SPLIT-images.csv, atomically.

    Raises:
        RunError: they cannot be written.
    """
    # Each id once, measures by number: ids are the longest part of the file.
    ids = list(dict.fromkeys(name for per_image in counts.measures.values() for name in per_image.ids))
    place = {name: index for index, name in enumerate(ids)}
    arrays: dict[str, Any] = {
        "schema": np.int64(SCHEMA),
        "data": np.array(counts.data),
        "classes": np.array(counts.classes),
        "ids": np.array(ids),
        "measures": np.array(list(counts.measures)),
    }
    for measure, per_image in counts.measures.items():
        arrays[f"{measure}.images"] = np.array([place[name] for name in per_image.ids], np.int64)
        arrays |= {f"{measure}.{key}": value for key, value in per_image.arrays().items()}
    path = workspace.image_counts_path(split)
    with atomic_write(path) as stream:
        np.savez_compressed(stream, **arrays)
    with atomic_write(path.with_suffix(".csv"), "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["measure", "id", "miou", "pixel_accuracy"])
        for measure, per_image in counts.measures.items():
            for name, *values in image_table(per_image):
                writer.writerow([measure, name, *("" if value is None else f"{value:.6f}" for value in values)])


def read_split_counts(path: Path) -> SplitCounts:
    """Read SPLIT-images.npz.

    Raises:
        RunError: it is broken.
    """
    with stored_arrays(path, WHAT) as stored:
        if int(stored["schema"]) != SCHEMA:
            msg = f"{path}: written by another version of tagmask. Evaluate the run again."
            raise RunError(msg)
        classes, ids = tuple(stored["classes"].tolist()), stored["ids"]
        measures = {}
        for measure in stored["measures"].tolist():
            parts = {key: stored[f"{measure}.{key}"] for key in ("offsets", "truth", "prediction", "count")}
            names = ids[stored[f"{measure}.images"]].tolist()
            measures[str(measure)] = ImageCounts.from_arrays(names, len(classes), parts)
        return SplitCounts(classes, str(stored["data"]), measures)
