"""Refiners that learn before they refine: what AffinityNet and IRNet give the refine stage to work with.

The stage (:mod:`tagmask.refine.fitting`) makes the labels of every train image, trains the network with the loop of
:mod:`tagmask.training`, and refines with what :meth:`TrainableRefiner.trained` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from torch import Tensor, nn

from tagmask.classify.backbones import Backbone, build_backbone
from tagmask.errors import InputError
from tagmask.interfaces import UInt8Array
from tagmask.method import Method
from tagmask.optim import OptimizerSettings, parameter_groups


class BackboneSettings(BaseModel):
    """A backbone and the weights it starts from; the keys mean what they mean in ``classify``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    backbone_args: dict[str, Any] = Field(default_factory=dict)
    weights: Path | Literal["timm"] | None = None
    output_stride: Literal[8, 16, 32] = 16
    dilate: bool = True
    final_conv: bool = False

    def build(self, *, pretrained: bool = True) -> Backbone:
        """The backbone; ``pretrained=False`` skips the weights (they are about to be loaded)."""
        return build_backbone(
            self.backbone,
            args=self.backbone_args,
            weights=self.weights if pretrained else None,
            output_stride=self.output_stride,
            dilate=self.dilate,
            final_conv=self.final_conv,
        )


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


def take_classifier_backbone(backbone: Backbone, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put the backbone of a stored classifier (tensors ``backbone.*``) into ``backbone``.

    Raises:
        InputError: it is another architecture; names ``path``.
    """
    stored = {key.removeprefix("backbone."): value for key, value in tensors.items() if key.startswith("backbone.")}
    wanted = backbone.state_dict()
    wrong = [key for key, value in wanted.items() if key not in stored or stored[key].shape != value.shape]
    if wrong or len(stored) != len(wanted):
        msg = (
            f"{path}: the classifier's backbone is not the one of this refiner ({(wrong or sorted(stored))[0]} does "
            "not fit); set init: weights, or backbone: null"
        )
        raise InputError(msg)
    backbone.load_state_dict(stored)
