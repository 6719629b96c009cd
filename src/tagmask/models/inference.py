"""How a trained network predicts: scales and flip, tiles, known tags, dense CRF; probabilities or labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tagmask.contracts.network import SegmentationModel
from tagmask.methods.dense_crf.refiner import PRESETS, dense_crf
from tagmask.models.enlarging import labels_at
from tagmask.models.probabilities import constrain_to_tags, full_logits, predict_probabilities, to_mask
from tagmask.models.tag_gate import Segmenter
from tagmask.models.tiling import blended_bands
from tagmask.ops.transforms import (
    colour_view,
    normalise,
    reduced_to,
    resize_image,
    scaled_size,
    short_side_factor,
)
from tagmask.settings.segment import SegmentSettings
from tagmask.types import BACKGROUND, UInt8Array


@dataclass(frozen=True)
class Inference:
    """Call it under the autocast you want.

    ``scales`` and ``flip``: see ``predict_probabilities``. ``tile``: side of the parts in
    which larger images are predicted (at least 64), each as if it were an image; null: images as they are.
    ``crf``: kernels of a dense CRF on the probabilities (``tagmask.methods.dense_crf.refiner.PRESETS``).
    ``short_side``: images are resized so that their short side is this (the long one at most four times that).
    ``max_side``: larger images are reduced to this side, and all of the above happens there; labels are made of the
    enlarged probabilities, at the full size.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = True
    tile: int | None = None
    crf: str | None = None
    max_side: int | None = None
    short_side: int | None = None

    @classmethod
    def of(cls, settings: SegmentSettings, max_side: int | None = None) -> Inference:
        """As a recipe's ``segment`` and its ``max_side`` say."""
        return cls(
            scales=settings.scales,
            flip=settings.flip,
            tile=settings.tile,
            crf=settings.crf,
            max_side=max_side,
            short_side=settings.short_side,
        )

    def probabilities(
        self,
        model: Segmenter,
        image: UInt8Array,
        *,
        n_labels: int,
        tags: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Float32 [C + 1, h, w] on the CPU, summing to 1 over classes; h, w: the image's size, or its working size.

        Args:
            model: images [B, 3, h, w], normalised with its ``input_statistics`` -> logits [B, C + 1, h, w].
            image: uint8 [H, W, 3] RGB.
            n_labels: C + 1.
            tags: labels 1..C that the image is known to hold; no other can be predicted. None: nothing is known.
            device: where the model is.
        """
        return torch.cat(list(self._bands(model, self._reduced(image), n_labels, tags, device)), dim=1)

    def labels(
        self,
        model: Segmenter,
        image: UInt8Array,
        *,
        n_labels: int,
        tags: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
        size: tuple[int, int] | None = None,
    ) -> UInt8Array:
        """Most probable label per pixel, uint8 [H, W]; of a tiled image there are never all probabilities at once.

        ``size`` is (H, W) of the labels, where the image was read smaller than it is; None: the image's.
        """
        size = size or (image.shape[0], image.shape[1])
        image = self._reduced(image)
        if image.shape[:2] != size:
            # Of the probabilities, not of the labels: outlines of an enlarged mask would be those of coarse pixels.
            bands = list(self._bands(model, image, n_labels, tags, device))
            return labels_at(size, torch.cat(bands, dim=1))
        if self.scales == (1.0,) and not self.flip and self.crf is None and not self._tiled(image):
            return _labels_at_once(model, image, tags, device)
        # Bands are labelled as they come: probabilities of a large photograph for all classes would be gigabytes.
        return np.concatenate([to_mask(band) for band in self._bands(model, image, n_labels, tags, device)])

    def _reduced(self, image: UInt8Array) -> UInt8Array:
        if self.short_side is not None:
            size = image.shape[0], image.shape[1]
            return resize_image(image, scaled_size(size, short_side_factor(size, self.short_side)))
        return image if self.max_side is None else reduced_to(image, self.max_side)

    def _tiled(self, image: UInt8Array) -> bool:
        return self.tile is not None and max(image.shape[:2]) > self.tile

    def _bands(
        self,
        model: Segmenter,
        image: UInt8Array,
        n_labels: int,
        tags: Sequence[int] | None,
        device: torch.device | str,
    ) -> Iterator[Tensor]:
        def whole(part: UInt8Array) -> Tensor:
            probabilities = predict_probabilities(
                model, part, scales=self.scales, flip=self.flip, device=device, statistics=model.input_statistics
            )
            return _within(part, probabilities, tags, self.crf)

        if self.tile is None or not self._tiled(image):
            yield whole(image)
        else:
            yield from blended_bands(image, whole, n_labels=n_labels, tile=self.tile)


def _within(image: UInt8Array, probabilities: Tensor, tags: Sequence[int] | None, crf: str | None) -> Tensor:
    """Probabilities kept to the tags, and refined by a CRF over what is left."""
    allowed = range(len(probabilities)) if tags is None else [BACKGROUND, *sorted(set(tags))]
    scores = probabilities if tags is None else constrain_to_tags(probabilities, tags)
    if crf is None or len(allowed) == 1:
        return scores
    # Only the classes that are left take part: a CRF's time grows with them, and shut-out ones cannot win.
    refined = torch.zeros_like(scores)
    refined[list(allowed)] = dense_crf(np.ascontiguousarray(colour_view(image)), scores[list(allowed)], **PRESETS[crf])  # type: ignore[arg-type]
    return refined


def _labels_at_once(
    model: Segmenter, image: UInt8Array, tags: Sequence[int] | None, device: torch.device | str
) -> UInt8Array:
    """The highest logit: what the softmax would say, without it."""
    allowed = None if tags is None else np.array([BACKGROUND, *sorted(set(tags))], dtype=np.uint8)

    def select(logits: Tensor) -> Tensor:
        return logits if allowed is None else logits[torch.from_numpy(allowed.astype(np.int64)).to(logits.device)]

    with torch.inference_mode():
        view = normalise(image, model.input_statistics)[None].to(device, memory_format=torch.channels_last)
        on_cpu = view.device.type == "cpu"
        # On a CPU straight from the coarse logits: enlarged ones would be made only to be compared.
        coarse = model.coarse(view) if on_cpu and isinstance(model, SegmentationModel) else None
        if coarse is not None:
            from tagmask.models.upsampled_labels import upsampled_labels  # numba takes a second to import

            crop = (image.shape[0], image.shape[1])
            highest = upsampled_labels(
                select(coarse.logits[0]), coarse.size, align_corners=coarse.align_corners, crop=crop
            )
        elif on_cpu:  # channels last here: numpy is three times as fast as torch
            highest = select(model(view)[0]).float().permute(1, 2, 0).numpy().argmax(axis=-1).astype(np.uint8)
        else:
            highest = select(full_logits(model, view)[0]).argmax(dim=0).to(torch.uint8).cpu().numpy()
    labels: UInt8Array = highest if allowed is None else allowed[highest]
    return labels
