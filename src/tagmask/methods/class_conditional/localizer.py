"""Class-conditional inference: split & unite, and refined iterative inference, around any view method.

Sun, Zhang, Barnes, "Inferring the Class Conditional Response Map for Weakly Supervised Semantic Segmentation", WACV
2022, 3.2 and 3.3; docs/methods/class-conditional.md. Nothing is trained: the classifier sees cuts of the image, and the
image without what was found before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from tagmask.registry.method import LATER
from tagmask.types import UInt8Array

Scales = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] | None
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
    centre_scales: Scales = Field(None, json_schema_extra=LATER)
    later_scales: Scales = Field(None, json_schema_extra=LATER)
    later_flip: bool = Field(True, json_schema_extra=LATER)

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

    def centre_views(self, views: Views) -> Views:
        """The views of the whole image that say where it is cut."""
        return replace(views, scales=self.centre_scales or (views.scales[:1] if self.economy else views.scales))

    def later_views(self, views: Views) -> Views:
        """The views of rounds after the first."""
        scales = self.later_scales or (views.scales[:1] if self.economy else views.scales)
        return replace(views, scales=scales, flip=views.flip and self.later_flip)

    def full_maps(self, trained: Trained, image: UInt8Array, channels: Tensor, views: Views) -> ImageMaps:
        """The united maps, float32 [K, H, W] in [0, 1]; the other arguments as for :meth:`image_maps`."""
        whole = Rectangle(0, 0, image.shape[0], image.shape[1])

        def response(scales: Views) -> Tensor:
            pairs = [pair.to(trained.device) for pair in scales.of(image)]
            first = full_size_maps(trained, self.inner, pairs[:1], channels, whole.size)
            rest = pairs[1:]
            return first + full_size_maps(trained, self.inner, rest, channels, whole.size) if rest else first

        centre, later = self.centre_views(views), self.later_views(views)
        guide = response(centre)
        uncut = not self.split or (len(channels) >= 3 and self.many_classes == "whole")
        # Beyond the views of the centres, the whole image is looked at only where its maps are needed.
        complete = centre == views or self.guard > 0 or self.include_whole or uncut
        whole_maps = guide
        if complete and centre != views:
            rest = tuple(scale for scale in views.scales if scale not in centre.scales)
            among = len(rest) + len(centre.scales) == len(views.scales)
            whole_maps = guide + response(replace(views, scales=rest)) if among and rest else response(views)
        # Sums over other views have heights of their own, so a floor for each.
        later_maps = whole_maps
        if self.guard > 0 and later != views:
            later_maps = guide if later == centre else response(later)
        floors = self.guard * whole_maps.amax((-2, -1)), self.guard * later_maps.amax((-2, -1))
        united = whole_maps.new_zeros(whole_maps.shape)
        for cuts, rows in self._plan(guide, whole):
            parts = []
            for cut in dict.fromkeys(cuts):  # equal ones (three classes, small images) are computed once
                # The whole image has been seen: its maps are the first round.
                first = whole_maps if cut == whole and complete else None
                pixels = np.ascontiguousarray(image[cut.top : cut.bottom, cut.left : cut.right])
                part = self._refined(trained, pixels, channels, views, floors, first)
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
        pixels: UInt8Array,
        channels: Tensor,
        views: Views,
        floors: tuple[Tensor, Tensor],
        first: Tensor | None,
    ) -> Tensor:
        """Maps [K, h, w] of one cut after all rounds; ``floors``: of the first round and of later ones; ``first``: the
        maps of the first round, where they are known."""
        size = pixels.shape[0], pixels.shape[1]

        def maps_of(inputs: Sequence[Tensor]) -> Tensor:
            return full_size_maps(trained, self.inner, inputs, channels, size)

        later = self.later_views(views)
        # What the rounds see, scale by scale; views that no round asks for are not made.
        wanted = dict.fromkeys((*(() if first is not None else views.scales), *(later.scales if self.iterate else ())))
        pairs = {scale: views.at(pixels, scale).to(trained.device) for scale in wanted}
        if first is None:
            first = maps_of([pairs[scale] for scale in views.scales])
        if not self.iterate:
            return normalize_with_floor(first, floors[0])
        later_pairs = [pairs[scale] if later.flip else pairs[scale][:1] for scale in later.scales]
        rounds = erasing_rounds(later_pairs, maps_of, self, first=first, floor=floors[0], later_floor=floors[1])
        return merge_rounds(list(rounds), self.merge)
