"""What refiners and labellers are asked, in a test's words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tagmask.contracts.labeller import LabelRequest
from tagmask.contracts.refiner import RefineRequest
from tagmask.types import UInt8Array


def refine_request(image: UInt8Array, maps: Tensor, classes: Tensor | None = None) -> RefineRequest:
    """Maps of an image; of the classes 1, 2, ... unless said."""
    return RefineRequest(image, maps, torch.arange(1, len(maps) + 1) if classes is None else classes)


def label_request(
    maps: Tensor, classes: Tensor, size: tuple[int, int], threshold: float | Sequence[float]
) -> LabelRequest:
    """Maps to be labelled."""
    return LabelRequest(maps, classes, size, threshold)
