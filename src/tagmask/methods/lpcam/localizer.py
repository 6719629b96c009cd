"""LPCAM: similarity to a class's own prototypes minus similarity to its context's.

Chen and Sun, "Extracting Class Activation Maps from Non-Discriminative Features as well", CVPR 2023;
docs/methods/lpcam.md. One pass over the training images samples features of each class, inside and outside its map;
their cluster centres are the prototypes. They come down to one vector per class, so a map costs as much as plain CAM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from tagmask.contracts.learning import Candidates, Learnt, PatchGroup, Reservoir, Sample
from tagmask.contracts.localizer import Choice, Localizer, Trained, ViewLocalizer, ViewLocalizerField
from tagmask.methods.lpcam.prototypes import Posterior, class_vector, keep_mask, prototype_scores, split_positions
from tagmask.ops.kmeans import Centre, cosine_kmeans, unit
from tagmask.ops.views import Views, merge_scales
from tagmask.registry.field import by_name
from tagmask.registry.method import LATER
from tagmask.types import ClassifierOutput, UInt8Array

#: Seed of the published draw of COCO images.
_DRAW_SEED = 666
_MOST_SHOWN = 4  # prototypes of a class, and of its context, that are shown
_PATCHES = 6  # nearest patches of each


def lpcam(features: Tensor, class_prototypes: Tensor, context_prototypes: Tensor) -> Tensor:
    """Map of one class at one scale: likeness to its prototypes minus that to its context's (docs/methods/lpcam.md).

    Args:
        features: float [D, h, w] of the image plus the flipped ones of its mirror; cosine ignores their length.
        class_prototypes: float [K1, D], K1 >= 1.
        context_prototypes: float [K2, D]; K2 = 0 for LPCAM-F.

    Returns:
        float [h, w]: mean cosine to the class prototypes, minus mean cosine to the context prototypes, rectified
        if there are any.

    Raises:
        ValueError: no class prototype.
    """
    vector = class_vector(class_prototypes, context_prototypes)
    similarity = torch.einsum("dhw,d->hw", unit(features, dim=0), vector.to(features.dtype))
    return similarity.relu() if len(context_prototypes) else similarity


class Lpcam(ViewLocalizer):
    """Settings of LPCAM; ``seed`` makes the masks that the prototypes are learnt from."""

    name: ClassVar[str] = "lpcam"
    learns: ClassVar[bool] = True
    clusters: Annotated[int, Field(ge=1)] = 12
    tau: Annotated[float, Field(ge=0, le=1)] = 0.1
    mu_class: Annotated[float, Field(ge=0, le=1)] = 0.9
    mu_context: Annotated[float, Field(ge=0, le=1)] = 0.9
    context_low: Annotated[float, Field(ge=0, le=1)] = 0.05
    context: bool = True
    posterior: Posterior = "classes"
    center: Centre = "raw_mean"
    tolerance: Annotated[float, Field(gt=0)] = 5.0
    scale_tolerance: bool = Field(True, json_schema_extra=LATER)
    images_per_class: Annotated[int, Field(ge=1)] | None = None
    features_per_class: Annotated[int, Field(ge=1)] | None = 4096
    inner: ViewLocalizerField = by_name("cam", formerly="seed")

    @field_validator("inner")
    @classmethod
    def _makes_masks(cls, inner: Localizer) -> Localizer:
        if not isinstance(inner, ViewLocalizer):
            msg = f"lpcam learns from the maps of a view method, such as cam; '{inner.name}' is none"
            raise ValueError(msg)
        if any(part.name == cls.name for part in inner.parts()):
            msg = "lpcam cannot learn from the maps of another lpcam: a run keeps the prototypes of one"
            raise ValueError(msg)
        return inner

    @model_validator(mode="after")
    def _has_room(self) -> Lpcam:
        if self.context_low >= self.mu_context:
            msg = f"context_low {self.context_low} must be below mu_context {self.mu_context}: no context would be left"
            raise ValueError(msg)
        return self

    def view_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
        """See :meth:`ViewLocalizer.view_maps`. Features of image and mirror are summed before the similarity.

        Rectified also without context, where non-negative features make no difference. A class without prototypes
        keeps the maps of ``seed``.
        """
        learnt = trained.learnt[self.name]
        features = output.features.float()
        # Summed before the cosine, as published: one map from both, where CAM adds the maps of each.
        merged = features[0] if len(features) == 1 else features[0] + features[1].flip(-1)
        vectors = torch.index_select(learnt["vectors"], 0, channels)
        has_vector = torch.index_select(learnt["has_vector"], 0, channels)
        with torch.autocast(merged.device.type, enabled=False):  # a small difference of large cosines
            maps = torch.einsum("dhw,kd->khw", unit(merged, dim=0), vectors).relu()
        if not bool(has_vector.all()):
            plain = self.inner.scale_maps(trained, output, channels).float()
            maps = torch.where(has_vector[:, None, None], maps, plain)
        # The sum belongs to both views; each frame gets it, so whoever merges views finds them as usual.
        return maps[None] if len(features) == 1 else torch.stack([maps, maps.flip(-1)])

    # -- learning: group 2c is class c, group 2c + 1 its context -----------------------------------------------

    def choose(self, tags: Sequence[tuple[int, ...]], n_classes: int, order: Sequence[int] = ()) -> list[Choice]:
        """All images with tags, or ``images_per_class`` of each class, drawn with replacement, as for COCO; an
        image drawn for a class is studied for that class alone, whatever else it shows.

        The published draw numbers a class's images by ascending id, so ours does, whatever order the data has.
        """
        if self.images_per_class is None:
            return [(index, labels) for index, labels in enumerate(tags) if labels]
        draw = np.random.RandomState(_DRAW_SEED)  # the legacy generator is the published one
        choices: list[Choice] = []
        for label in range(1, n_classes + 1):
            having = [index for index in order or range(len(tags)) if label in tags[index]]
            if having:
                choices += [(index, (label,)) for index in draw.choice(having, self.images_per_class).tolist()]
        return choices

    def reservoir(self) -> Reservoir:
        """A uniform sample of ``features_per_class`` features of each class, and as many of its context; None: all."""
        return Reservoir(self.features_per_class)

    def study(
        self, trained: Trained, image: UInt8Array, channels: Tensor, views: Views, rng: np.random.Generator
    ) -> dict[int, Candidates]:
        """Features at scale 1, inside and outside each class's multi-scale map; one pass makes both."""
        per_scale: list[Tensor] = []
        features: Tensor | None = None
        for scale, pair in zip(views.scales, views.of(image), strict=True):
            output = trained.look(pair)
            per_scale.append(self.inner.scale_maps(trained, output, channels).float())
            if scale == 1:
                features = output.features[0]
        if features is None:
            features = trained.look(views.at(image, 1.0, flip=False)).features[0]
        # Features as the backbone gives them: a centre's length carries how sure the classifier is of it.
        cells = features.flatten(1).T.cpu()
        size = (features.shape[1], features.shape[2])
        candidates: dict[int, Candidates] = {}
        for row, channel in enumerate(channels.tolist()):
            # One class at a time: full-size maps of many classes at once would be large.
            full = merge_scales([maps[row : row + 1] for maps in per_scale], (image.shape[0], image.shape[1]))[1][0]
            # A uniform sample of a stream in bounded memory: whoever has the smallest random keys stays, in whatever
            # order, or process, the images come.
            keys = torch.from_numpy(rng.random(len(cells)))
            for side, inside in enumerate(split_positions(full, size, self.tau)):
                where = torch.nonzero(inside.flatten().cpu())[:, 0]
                where = where[torch.argsort(keys[where])][: self.features_per_class]
                if len(where) and (side == 0 or self.context):
                    boxes = cell_boxes(where, size, (image.shape[0], image.shape[1]))
                    candidates[2 * channel + side] = Candidates(keys[where], cells[where], boxes)
        return candidates

    def learn(self, trained: Trained, sample: Reservoir, class_names: Sequence[str], seed: int) -> Learnt:
        """Clusters, selects, and names every class for which it had to fall back."""
        weights = trained.classifier.class_weights[: len(class_names)].detach().float().cpu()
        shape = (len(class_names), weights.shape[1])
        vectors, has_vector = torch.zeros(shape), torch.zeros(len(class_names), dtype=torch.bool)
        groups: dict[str, list[tuple[int, Tensor, Tensor]]] = {"class": [], "context": []}
        patch_groups: list[PatchGroup] = []
        notes: list[tuple[str, str]] = []
        for index, name in enumerate(class_names):
            inside, around = sample.group(2 * index), sample.group(2 * index + 1)
            if inside is None:
                notes.append((name, self._without_features(name, around)))
                continue
            prototypes, scores = self._class_prototypes(inside, weights, index, seed, name, notes)
            context, context_scores = self._context_prototypes(around, weights, index, seed, name, notes)
            vectors[index], has_vector[index] = class_vector(prototypes, context), True
            groups["class"].append((index, prototypes, scores))
            groups["context"].append((index, context, context_scores))
            patch_groups += nearest_patches(f"{name}: class prototype", inside, prototypes, scores)
            patch_groups += nearest_patches(f"{name}: context prototype", around, context, context_scores)
        tensors = {"vectors": vectors, "has_vector": has_vector}
        for kind, parts in groups.items():
            tensors |= _concatenated(kind, parts, shape[1])
        return Learnt(tensors, tuple(patch_groups), tuple(notes))

    def _without_features(self, name: str, around: Sample | None) -> str:
        why = (
            f"none of its maps exceeds tau {self.tau}"
            if around is not None and len(around.keys)
            else f"no training image gave a feature with a map above tau {self.tau} for it"
        )
        return f"{name} has no prototypes, because {why}; its maps are those of {self.inner.name}"

    def _centres(
        self, sample: Sample, group: int, seed: int, what: str, name: str, notes: list[tuple[str, str]]
    ) -> Tensor:
        if len(sample.keys) < self.clusters:
            notes.append(
                (name, f"{name} has {len(sample.keys)} {what} features, fewer than {self.clusters} clusters: one each")
            )
        rng = np.random.default_rng([seed, group])
        rule: Any = {"centre": self.center, "tolerance": self.tolerance, "scale_tolerance": self.scale_tolerance}
        return cosine_kmeans(sample.vectors.float(), self.clusters, rng, **rule)[0]

    def _class_prototypes(
        self, inside: Sample, weights: Tensor, index: int, seed: int, name: str, notes: list[tuple[str, str]]
    ) -> tuple[Tensor, Tensor]:
        """Prototypes [K', D], K' >= 1, and their scores."""
        centres = self._centres(inside, 2 * index, seed, "class", name, notes)
        scores = prototype_scores(centres, weights, index, posterior=self.posterior)
        # A class without a sure centre keeps its best one, the published rule for COCO; the VOC code would fail.
        mask = keep_mask(scores, self.mu_class, "above")
        if not bool(mask.any()):
            best = int(scores.argmax())
            mask[best] = True
            notes.append(
                (
                    name,
                    f"none of the {len(centres)} cluster centres of {name} exceeds mu_class {self.mu_class}: the best "
                    f"one, {float(scores[best]):.3f}, is its only prototype",
                )
            )
        return centres[mask], scores[mask]

    def _context_prototypes(
        self, around: Sample | None, weights: Tensor, index: int, seed: int, name: str, notes: list[tuple[str, str]]
    ) -> tuple[Tensor, Tensor]:
        """Prototypes [K', D] and their scores; K' is 0 without context."""
        if not self.context or around is None:
            return torch.zeros(0, weights.shape[1]), torch.zeros(0)
        centres = self._centres(around, 2 * index + 1, seed, "context", name, notes)
        scores = prototype_scores(centres, weights, index, posterior=self.posterior)
        # The lower bound is the published VOC code's, not the paper's: what the classifier never takes for the class
        # needs no subtracting; rails, which it half takes for a train, do.
        mask = keep_mask(scores, (self.context_low, self.mu_context), "between")
        if not bool(mask.any()):
            notes.append(
                (
                    name,
                    f"none of the {len(centres)} context centres of {name} lies between {self.context_low} and "
                    f"{self.mu_context}: its maps subtract no context",
                )
            )
        return centres[mask], scores[mask]


