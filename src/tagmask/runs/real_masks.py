"""Training images whose real masks a recipe may learn from, and the state of these masks."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from tagmask.data.lists import match_ids, read_lines
from tagmask.errors import InputError
from tagmask.runs.context import TRAIN
from tagmask.settings.recipe import Recipe
from tagmask.types import DataSource, Sample


def chosen_masks(recipe: Recipe, source: DataSource) -> frozenset[str]:
    """Ids of the training images whose masks ``real_masks`` names; none where it names none.

    Raises:
        InputError: the data has no such masks, or not so many.
    """
    wish = recipe.real_masks
    if wish is None:
        return frozenset()
    having = [sample for sample in source.splits.get(TRAIN, ()) if source.has_mask(sample)]
    if source.mask_reader is None or not having:
        msg = "real_masks: no training image has a mask. Name their folder (data.masks), or leave real_masks out."
        raise InputError(msg)
    if isinstance(wish, Path):
        return _listed(wish, {sample.id for sample in having})
    if wish != "all" and wish > len(having):
        msg = f"real_masks={wish}: only {len(having)} training images have a mask. Write all, or a smaller number."
        raise InputError(msg)
    return frozenset(sample.id for sample in (having if wish == "all" else drawn(having, wish, recipe.seed)))


def _listed(path: Path, having: Collection[str]) -> frozenset[str]:
    ids = match_ids([line for _, line in read_lines(path)], having)
    without = [name for name in ids if name not in having]
    if without or not ids:
        what = f"{without[0]} is no training image with a mask" if without else "names no image"
        msg = f"real_masks: {path}: {what}. Write one id of such an image per line."
        raise InputError(msg)
    return frozenset(ids)


def drawn(samples: Sequence[Sample], n_images: int, seed: int) -> list[Sample]:
    """``n_images`` of the samples, in an order by the seed, the class that is drawn least so far first."""

    def place(sample: Sample) -> str:
        return hashlib.sha256(f"{seed}:{sample.id}".encode("utf-8", "backslashreplace")).hexdigest()

    waiting = sorted(samples, key=place)
    counts: Counter[int] = Counter({tag: 0 for sample in samples for tag in sample.tags})
    chosen: list[Sample] = []
    while len(chosen) < n_images:
        rarest = sorted(counts, key=lambda tag: (counts[tag], tag))
        there = next((tag for tag in rarest if any(tag in sample.tags for sample in waiting)), None)
        sample = next((sample for sample in waiting if there in sample.tags), waiting[0])
        waiting.remove(sample)
        chosen.append(sample)
        counts.update(sample.tags)
    return chosen


def masks_state(source: DataSource, ids: Collection[str]) -> str:
    """Number of the masks, and a hash of their images, files' sizes and times; '' without any."""
    if not ids:
        return ""
    digest = hashlib.sha256(source.mask_key.encode())
    for sample in source.splits[TRAIN]:
        if sample.id not in ids:
            continue
        digest.update(f"{sample.id}\n".encode("utf-8", "backslashreplace"))
        if sample.mask_path is not None and sample.mask_path.is_file():
            status = sample.mask_path.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return f"{len(ids)} masks ({digest.hexdigest()[:12]})"
