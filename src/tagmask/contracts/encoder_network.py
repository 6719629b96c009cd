"""What the networks with a timm encoder share: its settings, and where its first weights come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from pydantic import Field
from torch import nn

from tagmask.backbones.build import check_weights, classifier_backbone, create_timm, not_the_backbone
from tagmask.backbones.channels import widen_input
from tagmask.backbones.installed import load_installed
from tagmask.backbones.statistics import classifier_statistics, statistics_of
from tagmask.contracts.network import Network
from tagmask.errors import InputError, UnknownNameError
from tagmask.types import InputStatistics

Weights = Path | Literal["timm", "installed", "classifier"] | None
_REFUSALS = (TypeError, ValueError, AssertionError, RuntimeError, AttributeError, NotImplementedError, IndexError)


class EncoderNetwork(Network):
    """A network of segmentation-models-pytorch on any timm encoder.

    ``weights``: a file of the full timm model (safetensors, or a state dict saved by torch), 'timm', 'installed' (of a
    package, see :mod:`tagmask.backbones.installed`), 'classifier' (start from the run's tag classifier; ``encoder`` and
    ``encoder_args`` must then be its backbone), or null.
    """

    encoder: str = "resnet10t"
    encoder_args: dict[str, Any] = Field(default_factory=dict)
    weights: Weights = None

    @property
    def starts_from_classifier(self) -> bool:
        """See :class:`Network`."""
        return self.weights == "classifier"

    @property
    def published_weights(self) -> str | None:
        """See :class:`Network`."""
        return self.encoder if self.weights == "timm" else None

    def timm_options(self) -> dict[str, Any]:
        """What is passed to timm besides ``encoder_args``."""
        return {}

    def assemble(self, make: Callable[..., Any], n_labels: int, **options: Any) -> Any:
        """``make`` of segmentation-models-pytorch with this encoder, without weights.

        Raises:
            UnknownNameError: no such encoder.
            InputError: it cannot be an encoder here.
        """
        if not timm.is_model(self.encoder):
            raise UnknownNameError("encoder", self.encoder, timm.list_models(), "segment.network")
        try:
            return make(
                encoder_name=f"tu-{self.encoder}",
                encoder_weights=None,
                classes=n_labels,
                **options,
                **{**self.timm_options(), **self.encoder_args},
            )
        except _REFUSALS as error:
            raise self._refusal(error) from error

    def try_any_size(self, encoder: nn.Module) -> None:
        """Many transformers take one image size only; better known now than in the middle of a run.

        Raises:
            InputError: this one does.
        """
        was_training = encoder.training
        encoder.eval()
        try:
            with torch.inference_mode():
                # Multiples of 32, neither square nor the usual 224.
                encoder(torch.zeros(1, 3, 96, 32))
        except _REFUSALS as error:
            raise self._refusal(error) from error
        encoder.train(was_training)

    def _refusal(self, error: Exception) -> InputError:
        text = " ".join(str(error).split())[:200] or "no stages at this output stride"
        return InputError(
            f"segment.network.encoder={self.encoder} with {self.encoder_args}: cannot be an encoder here: {text}"
        )

    def load(self, encoder: nn.Module, classifier: Path | None) -> InputStatistics:
        """Fill a timm feature extractor as ``weights`` says; ``classifier`` is the file behind 'classifier'.

        Returns:
            what the images of these weights are normalised with.

        Raises:
            InputError: weights that do not fit.
        """
        if self.weights == "classifier":
            stored = classifier_backbone(classifier)
            assert classifier is not None
            statistics = classifier_statistics(classifier)
            widen_input(encoder, 3, len(statistics.mean))
            try:
                encoder.load_state_dict(stored)
            except RuntimeError as error:
                raise not_the_backbone(self.encoder, "encoder and encoder_args") from error
            return statistics
        if self.weights == "installed":
            load_installed(encoder, self.encoder, setting="segment.network.weights")
        elif self.weights is not None:
            options = {**self.timm_options(), **self.encoder_args, "features_only": True, "pretrained": True}
            if isinstance(self.weights, Path):
                check_weights(self.weights, self.encoder, {**self.timm_options(), **self.encoder_args})
                options["pretrained_cfg_overlay"] = {"file": str(self.weights)}
            encoder.load_state_dict(create_timm(self.encoder, options, setting="segment.network.encoder").state_dict())
        return statistics_of(self.encoder, self.weights, setting="segment.network.weights")
