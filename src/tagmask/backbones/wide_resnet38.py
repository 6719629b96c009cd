"""WideResNet-38, the backbone of AffinityNet and of the systems built on it; timm has no such model.

Source: Wu, Shen and van den Hengel, "Wider or Deeper: Revisiting the ResNet Model for Visual Recognition", Pattern
Recognition 2019, model A1; dilated and tapped as ``network/resnet38d.Net`` of jiwoon-ahn/psa;
docs/methods/wide-resnet38.md. Parameter names are the published ones, so that published weights fit.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagmask.backbones.stages import Stages
from tagmask.storage.state_dict import match_state_dict, read_state_dict

NAME = "wide_resnet38"
FROZEN = ("conv1a", "b2", "b2_1", "b2_2")


def _conv(inputs: int, outputs: int, size: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size but for its stride."""
    padding = dilation * (size // 2)
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding, dilation=dilation, bias=False)


class PlainUnit(nn.Module):
    """Pre-activation unit of two 3x3 convolutions; ``dilations`` are theirs."""

    def __init__(
        self, inputs: int, middle: int, outputs: int, *, stride: int = 1, dilations: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = _conv(inputs, middle, 3, stride=stride, dilation=dilations[0])
        self.bn_branch2b1 = nn.BatchNorm2d(middle)
        self.conv_branch2b1 = _conv(middle, outputs, 3, dilation=dilations[1])
        self.same = inputs == outputs and stride == 1
        if not self.same:
            self.conv_branch1 = _conv(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The unit's output, and the pre-activation at its entry."""
        entry = functional.relu(self.bn_branch2a(x))
        branch = self.conv_branch2b1(functional.relu(self.bn_branch2b1(self.conv_branch2a(entry))))
        return (x if self.same else self.conv_branch1(entry)) + branch, entry


class BottleneckUnit(nn.Module):
    """Pre-activation unit 1x1, dilated 3x3, 1x1 with dropout of whole channels."""

    def __init__(self, inputs: int, outputs: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = _conv(inputs, outputs // 4, 1)
        self.bn_branch2b1 = nn.BatchNorm2d(outputs // 4)
        self.dropout_2b1 = nn.Dropout2d(dropout)
        self.conv_branch2b1 = _conv(outputs // 4, outputs // 2, 3, dilation=dilation)
        self.bn_branch2b2 = nn.BatchNorm2d(outputs // 2)
        self.dropout_2b2 = nn.Dropout2d(dropout)
        self.conv_branch2b2 = _conv(outputs // 2, outputs, 1)
        self.conv_branch1 = _conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The unit's output, and the pre-activation at its entry."""
        entry = functional.relu(self.bn_branch2a(x))
        branch = self.dropout_2b1(functional.relu(self.bn_branch2b1(self.conv_branch2a(entry))))
        branch = self.dropout_2b2(functional.relu(self.bn_branch2b2(self.conv_branch2b1(branch))))
        return self.conv_branch1(entry) + self.conv_branch2b2(branch), entry


class WideResNet38(nn.Module):
    """Three stages of stride 8: conv4 and conv5, the pre-activations at the entry of b5 and b6, and conv6, the end.

    Batch norms keep their published statistics and weights in every mode. They, the first convolution and the
    first residual stage get no gradient.

    Args:
        width: channels of the first convolution; 64 is the published network.
        dropout: probability by which channels of conv6 are dropped in training, as before the published classifier.
    """

    def __init__(self, width: int = 64, dropout: float = 0.5) -> None:
        super().__init__()
        w = width
        self.conv1a = _conv(3, w, 3)
        for name, inputs, outputs, repeats in (("b2", w, 2 * w, 2), ("b3", 2 * w, 4 * w, 2), ("b4", 4 * w, 8 * w, 5)):
            self.add_module(name, PlainUnit(inputs, outputs, outputs, stride=2))
            for i in range(1, repeats + 1):
                self.add_module(f"{name}_{i}", PlainUnit(outputs, outputs, outputs))
        self.b5 = PlainUnit(8 * w, 8 * w, 16 * w, dilations=(1, 2))
        self.b5_1 = PlainUnit(16 * w, 8 * w, 16 * w, dilations=(2, 2))
        self.b5_2 = PlainUnit(16 * w, 8 * w, 16 * w, dilations=(2, 2))
        self.b6 = BottleneckUnit(16 * w, 32 * w, dilation=4, dropout=0.3)
        self.b7 = BottleneckUnit(32 * w, 64 * w, dilation=4, dropout=0.5)
        self.bn7 = nn.BatchNorm2d(64 * w)
        self.dropout7 = nn.Dropout2d(dropout)
        self.feature_info = Stages([8 * w, 16 * w, 64 * w])
        self.freeze()

    def freeze(self) -> None:
        """Take the gradient from what is never trained."""
        norms = (module for module in self.modules() if isinstance(module, nn.BatchNorm2d))
        for module in (*(self.get_submodule(name) for name in FROZEN), *norms):
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, H, W] -> [conv4, conv5, conv6], each [B, D, ceil(H / 8), ceil(W / 8)]."""
        x, taps = images, []
        for name, module in self.named_children():
            if name == "conv1a":
                x = module(x)
            elif name.startswith("b") and name != "bn7":
                x, entry = module(x)
                # The pre-activation at the entry, not the unit's output: AffinityNet's taps are these.
                if name in ("b5", "b6"):
                    taps.append(entry)
        return [*taps, self.dropout7(functional.relu(self.bn7(x)))]

    def train(self, mode: bool = True) -> WideResNet38:
        """Training mode for dropout alone; batch norms stay as they are."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def build_wide_resnet38(weights: Path | None, *, width: int = 64, dropout: float = 0.5) -> WideResNet38:
    """The network with weights of a local file, or random ones.

    Args:
        weights: safetensors, or a state dict saved by torch; the published names, further tensors (a classifier's)
            are left aside.
        width: of :class:`WideResNet38`.
        dropout: of :class:`WideResNet38`.

    Raises:
        InputError: the file cannot be read, or does not hold this network.
    """
    if weights is None:
        return WideResNet38(width, dropout)
    with torch.device("meta"):  # random values would only be overwritten
        model = WideResNet38(width, dropout)
    stored = read_state_dict(weights, remedy=f"Set classify.weights to a local file of {NAME}, or to null.")
    tensors = match_state_dict(stored, model.state_dict(), weights, NAME)
    model.load_state_dict(tensors, assign=True)
    model.freeze()
    return model