def cell_boxes(where: Tensor, size: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
    """Pixel rectangles int64 [n, 4] (y0, x0, y1, x1), half-open, of cells numbered row by row in an h x w grid that
    is stretched over the image; at least one pixel each."""
    rows, columns = where // size[1], where % size[1]
    height, width = image_size
    y0, x0 = rows * height // size[0], columns * width // size[1]
    y1, x1 = (rows + 1) * height // size[0], (columns + 1) * width // size[1]
    return torch.stack([y0, x0, torch.maximum(y1, y0 + 1), torch.maximum(x1, x0 + 1)], dim=1)


def nearest_patches(title: str, sample: Sample | None, prototypes: Tensor, scores: Tensor) -> list[PatchGroup]:
    """The surest prototypes, each with the features nearest to it by cosine, one from an image."""
    if sample is None or len(prototypes) == 0:
        return []
    directions = unit(sample.vectors.float())
    groups = []
    order = torch.argsort(scores, descending=True, stable=True)[:_MOST_SHOWN].tolist()
    for place, row in enumerate(order, start=1):
        near = torch.argsort(directions @ unit(prototypes[row]), descending=True, stable=True)
        patches: dict[int, tuple[int, int, int, int]] = {}
        for index in near.tolist():
            y0, x0, y1, x1 = sample.boxes[index].tolist()
            patches.setdefault(int(sample.images[index]), (y0, x0, y1, x1))
            if len(patches) == _PATCHES:
                break
        caption = f"{title} {place} of {len(prototypes)}, posterior {float(scores[row]):.2f}"
        groups.append(PatchGroup(caption, tuple(patches.items())))
    return groups


def _concatenated(kind: str, parts: Sequence[tuple[int, Tensor, Tensor]], channels: int) -> dict[str, Tensor]:
    """Prototypes [N, D] of all classes, the class of each int64 [N], and its score [N]."""
    owners = [torch.full((len(rows),), index, dtype=torch.int64) for index, rows, _ in parts]
    return {
        f"{kind}_prototypes": torch.cat([torch.zeros(0, channels), *(rows for _, rows, _ in parts)]),
        f"{kind}_prototype_class": torch.cat([torch.zeros(0, dtype=torch.int64), *owners]),
        f"{kind}_prototype_score": torch.cat([torch.zeros(0), *(scores for _, _, scores in parts)]),
    }
