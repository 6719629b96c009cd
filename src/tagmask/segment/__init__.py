"""Segmentation networks trained on pseudo masks."""

from tagmask.segment.aamr import aamr_loss, background_loss, conflict_temperature
from tagmask.segment.confidence import relative_margin
from tagmask.segment.losses import cross_entropy
from tagmask.segment.predict import constrain_to_tags, predict_probabilities

__all__ = [
    "aamr_loss",
    "background_loss",
    "conflict_temperature",
    "constrain_to_tags",
    "cross_entropy",
    "predict_probabilities",
    "relative_margin",
]
