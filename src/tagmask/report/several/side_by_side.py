"""The same images under several methods: photograph, real mask, then each method's maps and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tagmask.report.metrics_file import number, scores
from tagmask.report.run.gallery import find_samples
from tagmask.report.run.layers import READ_ERRORS, Layer, image_iou, map_layers, threshold_maps, visible
from tagmask.report.several.run_scores import RunScores
from tagmask.report.thumbnails import fit, mask_uri, photo_uri
from tagmask.runs.stage_names import LOCALIZE
from tagmask.runs.workspace import Workspace
from tagmask.types import DataSource, Sample

MOST_METHODS = 16
_CANDIDATES = 300
_PHOTO_SIDE, _MAP_SIDE, _LABEL_SIDE = 320, 96, 160
_MOST_TAGS = 3


@dataclass(frozen=True, slots=True)
class Tile:
    """What one method makes of an image: a layer (None where there is none), and its IoU if it can be told."""

    method: str
    layer: Layer | None
    iou: float | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """One image: ``rows`` are (class name, label, a tile per method); ``labels`` the labels at the best threshold."""

    id: str
    split: str
    tags: tuple[int, ...]
    width: int
    height: int
    photo: str
    truth: Layer | None
    rows: tuple[tuple[str, int, tuple[Tile, ...]], ...]
    labels: tuple[Tile, ...]


@dataclass
class SideBySide:
    """The scenes, and what had to be left out."""

    scenes: list[Scene] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def build_side_by_side(
    methods: Sequence[tuple[str, RunScores]], source: DataSource, *, images: int = 12, seed: int = 0
) -> SideBySide:
    """Draw the same images for several runs.

    Args:
        methods: (name, run); all on the data of ``source``, the first ``MOST_METHODS`` are shown.
        source: where images and, if it has any, real masks come from; val is preferred.
        images: how many images.
        seed: which candidates are looked at; the same seed gives the same images.

    Returns:
        Scenes that cover classes and numbers of tags; broken images and maps are named in ``notes``.
    """
    result = SideBySide()
    columns = list(methods[:MOST_METHODS])
    if len(methods) > MOST_METHODS:
        result.notes.append(f"Pictures of the first {MOST_METHODS} of {len(methods)} methods.")
    for split in sorted(source.splits, key=lambda name: name != "val"):
        missing = images - len(result.scenes)
        if not columns or missing <= 0:
            break
        for sample in choose(_candidates(columns, source, split, seed), missing):
            scene = _draw(columns, source, sample, split, result.notes)
            result.scenes += [scene] if scene is not None else []
    return result


def _candidates(methods: Sequence[tuple[str, RunScores]], source: DataSource, split: str, seed: int) -> list[Sample]:
    """Samples with tags and maps of every method, with a real mask where the source has any."""
    samples = find_samples(Workspace(methods[0][1].path), source.splits[split], _CANDIDATES, seed)
    spaces = [Workspace(run.path) for _, run in methods]
    complete = [s for s in samples if s.tags and all(space.map_path(s.id).exists() for space in spaces)]
    return [s for s in complete if source.mask_reader is not None and source.has_mask(s)] or complete


def choose(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Up to ``count`` samples: numbers of tags (1, 2, 3 and more) in turn, unseen classes first."""
    remaining, selection = list(samples), list[Sample]()
    classes: set[int] = set()
    counts = {1: 0, 2: 0, 3: 0}
    while remaining and len(selection) < count:
        best = min(remaining, key=lambda sample: (counts[min(len(sample.tags), 3)], -len(set(sample.tags) - classes)))
        remaining.remove(best)
        selection.append(best)
        classes.update(best.tags)
        counts[min(len(best.tags), 3)] += 1
    return selection


def _draw(
    methods: Sequence[tuple[str, RunScores]], source: DataSource, sample: Sample, split: str, notes: list[str]
) -> Scene | None:
    try:
        photo, width, height = photo_uri(sample.image_path, _PHOTO_SIDE, source.pixels)
        has_truth = source.mask_reader is not None and source.has_mask(sample)
        mask = source.read_mask(sample) if has_truth else None
    except READ_ERRORS as error:
        notes.append(str(error))
        return None
    small = fit(width, height, _LABEL_SIDE)
    heat: dict[str, dict[int, Layer]] = {}
    labels: list[Tile] = []
    for name, run in methods:
        space = Workspace(run.path)
        try:
            layers = map_layers(space, source, sample, LOCALIZE, "activation", _MAP_SIDE)
            heat[name] = {layer.labels[0]: layer for layer in layers}
            label_mask = threshold_maps(
                space, sample, number(scores(run.metrics, split, "maps", "void_ignored").get("threshold"))
            )
        except READ_ERRORS as error:
            notes.append(f"{name}: {error}")
            label_mask = None
        layer = None if label_mask is None else Layer("pseudo", name, mask_uri(label_mask, *small), visible(label_mask))
        labels.append(Tile(name, layer, None if label_mask is None or mask is None else image_iou(label_mask, mask)))
    names = source.classes.names
    rows = [
        (names[tag], tag, tuple(Tile(name, heat.get(name, {}).get(tag)) for name, _ in methods))
        for tag in sample.tags[:_MOST_TAGS]
    ]
    truth = None if mask is None else Layer("truth", "ground truth", mask_uri(mask, *small), visible(mask))
    return Scene(sample.id, split, sample.tags, width, height, photo, truth, tuple(rows), tuple(labels))
