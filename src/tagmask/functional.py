"""Activation maps: pure functions on features, and the stage that writes maps."""

from tagmask.localize.cam import cam
from tagmask.localize.lpcam import lpcam
from tagmask.localize.multi_scale import merge_scales, normalize_maps
from tagmask.localize.prototypes import select_prototypes
from tagmask.localize.self_correlation import self_correlation
from tagmask.localize.semantic_structure import semantic_structure
from tagmask.localize.split_unite import split_rectangles
from tagmask.localize.ssa import ssa

__all__ = [
    "cam",
    "lpcam",
    "merge_scales",
    "normalize_maps",
    "select_prototypes",
    "self_correlation",
    "semantic_structure",
    "split_rectangles",
    "ssa",
]
