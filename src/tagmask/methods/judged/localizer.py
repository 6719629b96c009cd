"""Judged maps: one method says where there is an object, another which class it is. Ours; no paper has it.

Methods that average over what looks alike (SSA) or compare with prototypes (LPCAM) find whole objects, but tell classes
that touch and look alike (a face and the body below it) less well than the plain maps they start from: both get all of
the person. Here the highest of an image's maps stays at every position, and goes to the classes in proportion to a
second method's maps, so that the class of a pixel is the second one's choice. With one class nothing changes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import field_validator, model_validator
from torch import Tensor

from tagmask.contracts.localizer import Localizer, Trained, ViewLocalizer, ViewLocalizerField
from tagmask.contracts.polisher import resize
from tagmask.ops.views import normalize_maps
from tagmask.registry.field import by_name
from tagmask.types import ClassifierOutput


def judged_maps(maps: Tensor, judges: Tensor) -> Tensor:
    """max_k(M_k) * J_c / max_k(J_k), with M and J each divided by its own maximum.

    Args:
        maps: [K, h, w] or [B, K, h, w] float, >= 0, not normalised: where objects are.
        judges: the same classes at any size: which one.

    Returns:
        Shaped like ``maps``, at their mean height. Where no judge responds the maps stay as they are.
    """
    if maps.shape[-3] < 2:
        return maps
    # Other scales are added to this one: it must weigh what it weighed, though every map in it is stretched to 1.
    height = maps.amax((-2, -1), keepdim=True).mean(-3, keepdim=True)
    own, votes = normalize_maps(maps), normalize_maps(resize(judges, (maps.shape[-2], maps.shape[-1])))
    # The winner's share is 1: where the judge is sure of a class, that class gets the full height of the maps.
    most = votes.amax(-3, keepdim=True)
    shared = own.amax(-3, keepdim=True) * votes / torch.where(most > 0, most, 1)
    return torch.where(most > 0, shared, own) * height


class Judged(ViewLocalizer):
    """Settings: ``inner`` finds the objects, ``judge`` decides between the classes; both are view methods."""

    name: ClassVar[str] = "judged"
    classwise: ClassVar[bool] = False  # that is the point
    inner: ViewLocalizerField = by_name("cam", formerly="seed")
    judge: ViewLocalizerField = by_name("cam")

    @field_validator("inner", "judge")
    @classmethod
    def _view_methods(cls, part: Localizer) -> Localizer:
        if not isinstance(part, ViewLocalizer):
            msg = f"judged takes view methods, such as cam, ssa or lpcam; '{part.name}' is not one"
            raise ValueError(msg)
        return part

    @model_validator(mode="after")
    def _learn_once(self) -> Judged:
        """What a localizer learns is kept by its name."""
        learners = {part.name: part for part in self.judge.parts() if part.learns}
        for part in self.inner.parts():
            if part.learns and learners.get(part.name, part) != part:
                msg = f"judged: '{part.name}' stands in inner and judge, and their settings differ; it learns only once"
                raise ValueError(msg)
        return self

    def view_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
        """See :meth:`ViewLocalizer.view_maps`."""
        return judged_maps(
            self.inner.view_maps(trained, output, channels).float(),
            self.judge.view_maps(trained, output, channels).float(),
        )

    def scale_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
        """See :meth:`ViewLocalizer.scale_maps`: each part merges the flips as it does alone."""
        return judged_maps(
            self.inner.scale_maps(trained, output, channels).float(),
            self.judge.scale_maps(trained, output, channels).float(),
        )
