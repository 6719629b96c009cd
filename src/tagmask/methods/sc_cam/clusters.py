"""Sub-categories of a class: clusters of its images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tagmask.ops.kmeans import kmeans


def clusters_of(vectors: Sequence[Any], clusters: int, seed: Sequence[int]) -> tuple[list[int], str]:
    """Cluster of each of a class's images, and a note if there are fewer clusters than asked for."""
    if not vectors:
        return [], "no training image shows it, so it has no sub-categories"
    labels, centres = kmeans(np.stack(vectors), clusters, np.random.default_rng(seed))
    note = ""
    if len(centres) < clusters:
        note = f"training images: {len(vectors)}; sub-categories: {len(centres)} instead of {clusters}"
    return labels.tolist(), note
