"""The three kinds of localizers, and how they nest.

- *view* methods turn the features of one scale (an image and its mirror) into maps: CAM, ReCAM, VWE, LPCAM;
- *polishers* are view methods that change the maps of an ``inner`` view method: SSA;
- *drivers* run an ``inner`` view method on changed images: class-conditional inference, AdvCAM.

``tagmask.ops.views`` alone knows about scales and flips; everything here calls it. A localizer that learns something
from the training images before it can make maps (prototypes, say) sets ``learns``; see ``learning``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tagmask.contracts.learning import Candidates, Learnt, Reservoir
from tagmask.ops.map_grids import MapGrids
from tagmask.ops.views import Flips, Views, aligned_size, merge_flips, multi_scale_maps, strided_size, sum_scales
from tagmask.registry.field import MethodOf
from tagmask.registry.method import Method
from tagmask.types import ClassifierOutput, InputStatistics, UInt8Array

#: A training image to study: its index, and the tags it is studied for.
Choice = tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class Trained:
    """What maps are made with: a classifier in eval mode without gradients to its parameters, on ``device``, and
    what localizers have learnt from the training images, by localizer name and tensor name.
    """

    classifier: Any
    learnt: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    device: torch.device | str = "cpu"

    @property
    def input_statistics(self) -> InputStatistics:
        """What the views that it looks at are normalised with: the classifier's."""
        statistics: InputStatistics = self.classifier.input_statistics
        return statistics

    def look(self, views: Tensor) -> ClassifierOutput:
        """The classifier's output for normalised images [B, 3, h, w]."""
        output: ClassifierOutput = self.classifier(views.to(self.device, memory_format=torch.channels_last))
        return output


@dataclass(frozen=True)
class ImageMaps:
    """Maps of one image, float32 [K, h, w], >= 0, not normalised; ``notes``: classifier channels, and what was done
    for them instead of what should have been; ``full``: the maps at full size, None: ``maps`` stretched.
    """

    maps: Tensor
    notes: tuple[tuple[int, str], ...] = ()
    full: MapGrids | None = None

    @classmethod
    def of_scales(cls, per_scale: Sequence[Tensor], image_size: tuple[int, int], *, grid: int = 16) -> ImageMaps:
        """IRNet's rule: maps [K, h, w] of every scale, stretched to a quarter of the image, and at full size over the
        next multiple of ``grid`` pixels; 1: stretched over the image."""
        frame = aligned_size(image_size, grid)
        grids = tuple(maps.float() for maps in per_scale)
        return cls(sum_scales(per_scale, strided_size(image_size)), full=MapGrids(grids, frame, image_size))


class Localizer(Method):
    """Base of all localizers; one that works on another's maps names it in a field ``inner``."""

    #: Attributes that the classifier's head must have (see ``Head.provides``).
    requires: ClassVar[frozenset[str]] = frozenset()
    #: Whether :meth:`choose`, :meth:`study` and :meth:`learn` are to be called before the first map.
    learns: ClassVar[bool] = False
    #: Whether a class's map is the same whichever other classes are asked for.
    classwise: ClassVar[bool] = True
    #: Whether the mirrored image gives the mirrored maps.
    symmetric: ClassVar[bool] = True

    def parts(self) -> Iterator[Localizer]:
        """This localizer and those it works on, outermost first."""
        yield self
        for value in self.settings_of(Localizer):
            yield from value.parts()

    def image_maps(self, trained: Trained, image: UInt8Array, channels: Tensor, views: Views) -> ImageMaps:
        """Maps of one image; call it under the autocast you want.

        Args:
            trained: the classifier, and what this localizer has learnt.
            image: uint8 [H, W, 3] RGB.
            channels: int64 [K] classifier channels asked for, K >= 1, on the classifier's device.
            views: scales and flip.

        Returns:
            maps of ceil(H/4) x ceil(W/4) cells.
        """
        raise NotImplementedError

    def remarks(self, trained: Trained, views: Views) -> Iterator[str]:
        """What the log is to say, once, of what this localizer does with a classifier."""
        del trained, views
        yield from ()

    # -- only where ``learns`` --------------------------------------------------------------------------------

    def choose(self, tags: Sequence[tuple[int, ...]], n_classes: int, order: Sequence[int] = ()) -> list[Choice]:
        """Which training images to study, and for which of their tags; an image may come more than once.

        Args:
            tags: the tags (1..C) of each image, in the order of the data's own lists.
            n_classes: C.
            order: the indices of the images by ascending id, for who draws from them; empty: as they stand.
        """
        raise NotImplementedError

    def study(
        self, trained: Trained, image: UInt8Array, channels: Tensor, views: Views, rng: np.random.Generator
    ) -> dict[int, Candidates]:
        """What one training image offers to the sample of each group (a group's number is the localizer's own)."""
        raise NotImplementedError

    def reservoir(self) -> Reservoir:
        """An empty reservoir of this localizer's size."""
        raise NotImplementedError

    def learn(self, trained: Trained, sample: Reservoir, class_names: Sequence[str], seed: int) -> Learnt:
        """Tensors for ``Trained.learnt``, what to show of them, and what was wrong. ``class_names`` are the C
        foreground classes."""
        raise NotImplementedError


class ViewLocalizer(Localizer):
    """Maps from the features of one scale."""

    flips: ClassVar[Flips] = "sum"
    #: The stride that maps at full size are aligned with, see :meth:`ImageMaps.of_scales`.
    grid: ClassVar[int] = 16

    def view_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
        """Maps of each view of one scale, each in its own view's frame.

        Args:
            trained: the classifier, and what this localizer has learnt.
            output: of B views: the image, and its mirror if B is 2.
            channels: int64 [K] classifier channels asked for.

        Returns:
            [B, K, h, w] float32, >= 0, not normalised.
        """
        raise NotImplementedError

    def scale_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
        """Maps [K, h, w] of one scale, in the image's frame: flips merged."""
        return merge_flips(self.view_maps(trained, output, channels), self.flips)

    def image_maps(self, trained: Trained, image: UInt8Array, channels: Tensor, views: Views) -> ImageMaps:
        """See :meth:`Localizer.image_maps`."""
        # Not the caller's: AdvCAM needs gradients, which inference mode forbids for all inside it.
        with torch.inference_mode():
            per_scale = multi_scale_maps(
                image, lambda pair: self.scale_maps(trained, trained.look(pair), channels), views
            )
            return ImageMaps.of_scales(per_scale, (image.shape[0], image.shape[1]), grid=self.grid)


LocalizerField = Annotated[Localizer, MethodOf("localizer")]
#: For a field whose own validator says what is wrong with a localizer that does not work view by view.
ViewLocalizerField = Annotated[ViewLocalizer, MethodOf("localizer", Localizer)]
