"""How well a classifier ranks tags: average precision per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision


def tag_precision(scores: Tensor, tags: Tensor, names: Sequence[str], split: str) -> dict[str, Any] | None:
    """Average precision of each class and its mean over the classes that occur, as keys of the history.

    Args:
        scores: float [N, C], higher where the tag is likelier.
        tags: multi-hot [N, C].
        names: C names.
        split: 'train' or 'val', which the keys begin with.

    Returns:
        {'val_map': mean, 'val_ap': {name: value or None}}; None where there is no tag at all.
    """
    if not len(tags) or not tags.any():
        return None
    precision = {
        name: round(float(binary_average_precision(scores[:, c], tags[:, c].long())), 6) if tags[:, c].any() else None
        for c, name in enumerate(names)
    }
    values = [value for value in precision.values() if value is not None]
    return {f"{split}_map": round(sum(values) / len(values), 6), f"{split}_ap": precision}
