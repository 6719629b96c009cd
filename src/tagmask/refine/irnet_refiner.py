"""IRNet as a refiner: it learns class boundaries from the maps, which then spread inside them.

Source: Ahn, Cho, Kwak, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations", CVPR 2019;
``step/cam_to_ir_label.py``, ``step/train_irn.py`` and ``step/make_sem_seg_labels.py`` of jiwoon-ahn/irn; methods.md
10.2 and 10.4. The losses are in ``irnet.py``, the network in ``irnet_network.py``, the walk in ``random_walk.py``.

Deliberate deviations:

- Labels are made from the strided maps, stretched to the image; the published code merges scales at full size too.
- The image is not padded to 512 x 512 before the boundaries are inferred, unless ``pad_to`` says so.
- Optimiser and rates are free; docs/methods/irnet.md has the published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from tagmask.classify.backbones import Backbone
from tagmask.data.transforms import augment_pair, normalise, resize_image, resize_mask, scaled_size
from tagmask.interfaces import UInt8Array
from tagmask.optim import OptimizerSettings, parameter_groups
from tagmask.refine.dense_crf import dense_crf_labels
from tagmask.refine.ir_labels import ir_labels
from tagmask.refine.irnet import boundary_probability, irnet_losses, labels_on_grid
from tagmask.refine.irnet_network import FINE, IRNetwork, grid_size
from tagmask.refine.labels import upsample_maps
from tagmask.refine.maps import check_image, check_maps
from tagmask.refine.random_walk import random_walk
from tagmask.refine.trainable import TrainableRefiner


class IRNet(TrainableRefiner):
    """Refiner of maps by boundaries learnt from pairs of pixels, for which the maps say whether they are alike.

    In ``optimizer``, ``lr`` is the rate of the boundary branch and ``head_lr`` that of the displacement branch.
    """

    name: ClassVar[str] = "irnet"
    targets_are = "labels"

    conf_fg: Annotated[float, Field(ge=0, le=1)] = Field(0.30, description="maps above it are sure foreground")
    conf_bg: Annotated[float, Field(ge=0, le=1)] = Field(0.05, description="maps below it are sure background")
    crf_max_pixels: Annotated[int, Field(ge=256)] = Field(400_000, description="labels are made on at most these")
    epochs: Annotated[int, Field(ge=1)] = 3
    batch_size: Annotated[int, Field(ge=1)] = 16
    crop: Annotated[int, Field(ge=16)] = 512
    scale: tuple[float, float] = Field((0.5, 1.5), description="range of random rescaling in training")
    pair_radius: Annotated[int, Field(ge=2, le=30)] = Field(10, description="pairs closer than this teach")
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-3, head_lr=1e-3)
    displacement: bool = Field(False, description="train the displacement branch too; masks do not need it")
    pad_to: Annotated[int, Field(ge=1)] | None = Field(None, description="pad images to this side before inference")
    power: Annotated[float, Field(gt=0, le=10)] = Field(1.0, description="exponent on the maps before the walk")
    beta: Annotated[float, Field(gt=0, le=100)] = 10.0
    radius: Annotated[int, Field(ge=2, le=20)] = Field(5, description="pixels closer than this are connected")
    steps: Annotated[int, Field(ge=0, le=4096)] = 256

    @model_validator(mode="after")
    def _fits(self) -> IRNet:
        if self.conf_fg < self.conf_bg:
            msg = f"conf_fg {self.conf_fg} must not be below conf_bg {self.conf_bg}"
            raise ValueError(msg)
        if not 0 < self.scale[0] <= self.scale[1]:
            msg = f"scale: expected two numbers 0 < smallest <= largest, not {list(self.scale)}"
            raise ValueError(msg)
        if self.crop < (smallest := FINE * (2 * self.pair_radius - 2) + 1):
            msg = f"crop {self.crop} has no pixel with all its pairs of pair_radius {self.pair_radius}: {smallest} has"
            raise ValueError(msg)
        return self

    def build(self, backbone: Backbone) -> IRNetwork:
        """The backbone, which stays as it is, and the branches."""
        return IRNetwork(backbone, displacement=self.displacement)

    def targets(self, image: UInt8Array, maps: Tensor, classes: Tensor) -> UInt8Array:
        """Labels of sure foreground and background, 255 elsewhere: uint8 [H, W]."""
        check_image(image)
        size = image.shape[0], image.shape[1]
        small = resize_image(image, scaled_size(size, min(1.0, (self.crf_max_pixels / (size[0] * size[1])) ** 0.5)))
        stretched = upsample_maps(maps, (small.shape[0], small.shape[1]))
        crf = partial(dense_crf_labels, small)
        labels = ir_labels(stretched, classes, crf, foreground=self.conf_fg, background=self.conf_bg)
        return resize_mask(labels, size)

    def item(self, image: UInt8Array, targets: UInt8Array, rng: np.random.Generator) -> dict[str, Tensor]:
        """Image float32 [3, crop, crop] and labels uint8 [crop / 4, crop / 4]; 255 outside the image."""
        options: dict[str, Any] = {"crop": self.crop, "scale": self.scale, "flip": True, "colour_jitter": 0.0}
        pixels, labels = augment_pair(image, targets, rng=rng, **options)
        return {"image": pixels, "labels": labels_on_grid(labels, grid_size(self.crop, self.crop)).to(torch.uint8)}

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """The boundary branch at lr, the displacement branch at head_lr."""
        assert isinstance(network, IRNetwork)
        displacement = network.displacement.parameters() if network.displacement else ()
        return parameter_groups(self.optimizer, network.boundary.parameters(), displacement)

    def losses(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Boundary losses, and those of the displacement field if there is one."""
        edge, displacement = network(batch["image"].contiguous(memory_format=torch.channels_last))
        return irnet_losses(edge, batch["labels"], displacement, radius=self.pair_radius)

    def trained(self, network: nn.Module, device: torch.device | str = "cpu") -> TrainedIRNet:
        """The refiner with its network."""
        assert isinstance(network, IRNetwork)
        return TrainedIRNet(self, network, device)


