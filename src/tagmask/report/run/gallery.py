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
from PIL import Image

from tagmask.errors import TagmaskError
from tagmask.metrics.image_counts import single_image_miou
from tagmask.report.run.box_layers import box_masks
from tagmask.report.thumbnails import heat_uri, mask_uri, photo_uri
from tagmask.runs.image_counts import read_split_counts
from tagmask.runs.workspace import Workspace
from tagmask.storage.pictures import load_mask
from tagmask.types import BACKGROUND, IGNORE_INDEX, DataSource, Sample, UInt8Array

Group = Literal["best", "worst", "random"]
#: What an image is judged by, the end of the street first: key in metrics.json -> what people call it.
_JUDGED = {
    "segmentation": "prediction",
    "pseudo_masks": "pseudo mask",
    "refined_maps": "refined maps",
    "maps": "maps",
    "segmentation_full": "full supervision",
}
_MOST_MAPS = 6
_USUAL_THRESHOLD = 0.3
READ_ERRORS = (TagmaskError, OSError, ValueError, MemoryError)


@dataclass(frozen=True, slots=True)
class Layer:
    """One picture laid over the photograph: what it is, its name for people, its data URI, its labels."""

    kind: Literal["activation", "refined", "pseudo", "prediction", "full", "truth"]
    name: str
    uri: str
    labels: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Shot:
    """One image of the gallery. ``iou`` in [0, 1] is None where there is no real mask; ``judged`` names
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
    judged: str


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
    judged: str


def image_iou(mask: UInt8Array, truth: UInt8Array) -> float | None:
    """Mean IoU of one image uint8 [H, W] as the evaluation ranks images by it; None without a pixel to compare."""
    return single_image_miou(mask, truth) if mask.shape == truth.shape else None


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
        known = _scored(workspace, source, split, gallery.notes)
        pool = [_Candidate(sample, *known[sample.id]) for sample in samples if sample.id in known]
        if not pool:
            found = find_samples(workspace, samples, max(candidates // max(len(source.splits), 1), 1), seed)
            pool = [_judge(workspace, source, sample, threshold, gallery.notes) for sample in found]
            gallery.complete &= not pool
        if pool:
            pools[split] = pool
    gallery.candidates = sum(len(pool) for pool in pools.values())
    side = 400 if images <= 64 else max(160, round(400 * (64 / images) ** 0.5))
    picks: list[tuple[str, Group, _Candidate]] = []
    for split, pool in pools.items():
        quota = max(images // len(pools), 1)
        picks += [(split, group, pick) for group, pick in _choose(pool, quota, seed)]
    for split, group, pick in _mixed(picks):
        shot = _draw(workspace, source, pick, split, group, side, gallery.notes)
        if shot is not None:
            gallery.shots.append(shot)
    gallery.ranked = any(shot.group != "random" for shot in gallery.shots)
    return gallery


def find_samples(workspace: Workspace, samples: Sequence[Sample], limit: int, seed: int) -> list[Sample]:
    """Up to ``limit`` samples that have an artifact, in an order that depends on the seed only."""
    order = list(range(len(samples)))
    random.Random(seed).shuffle(order)
    found = []
    for index in order[: max(20 * limit, 1000)]:
        sample = samples[index]
        predicted = workspace.prediction_path(sample.id, result_stage(workspace))
        paths = (workspace.map_path(sample.id), workspace.mask_path(sample.id), predicted)
        if any(path.exists() for path in paths):
            found.append(sample)
            if len(found) == limit:
                break
    return found


def _scored(
    workspace: Workspace, source: DataSource, split: str, notes: list[str]
) -> dict[str, tuple[float | None, str]]:
    """Mean IoU of every image as the evaluate stage counted it on this data, and of what; empty if it did not."""
    path = workspace.image_counts_path(split)
    if source.mask_reader is None or not path.exists():
        return {}
    try:
        stored = read_split_counts(path)
    except READ_ERRORS as error:
        notes.append(str(error))
        return {}
    if stored.data != source.fingerprint:
        return {}
    for measure, judged in _JUDGED.items():
        if measure in stored.measures:
            values = stored.measures[measure].image_miou()
            pairs = zip(stored.measures[measure].ids, values.tolist(), strict=True)
            return {name: (None if np.isnan(value) else value, judged) for name, value in pairs}
    return {}


def _judge(
    workspace: Workspace, source: DataSource, sample: Sample, threshold: float | None, notes: list[str]
) -> _Candidate:
    """Compare the furthest mask of this image with the real one, if there is one."""
    if source.mask_reader is None or not source.has_mask(sample):
        return _Candidate(sample, None, "")
    readers: tuple[tuple[str, Callable[[], UInt8Array | None]], ...] = (
        ("prediction", lambda: _stored(workspace, sample, "prediction")),
        ("pseudo mask", lambda: _stored(workspace, sample, "pseudo")),
        ("maps", lambda: thresholded(workspace, sample, threshold)),
    )
    for judged, read in readers:
        try:
            mask = read()
            if mask is not None:
                return _Candidate(sample, image_iou(mask, source.read_mask(sample)), judged)
        except READ_ERRORS as error:
            notes.append(str(error))
    return _Candidate(sample, None, "")


def result_stage(workspace: Workspace) -> str:
    """Where the predictions to show are; a broken manifest stops no page."""
    try:
        return workspace.result_stage()
    except READ_ERRORS:
        return "segment"


def _stored(workspace: Workspace, sample: Sample, kind: str) -> UInt8Array | None:
    """A mask the run left, None if it left none."""
    path = {
        "pseudo": workspace.mask_path(sample.id),
        "prediction": workspace.prediction_path(sample.id, result_stage(workspace)),
        "full": workspace.prediction_path(sample.id, "segment/full"),
    }[kind]
    return load_mask(path) if path.exists() else None


def thresholded(
    workspace: Workspace, sample: Sample, threshold: float | None, stage: str = "localize"
) -> UInt8Array | None:
    """Labels of the strongest map where it exceeds the threshold, enlarged to the image's size."""
    if not workspace.map_path(sample.id, stage=stage).exists():
        return None
    stored = workspace.load_maps(sample.id, stage=stage)
    height, width = stored.image_size
    if len(stored.classes) == 0:
        return np.zeros((height, width), dtype=np.uint8)
    strongest = stored.maps.argmax(axis=0)
    labels = stored.classes[strongest].astype(np.uint8)
    labels[stored.maps.max(axis=0) <= (_USUAL_THRESHOLD if threshold is None else threshold)] = BACKGROUND
    return np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))


