"""The classifier: a backbone and a head, behind the contract that every localizer reads."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from tagmask.backbones.build import Backbone, build_backbone, keep_statistics
from tagmask.backbones.channels import set_input
from tagmask.contracts.head import HeadModule
from tagmask.settings.classify import ClassifySettings
from tagmask.storage.weights import load_weights, read_description, stored_statistics
from tagmask.types import ClassifierOutput, ClassList, InputStatistics


class Classifier(nn.Module):
    """Images [B, 3, H, W], normalised -> ClassifierOutput."""

    def __init__(
        self,
        backbone: Backbone,
        head: HeadModule,
        *,
        neck: nn.Module | None = None,
        frozen_stages: int = 0,
        batch_norm: str = "eval",
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.batch_norm = batch_norm
        for parameter in backbone.parameters_up_to(frozen_stages):
            parameter.requires_grad_(False)

    @property
    def input_statistics(self) -> InputStatistics:
        """What its images are normalised with: the backbone's."""
        return self.backbone.input_statistics

    @property
    def class_weights(self) -> Tensor:
        """Classifier weights [C, D]."""
        weights: Tensor = self.head.class_weights
        return weights

    @property
    def class_bias(self) -> Tensor | None:
        """The classifier's biases [C], None if it has none; part of its class maps, not of activation maps."""
        return self.head.class_bias

    def forward(self, images: Tensor, tags: Tensor | None = None) -> ClassifierOutput:
        """One pass; see :class:`tagmask.types.ClassifierOutput`. ``tags`` (multi-hot [B, C]) come in training only."""
        taps = self.backbone(images)
        features = taps[self.backbone.n_stages]
        if self.neck is not None:
            features = self.neck(features)
        logits, extras = self.head(features, tags)
        return ClassifierOutput(features=features, feature_taps=taps, logits=logits, extras=extras)

    def train(self, mode: bool = True) -> Classifier:
        """Training mode, but batch norm keeps its running statistics unless asked otherwise."""
        super().train(mode)
        # As published: the statistics of a few crops of one data set would take the place of ImageNet's.
        if mode and self.batch_norm == "eval":
            keep_statistics(self)
        return self


def build_classifier(settings: ClassifySettings, n_classes: int, *, pretrained: bool = True) -> Classifier:
    """The classifier of a recipe; ``pretrained=False`` skips the weights (they are about to be loaded)."""
    backbone = build_backbone(
        settings.backbone,
        args=settings.backbone_args,
        weights=settings.weights if pretrained else None,
        output_stride=settings.output_stride,
        dilate=settings.dilate,
        final_conv=settings.final_conv,
    )
    neck = settings.neck.build(backbone.channels[-1]) if settings.neck else None
    head = settings.head.build(neck.channels if neck else backbone.channels[-1], n_classes)
    return Classifier(backbone, head, neck=neck, frozen_stages=settings.freeze, batch_norm=settings.batch_norm)


def load_classifier(path: Path, settings: ClassifySettings, classes: ClassList) -> Classifier:
    """A trained classifier in eval mode."""
    model = build_classifier(settings, len(classes.foreground), pretrained=False)
    set_input(model.backbone, stored_statistics(read_description(path), path))
    load_weights(path, model)
    return model.eval()