class TrainedIRNet:
    """IRNet's inference on one image: boundaries, then the walk of the maps inside them."""

    def __init__(self, settings: IRNet, network: IRNetwork, device: torch.device | str = "cpu") -> None:
        self.settings, self.network, self.device = settings, network, device

    @torch.no_grad()
    def boundary(self, image: UInt8Array) -> Tensor:
        """Boundary probability of an image uint8 [H, W, 3]: float32 [ceil(H/4), ceil(W/4)]."""
        check_image(image)
        pixels = normalise(image)
        logits = []
        for view in (pixels, pixels.flip(-1)):
            padding = [max(0, (self.settings.pad_to or 0) - side) for side in (image.shape[1], image.shape[0])]
            padded = functional.pad(view, (0, padding[0], 0, padding[1]))
            edge, _ = self.network(padded[None].to(self.device, memory_format=torch.channels_last))
            logits.append(edge[0, 0].float())
        return boundary_probability(logits[0], logits[1], grid_size(image.shape[0], image.shape[1]))

    def refine(self, image: UInt8Array, maps: Tensor) -> Tensor:
        """Refined maps: uint8 [H, W, 3] and [K, h, w] in [0, 1] -> the same shape in [0, 1].

        All maps are divided by their common maximum. Boundaries are stretched to another grid than the network's.

        Raises:
            ValueError: not a uint8 RGB image, or maps that cannot be its or are not finite.
        """
        check_maps(image, maps)
        if not maps.any():
            return maps.clone()
        s = self.settings
        edge = upsample_maps(self.boundary(image)[None].to(maps.device), (maps.shape[1], maps.shape[2]))[0]
        walked = random_walk(maps**s.power, edge, radius=s.radius, beta=s.beta, steps=s.steps)
        peak = walked.max()
        return walked / torch.where(peak > 0, peak, 1)
