"""Segmentation networks trained on pseudo masks."""

from tagmask.segment.losses import cross_entropy
from tagmask.segment.predict import predict_probabilities

__all__ = ["cross_entropy", "predict_probabilities"]
