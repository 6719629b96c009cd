"""The public home of all pure functions, as ``torch.nn.functional`` is torch's: tensors in, tensors out.

They know no file, no device and no recipe. Each is written where its paper stands, in ``tagmask.methods`` and
``tagmask.ops``; scores are in :mod:`tagmask.metrics`.
"""

from tagmask.methods.aamr.loss import aamr_loss, background_loss
from tagmask.methods.affinitynet.losses import affinity_random_walk
from tagmask.methods.amn.losses import balanced_cross_entropy
from tagmask.methods.amn.maps import manipulated_maps
from tagmask.methods.cam.localizer import cam
from tagmask.methods.class_conditional.split_unite import split_rectangles
from tagmask.methods.colour_walk.refiner import colour_walk
from tagmask.methods.dense_crf.refiner import dense_crf, dense_crf_labels, dense_crf_maps
from tagmask.methods.dice.loss import soft_dice
from tagmask.methods.edam.refiner import saliency_labels
from tagmask.methods.hspp.head import hspp
from tagmask.methods.local_contrast.refiner import contrast, local_contrast
from tagmask.methods.lpcam.localizer import lpcam
from tagmask.methods.lpcam.prototypes import select_prototypes
from tagmask.methods.minimum_barrier.saliency import minimum_barrier_saliency
from tagmask.methods.pamr.refiner import pamr
from tagmask.methods.recam.head import reactivation_loss
from tagmask.methods.spa.self_correlation import self_correlation
from tagmask.methods.ssa.localizer import ssa
from tagmask.methods.ssa.semantic_structure import semantic_structure
from tagmask.methods.threshold.automatic import AutoThreshold
from tagmask.methods.visual_words.head import visual_words
from tagmask.models.probabilities import constrain_to_tags, predict_probabilities
from tagmask.ops.confidence import relative_margin
from tagmask.ops.losses import conflict_temperature, cross_entropy
from tagmask.ops.maps import maps_to_labels, upsample_maps, with_least
from tagmask.ops.random_walk import random_walk
from tagmask.ops.views import merge_scales, normalize_maps

__all__ = [
    "AutoThreshold",
    "aamr_loss",
    "affinity_random_walk",
    "background_loss",
    "balanced_cross_entropy",
    "cam",
    "colour_walk",
    "conflict_temperature",
    "constrain_to_tags",
    "contrast",
    "cross_entropy",
    "dense_crf",
    "dense_crf_labels",
    "dense_crf_maps",
    "hspp",
    "local_contrast",
    "lpcam",
    "manipulated_maps",
    "maps_to_labels",
    "merge_scales",
    "minimum_barrier_saliency",
    "normalize_maps",
    "pamr",
    "predict_probabilities",
    "random_walk",
    "reactivation_loss",
    "relative_margin",
    "saliency_labels",
    "select_prototypes",
    "self_correlation",
    "semantic_structure",
    "soft_dice",
    "split_rectangles",
    "ssa",
    "upsample_maps",
    "visual_words",
    "with_least",
]
