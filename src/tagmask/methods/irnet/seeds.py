"""What refiners share that learn from IRNet's labels of the maps in front of them: IRNet itself, and AMN."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from tagmask.contracts.refiner import RefineRequest
from tagmask.contracts.trainable import TrainableRefiner
from tagmask.methods.dense_crf.refiner import dense_crf_labels
from tagmask.methods.irnet.labels import ir_labels
from tagmask.ops.maps import check_image
from tagmask.ops.transforms import augment_pair, resize_image, resize_mask, size_within
from tagmask.types import InputStatistics, UInt8Array


class SeedLabelRefiner(TrainableRefiner):
    """A refiner that learns, on random crops, labels of what the maps are sure of."""

    targets_are = "labels"

    conf_fg: Annotated[float, Field(ge=0, le=1)] = Field(0.30, description="maps above it are sure foreground")
    conf_bg: Annotated[float, Field(ge=0, le=1)] = Field(0.05, description="maps below it are sure background")
    crf_max_pixels: Annotated[int, Field(ge=256)] = Field(400_000, description="labels are made on at most these")
    crop: Annotated[int, Field(ge=16)] = 512
    scale: tuple[float, float] = Field((0.5, 1.5), description="range of random rescaling in training")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.conf_fg < self.conf_bg:
            msg = f"conf_fg {self.conf_fg} must not be below conf_bg {self.conf_bg}"
            raise ValueError(msg)
        if not 0 < self.scale[0] <= self.scale[1]:
            msg = f"scale: expected two numbers 0 < smallest <= largest, not {list(self.scale)}"
            raise ValueError(msg)
        return self

    def targets(self, request: RefineRequest) -> UInt8Array:
        """Labels of sure foreground and background, 255 elsewhere: uint8 [H, W]."""
        image = request.colours
        check_image(image)
        size = image.shape[0], image.shape[1]
        small = resize_image(image, size_within(size, self.crf_max_pixels))
        full, crf = request.full((small.shape[0], small.shape[1])), partial(dense_crf_labels, small)
        labels = ir_labels(full, request.classes, crf, foreground=self.conf_fg, background=self.conf_bg)
        return resize_mask(labels, size)

    def augmented(
        self, image: UInt8Array, targets: UInt8Array, rng: np.random.Generator, statistics: InputStatistics
    ) -> tuple[Tensor, Tensor]:
        """A crop of both, rescaled and perhaps mirrored: float32 [3, crop, crop], int64 [crop, crop], 255 outside."""
        return augment_pair(
            image,
            targets,
            rng=rng,
            statistics=statistics,
            crop=self.crop,
            scale=self.scale,
            flip=True,
            colour_jitter=0.0,
        )
