"""AMN as a refiner of maps: a network that is told the tags learns confident labels of the maps, and makes new maps.

Source: Lee, Kim, Shin, Kim, "Threshold Matters in WSSS: Manipulating the Activation for the Robust and Accurate
Segmentation Model Against Thresholds", CVPR 2022; ``step/train_amn.py`` and ``step/make_amn_cam.py`` of gaviotas/AMN;
docs/methods/amn.md. Which maps it learns from is the recipe's choice: CAM's as published, LPCAM's as in Chen & Sun,
CVPR 2023.

Deviation: on images without labels of their own (the validation split) they are made as on training images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from tagmask.backbones.build import Backbone
from tagmask.contracts.optimizer import OptimizerSettings
from tagmask.contracts.refiner import RefineRequest
from tagmask.contracts.trainable import TrainedRefiner
from tagmask.methods.amn.losses import balanced_cross_entropy
from tagmask.methods.amn.maps import manipulated_maps
from tagmask.methods.amn.model import AMNetwork
from tagmask.methods.irnet.seeds import SeedLabelRefiner
from tagmask.ops.maps import check_maps
from tagmask.ops.tags import multi_hot
from tagmask.ops.views import Views, merge_flips, multi_scale_maps, sum_scales
from tagmask.types import InputStatistics, UInt8Array


class AMN(SeedLabelRefiner):
    """Refiner of maps: those of a network that is conditioned on the tags and learns every pixel of seed labels.

    In ``optimizer``, ``lr`` is the rate of the backbone and ``head_lr`` that of the new layers.
    """

    name: ClassVar[str] = "amn"

    smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.4, description="of the labels, over the other channels")
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    freeze: Annotated[int, Field(ge=0)] = Field(1, description="first stages of the backbone that do not learn")
    epochs: Annotated[int, Field(ge=1)] = 5
    batch_size: Annotated[int, Field(ge=1)] = 16
    optimizer: OptimizerSettings = OptimizerSettings(
        kind="adam", lr=5e-6, head_lr=1e-4, decay_norms=True, schedule="constant", warmup_steps=0
    )
    scales: tuple[Annotated[float, Field(gt=0, le=8)], ...] = Field((1.0, 0.5, 1.5, 2.0), min_length=1)
    flip: bool = True

    def build(self, backbone: Backbone, n_classes: int) -> AMNetwork:
        """The backbone, which learns too, and the pyramid."""
        return AMNetwork(backbone, n_classes, freeze=self.freeze, dropout=self.dropout)

    def item(
        self,
        image: UInt8Array,
        targets: UInt8Array,
        tags: Tensor,
        rng: np.random.Generator,
        statistics: InputStatistics,
    ) -> dict[str, Tensor]:
        """Image float32 [3, crop, crop], labels int64 [crop, crop], 255 outside the image, and the image's tags."""
        pixels, labels = self.augmented(image, targets, rng, statistics)
        return {"image": pixels, "labels": labels, "tags": tags}

    def losses(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Balanced cross entropy, and its two halves."""
        logits = network(batch["image"].contiguous(memory_format=torch.channels_last), batch["tags"])
        terms = balanced_cross_entropy(logits.float(), batch["labels"], smoothing=self.smoothing)
        return terms._asdict()

    def trained(self, network: nn.Module, device: torch.device | str = "cpu") -> TrainedAMN:
        """The refiner with its network."""
        assert isinstance(network, AMNetwork)
        return TrainedAMN(self, network, device)


class TrainedAMN(TrainedRefiner):
    """AMN's inference on one image."""

    def __init__(self, settings: AMN, network: AMNetwork, device: torch.device | str = "cpu") -> None:
        self.settings, self.network, self.device = settings, network, device

    @torch.no_grad()
    def logits(self, image: UInt8Array, classes: Tensor, size: tuple[int, int]) -> Tensor:
        """Mean over all views, float32 [C + 1, *size], of an image uint8 [H, W, 3] with the given mask labels."""
        tags = multi_hot(tuple(classes.tolist()), self.network.n_classes).to(self.device)
        views = Views(self.settings.scales, self.settings.flip, self.network.backbone.input_statistics)

        def mean_of(pair: Tensor) -> Tensor:
            pixels = pair.to(self.device, memory_format=torch.channels_last)
            return merge_flips(self.network(pixels, tags.expand(len(pixels), -1)).float()) / len(pixels)

        per_scale = multi_scale_maps(image, mean_of, views)
        return sum_scales(per_scale, size) / len(per_scale)

    def refine(self, request: RefineRequest) -> Tensor:
        """New maps of the image's classes, [K, h, w] in [0, 1] on the grid of the given ones.

        Raises:
            ValueError: not a uint8 RGB image, or maps that cannot be its or are not finite.
        """
        maps = request.maps
        check_maps(request.colours, maps)
        if not maps.any():
            return maps.clone()
        labels = torch.from_numpy(self.settings.targets(request))
        logits = self.logits(request.image, request.classes, (maps.shape[1], maps.shape[2]))
        return manipulated_maps(logits, request.classes.to(logits.device), labels.to(logits.device)).to(maps)
