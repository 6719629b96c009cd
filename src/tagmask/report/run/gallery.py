"""Which images the page shows, and what is laid over them.

Best and worst are those of all images where the evaluate stage has kept every image's counts. Else a bounded number of
candidates is drawn from each split by seed, so that a run over 100 000 images is reported as fast as one over 300, and
best and worst are those of the candidates.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tagmask.report.run.box_layers import box_masks
from tagmask.report.run.layers import READ_ERRORS, Layer, image_iou, map_layers, result_stage, threshold_maps, visible
from tagmask.report.thumbnails import mask_uri, photo_uri
from tagmask.runs.image_counts import read_split_counts
from tagmask.runs.stage_names import LOCALIZE, REFINE, SEGMENT_FULL
from tagmask.runs.workspace import Workspace
from tagmask.storage.pictures import load_mask
from tagmask.types import DataSource, Sample, UInt8Array

Group = Literal["best", "worst", "random"]
#: What an image is ranked by, the end of the pipeline first: key in metrics.json -> what people call it.
_RANKED_BY = {
    "segmentation": "prediction",
    "pseudo_masks": "pseudo mask",
    "refined_maps": "refined maps",
    "maps": "maps",
    "segmentation_full": "full supervision",
}


@dataclass(frozen=True, slots=True)
class Shot:
    """One image of the gallery. ``iou`` in [0, 1] is None where there is no real mask; ``iou_of`` names
    the mask that was compared with it."""

    id: str
    split: str
    group: Group
    tags: tuple[int, ...]
    width: int
    height: int
    photo: str
    layers: tuple[Layer, ...]
    iou: float | None
    iou_of: str


@dataclass
class Gallery:
    """All shots, whether best and worst are known, how many candidates were looked at, what was skipped."""

    shots: list[Shot] = field(default_factory=list)
    ranked: bool = False
    complete: bool = False  # best and worst of all images, not of candidates
    candidates: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Candidate:
    sample: Sample
    iou: float | None
    iou_of: str


def build_gallery(
    workspace: Workspace,
    source: DataSource,
    *,
    threshold: float | None = None,
    images: int = 48,
    candidates: int = 300,
    seed: int = 0,
) -> Gallery:
    """Choose and draw the images of the page.

    Args:
        workspace: the run; images without any artifact are not candidates.
        source: where images and, if it has any, real masks come from.
        threshold: background threshold for judging an image that has maps only.
        images: how many shots in all, shared by the splits.
        candidates: how many images are compared for best and worst, shared by the splits.
        seed: which candidates, and which of them are the random ones.

    Returns:
        A gallery; broken images, maps and masks are left out and named in ``notes``.
    """
    gallery = Gallery()
    pools: dict[str, list[_Candidate]] = {}
    gallery.complete = True
    for split, samples in source.splits.items():
        known = _known_ious(workspace, source, split, gallery.notes)
        pool = [_Candidate(sample, *known[sample.id]) for sample in samples if sample.id in known]
        if not pool:
            subset = find_samples(workspace, samples, max(candidates // max(len(source.splits), 1), 1), seed)
            pool = [_judge(workspace, source, sample, threshold, gallery.notes) for sample in subset]
            gallery.complete &= not pool
        if pool:
            pools[split] = pool
    gallery.candidates = sum(len(pool) for pool in pools.values())
    side = 400 if images <= 64 else max(160, round(400 * (64 / images) ** 0.5))
    picks: list[tuple[str, Group, _Candidate]] = []
    for split, pool in pools.items():
        quota = max(images // len(pools), 1)
        picks += [(split, group, pick) for group, pick in _choose(pool, quota, seed)]
    for split, group, pick in _interleave(picks):
        shot = _draw(workspace, source, pick, split, group, side, gallery.notes)
        if shot is not None:
            gallery.shots.append(shot)
    gallery.ranked = any(shot.group != "random" for shot in gallery.shots)
    return gallery


def find_samples(workspace: Workspace, samples: Sequence[Sample], limit: int, seed: int) -> list[Sample]:
    """Up to ``limit`` samples that have an artifact, in an order that depends on the seed only."""
    order = list(range(len(samples)))
    random.Random(seed).shuffle(order)
    matches = []
    # A run that has just begun has few artifacts among many images: the search for them must end, too.
    for index in order[: max(20 * limit, 1000)]:
        sample = samples[index]
        predicted = workspace.prediction_path(sample.id, result_stage(workspace))
        paths = (workspace.map_path(sample.id), workspace.mask_path(sample.id), predicted)
        if any(path.exists() for path in paths):
            matches.append(sample)
            if len(matches) == limit:
                break
    return matches


def _known_ious(
    workspace: Workspace, source: DataSource, split: str, notes: list[str]
) -> dict[str, tuple[float | None, str]]:
    """Mean IoU of every image as the evaluate stage counted it on this data, and of what; empty if it did not."""
    path = workspace.image_counts_path(split)
    if source.mask_reader is None or not path.exists():
        return {}
    try:
        counts = read_split_counts(path)
    except READ_ERRORS as error:
        notes.append(str(error))
        return {}
    if counts.data != source.fingerprint:
        return {}
    for measure, iou_of in _RANKED_BY.items():
        if measure in counts.measures:
            values = counts.measures[measure].image_miou()
            pairs = zip(counts.measures[measure].ids, values.tolist(), strict=True)
            return {name: (None if np.isnan(value) else value, iou_of) for name, value in pairs}
    return {}


def _judge(
    workspace: Workspace, source: DataSource, sample: Sample, threshold: float | None, notes: list[str]
) -> _Candidate:
    """Compare the furthest mask of this image with the real one, if there is one."""
    if source.mask_reader is None or not source.has_mask(sample):
        return _Candidate(sample, None, "")
    readers: tuple[tuple[str, Callable[[], UInt8Array | None]], ...] = (
        ("prediction", lambda: _mask_of_run(workspace, sample, "prediction")),
        ("pseudo mask", lambda: _mask_of_run(workspace, sample, "pseudo")),
        ("maps", lambda: threshold_maps(workspace, sample, threshold)),
    )
    for iou_of, read in readers:
        try:
            mask = read()
            if mask is not None:
                return _Candidate(sample, image_iou(mask, source.read_mask(sample)), iou_of)
        except READ_ERRORS as error:
            notes.append(str(error))
    return _Candidate(sample, None, "")


def _mask_of_run(workspace: Workspace, sample: Sample, kind: str) -> UInt8Array | None:
    """A mask the run left, None if it left none."""
    path = {
        "pseudo": workspace.mask_path(sample.id),
        "prediction": workspace.prediction_path(sample.id, result_stage(workspace)),
        "full": workspace.prediction_path(sample.id, SEGMENT_FULL),
    }[kind]
    return load_mask(path) if path.exists() else None


def _choose(pool: Sequence[_Candidate], quota: int, seed: int) -> Iterator[tuple[Group, _Candidate]]:
    """A third best, a third worst, the rest random with every class at least once where that is possible."""
    ranking = sorted(((c.iou, c.sample.id, c) for c in pool if c.iou is not None), key=lambda entry: entry[:2])
    third = min(quota // 3, len(ranking) // 3)
    worst = [entry[2] for entry in ranking[:third]]
    best = [entry[2] for entry in reversed(ranking[len(ranking) - third :])]
    extremes = {candidate.sample.id for candidate in (*best, *worst)}
    rest = [candidate for candidate in pool if candidate.sample.id not in extremes]
    random.Random(seed + 1).shuffle(rest)
    classes = {tag for candidate in (*best, *worst) for tag in candidate.sample.tags}
    others: list[_Candidate] = []
    for candidate in rest:
        if not classes.issuperset(candidate.sample.tags):
            others.append(candidate)
            classes.update(candidate.sample.tags)
    ids = {candidate.sample.id for candidate in others}
    others += [candidate for candidate in rest if candidate.sample.id not in ids]
    yield from (("best", candidate) for candidate in best)
    yield from (("worst", candidate) for candidate in worst)
    yield from (("random", candidate) for candidate in others[: quota - 2 * third])


def _interleave(picks: Sequence[tuple[str, Group, _Candidate]]) -> list[tuple[str, Group, _Candidate]]:
    """One of each split and group in turn, so that the first few images already show all of them."""
    turn: dict[tuple[str, Group], int] = {}
    by_turn = []
    for pick in picks:
        place = turn[pick[:2]] = turn.get(pick[:2], -1) + 1
        by_turn.append((place, pick))
    return [pick for _, pick in sorted(by_turn, key=lambda entry: (entry[0], entry[1][0] != "val"))]


def _draw(
    workspace: Workspace,
    source: DataSource,
    pick: _Candidate,
    split: str,
    group: Group,
    side: int,
    notes: list[str],
) -> Shot | None:
    """Read everything of one image; a broken layer is left out, a broken photograph drops the shot."""
    sample = pick.sample
    try:
        photo, width, height = photo_uri(sample.image_path, side, source.pixels)
    except READ_ERRORS as error:
        notes.append(str(error))
        return None
    layers: list[Layer] = []
    map_kinds: tuple[tuple[str, Literal["activation", "refined"]], ...] = (
        (LOCALIZE, "activation"),
        (REFINE, "refined"),
    )
    for stage, map_kind in map_kinds:
        try:
            layers += map_layers(workspace, source, sample, stage, map_kind)
        except READ_ERRORS as error:
            notes.append(str(error))
    names: tuple[tuple[Literal["pseudo", "prediction", "full", "truth"], str], ...] = (
        ("pseudo", "pseudo mask"),
        ("prediction", "prediction"),
        ("full", "full supervision"),
        ("truth", "ground truth"),
    )
    for kind, name in names:
        try:
            if kind != "truth":
                mask = _mask_of_run(workspace, sample, kind)
            elif source.mask_reader is not None and source.has_mask(sample):
                mask = source.read_mask(sample)
            else:
                mask = None
            if mask is not None:
                layers.append(Layer(kind, name, mask_uri(mask, width, height), visible(mask)))
        except READ_ERRORS as error:
            notes.append(str(error))
    try:
        for box_kind, name, mask in box_masks(workspace, sample):
            layers.append(Layer(box_kind, name, mask_uri(mask, width, height), sample.tags))
    except READ_ERRORS as error:
        notes.append(str(error))
    return Shot(sample.id, split, group, sample.tags, width, height, photo, tuple(layers), pick.iou, pick.iou_of)
