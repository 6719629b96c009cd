"""Sub-labels of the training images for the head ``subcategory``: clusters of each class's images.

Chang et al., "Weakly-Supervised Semantic Segmentation via Sub-category Exploration", CVPR 2020, section 3.2;
docs/methods/sc-cam.md. The features are those of the classifier trained before, pooled over each image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from tagmask.contracts.localizer import Trained
from tagmask.contracts.preparation import Preparation, Supplement
from tagmask.errors import RunError
from tagmask.ops.kmeans import kmeans
from tagmask.ops.transforms import normalise
from tagmask.types import FloatArray, Problem, Sample, UInt8Array

#: The extra that every image comes with: multi-hot over C * k sub-categories.
SUBCATEGORIES = "subcategories"


def clusters_of(vectors: Sequence[FloatArray], clusters: int, seed: Sequence[int]) -> tuple[list[int], str]:
    """Cluster of each of a class's images, and a note if there are fewer clusters than asked for."""
    if not vectors:
        return [], "no training image shows it, so it has no sub-categories"
    labels, centres = kmeans(np.stack(vectors), clusters, np.random.default_rng(seed))
    note = ""
    if len(centres) < clusters:
        note = f"training images: {len(vectors)}; sub-categories: {len(centres)} instead of {clusters}"
    return labels.tolist(), note


@dataclass(frozen=True)
class Subcategories(Preparation):
    """``clusters``: k, sub-categories a class."""

    makes: ClassVar[str] = SUBCATEGORIES
    file: ClassVar[str] = "subcategories.json"
    title: ClassVar[str] = "sub-categories: features of the training images"

    clusters: int

    def observe(self, trained: Trained, sample: Sample, image: UInt8Array, class_names: Sequence[str]) -> FloatArray:
        """Mean of the last features, float32 [D]: scale 1, not mirrored. See :meth:`Preparation.observe`."""
        del class_names
        features = trained.look(normalise(image, trained.input_statistics)[None]).features[0]
        pooled: FloatArray = features.float().mean((1, 2)).cpu().numpy()
        if not np.isfinite(pooled).all():
            msg = f"classify: the features of image '{sample.id}' are not finite. Use engine.precision=float32."
            raise RunError(msg)
        return pooled

    def conclude(
        self, samples: Sequence[Sample], observations: Mapping[str, Any], class_names: Sequence[str], seed: int
    ) -> dict[str, Any]:
        """Sub-categories of every image by number, k * c + cluster. See :meth:`Preparation.conclude`."""
        images: dict[str, list[int]] = {sample.id: [] for sample in samples}
        notes: list[list[str]] = []
        for channel, name in enumerate(class_names):
            members = [sample.id for sample in samples if channel + 1 in sample.tags]
            # A seed for each class: an image more in one leaves the clusters of the others as they are.
            labels, note = clusters_of([observations[member] for member in members], self.clusters, [seed, channel])
            for member, label in zip(members, labels, strict=True):
                images[member].append(channel * self.clusters + label)
            notes += [[name, note]] if note else []
        return {"clusters": self.clusters, "images": images, "notes": notes}

    def supplement(
        self, record: Mapping[str, Any], samples: Sequence[Sample], class_names: Sequence[str], stage: str
    ) -> Supplement:
        """Multi-hot float32 [C * k] of every image, zeros where it could not be read."""
        labels = {}
        for sample in samples:
            labels[sample.id] = torch.zeros(len(class_names) * self.clusters)
            labels[sample.id][record["images"].get(sample.id, [])] = 1.0
        problems = tuple(Problem(stage, name, "", reason, left_out=False) for name, reason in record["notes"])
        return Supplement({SUBCATEGORIES: labels}, problems)