def _choose(pool: Sequence[_Candidate], quota: int, seed: int) -> Iterator[tuple[Group, _Candidate]]:
    """A third best, a third worst, the rest random with every class at least once where that is possible."""
    scored = sorted(((c.iou, c.sample.id, c) for c in pool if c.iou is not None), key=lambda entry: entry[:2])
    third = min(quota // 3, len(scored) // 3)
    worst = [entry[2] for entry in scored[:third]]
    best = [entry[2] for entry in reversed(scored[len(scored) - third :])]
    taken = {candidate.sample.id for candidate in (*best, *worst)}
    rest = [candidate for candidate in pool if candidate.sample.id not in taken]
    random.Random(seed + 1).shuffle(rest)
    seen = {tag for candidate in (*best, *worst) for tag in candidate.sample.tags}
    chosen: list[_Candidate] = []
    for candidate in rest:
        if not seen.issuperset(candidate.sample.tags):
            chosen.append(candidate)
            seen.update(candidate.sample.tags)
    ids = {candidate.sample.id for candidate in chosen}
    chosen += [candidate for candidate in rest if candidate.sample.id not in ids]
    yield from (("best", candidate) for candidate in best)
    yield from (("worst", candidate) for candidate in worst)
    yield from (("random", candidate) for candidate in chosen[: quota - 2 * third])


def _mixed(picks: Sequence[tuple[str, Group, _Candidate]]) -> list[tuple[str, Group, _Candidate]]:
    """One of each split and group in turn, so that the first few images already show all of them."""
    turn: dict[tuple[str, Group], int] = {}
    keyed = []
    for pick in picks:
        place = turn[pick[:2]] = turn.get(pick[:2], -1) + 1
        keyed.append((place, pick))
    return [pick for _, pick in sorted(keyed, key=lambda entry: (entry[0], entry[1][0] != "val"))]


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
        photo, width, height = photo_uri(sample.image_path, side)
    except READ_ERRORS as error:
        notes.append(str(error))
        return None
    layers: list[Layer] = []
    map_kinds: tuple[tuple[str, Literal["activation", "refined"]], ...] = (
        ("localize", "activation"),
        ("refine", "refined"),
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
                mask = _stored(workspace, sample, kind)
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
    return Shot(sample.id, split, group, sample.tags, width, height, photo, tuple(layers), pick.iou, pick.judged)


def visible(mask: UInt8Array) -> tuple[int, ...]:
    """Foreground labels that cover at least 0.5 % of the image, largest first."""
    areas = np.bincount(mask.reshape(-1), minlength=256)
    areas[[BACKGROUND, IGNORE_INDEX]] = 0
    seen = np.nonzero(areas >= max(0.005 * mask.size, 1))[0]
    return tuple(int(label) for label in sorted(seen, key=lambda label: -int(areas[label])))


def map_layers(
    workspace: Workspace,
    source: DataSource,
    sample: Sample,
    stage: str,
    kind: Literal["activation", "refined"],
    side: int | None = None,
) -> list[Layer]:
    """One heat layer per class, of at most ``side`` pixels; the strongest classes only if there are too many."""
    if not workspace.map_path(sample.id, stage=stage).exists():
        return []
    stored = workspace.load_maps(sample.id, stage=stage)
    order = np.argsort(-stored.peak, kind="stable")[:_MOST_MAPS]
    names = source.classes.names
    layers = []
    for index in sorted(int(place) for place in order):
        label = int(stored.classes[index])
        name = names[label] if 0 <= label < len(names) else f"class {label}"
        layers.append(Layer(kind, name, heat_uri(stored.maps[index], side), (label,)))
    return layers
