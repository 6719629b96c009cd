"""UPerNet on Swin or any other timm encoder with feature maps of several sizes.

Source: Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018; Liu et al., "Swin Transformer",
ICCV 2021, whose segmentation code adds a fully convolutional head on the third stage in training; see
docs/methods/upernet.md. Decoder of segmentation-models-pytorch: pyramid pooling 1, 2, 3, 6 on the last stage, a
feature pyramid over all, each stage's features normalised first, as the code of Swin does.

Deviations: the pyramid's upsampling and the order of its batch norms are those of segmentation-models-pytorch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import segmentation_models_pytorch as smp
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tagmask.contracts.encoder_network import EncoderNetwork
from tagmask.contracts.network import Coarse, SegmentationModel, smp_coarse
from tagmask.types import IMAGENET


class UPerNet(EncoderNetwork):
    """UPerNet; Swin takes any image size, its windows are padded inside.

    ``auxiliary`` is the weight of the loss of the auxiliary head in training; 0 leaves the head out.
    """

    name: ClassVar[str] = "upernet"

    encoder: str = "swin_tiny_patch4_window7_224"
    decoder_channels: Annotated[int, Field(ge=8)] = 512
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    auxiliary: Annotated[float, Field(ge=0, le=1)] = 0.4
    auxiliary_channels: Annotated[int, Field(ge=8)] = 256

    def build(self, n_labels: int, *, pretrained: bool = True, classifier: Path | None = None) -> SegmentationModel:
        """The network with ``n_labels`` = C + 1 outputs; ``classifier`` is the file behind 'classifier'.

        Raises:
            UnknownNameError: no such encoder.
            InputError: it takes one image size only, or weights that do not fit.
        """
        network = self.assemble(smp.UPerNet, n_labels, decoder_channels=self.decoder_channels)
        self.try_any_size(network.encoder)
        statistics = self.load(network.encoder.model, classifier) if pretrained else IMAGENET
        third = network.encoder.out_channels[-2]
        head = _fcn(third, self.auxiliary_channels, n_labels, self.dropout) if self.auxiliary else None
        weights = (1.0, self.auxiliary) if self.auxiliary else (1.0,)
        pyramid = _Pyramid(network, self.dropout, head)
        return SegmentationModel(pyramid, grid=32, output_weights=weights, statistics=statistics)

    def timm_options(self) -> dict[str, Any]:
        """Swin must be told that it may see more than one size."""
        return {"strict_img_size": False} if self.encoder.startswith("swin") else {}


def _fcn(inputs: int, channels: int, n_labels: int, dropout: float) -> nn.Module:
    """One 3x3 convolution with batch norm and ReLU, dropout, classes."""
    return nn.Sequential(
        nn.Conv2d(inputs, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Dropout2d(dropout),
        nn.Conv2d(channels, n_labels, 1),
    )


class _Pyramid(nn.Module):
    """Encoder, decoder and head of segmentation-models-pytorch, with dropout and the auxiliary head of training."""

    def __init__(self, network: Any, dropout: float, auxiliary: nn.Module | None) -> None:
        super().__init__()
        self.encoder: nn.Module = network.encoder
        self.decoder, self.segmentation_head = network.decoder, network.segmentation_head
        self.dropout, self.auxiliary = nn.Dropout2d(dropout), auxiliary

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Images [B, 3, H, W], sides multiples of 32 -> logits [B, C + 1, H, W]; in training two of them."""
        features = self.encoder(images)
        third = features[-2]  # the decoder replaces the list's items by normalised ones
        logits: Tensor = self.segmentation_head(self.dropout(self.decoder(features)))
        if not self.training or self.auxiliary is None:
            return logits
        beside = functional.interpolate(self.auxiliary(third), size=images.shape[-2:], mode="bilinear")
        return logits, beside

    def coarse(self, images: Tensor) -> Coarse | None:
        """See :class:`~tagmask.contracts.network.GivesCoarse`."""
        return smp_coarse(self, images)
