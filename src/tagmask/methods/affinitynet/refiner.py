"""AffinityNet (PSA) as a refiner: it learns which pixels are alike from the maps, which then walk over them.

Source: Ahn and Kwak, "Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly Supervised
Semantic Segmentation", CVPR 2018; ``voc12/data.VOC12AffDataset``, ``train_aff.py`` and ``infer_aff.py`` of
jiwoon-ahn/psa; docs/methods/affinitynet.md. The maths is in ``losses``, the network in ``model``.

Deliberate deviations:

- The CRFs' probabilities are kept as bytes: a tie within 1/255 may fall otherwise.
- Colours are jittered without the hue.
- An image with more than ``max_pixels`` is reduced to them, in training and inference; the published code takes any
  size as it is. ``scale`` enlarges images before the network, for data with small ones.
- The walked scores are brought back to the maps' grid (an average over each cell), where the published code takes the
  argmax at full size. With ``background: compete`` a threshold of 0.5 is that argmax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from tagmask.backbones.build import Backbone
from tagmask.contracts.optimizer import OptimizerSettings
from tagmask.contracts.refiner import RefineRequest
from tagmask.contracts.trainable import TrainableRefiner, TrainedRefiner
from tagmask.methods.affinitynet.losses import (
    affinity_labels,
    affinity_loss,
    affinity_random_walk,
    feature_affinity,
    walk_start,
)
from tagmask.methods.affinitynet.model import STRIDE, AffinityNetwork
from tagmask.methods.dense_crf.refiner import PRESETS, dense_crf
from tagmask.ops.maps import check_maps, divide_by_peaks, upsample_maps
from tagmask.ops.random_walk import stencil_offsets
from tagmask.ops.transforms import jitter, normalise, place, random_window, resize_image, size_within
from tagmask.types import InputStatistics, UInt8Array

Alpha = Annotated[float, Field(gt=0, le=256)]


class AffinityNet(TrainableRefiner):
    """Refiner of maps: a random walk over pixels that a network takes to be alike; it learns that from the maps.

    The background walks beside the maps. ``background: compete`` gives each map's share against it, so that a following
    threshold of 0.5 is the published argmax; ``background: none`` leaves it out and divides each map by its maximum.
    """

    name: ClassVar[str] = "affinitynet"
    targets_are = "planes"

    power: Annotated[float, Field(gt=0, le=10)] = Field(1.0, description="exponent on the maps before all else")
    alpha_low: Alpha = Field(4.0, description="background (1 - highest map) ^ it: what is foreground then is surely so")
    alpha_high: Alpha = Field(32.0, description="the same: what is background then is surely so")
    epochs: Annotated[int, Field(ge=1)] = 8
    batch_size: Annotated[int, Field(ge=1)] = 8
    crop: Annotated[int, Field(ge=STRIDE, multiple_of=STRIDE)] = 448
    scale: Annotated[float, Field(gt=0, le=8)] = Field(1.0, description="factor on images before the network")
    freeze: Annotated[int, Field(ge=0)] = Field(0, description="first stages of the backbone that do not learn")
    colour_jitter: Annotated[float, Field(ge=0, le=0.9)] = 0.3
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-4, head_lr=1e-3, weight_decay=5e-4)
    radius: Annotated[int, Field(ge=2, le=20)] = Field(5, description="pairs closer than this, in cells of 8 pixels")
    background: Literal["compete", "none"] = "compete"
    alpha: Alpha = Field(16.0, description="exponent of the background that walks")
    beta: Annotated[float, Field(gt=0, le=100)] = 8.0
    steps: Annotated[int, Field(ge=0, le=4096)] = 256
    max_pixels: Annotated[int, Field(ge=4096)] = Field(1_000_000, description="larger images are reduced to these")

    @model_validator(mode="after")
    def _fits(self) -> AffinityNet:
        if self.alpha_low > self.alpha_high:
            msg = f"alpha_low {self.alpha_low} must not be above alpha_high {self.alpha_high}"
            raise ValueError(msg)
        if self.crop < (smallest := STRIDE * (2 * self.radius - 1)):
            msg = f"crop {self.crop} has no pixel with all its pairs of radius {self.radius}: {smallest} has"
            raise ValueError(msg)
        return self

    def working_size(self, image: UInt8Array, scale: float) -> tuple[int, int]:
        """The image's size times ``scale``, within ``max_pixels``."""
        return size_within((image.shape[0], image.shape[1]), self.max_pixels, scale)

    def build(self, backbone: Backbone, n_classes: int) -> AffinityNetwork:
        """The backbone, which learns too, and what joins its stages."""
        return AffinityNetwork(backbone, freeze=self.freeze)

    def targets(self, request: RefineRequest) -> UInt8Array:
        """Probabilities of two CRFs in 1/255: uint8 [2 (K + 1), H, W], those with ``alpha_low`` first.

        Raises:
            ValueError: not a uint8 RGB image, or maps that are not finite or do not fit it.
        """
        image, maps = request.colours, request.maps
        check_maps(image, maps)
        small = resize_image(image, self.working_size(image, 1.0))
        full = request.full((small.shape[0], small.shape[1])).cpu().clamp(0, 1) ** self.power
        highest = full.amax(dim=0, keepdim=True) if len(full) else full.new_zeros((1, *full.shape[1:]))
        planes = [
            dense_crf(small, torch.cat([(1 - highest) ** alpha, full]), **PRESETS["psa"])  # type: ignore[arg-type]
            for alpha in (self.alpha_low, self.alpha_high)
        ]
        return (torch.cat(planes) * 255).round().byte().numpy()

    def item(
        self,
        image: UInt8Array,
        targets: UInt8Array,
        tags: Tensor,
        rng: np.random.Generator,
        statistics: InputStatistics,
    ) -> dict[str, Tensor]:
        """Image float32 [3, crop, crop], black outside, and labels int64 [crop / 8, crop / 8], 255 outside."""
        size = self.working_size(image, self.scale)
        pixels = jitter(resize_image(image, size), self.colour_jitter, rng)
        # Probabilities and not labels go through crop and pooling: a cell's label is decided by all of its pixels.
        planes = torch.from_numpy(targets).float() / 255
        if planes.shape[1:] != size:
            planes = upsample_maps(planes, size)
        window = random_window(size, self.crop, rng)
        # Cut before it is normalised: outside it is black and not the mean colour, as in AffinityNet's code alone.
        cut = place(torch.tensor(pixels).permute(2, 0, 1), self.crop, window, 0)
        pooled = functional.avg_pool2d(place(planes, self.crop, window, 0)[None], STRIDE)[0]
        if rng.random() < 0.5:
            cut, pooled = cut.flip(-1), pooled.flip(-1)
        low, high = pooled.chunk(2)
        return {"image": normalise(cut.permute(1, 2, 0).numpy(), statistics), "labels": affinity_labels(low, high)}

    def losses(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cross entropy of pairs, and its three parts."""
        features = network(batch["image"].contiguous(memory_format=torch.channels_last))
        return affinity_loss(
            feature_affinity(features.float(), radius=self.radius), batch["labels"], radius=self.radius
        )

    def trained(self, network: nn.Module, device: torch.device | str = "cpu") -> TrainedAffinityNet:
        """The refiner with its network."""
        assert isinstance(network, AffinityNetwork)
        return TrainedAffinityNet(self, network, device)


class TrainedAffinityNet(TrainedRefiner):
    """AffinityNet's inference on one image: affinities, then the walk of background and maps over them."""

    def __init__(self, settings: AffinityNet, network: AffinityNetwork, device: torch.device | str = "cpu") -> None:
        self.settings, self.network, self.device = settings, network, device

    @torch.no_grad()
    def affinity(self, image: UInt8Array) -> Tensor:
        """Affinities of an image uint8 [H, W, 3], see ``losses``: float32 [P, n], n = 0 on too small a grid."""
        pixels = normalise(image, self.network.backbone.input_statistics)
        padded = functional.pad(pixels, (0, -pixels.shape[2] % STRIDE, 0, -pixels.shape[1] % STRIDE))
        radius = self.settings.radius
        height, width = padded.shape[1] // STRIDE, padded.shape[2] // STRIDE
        if height < radius or width < 2 * radius - 1:
            return torch.zeros(len(stencil_offsets(radius)), 0, device=self.device)
        features = self.network(padded[None].to(self.device, memory_format=torch.channels_last))
        return feature_affinity(features.float(), radius=radius)[0]

    @torch.no_grad()
    def walked(
        self, image: UInt8Array, maps: Tensor, full: Callable[[tuple[int, int]], Tensor] | None = None
    ) -> Tensor:
        """Walked scores of background and maps on the maps' grid: uint8 [H, W, 3] and [K, h, w] -> [K + 1, h, w].

        ``full`` gives the maps at a size; None: they are stretched.
        """
        s = self.settings
        size = s.working_size(image, s.scale)
        full_maps = upsample_maps(maps, size) if full is None else full(size)
        full_maps = full_maps.clamp(0, 1) ** s.power
        affinity = self.affinity(resize_image(image, size)).to(maps.device)
        start = walk_start(full_maps, alpha=s.alpha, stride=STRIDE)
        walked = affinity_random_walk(start, affinity, radius=s.radius, beta=s.beta, steps=s.steps)
        padded = functional.interpolate(walked[None], scale_factor=STRIDE, mode="bilinear", align_corners=False)
        cut = padded[..., : size[0], : size[1]]
        return functional.adaptive_avg_pool2d(cut, (maps.shape[1], maps.shape[2]))[0]

    def refine(self, request: RefineRequest) -> Tensor:
        """Refined maps: uint8 [H, W, 3] and [K, h, w] in [0, 1] -> the same shape in [0, 1].

        Raises:
            ValueError: not a uint8 RGB image, or maps that are not finite or do not fit it.
        """
        image, maps = request.image, request.maps
        check_maps(request.colours, maps)
        if not maps.any():
            return maps.clone()
        background, *_ = scores = self.walked(image, maps, request.full)
        if self.settings.background == "none":
            return divide_by_peaks(scores[1:]).to(maps.dtype)
        share: Tensor = scores[1:] / (scores[1:] + background).clamp(min=1e-12)
        return share.to(maps.dtype)
