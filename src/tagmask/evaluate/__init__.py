"""Scores of masks and maps against ground truth. This module re-exports the maths only."""

from tagmask.evaluate.activated_area import ActivatedArea
from tagmask.evaluate.segmentation import (
    ConfusionCounter,
    confusion_matrix,
    error_decomposition,
    iou_per_class,
    mean_iou,
    pixel_accuracy,
    precision_per_class,
    recall_per_class,
    scores,
)
from tagmask.evaluate.threshold_sweep import ThresholdSweep

__all__ = [
    "ActivatedArea",
    "ConfusionCounter",
    "ThresholdSweep",
    "confusion_matrix",
    "error_decomposition",
    "iou_per_class",
    "mean_iou",
    "pixel_accuracy",
    "precision_per_class",
    "recall_per_class",
    "scores",
]
