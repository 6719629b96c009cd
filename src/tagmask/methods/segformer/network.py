"""SegFormer: a hierarchical transformer and a decoder of linear layers; the light option.

Source: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", NeurIPS 2021,
as segmentation-models-pytorch builds it. Its encoders mit_b0 to mit_b5 (whose code is under NVIDIA's source code
licence) are the published ones; any timm encoder takes their place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import segmentation_models_pytorch as smp
from pydantic import Field
from torch import nn

from tagmask.backbones.statistics import statistics_of
from tagmask.contracts.encoder_network import EncoderNetwork
from tagmask.contracts.network import SegmentationModel
from tagmask.errors import InputError
from tagmask.storage.state_dict import match_state_dict, read_state_dict
from tagmask.types import IMAGENET, InputStatistics

MIX = tuple(f"mit_b{size}" for size in range(6))


class Segformer(EncoderNetwork):
    """SegFormer. ``encoder``: mit_b0 to mit_b5, whose ``weights`` are a local file only, or any timm encoder."""

    name: ClassVar[str] = "segformer"

    encoder: str = "mit_b0"
    decoder_channels: Annotated[int, Field(ge=8)] = 256

    def build(self, n_labels: int, *, pretrained: bool = True, classifier: Path | None = None) -> SegmentationModel:
        """The network with ``n_labels`` = C + 1 outputs; ``classifier`` is the file behind 'classifier'.

        Raises:
            UnknownNameError: no such encoder.
            InputError: it takes one image size only, or weights that do not fit.
        """
        statistics = IMAGENET
        if self.encoder in MIX:
            network = self._mix(n_labels)
            if pretrained and self.weights is not None:
                statistics = self._load_mix(network.encoder)
        else:
            network = self.assemble(smp.Segformer, n_labels, decoder_segmentation_channels=self.decoder_channels)
            self.try_any_size(network.encoder)
            if pretrained:
                statistics = self.load(network.encoder.model, classifier)
        return SegmentationModel(network, grid=32, statistics=statistics)

    def timm_options(self) -> dict[str, Any]:
        """Swin must be told that it may see more than one size."""
        return {"strict_img_size": False} if self.encoder.startswith("swin") else {}

    def _mix(self, n_labels: int) -> Any:
        if self.encoder_args:
            msg = f"segment.network.encoder_args: {self.encoder} takes none, not {', '.join(self.encoder_args)}"
            raise InputError(msg)
        return smp.Segformer(
            self.encoder, encoder_weights=None, classes=n_labels, decoder_segmentation_channels=self.decoder_channels
        )

    def _load_mix(self, encoder: nn.Module) -> InputStatistics:
        if not isinstance(self.weights, Path):
            msg = f"segment.network.weights={self.weights}: timm has no {self.encoder}; name a local file, or null"
            raise InputError(msg)
        state = match_state_dict(read_state_dict(self.weights), encoder.state_dict(), self.weights, self.encoder)
        nn.Module.load_state_dict(encoder, state)  # the encoder's own takes a classifier out first
        return statistics_of(self.encoder, self.weights, setting="segment.network.weights")
