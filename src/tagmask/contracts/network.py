"""What every segmentation network is to the rest: any image size in, logits of that size out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

from segmentation_models_pytorch.base import SegmentationModel as SmpModel
from torch import Tensor, nn
from torch.nn import functional

from tagmask.ops.narrow import full_precision_if_narrow
from tagmask.registry.field import MethodOf
from tagmask.registry.method import Method
from tagmask.types import IMAGENET, InputStatistics


class Coarse(NamedTuple):
    """Logits [B, C + 1, h, w] before a network's last step, a bilinear enlargement to ``size`` = (H', W')."""

    logits: Tensor
    size: tuple[int, int]
    align_corners: bool


@runtime_checkable
class GivesCoarse(Protocol):
    """A network whose last step in evaluation is an enlargement that it can leave out."""

    def coarse(self, images: Tensor) -> Coarse | None:
        """Normalised images [B, 3, H', W'] -> what would be enlarged; None: nothing is."""
        ...


def smp_coarse(network: Any, padded: Tensor) -> Coarse | None:
    """What the head of a network of segmentation-models-pytorch enlarges, bilinearly, by its last module.

    Args:
        network: has ``encoder``, ``decoder`` and ``segmentation_head``.
        padded: normalised images [B, 3, H', W'] of a size that it takes.
    """
    head, last = network.segmentation_head, network.segmentation_head[1]
    if not isinstance(last, nn.Upsample) or last.mode != "bilinear":
        return None
    logits = head[0](network.decoder(network.encoder(padded)))
    return Coarse(logits, (padded.shape[-2], padded.shape[-1]), bool(last.align_corners))


class SegmentationModel(nn.Module):
    """Pads to the network's grid with the mean colour, crops the logits back.

    In training a network may give several outputs, each with its weight in the loss (``output_weights``). A network
    with ``grid`` 1 is not padded, and its outputs may have sizes of their own; in evaluation they are one, of the
    image's size.

    Args:
        network: normalised images [B, 3, H, W] -> logits [B, C + 1, H, W], or in training a tuple of logits; has an
            attribute ``encoder``, its pretrained part, and is perhaps a :class:`GivesCoarse`.
        grid: sides of what the network takes are multiples of this.
        output_weights: one factor for each output in training.
        statistics: what images are normalised with, kept as ``input_statistics``; who loads stored weights sets those
            stored with them.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        grid: int,
        output_weights: Sequence[float] = (1.0,),
        statistics: InputStatistics = IMAGENET,
    ) -> None:
        super().__init__()
        self.network, self.grid, self.output_weights = network, grid, tuple(output_weights)
        self.input_statistics = statistics

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Normalised images [B, 3, H, W] -> logits [B, C + 1, H, W]; in training perhaps a tuple of several."""
        height, width = images.shape[-2:]
        padded, precision = full_precision_if_narrow(self._padded(images))
        with precision:
            outputs: Tensor | tuple[Tensor, ...] = self.network(padded)
        if self.grid == 1:
            return outputs
        if isinstance(outputs, Tensor):
            return outputs[..., :height, :width]
        return tuple(logits[..., :height, :width] for logits in outputs)

    def coarse(self, images: Tensor) -> Coarse | None:
        """What :meth:`forward` enlarges and cuts to the upper left [H, W] in evaluation; None: no network that does.

        For who needs labels only, or the enlargement in another precision.
        """
        padded, precision = full_precision_if_narrow(self._padded(images))
        with precision:
            if isinstance(self.network, GivesCoarse):
                return self.network.coarse(padded)
            return smp_coarse(self.network, padded) if isinstance(self.network, SmpModel) else None

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


class Network(Method):
    """Settings of a segmentation network."""

    @property
    def starts_from_classifier(self) -> bool:
        """Whether :meth:`build` takes weights of the run's tag classifier, which must then be trained first."""
        return False

    @property
    def published_weights(self) -> str | None:
        """timm's name of the network whose published weights :meth:`build` downloads where they are not yet."""
        return None

    @abstractmethod
    def build(self, n_labels: int, *, classifier: Path | None = None, pretrained: bool = True) -> SegmentationModel:
        """The network.

        Args:
            n_labels: C + 1, the background among them.
            classifier: file of the run's tag classifier, for a network that starts from it.
            pretrained: False skips its first weights (they are about to be loaded).

        Raises:
            InputError: it cannot be built like this, or weights do not fit.
        """


NetworkField = Annotated[Network, MethodOf("network")]
