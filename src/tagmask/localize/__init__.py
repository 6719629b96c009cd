"""Activation maps: pure functions on features, and the stage that writes maps."""

from tagmask.localize.cam import cam
from tagmask.localize.multi_scale import merge_scales, normalize_maps
from tagmask.localize.semantic_structure import semantic_structure
from tagmask.localize.ssa import ssa

__all__ = ["cam", "merge_scales", "normalize_maps", "semantic_structure", "ssa"]
