"""U-Net with any timm encoder that has feature maps of several sizes.

Source: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015, as
segmentation-models-pytorch builds it: nearest enlargement by two, the encoder's features of that size beside it, two
3x3 convolutions with batch norm and ReLU; up to the image's own size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

import segmentation_models_pytorch as smp
from pydantic import Field

from tagmask.contracts.encoder_network import EncoderNetwork
from tagmask.contracts.network import SegmentationModel
from tagmask.types import IMAGENET

Channels = Annotated[int, Field(ge=8)]


class UNet(EncoderNetwork):
    """U-Net; ``weights`` as :class:`~tagmask.contracts.encoder_network.EncoderNetwork` says.

    ``decoder_channels`` are those of the steps from stride 16 to 1.
    """

    name: ClassVar[str] = "unet"

    decoder_channels: tuple[Channels, Channels, Channels, Channels, Channels] = (256, 128, 64, 32, 16)

    def build(self, n_labels: int, *, pretrained: bool = True, classifier: Path | None = None) -> SegmentationModel:
        """The network with ``n_labels`` = C + 1 outputs; ``classifier`` is the file behind 'classifier'.

        Raises:
            UnknownNameError: no such encoder.
            InputError: it takes one image size only, or weights that do not fit.
        """
        network = self.assemble(smp.Unet, n_labels, decoder_channels=self.decoder_channels)
        self.try_any_size(network.encoder)
        statistics = self.load(network.encoder.model, classifier) if pretrained else IMAGENET
        return SegmentationModel(network, grid=32, statistics=statistics)
