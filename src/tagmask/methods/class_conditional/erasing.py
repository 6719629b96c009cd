"""Refined iterative inference: what a map has found is erased from the image, and the network is asked again.

Sun, Zhang, Barnes, "Inferring the Class Conditional Response Map for Weakly Supervised Semantic Segmentation", WACV
2022, 3.3; docs/methods/class-conditional.md. Erased pixels take the image's mean colour, so that the next map
must find other parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tagmask.registry.method import Method

MaskGeometry = Literal["correct", "reference"]


class Erasing(Method):
    """What is erased, and when it ends. ``stop`` is 0.01 in the paper and 0.02 in the released code."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.7
    stop: Annotated[float, Field(ge=0, le=1)] = 0.01
    max_rounds: Annotated[int, Field(ge=1, le=100)] = 5
    merge: Literal["max", "sum"] = "max"
    mask_geometry: MaskGeometry = "correct"


@dataclass(frozen=True, slots=True)
class Round:
    """One round: its own maps and the maximum of all so far, both [K, h, w], and the pixels kept, bool [h, w]."""

    maps: Tensor
    accumulated: Tensor
    keep_mask: Tensor


def normalize_with_floor(raw: Tensor, floor: Tensor | float = 0.0, eps: float = 1e-5) -> Tensor:
    """raw / (max(its own maximum, floor) + eps) per map of [K, h, w]; ``floor`` [K] or a number.

    Without a floor every map is stretched to 1, also one of pixels that hold nothing of the class.
    """
    own = raw.amax((-2, -1))
    return raw / (torch.maximum(own, torch.as_tensor(floor, dtype=own.dtype, device=own.device)) + eps)[:, None, None]


def erase(pairs: Sequence[Tensor], keep_mask: Tensor, mask_geometry: MaskGeometry = "correct") -> list[Tensor]:
    """Every view with its mean colour (in normalised units) where a pixel is not kept.

    ``correct`` resizes the mask from its full size for each scale and mirrors it for the mirrored view. ``reference``
    is the released code: the mask is resized from scale to scale in a chain, in the order given, so that what is lost
    at a small scale stays lost, and mirrored views get the mask of the others.

    Args:
        pairs: per scale the network input float32 [2 or 1, 3, h_s, w_s], not erased; the second one is the mirror.
        keep_mask: bool [h, w], False where the image is erased.
        mask_geometry: see above.

    Returns:
        As ``pairs``.
    """
    full = keep_mask[None, None].to(pairs[0].dtype)
    erased = []
    for pair in pairs:
        mask = functional.interpolate(full, size=pair.shape[-2:], mode="nearest")
        if mask_geometry == "reference":
            full = mask
        elif pair.shape[0] == 2:
            mask = torch.cat([mask, mask.flip(-1)])
        # The view's own mean, not the data set's: a patch of another brightness would be an object of its own.
        erased.append(torch.where(mask > 0, pair, pair.mean((-2, -1), keepdim=True)))
    return erased


def erasing_rounds(
    pairs: Sequence[Tensor],
    maps_of: Callable[[Sequence[Tensor]], Tensor],
    settings: Erasing,
    *,
    first: Tensor | None = None,
    floor: Tensor | float = 0.0,
    later_floor: Tensor | float | None = None,
) -> Iterator[Round]:
    """Rounds of erasing, until a round adds less than ``settings.stop`` of the area.

    A pixel is erased when any class's accumulated map has reached the threshold. In the first round nothing counts as
    erased before it.

    Args:
        pairs: per scale the network input [2 or 1, 3, h_s, w_s].
        maps_of: such inputs -> raw maps [K, h, w] in the image's frame, >= 0.
        settings: threshold, stop, number of rounds and mask geometry.
        first: the raw maps of the first round; None: ``maps_of(pairs)``. It may have seen other views.
        floor: see :func:`normalize_with_floor`.
        later_floor: that of rounds after the first; None: as in the first.

    Yields:
        The rounds.
    """
    if later_floor is None:
        later_floor = floor
    raw = maps_of(pairs) if first is None else first
    n_before = raw.shape[-2] * raw.shape[-1]
    accumulated = torch.zeros_like(raw)
    for number in range(1, settings.max_rounds + 1):
        # Each round is stretched anew. A round that sees nothing of the class left would stretch noise to 1: only
        # ``stop``, the number of rounds and a floor (``guard``) stand against it.
        maps = normalize_with_floor(raw, floor if number == 1 else later_floor)
        accumulated = torch.maximum(accumulated, maps)
        # Over all classes: what one class has been found by is erased for the others too, as published.
        keep_mask = accumulated.amax(0) < settings.threshold
        yield Round(maps, accumulated, keep_mask)
        n_kept = int(keep_mask.sum())
        if number == settings.max_rounds or (n_before - n_kept) / keep_mask.numel() < settings.stop:
            return
        n_before = n_kept
        raw = maps_of(erase(pairs, keep_mask, settings.mask_geometry))


def merge_rounds(rounds: Sequence[Round], merge: Literal["max", "sum"] = "max") -> Tensor:
    """Maps [K, h, w] of all rounds: their maximum (released code), or their sum scaled to at most 1 (paper).

    A sum below 1 stays as it is: a guard has held it there.
    """
    if merge == "max":
        return rounds[-1].accumulated
    total = torch.stack([one.maps for one in rounds]).sum(0)
    return total / total.amax((-2, -1), keepdim=True).clamp(min=1)
