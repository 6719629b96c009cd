"""Health report of a data source: what a person should know before a long training run.

This opens every image (and every mask, where there are masks): it belongs to ``tagmask data check``, not to a
weak stage.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tagmask.data.health.masks import mask_doubts
from tagmask.data.health.report import HealthReport, SizeRange
from tagmask.data.health.text import warnings_of
from tagmask.data.near_duplicates import image_hashes, near_duplicates
from tagmask.data.pixels import survey_pixels, with_pixels
from tagmask.errors import DataError
from tagmask.storage.images import MAX_PIXELS, read_image
from tagmask.types import DataSource, Problem, Sample

#: An image whose brightest pixel is no brighter (of 255) shows nothing: 12 bits stored in 16 end at 15.
DARK = 40
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Finding:
    size: tuple[int, int] | None = None
    brightest: int = 255
    labels: frozenset[int] | None = None
    image_problem: str = ""
    mask_problem: str = ""


def check(
    source: DataSource,
    *,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = None,
    progress: Progress | None = None,
) -> HealthReport:
    """Look at every image and mask of a source.

    Args:
        source: the full source (with masks, if it has any).
        max_pixels: images above are listed as unreadable.
        workers: threads that decode; None = one per core, at most 8.
        progress: called with (done, total) after each image.

    Nothing is raised for a bad image: it is listed in the report.
    """
    survey = survey_pixels(source)
    hashing: dict[str, Any] = {"max_pixels": max_pixels, "channels": source.channels, "workers": workers}
    source = with_pixels(source, survey)
    samples = [sample for split in source.splits.values() for sample in split]
    findings = _look(source, samples, max_pixels, workers or min(8, os.cpu_count() or 1), progress)
    findings_by_id = dict(zip((sample.id for sample in samples), findings, strict=True))
    sizes = [finding.size for finding in findings if finding.size is not None]
    names = source.classes.foreground
    counts = {
        name: {split: sum(label in sample.tags for sample in rows) for split, rows in source.splits.items()}
        for label, name in enumerate(names, start=1)
    }
    values: dict[str, Any] = {
        "format": source.format,
        "classes": source.classes.names,
        "images": {split: len(rows) for split, rows in source.splits.items()},
        "class_counts": counts,
        "co_occurrence": _co_occurrence(samples, len(names)),
        "untagged": {split: sum(not sample.tags for sample in rows) for split, rows in source.splits.items()},
        "sizes": _size_range(sizes),
        "unreadable": _listed(samples, findings_by_id, "image_problem"),
        "broken_masks": _listed(samples, findings_by_id, "mask_problem"),
        "missing_masks": _missing_masks(source),
        "mask_doubts": tuple(mask_doubts(source.classes, samples, [finding.labels for finding in findings])),
        "dark": tuple(s.id for s, finding in zip(samples, findings, strict=True) if finding.brightest <= DARK),
        "pixels": "" if survey is None else survey.line(),
        "duplicates": (copies := tuple(_duplicates(samples))),
        "near_duplicates": tuple(_near_duplicates(copies, image_hashes(samples, **hashing))),
        "problems": source.problems,
    }
    report = HealthReport(**values)
    return HealthReport(**values, warnings=tuple(warnings_of(report, source)))


def _look(
    source: DataSource, samples: list[Sample], max_pixels: int, workers: int, progress: Progress | None
) -> list[_Finding]:
    def look(sample: Sample) -> _Finding:
        try:
            image = read_image(sample.image_path, max_pixels=max_pixels, pixels=source.pixels)
        except DataError as error:
            return _Finding(image_problem=str(error))
        finding = _Finding(image.shape[:2], brightest=int(image.max()))
        if source.mask_reader is not None and source.has_mask(sample):
            try:
                labels = frozenset(int(label) for label in np.unique(source.read_mask(sample)))
                return replace(finding, labels=labels)
            except DataError as error:
                return replace(finding, mask_problem=str(error))
        return finding

    findings = []
    with ThreadPoolExecutor(workers) as pool:
        for finding in pool.map(look, samples):
            findings.append(finding)
            if progress is not None:
                progress(len(findings), len(samples))
    return findings


def _listed(samples: list[Sample], findings: dict[str, _Finding], key: str) -> tuple[Problem, ...]:
    return tuple(
        Problem("data check", sample.id, str(sample.image_path), getattr(findings[sample.id], key))
        for sample in samples
        if getattr(findings[sample.id], key)
    )


def _co_occurrence(samples: list[Sample], n_classes: int) -> tuple[tuple[int, ...], ...]:
    matrix = np.zeros((n_classes, n_classes), dtype=np.int64)
    for tags, times in Counter(sample.tags for sample in samples).items():
        index = np.asarray(tags, dtype=np.int64) - 1
        matrix[np.ix_(index, index)] += times
    return tuple(tuple(int(value) for value in row) for row in matrix)


def _size_range(sizes: list[tuple[int, int]]) -> SizeRange | None:
    if not sizes:
        return None
    sides = np.asarray(sizes)

    def spread(values: np.ndarray[Any, Any]) -> tuple[int, int, int]:
        return int(values.min()), int(np.median(values)), int(values.max())

    return SizeRange(spread(sides[:, 0]), spread(sides[:, 1]), len(set(sizes)))


def _missing_masks(source: DataSource) -> dict[str, int] | None:
    """Images without a mask per split; None when the source has no masks at all, which is fine."""
    if source.mask_reader is None:
        return None
    return {split: sum(not source.has_mask(sample) for sample in rows) for split, rows in source.splits.items()}


def _duplicates(samples: list[Sample]) -> Iterator[tuple[str, ...]]:
    """Groups of ids whose files are equal byte for byte; only files of equal length are read."""
    by_length: defaultdict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.image_path.is_file():
            by_length[sample.image_path.stat().st_size].append(sample)
    for length, group in sorted(by_length.items()):
        by_content: defaultdict[str, list[str]] = defaultdict(list)
        if length and len(group) > 1:
            for sample in group:
                by_content[_digest(sample.image_path)].append(sample.id)
        yield from (tuple(ids) for ids in by_content.values() if len(ids) > 1)


def _near_duplicates(copies: tuple[tuple[str, ...], ...], hashes: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Groups of ids whose pictures are nearly the same, without those that are nothing but exact copies."""
    exact = [set(group) for group in copies]
    for group in near_duplicates(hashes):
        if not any(ids.issuperset(group) for ids in exact):
            yield group


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return f"unreadable {path}"  # listed as unreadable already; equal to nothing else
