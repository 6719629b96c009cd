"""Segmentation networks of kept libraries behind one contract: any image size in, logits of that size out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import segmentation_models_pytorch as smp
import timm
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from tagmask.classify.backbones import check_weights, create_timm
from tagmask.errors import InputError, UnknownNameError
from tagmask.method import Method

Rate = Annotated[int, Field(ge=1)]


class SegmentationModel(nn.Module):
    """Pads to the network's grid with the mean colour, crops the logits back."""

    def __init__(self, network: nn.Module, *, grid: int) -> None:
        super().__init__()
        self.network, self.grid = network, grid

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> logits [B, C + 1, H, W]."""
        height, width = images.shape[-2:]
        padded = functional.pad(images, (0, -width % self.grid, 0, -height % self.grid))
        logits: Tensor = self.network(padded)
        return logits[..., :height, :width]

    @property
    def encoder(self) -> nn.Module:
        """The pretrained part."""
        encoder: nn.Module = self.network.encoder  # type: ignore[assignment]
        return encoder


class DeepLabV3Plus(Method):
    """DeepLabV3+ (Chen et al., ECCV 2018) of segmentation-models-pytorch with any timm encoder.

    ``weights``: a safetensors file of the full timm model, 'timm', 'classifier' (start from the run's tag
    classifier; ``encoder`` and ``encoder_args`` must then be its backbone), or null.
    """

    name: ClassVar[str] = "deeplabv3plus"

    encoder: str = "resnet10t"
    encoder_args: dict[str, Any] = Field(default_factory=dict)
    weights: Path | Literal["timm", "classifier"] | None = None
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
        if not timm.is_model(self.encoder):
            raise UnknownNameError("encoder", self.encoder, timm.list_models(), "segment.network")
        try:
            network = smp.DeepLabV3Plus(
                encoder_name=f"tu-{self.encoder}",
                encoder_weights=None,
                encoder_output_stride=self.output_stride,
                decoder_channels=self.decoder_channels,
                decoder_atrous_rates=self.atrous_rates,
                decoder_aspp_dropout=self.dropout,
                classes=n_labels,
                **self.encoder_args,
            )
        except (TypeError, ValueError, AssertionError, RuntimeError, AttributeError, NotImplementedError) as error:
            text = " ".join(str(error).split())[:200] or "no stages at this output stride"
            msg = f"segment.network.encoder={self.encoder} with {self.encoder_args}: cannot be an encoder here: {text}"
            raise InputError(msg) from error
        if pretrained and self.weights == "classifier":
            self._load_classifier(network.encoder.model, classifier)
        elif pretrained and self.weights is not None:
            self._load_timm(network.encoder.model)
        return SegmentationModel(network, grid=32)

    def _load_timm(self, encoder: nn.Module) -> None:
        options = {**self.encoder_args, "features_only": True, "pretrained": True, "output_stride": self.output_stride}
        if isinstance(self.weights, Path):
            check_weights(self.weights, self.encoder, self.encoder_args)
            options["pretrained_cfg_overlay"] = {"file": str(self.weights)}
        encoder.load_state_dict(create_timm(self.encoder, options, setting="segment.network.encoder").state_dict())

    def _load_classifier(self, encoder: nn.Module, path: Path | None) -> None:
        if path is None:
            msg = "segment.network.weights=classifier: there is no classifier here; name a weights file or null"
            raise InputError(msg)
        prefix = "backbone.model."
        try:
            stored = load_file(path)
        except (SafetensorError, OSError) as error:
            msg = f"{path}: not a readable classifier ({error}). Delete its folder to train it again."
            raise InputError(msg) from error
        weights = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
        try:
            encoder.load_state_dict(weights)
        except RuntimeError as error:
            msg = (
                f"segment.network.weights=classifier: '{self.encoder}' is not the classifier's backbone; "
                "set segment.network.encoder and encoder_args to classify.backbone and backbone_args"
            )
            raise InputError(msg) from error
