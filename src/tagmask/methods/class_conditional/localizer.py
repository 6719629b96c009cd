"""Class-conditional inference: split & unite, and refined iterative inference, around any view method.

Sun, Zhang, Barnes, "Inferring the Class Conditional Response Map for Weakly Supervised Semantic Segmentation", WACV
2022, 3.2 and 3.3; docs/methods/class-conditional.md. Nothing is trained: the classifier sees cuts of the image, and the
image without what was found before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from tagmask.contracts.localizer import ImageMaps, Localizer, Trained, ViewLocalizer, ViewLocalizerField
from tagmask.methods.class_conditional.erasing import Erasing, erasing_rounds, merge_rounds, normalize_with_floor
from tagmask.methods.class_conditional.split_unite import Rectangle, centres_of_mass, split_rectangles, unite
from tagmask.ops.map_grids import MapGrids
from tagmask.ops.views import Views, strided_size, sum_scales
from tagmask.registry.field import by_name
from tagmask.types import UInt8Array

_NO_CENTRE = "its map of the whole image is zero everywhere; the image is cut as if its centre were the middle"


def full_size_maps(
    trained: Trained, method: ViewLocalizer, pairs: Sequence[Tensor], channels: Tensor, size: tuple[int, int]
) -> Tensor:
    """PSA's merge rule: the maps of all views are resized straight to the image's size and summed, not normalised.

    Args:
        trained: the classifier, and what ``method`` has learnt.
        method: how a view's maps are made.
        pairs: per scale the network input [2 or 1, 3, h_s, w_s].
        channels: int64 [K].
        size: (H, W).

    Returns:
        float32 [K, H, W], >= 0, not normalised.
    """
    return sum_scales([method.scale_maps(trained, trained.look(pair), channels) for pair in pairs], size)


class ClassConditional(Localizer, Erasing):
    """Driver: runs ``inner``, a view method, on cuts and on erased images."""

    name: ClassVar[str] = "class_conditional"
    classwise: ClassVar[bool] = False  # cuts and erased pixels depend on all of an image's classes
    symmetric: ClassVar[bool] = False  # centres are truncated to whole pixels
    inner: ViewLocalizerField = by_name("cam", formerly="seed")
    split: bool = True
    iterate: bool = True
    many_classes: Literal["whole", "per_class"] = "whole"
    guard: Annotated[float, Field(ge=0, le=1)] = 0.0
    include_whole: bool = False
    economy: bool = False

    @field_validator("inner")
    @classmethod
    def _view_method(cls, inner: Localizer) -> Localizer:
        if not isinstance(inner, ViewLocalizer):
            msg = f"class_conditional works on a view method, such as cam, ssa or lpcam; '{inner.name}' is not one"
            raise ValueError(msg)
        return inner

    def image_maps(self, trained: Trained, image: UInt8Array, channels: Tensor, views: Views) -> ImageMaps:
        """See :meth:`Localizer.image_maps`."""
        with torch.inference_mode():
            found = self.full_maps(trained, image, channels, views)
            size = image.shape[0], image.shape[1]
            # A maximum of stretched maps, with steps where the cuts end: no small grid would give it again.
            full = MapGrids.stretched(found.maps, size)
            return ImageMaps(sum_scales([found.maps], strided_size(size)), found.notes, full)

    def full_maps(self, trained: Trained, image: UInt8Array, channels: Tensor, views: Views) -> ImageMaps:
        """The united maps, float32 [K, H, W] in [0, 1]; the other arguments as for :meth:`image_maps`."""
        whole = Rectangle(0, 0, image.shape[0], image.shape[1])
        pairs = [pair.to(trained.device) for pair in views.of(image)]
        first = full_size_maps(trained, self.inner, pairs[:1], channels, whole.size)
        uncut = not self.split or (len(channels) >= 3 and self.many_classes == "whole")
        # Beyond the first scale, the whole image is looked at only where its maps are needed.
        complete = not self.economy or self.guard > 0 or self.include_whole or uncut or len(pairs) == 1
        whole_maps = first
        if complete and len(pairs) > 1:
            whole_maps = first + full_size_maps(trained, self.inner, pairs[1:], channels, whole.size)
        # Sums over all scales and over the first alone have heights of their own, so a floor for each.
        floors = self.guard * whole_maps.amax((-2, -1)), self.guard * first.amax((-2, -1))
        united = whole_maps.new_zeros(whole_maps.shape)
        guide = first if self.economy else whole_maps
        for cuts, rows in self._plan(guide, whole):
            parts = []
            for cut in dict.fromkeys(cuts):  # equal ones (three classes, small images) are computed once
                # The whole image has been seen: its maps are the first round.
                if cut == whole:
                    part = self._refined(trained, pairs, channels, cut, floors, whole_maps if complete else None)
                else:
                    pixels = np.ascontiguousarray(image[cut.top : cut.bottom, cut.left : cut.right])
                    inputs = [pair.to(trained.device) for pair in views.of(pixels)]
                    part = self._refined(trained, inputs, channels, cut, floors)
                parts.append((cut, part[rows]))
            united[rows] = unite(parts, whole.size)
        maps = torch.maximum(united, normalize_with_floor(whole_maps)) if self.include_whole else united
        silent = channels[~(guide.amax((-2, -1)) > 0)].tolist() if self.split else []
        return ImageMaps(maps, tuple((channel, _NO_CENTRE) for channel in silent))

    def _plan(self, maps: Tensor, whole: Rectangle) -> list[tuple[list[Rectangle], slice]]:
        """(cuts, the classes whose maps they make) given the maps of the whole image."""
        if not self.split:
            return [([whole], slice(None))]
        centres = centres_of_mass(maps)
        if len(centres) >= 3 and self.many_classes == "per_class":
            return [(split_rectangles([centre], whole.size), slice(row, row + 1)) for row, centre in enumerate(centres)]
        return [(split_rectangles(centres, whole.size), slice(None))]

    def _refined(
        self,
        trained: Trained,
        pairs: Sequence[Tensor],
        channels: Tensor,
        cut: Rectangle,
        floors: tuple[Tensor, Tensor],
        whole_maps: Tensor | None = None,
    ) -> Tensor:
        """Maps [K, h, w] of one cut after all rounds; ``floors`` for all scales and for the first one alone."""

        def maps_of(inputs: Sequence[Tensor]) -> Tensor:
            return full_size_maps(trained, self.inner, inputs, channels, cut.size)

        if not self.iterate:
            return normalize_with_floor(maps_of(pairs) if whole_maps is None else whole_maps, floors[0])
        later = (pairs[:1], floors[1]) if self.economy else (pairs, floors[0])
        rounds = erasing_rounds(
            pairs, maps_of, self, first=whole_maps, floor=floors[0], later_pairs=later[0], later_floor=later[1]
        )
        return merge_rounds(list(rounds), self.merge)
