"""Small checkpoints in the layouts in which classifiers are published, named as the published networks name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from tagmask.backbones.wide_resnet38 import WideResNet38

WIDTH = 2  # of WideResNet-38, whose last features then have 128 channels
CHANNELS = [8, 16, 24, 32]  # of the ResNet's stages


def stir(model: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms that are not the identity, so that a statistic that is not loaded shows."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
            ):
                assert isinstance(values, Tensor)
                values.copy_(low + (high - low) * torch.rand(values.shape, generator=generator))
    return model


def affinitynet(n_classes: int, clusters: int | None = None) -> dict[str, Tensor]:
    """The state dict of PSA's ``resnet38_cls.Net``; with clusters of SC-CAM's, whose classifiers are called by 20."""
    torch.manual_seed(1)
    tensors = dict(stir(WideResNet38(WIDTH)).state_dict())
    rows = torch.randn(n_classes, 64 * WIDTH, 1, 1)
    if clusters is None:
        return {**tensors, "fc8.weight": rows}
    fine = torch.randn(n_classes * clusters, 64 * WIDTH, 1, 1)
    return {**tensors, "fc8_20.weight": rows, "fc8_200.weight": fine}


class IrnNet(nn.Module):
    """IRNet's and ReCAM's ``resnet50_cam.Net`` with a smaller ResNet: each module stands under several names."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        torch.manual_seed(2)
        resnet: Any = stir(timm.create_model("resnet18", channels=CHANNELS, output_stride=16, num_classes=0))
        self.resnet50 = resnet
        self.stage1 = nn.Sequential(resnet.conv1, resnet.bn1, resnet.act1, resnet.maxpool, resnet.layer1)
        self.stage2 = nn.Sequential(resnet.layer2)
        self.stage3 = nn.Sequential(resnet.layer3)
        self.stage4 = nn.Sequential(resnet.layer4)
        self.classifier = nn.Conv2d(CHANNELS[-1], n_classes, 1, bias=False)
        self.backbone = nn.ModuleList([self.stage1, self.stage2, self.stage3, self.stage4])
        self.newly_added = nn.ModuleList([self.classifier])

    def forward(self, images: Tensor) -> Tensor:
        """Class maps [B, C, h, w] before any pooling."""
        features = images
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            features = stage(features)
        maps: Tensor = self.classifier(features)
        return maps


def save(path: Path, tensors: dict[str, Tensor]) -> Path:
    """As training scripts do."""
    torch.save(tensors, path)
    return path
