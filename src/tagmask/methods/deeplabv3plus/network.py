"""DeepLabV3+ with any timm encoder.

Source: Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018,
as segmentation-models-pytorch builds it (separable convolutions in the pyramid and the decoder).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import segmentation_models_pytorch as smp
from pydantic import Field

from tagmask.contracts.encoder_network import EncoderNetwork
from tagmask.contracts.network import SegmentationModel
from tagmask.types import IMAGENET

Rate = Annotated[int, Field(ge=1)]


class DeepLabV3Plus(EncoderNetwork):
    """DeepLabV3+; ``weights`` as :class:`~tagmask.contracts.encoder_network.EncoderNetwork` says."""

    name: ClassVar[str] = "deeplabv3plus"

    output_stride: Literal[8, 16] = 16
    decoder_channels: Annotated[int, Field(ge=8)] = 128
    atrous_rates: tuple[Rate, Rate, Rate] = (6, 12, 18)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    def build(self, n_labels: int, *, pretrained: bool = True, classifier: Path | None = None) -> SegmentationModel:
        """The network with ``n_labels`` = C + 1 outputs; ``classifier`` is the file behind 'classifier'.

        Raises:
            UnknownNameError: no such encoder.
            InputError: weights that do not fit.
        """
        network = self.assemble(
            _make,
            n_labels,
            decoder_channels=self.decoder_channels,
            decoder_atrous_rates=self.atrous_rates,
            decoder_aspp_dropout=self.dropout,
        )
        statistics = self.load(network.encoder.model, classifier) if pretrained else IMAGENET
        return SegmentationModel(network, grid=32, statistics=statistics)

    def timm_options(self) -> dict[str, Any]:
        """The stride is timm's work."""
        return {"output_stride": self.output_stride}


def _make(output_stride: int, **options: Any) -> Any:
    return smp.DeepLabV3Plus(encoder_output_stride=output_stride, **options)
