"""From activation maps to pseudo masks. This module re-exports the maths; the stage lives in its own file.

``tagmask.refine.random_walk``, ``colour_walk``, ``dense_crf`` and ``pamr`` are the functions, not their modules.
"""

from tagmask.refine.affinitynet import affinity_random_walk
from tagmask.refine.auto_threshold import AutoThreshold
from tagmask.refine.colour_walk import colour_walk
from tagmask.refine.dense_crf import dense_crf, dense_crf_labels, dense_crf_maps
from tagmask.refine.labels import maps_to_labels, upsample_maps
from tagmask.refine.pamr import pamr
from tagmask.refine.random_walk import random_walk

__all__ = [
    "AutoThreshold",
    "affinity_random_walk",
    "colour_walk",
    "dense_crf",
    "dense_crf_labels",
    "dense_crf_maps",
    "maps_to_labels",
    "pamr",
    "random_walk",
    "upsample_maps",
]
