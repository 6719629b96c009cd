"""Refiners that learn before they refine: what AffinityNet and IRNet give the refine stage to work with.

The stage (:mod:`~tagmask.stages.refine.fitting`) makes the labels of every train image, trains the network with the
loop of :mod:`tagmask.engine.training`, and refines with what :meth:`TrainableRefiner.trained` returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from tagmask.backbones.build import Backbone, BackboneSettings
from tagmask.contracts.optimizer import Iterations, OptimizerSettings, parameter_groups
from tagmask.contracts.refiner import Instances, Refiner, RefineRequest
from tagmask.registry.method import LATER
from tagmask.types import InputStatistics, UInt8Array


class TrainedRefiner(ABC):
    """A refiner of maps with its network."""

    @property
    def cell(self) -> int | None:
        """See :class:`~tagmask.contracts.refiner.RefinesMaps`."""
        return None

    @abstractmethod
    def refine(self, request: RefineRequest) -> Tensor:
        """See :meth:`MapRefiner.refine`."""

    def instances(self, request: RefineRequest) -> Instances:
        """Objects of one image, where the refiner ``makes_instances``.

        Raises:
            ValueError: as :meth:`refine`, or it makes none.
        """
        del request
        msg = f"{type(self).__name__} makes no instances"
        raise ValueError(msg)


class TrainableRefiner(Refiner):
    """Settings that every refiner with a network shares, and what it has to say about its training.

    A subclass sets its defaults of ``optimizer`` and the rest, and writes :meth:`build`, :meth:`targets`,
    :meth:`item`, :meth:`losses` and :meth:`trained`.
    """

    # "labels": targets are uint8 [H, W], kept as PNG; "planes": uint8 [P, H, W] with any P, kept as npz.
    targets_are: ClassVar[Literal["labels", "planes"]] = "labels"

    backbone: BackboneSettings | None = Field(None, description="null: the one of 'classify', with its first weights")
    init: Literal["weights", "classifier"] = Field(
        "weights", description="the backbone starts from its weights, or from those of the trained classifier"
    )
    epochs: Annotated[int, Field(ge=1)] = 3
    iterations: Iterations = Field(
        None, json_schema_extra=LATER, description="updates, instead of epochs; auto: by the size of the data"
    )
    batch_size: Annotated[int, Field(ge=1)] = 16
    optimizer: OptimizerSettings = OptimizerSettings()

    @field_validator("optimizer", mode="before")
    @classmethod
    def _complete(cls, value: Any, info: ValidationInfo) -> Any:
        """Changing one key of the block leaves its others at this method's defaults."""
        default = cls.model_fields[str(info.field_name)].default
        return {**default.model_dump(), **value} if isinstance(value, Mapping) else value

    @abstractmethod
    def build(self, backbone: Backbone, n_classes: int) -> nn.Module:
        """The network around a backbone, which must be its attribute ``backbone``, for C foreground classes."""

    @abstractmethod
    def targets(self, request: RefineRequest) -> UInt8Array:
        """What one train image teaches: uint8 [H, W] or [P, H, W], see ``targets_are``.

        Raises:
            ValueError: not a uint8 RGB image, or maps that are not finite or do not fit it.
        """

    @abstractmethod
    def item(
        self,
        image: UInt8Array,
        targets: UInt8Array,
        tags: Tensor,
        rng: np.random.Generator,
        statistics: InputStatistics,
    ) -> dict[str, Tensor]:
        """One augmented training item, tensors of one shape over all images; all randomness from ``rng``. ``tags`` are
        the image's, multi-hot float32 [C]; it is normalised with ``statistics``, those of the network's backbone."""

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Optimiser groups: backbone at lr, everything else at head_lr."""
        backbone = list(network.backbone.parameters())  # type: ignore[union-attr]
        backbone_ids = {id(parameter) for parameter in backbone}
        rest = [parameter for parameter in network.parameters() if id(parameter) not in backbone_ids]
        return parameter_groups(self.optimizer, backbone, rest)

    @abstractmethod
    def losses(self, network: Callable[..., Any], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named terms of one step's loss; 'loss' is minimised. Call ``network``, not the module :meth:`build` made."""

    def finish(self, network: nn.Module, images: Iterable[UInt8Array], device: torch.device) -> None:
        """What is measured on the training images after the training, once; nothing by default."""

    @property
    def makes_instances(self) -> bool:
        """Whether :meth:`TrainedRefiner.instances` is to be asked."""
        return False

    @abstractmethod
    def trained(self, network: nn.Module, device: torch.device | str = "cpu") -> TrainedRefiner:
        """The refiner of maps with its network, which is in eval mode on ``device``."""
