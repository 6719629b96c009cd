"""Activation maps: pure functions on features, and the stage that writes maps."""

from tagmask.localize.cam import cam
from tagmask.localize.multi_scale import merge_scales, normalize_maps

__all__ = ["cam", "merge_scales", "normalize_maps"]
