"""IRNet as a refiner: it learns class boundaries from the maps, which then spread inside them.

Source: Ahn, Cho, Kwak, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations", CVPR 2019;
``step/cam_to_ir_label.py``, ``step/train_irn.py`` and ``step/make_sem_seg_labels.py`` of jiwoon-ahn/irn;
docs/methods/irnet.md. The losses are in ``losses``, the network in ``model``, the walk in ``tagmask.ops.random_walk``.

Deliberate deviations:

- The image is not padded to 512 x 512 before the boundaries are inferred, unless ``pad_to`` says so.
- Optimiser and rates are free; docs/methods/irnet.md has the published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from tagmask.backbones.build import Backbone
from tagmask.contracts.optimizer import OptimizerSettings, parameter_groups
from tagmask.contracts.refiner import Instances, RefineRequest
from tagmask.contracts.trainable import TrainedRefiner
from tagmask.methods.irnet.instances import cluster_centroids, find_centroids, instance_masks, split_maps
from tagmask.methods.irnet.losses import boundary_probability, irnet_losses, labels_on_grid
from tagmask.methods.irnet.model import FINE, IRNetwork, grid_size
from tagmask.methods.irnet.seeds import SeedLabelRefiner
from tagmask.ops.maps import check_image, check_maps, upsample_maps
from tagmask.ops.random_walk import random_walk
from tagmask.ops.transforms import colour_view, normalise
from tagmask.types import InputStatistics, UInt8Array

_MAPS_AT_ONCE = 32  # of the walk of instances, which has a map for every class and centroid


class IRNet(SeedLabelRefiner):
    """Refiner of maps by boundaries learnt from pairs of pixels, for which the maps say whether they are alike.

    In ``optimizer``, ``lr`` is the rate of the boundary branch and ``head_lr`` that of the displacement branch.
    """

    name: ClassVar[str] = "irnet"

    epochs: Annotated[int, Field(ge=1)] = 3
    batch_size: Annotated[int, Field(ge=1)] = 16
    pair_radius: Annotated[int, Field(ge=2, le=30)] = Field(10, description="pairs closer than this teach")
    optimizer: OptimizerSettings = OptimizerSettings(lr=3e-3, head_lr=3e-3)
    displacement: bool = Field(False, description="train the displacement branch too; masks do not need it")
    instances: bool = Field(False, description="write instance masks too; trains the displacement branch")
    instance_threshold: Annotated[float, Field(ge=0, le=1)] = Field(0.25, description="background of instances")
    instance_min_area: Annotated[float, Field(ge=0, le=1)] = Field(0.01, description="smaller ones are left out")
    pad_to: Annotated[int, Field(ge=1)] | None = Field(None, description="pad images to this side before inference")
    power: Annotated[float, Field(gt=0, le=10)] = Field(1.0, description="exponent on the maps before the walk")
    beta: Annotated[float, Field(gt=0, le=100)] = 10.0
    radius: Annotated[int, Field(ge=2, le=20)] = Field(5, description="pixels closer than this are connected")
    steps: Annotated[int, Field(ge=0, le=4096)] = 256

    @model_validator(mode="after")
    def _fits(self) -> IRNet:
        if self.crop < (smallest := FINE * (2 * self.pair_radius - 2) + 1):
            msg = f"crop {self.crop} has no pixel with all its pairs of pair_radius {self.pair_radius}: {smallest} has"
            raise ValueError(msg)
        return self

    def build(self, backbone: Backbone, n_classes: int) -> IRNetwork:
        """The backbone, which stays as it is, and the branches."""
        return IRNetwork(backbone, displacement=self.displacement or self.instances)

    def item(
        self,
        image: UInt8Array,
        targets: UInt8Array,
        tags: Tensor,
        rng: np.random.Generator,
        statistics: InputStatistics,
    ) -> dict[str, Tensor]:
        """Image float32 [3, crop, crop] and labels uint8 [crop / 4, crop / 4]; 255 outside the image."""
        pixels, labels = self.augmented(image, targets, rng, statistics)
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

    @torch.no_grad()
    def finish(self, network: nn.Module, images: Iterable[UInt8Array], device: torch.device) -> None:
        """The mean displacement over the top left crops of the training images, which the losses leave free."""
        assert isinstance(network, IRNetwork)
        if network.displacement is None:
            return
        # In training mode the shift is not subtracted, which is what is measured here.
        network.train()
        statistics = network.backbone.input_statistics
        crops = (normalise(image[: self.crop, : self.crop], statistics)[None].to(device) for image in images)
        network.displacement.shift.measure(_field(network, crop) for crop in crops)

    @property
    def makes_instances(self) -> bool:
        """As the recipe says."""
        return self.instances

    def trained(self, network: nn.Module, device: torch.device | str = "cpu") -> TrainedIRNet:
        """The refiner with its network."""
        assert isinstance(network, IRNetwork)
        return TrainedIRNet(self, network, device)


def _field(network: IRNetwork, pixels: Tensor) -> Tensor:
    field: Tensor | None = network(pixels)[1]
    assert field is not None
    return field


class TrainedIRNet(TrainedRefiner):
    """IRNet's inference on one image: boundaries, then the walk of the maps inside them."""

    def __init__(self, settings: IRNet, network: IRNetwork, device: torch.device | str = "cpu") -> None:
        self.settings, self.network, self.device = settings, network, device

    @property
    def cell(self) -> int | None:
        """The walk's grid is the network's: enlarged by 4 and cut off at the border, as published."""
        return FINE

    @torch.no_grad()
    def predictions(self, image: UInt8Array) -> tuple[Tensor, Tensor | None]:
        """Boundary probability float32 [h, w] of an image uint8 [H, W, 3], and displacement [2, h, w] if it is learnt;
        h, w = ceil(H / 4), ceil(W / 4). The boundary sees the mirror image too."""
        check_image(colour_view(image))
        pixels = normalise(image, self.network.backbone.input_statistics)
        size = grid_size(image.shape[0], image.shape[1])
        # Never negative: padding an image of more than 512 pixels to 512 would cut it off without a word.
        padding = [max(0, (self.settings.pad_to or 0) - side) for side in (image.shape[1], image.shape[0])]
        views = []
        for view in (pixels, pixels.flip(-1)):
            padded = functional.pad(view, (0, padding[0], 0, padding[1]))[None]
            views.append(self.network(padded.to(self.device, memory_format=torch.channels_last)))
        (edge, field), (mirrored, _) = views
        boundary = boundary_probability(edge[0, 0].float(), mirrored[0, 0].float(), size)
        return boundary, None if field is None else field[0, :, : size[0], : size[1]].float()

    def refine(self, request: RefineRequest) -> Tensor:
        """Refined maps: uint8 [H, W, 3] and [K, h, w] in [0, 1] -> the same shape in [0, 1].

        All maps are divided by their common maximum. Boundaries are stretched to another grid than the network's.

        Raises:
            ValueError: not a uint8 RGB image, or maps that cannot be its or are not finite.
        """
        image, maps = request.image, request.maps
        check_maps(request.colours, maps)
        if not maps.any():
            return maps.clone()
        edge, _ = self.predictions(image)
        walked = self._walk(maps, edge)
        # One maximum for all maps: what the walk says about which class is stronger where two meet must not be lost.
        peak = walked.max()
        return walked / torch.where(peak > 0, peak, 1)

    def instances(self, request: RefineRequest) -> Instances:
        """Objects of one image: uint8 [H, W, 3], [K, h, w] in [0, 1], int64 [K] mask labels.

        Raises:
            ValueError: as :meth:`refine`, or the displacement branch was not trained.
        """
        image, maps, classes = request.image, request.maps, request.classes
        check_maps(request.colours, maps)
        size = image.shape[0], image.shape[1]
        edge, field = self.predictions(image)
        if field is None:
            msg = "instances need the displacement branch: set instances or displacement, and train again"
            raise ValueError(msg)
        s = self.settings
        clusters = cluster_centroids(find_centroids(field), field)
        parts = split_maps(upsample_maps(maps, (edge.shape[0], edge.shape[1])), clusters)
        # A map that is zero stays zero; most pairs of class and object are.
        there = parts.flatten(1).any(dim=1)
        walked = torch.zeros_like(parts)
        if there.any():
            walked[there] = torch.cat([self._walk(part, edge) for part in torch.split(parts[there], _MAPS_AT_ONCE)])
        labels = [int(label) for label in classes]
        return instance_masks(walked, labels, size, background=s.instance_threshold, min_area=s.instance_min_area)

    def _walk(self, maps: Tensor, edge: Tensor) -> Tensor:
        s = self.settings
        edge = upsample_maps(edge[None].to(maps.device), (maps.shape[1], maps.shape[2]))[0]
        return random_walk(maps**s.power, edge, radius=s.radius, beta=s.beta, steps=s.steps)
