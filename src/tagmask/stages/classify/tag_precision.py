"""How well a classifier ranks tags: average precision and ROC AUC per class, and tagged images against the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision

from tagmask.metrics.image_level import roc_auc


def tag_precision(scores: Tensor, tags: Tensor, names: Sequence[str], split: str) -> dict[str, Any] | None:
    """Average precision of each class and its mean over the classes that occur, as keys of the history.

    Args:
        scores: float [N, C], higher where the tag is likelier.
        tags: multi-hot [N, C].
        names: C names.
        split: 'train' or 'val', which the keys begin with.

    Returns:
        {'val_map': mean, 'val_ap': {name: value or None}, 'val_auc': {name: value or None}}, and 'val_auc_any' of the
        highest score where some images have no tag; None where there is no tag at all.
    """
    if not len(tags) or not tags.any():
        return None
    precision = {
        name: round(float(binary_average_precision(scores[:, c], tags[:, c].long())), 6) if tags[:, c].any() else None
        for c, name in enumerate(names)
    }
    values = [value for value in precision.values() if value is not None]
    figures: dict[str, Any] = {f"{split}_map": round(sum(values) / len(values), 6), f"{split}_ap": precision}
    marks = tags.numpy() > 0
    ranks = scores.double().numpy()
    figures[f"{split}_auc"] = {name: _rounded(roc_auc(ranks[:, c], marks[:, c])) for c, name in enumerate(names)}
    some = np.asarray(marks.any(1))
    if not some.all():
        figures[f"{split}_auc_any"] = _rounded(roc_auc(ranks.max(1), some))
    return figures


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)
