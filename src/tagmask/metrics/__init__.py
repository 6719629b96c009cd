"""Scores of masks and maps against ground truth. This module re-exports the maths only."""

from tagmask.metrics.activated_area import ActivatedArea
from tagmask.metrics.boundary import BoundaryCounts, boundary_counts, boundary_iou
from tagmask.metrics.calibration import calibration
from tagmask.metrics.image_counts import ImageCounts
from tagmask.metrics.image_level import image_level, roc_auc
from tagmask.metrics.localization import box_localization
from tagmask.metrics.object_size import by_object_size
from tagmask.metrics.paired import PairedDifference, paired_bootstrap
from tagmask.metrics.segmentation import (
    ConfusionCounter,
    confusion_matrix,
    error_decomposition,
    f1_per_class,
    iou_per_class,
    mean_f1,
    mean_iou,
    mean_precision,
    mean_recall,
    pixel_accuracy,
    precision_per_class,
    recall_per_class,
    recam_errors,
    scores,
)
from tagmask.metrics.threshold_sweep import ThresholdSweep

__all__ = [
    "ActivatedArea",
    "BoundaryCounts",
    "ConfusionCounter",
    "ImageCounts",
    "PairedDifference",
    "ThresholdSweep",
    "boundary_counts",
    "boundary_iou",
    "box_localization",
    "by_object_size",
    "calibration",
    "confusion_matrix",
    "error_decomposition",
    "f1_per_class",
    "image_level",
    "iou_per_class",
    "mean_f1",
    "mean_iou",
    "mean_precision",
    "mean_recall",
    "paired_bootstrap",
    "pixel_accuracy",
    "precision_per_class",
    "recall_per_class",
    "recam_errors",
    "roc_auc",
    "scores",
]
