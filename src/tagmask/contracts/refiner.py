"""Refiners that learn before they refine: what AffinityNet and IRNet give the refine stage to work with.

The stage (:mod:`~tagmask.stages.refine.fitting`) makes the labels of every train image, trains the network with the
loop of :mod:`tagmask.engine.training`, and refines with what :meth:`TrainableRefiner.trained` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from tagmask.backbones.build import Backbone, BackboneSettings
from tagmask.contracts.method import Method
from tagmask.contracts.optimizer import OptimizerSettings, parameter_groups
from tagmask.types import UInt8Array


class MapRefiner(Protocol):
    """What the refine stage applies to one image after the other, several in threads."""

    def refine(self, image: UInt8Array, maps: Tensor) -> Tensor:
        """uint8 [H, W, 3] and [K, h, w] in [0, 1] -> [K, h, w] in [0, 1]."""
        ...


class TrainableRefiner(Method):
    """Settings that every refiner with a network shares, and what it has to say about its training.

    A subclass sets its defaults of ``optimizer`` and the rest, and writes :meth:`build`, :meth:`targets`,
    :meth:`item`, :meth:`losses` and :meth:`trained`.
    """

    makes: ClassVar[str] = "maps"
    # "labels": targets are uint8 [H, W], kept as PNG; "planes": uint8 [P, H, W] with any P, kept as npz.
    targets_are: ClassVar[Literal["labels", "planes"]] = "labels"

    backbone: BackboneSettings | None = Field(None, description="null: the one of 'classify', with its first weights")
    init: Literal["weights", "classifier"] = Field(
        "weights", description="the backbone starts from its weights, or from those of the trained classifier"
    )
    epochs: Annotated[int, Field(ge=1)] = 3
    batch_size: Annotated[int, Field(ge=1)] = 16
    optimizer: OptimizerSettings = OptimizerSettings()

    @field_validator("optimizer", mode="before")
    @classmethod
    def _complete(cls, value: Any, info: ValidationInfo) -> Any:
        """Changing one key of the block leaves its others at this method's defaults."""
        default = cls.model_fields[str(info.field_name)].default
        return {**default.model_dump(), **value} if isinstance(value, Mapping) else value

    def build(self, backbone: Backbone) -> nn.Module:
        """The network around a backbone, which must be its attribute ``backbone``."""
        raise NotImplementedError

    def targets(self, image: UInt8Array, maps: Tensor, classes: Tensor) -> UInt8Array:
        """What one train image teaches.

        Args:
            image: uint8 [H, W, 3].
            maps: float [K, h, w] in [0, 1], as they come to this refiner; K may be 0.
            classes: int64 [K] mask labels (1..C).

        Returns:
            uint8 [H, W] or [P, H, W], see ``targets_are``.
        """
        raise NotImplementedError

    def item(self, image: UInt8Array, targets: UInt8Array, rng: np.random.Generator) -> dict[str, Tensor]:
        """One augmented training item, tensors of one shape over all images; all randomness from ``rng``."""
        raise NotImplementedError

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Optimiser groups: backbone at lr, everything else at head_lr."""
        backbone = list(network.backbone.parameters())  # type: ignore[union-attr]
        known = {id(parameter) for parameter in backbone}
        rest = [parameter for parameter in network.parameters() if id(parameter) not in known]
        return parameter_groups(self.optimizer, backbone, rest)

    def losses(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named terms of one step's loss; 'loss' is minimised. Call ``network``, not the module :meth:`build` made."""
        raise NotImplementedError

    def finish(self, network: nn.Module, images: Iterable[UInt8Array], device: torch.device) -> None:
        """What is measured on the training images after the training, once; nothing by default."""

    @property
    def makes_instances(self) -> bool:
        """Whether :meth:`trained` gives a refiner with ``instances(image, maps, classes)`` that is to be asked."""
        return False

    def trained(self, network: nn.Module, device: torch.device | str = "cpu") -> MapRefiner:
        """The refiner of maps with its network, which is in eval mode on ``device``."""
        raise NotImplementedError
