"""What every segmentation network is to the rest: any image size in, logits of that size out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from segmentation_models_pytorch.base import SegmentationHead
from torch import Tensor, nn
from torch.nn import functional


class Coarse(NamedTuple):
    """Logits [B, C + 1, h, w] before a network's last step, a bilinear enlargement to ``size`` = (H', W')."""

    logits: Tensor
    size: tuple[int, int]
    align_corners: bool


class SegmentationModel(nn.Module):
    """Pads to the network's grid with the mean colour, crops the logits back.

    In training a network may give several outputs, each with its weight in the loss (``output_weights``). A network
    with ``grid`` 1 is not padded, and its outputs may have sizes of their own; in evaluation they are one, of the
    image's size.

    Args:
        network: normalised images [B, 3, H, W] -> logits [B, C + 1, H, W], or in training a tuple of logits; has an
            attribute ``encoder``, its pretrained part, and perhaps a method ``coarse``: what :meth:`coarse` gives.
        grid: sides of what the network takes are multiples of this.
        output_weights: one factor for each output in training.
    """

    def __init__(self, network: nn.Module, *, grid: int, output_weights: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        self.network, self.grid, self.output_weights = network, grid, tuple(output_weights)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Normalised images [B, 3, H, W] -> logits [B, C + 1, H, W]; in training perhaps a tuple of several."""
        height, width = images.shape[-2:]
        outputs: Tensor | tuple[Tensor, ...] = self.network(self._padded(images))
        if self.grid == 1:
            return outputs
        if isinstance(outputs, Tensor):
            return outputs[..., :height, :width]
        return tuple(logits[..., :height, :width] for logits in outputs)

    def coarse(self, images: Tensor) -> Coarse | None:
        """What :meth:`forward` enlarges and cuts to the upper left [H, W] in evaluation; None: no network that does.

        For who needs labels only, or the enlargement in another precision.
        """
        network: Any = self.network
        if hasattr(network, "coarse"):
            found: Coarse = network.coarse(self._padded(images))
            return found
        head: Any = getattr(network, "segmentation_head", None)  # of segmentation-models-pytorch
        last = head[1] if isinstance(head, SegmentationHead) else None
        if not isinstance(last, nn.Upsample) or last.mode != "bilinear":
            return None
        padded = self._padded(images)
        logits = head[0](network.decoder(network.encoder(padded)))
        return Coarse(logits, (padded.shape[-2], padded.shape[-1]), bool(last.align_corners))

    def _padded(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        return functional.pad(images, (0, -width % self.grid, 0, -height % self.grid)) if self.grid > 1 else images

    @property
    def encoder(self) -> nn.Module:
        """The pretrained part."""
        encoder: nn.Module = self.network.encoder  # type: ignore[assignment]
        return encoder

    def undecayed(self) -> list[nn.Parameter]:
        """Parameters that never get weight decay, whatever their shape: what places a token among its neighbours."""
        marks = ("relative_position_bias_table", "pos_embed")
        return [parameter for name, parameter in self.named_parameters() if any(mark in name for mark in marks)]
