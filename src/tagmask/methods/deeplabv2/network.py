"""DeepLabV2 on a dilated ResNet, at several scales.

Source: Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully
Connected CRFs", TPAMI 2018, as kazuto1011/deeplab-pytorch builds and trains it (docs/methods/deeplabv2.md). Parameter
names are the published code's, so that its weights fit.

Deviations: ``layout: torchvision`` puts the stride into the 3x3 convolution and takes RGB, as ImageNet weights of
torchvision and timm need it; the published layout is ``caffe``.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from tagmask.backbones.build import classifier_backbone, create_timm, not_the_backbone
from tagmask.backbones.channels import widen_input
from tagmask.backbones.installed import no_package
from tagmask.backbones.statistics import classifier_statistics, statistics_of
from tagmask.contracts.encoder_network import Weights
from tagmask.contracts.network import Coarse, Network, SegmentationModel
from tagmask.errors import InputError
from tagmask.storage.state_dict import match_state_dict, read_state_dict
from tagmask.types import IMAGENET, InputStatistics

Layout = Literal["caffe", "torchvision"]
Rate = Annotated[int, Field(ge=1)]
BLOCKS = {14: (1, 1, 1, 1), 26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
CAFFE_MEAN = (104.008, 116.669, 122.675)  # blue, green, red of 0..255


class _Conv(nn.Sequential):
    """Convolution without bias, batch norm, perhaps ReLU; keeps the size but for its stride."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, dilation: int = 1, relu: bool = True):
        padding = dilation * (size // 2)
        conv = nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding, dilation=dilation, bias=False)
        layers: list[tuple[str, nn.Module]] = [("conv", conv), ("bn", nn.BatchNorm2d(outputs, eps=1e-5))]
        super().__init__(OrderedDict([*layers, ("relu", nn.ReLU(inplace=True))] if relu else layers))


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut; in Caffe's layout the first convolution has the stride."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, dilation: int, first: bool, caffe: bool) -> None:
        super().__init__()
        middle = outputs // 4
        self.reduce = _Conv(inputs, middle, 1, stride=stride if caffe else 1)
        self.conv3x3 = _Conv(middle, middle, 3, stride=1 if caffe else stride, dilation=dilation)
        self.increase = _Conv(middle, outputs, 1, relu=False)
        self.shortcut = _Conv(inputs, outputs, 1, stride=stride, relu=False) if first else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.increase(self.conv3x3(self.reduce(x)))
        return functional.relu(changed + self.shortcut(x))


def _stage(inputs: int, outputs: int, n: int, *, stride: int, dilation: int, caffe: bool) -> nn.Sequential:
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, n + 1):
        first = number == 1
        blocks[f"block{number}"] = _Bottleneck(
            inputs if first else outputs,
            outputs,
            stride=stride if first else 1,
            dilation=dilation,
            first=first,
            caffe=caffe,
        )
    return nn.Sequential(blocks)


class _Pyramid(nn.Module):
    """Atrous spatial pyramid of DeepLabV2: the sum of dilated convolutions that classify."""

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        for number, rate in enumerate(rates):
            conv = nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate)
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            self.add_module(f"c{number}", conv)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = [branch(x) for branch in self.children()]
        total: Tensor = sum(others, first)
        return total


class DeepLabV2Network(nn.Sequential):
    """One scale: images in the layout's own colours [B, 3, H, W] -> logits [B, C + 1, ceil(H/8), ceil(W/8)] or so."""

    def __init__(
        self,
        n_labels: int,
        *,
        blocks: tuple[int, int, int, int] = (3, 4, 23, 3),
        rates: tuple[int, ...] = (6, 12, 18, 24),
        layout: Layout = "caffe",
        width: int = 64,
    ) -> None:
        # Which convolution has the stride makes two networks of the same tensors: weights of one load into the other
        # without an error and give nonsense, hence a layout that must be named.
        caffe, w = layout == "caffe", width
        stem = OrderedDict(
            conv1=_Conv(3, w, 7, stride=2), pool=nn.MaxPool2d(kernel_size=3, stride=2, padding=1, ceil_mode=True)
        )
        super().__init__(
            OrderedDict(
                layer1=nn.Sequential(stem),
                layer2=_stage(w, 4 * w, blocks[0], stride=1, dilation=1, caffe=caffe),
                layer3=_stage(4 * w, 8 * w, blocks[1], stride=2, dilation=1, caffe=caffe),
                layer4=_stage(8 * w, 16 * w, blocks[2], stride=1, dilation=2, caffe=caffe),
                layer5=_stage(16 * w, 32 * w, blocks[3], stride=1, dilation=4, caffe=caffe),
                aspp=_Pyramid(32 * w, n_labels, rates),
            )
        )

    @property
    def encoder(self) -> nn.Sequential:
        """The same modules without the pyramid."""
        return nn.Sequential(OrderedDict(list(self.named_children())[:-1]))


class MultiScale(nn.Module):
    """The highest logit over the image and smaller copies of it.

    Takes normalised RGB [B, 3, H, W]. In evaluation it gives logits [B, C + 1, H, W]. In training a tuple of four: of
    the image, of each copy at its own size, and the highest at the size of the image's, all 8 times smaller than
    what they are of.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, base: DeepLabV2Network, *, layout: Layout, scales: tuple[float, ...] = (0.5, 0.75), frozen: bool = True
    ) -> None:
        super().__init__()
        self.base, self.scales, self.frozen, self.bgr = base, scales, frozen, layout == "caffe"
        self.colours_only = self.bgr
        mean, std = (torch.tensor(values).flip(0) * 255 for values in (IMAGENET.mean, IMAGENET.std))
        self.register_buffer("scale", std.view(3, 1, 1), persistent=False)
        self.register_buffer("shift", (mean - torch.tensor(CAFFE_MEAN)).view(3, 1, 1), persistent=False)
        for norm in self._norms():
            norm.requires_grad_(not frozen)

    @property
    def encoder(self) -> nn.Module:
        """Everything but the pyramid."""
        return self.base.encoder

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.base.modules() if isinstance(module, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> MultiScale:
        """Training mode; frozen batch norms stay as they are."""
        super().train(mode)
        if self.frozen:
            for norm in self._norms():
                norm.eval()
        return self

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """See the class."""
        *each, highest = self._logits(images)
        if self.training:
            return (*each, highest)
        return functional.interpolate(highest, size=images.shape[-2:], mode="bilinear", align_corners=False)

    def coarse(self, images: Tensor) -> Coarse:
        """The highest logits of evaluation, 8 times smaller than the images."""
        return Coarse(self._logits(images)[-1], (images.shape[-2], images.shape[-1]), align_corners=False)

    def _logits(self, images: Tensor) -> tuple[Tensor, ...]:
        # From normalised RGB back to bytes, then to Caffe's blue, green, red minus its mean: no other code here needs
        # to know.
        x = images.flip(1) * self.scale + self.shift if self.bgr else images
        logits: Tensor = self.base(x)
        others = [self.base(_smaller(x, scale)) for scale in self.scales]
        highest = logits
        for other in others:
            # Logits are compared, not images enlarged: the copies see more context, and the maximum takes whichever is
            # surer.
            resized = functional.interpolate(other, size=logits.shape[-2:], mode="bilinear", align_corners=False)
            highest = torch.maximum(highest, resized)
        return (logits, *others, highest)


def _smaller(images: Tensor, scale: float) -> Tensor:
    # By factor and not by size, as published: the centres of pixels then lie a little elsewhere than a size rounded to
    # whole pixels has them.
    if min(images.shape[-2:]) * scale >= 1:
        return functional.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
    size = [max(1, int(side * scale)) for side in images.shape[-2:]]  # of a side of 1 nothing would be left
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=False)


class DeepLabV2(Network):
    """DeepLabV2 on ResNet-101 (``depth``: 14, 26 or 50 for less), maximum over the scales 1, 0.5 and 0.75.

    ``weights``: a local file with the published names (``layout: caffe``) or with torchvision's (``layout:
    torchvision``), safetensors or a state dict saved by torch; 'timm' (torchvision's ImageNet weights); 'classifier'
    (the run's tag classifier, if it is a ResNet of this depth); null. The pyramid always starts afresh.
    """

    name: ClassVar[str] = "deeplabv2"

    depth: Literal[14, 26, 50, 101] = 101
    layout: Layout = "torchvision"
    weights: Weights = None
    scales: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.75)
    atrous_rates: tuple[Rate, ...] = Field((6, 12, 18, 24), min_length=1)
    frozen_norms: bool = True
    width: Annotated[int, Field(ge=4)] = 64

    @model_validator(mode="after")
    def _weights_fit_the_layout(self) -> DeepLabV2:
        if self.layout == "caffe" and isinstance(self.weights, str):
            msg = f"weights: {self.weights} are made for layout: torchvision; Caffe's layout takes a local file"
            raise ValueError(msg)
        return self

    @property
    def starts_from_classifier(self) -> bool:
        """See :class:`Network`."""
        return self.weights == "classifier"

    @property
    def published_weights(self) -> str | None:
        """See :class:`Network`."""
        return f"resnet{self.depth}.tv_in1k" if self.weights == "timm" else None

    def build(self, n_labels: int, *, pretrained: bool = True, classifier: Path | None = None) -> SegmentationModel:
        """The network with ``n_labels`` = C + 1 outputs; ``classifier`` is the file behind 'classifier'.

        Raises:
            InputError: weights that do not fit.
        """
        base = DeepLabV2Network(
            n_labels, blocks=BLOCKS[self.depth], rates=self.atrous_rates, layout=self.layout, width=self.width
        )
        statistics = IMAGENET
        if pretrained and self.weights is not None:
            self._load(base.encoder, classifier)
            statistics = self._statistics(classifier)
        network = MultiScale(base, layout=self.layout, scales=self.scales, frozen=self.frozen_norms)
        return SegmentationModel(network, grid=1, output_weights=(1.0,) * (2 + len(self.scales)), statistics=statistics)

    def _load(self, encoder: nn.Module, classifier: Path | None) -> None:
        if self.weights == "classifier" and classifier is not None and classifier.exists():
            widen_input(encoder, 3, len(classifier_statistics(classifier).mean))
        encoder_state, name = encoder.state_dict(), f"ResNet-{self.depth}"
        if self.weights == "classifier":
            try:
                state = match_state_dict(
                    published_names(classifier_backbone(classifier)), encoder_state, Path(""), name
                )
            except InputError as error:
                if classifier is None or not classifier.exists():
                    raise
                raise not_the_backbone(name, "depth and layout") from error
        elif self.weights == "installed":
            raise no_package(f"resnet{self.depth}", "segment.network.weights")
        elif self.weights == "timm":
            model = create_timm(f"resnet{self.depth}.tv_in1k", {"pretrained": True}, setting="segment.network.depth")
            state = match_state_dict(published_names(model.state_dict()), encoder_state, Path("timm"), name)
        else:
            assert isinstance(self.weights, Path)
            state = self._read(self.weights, encoder_state, name)
        encoder.load_state_dict(state)

    def _statistics(self, classifier: Path | None) -> InputStatistics:
        """What the images of the weights are normalised with; Caffe's layout starts from ImageNet's, see MultiScale."""
        if self.layout == "caffe":
            return IMAGENET
        if self.weights == "classifier" and classifier is not None:
            return classifier_statistics(classifier)
        return statistics_of(f"resnet{self.depth}.tv_in1k", self.weights, setting="segment.network.weights")

    def _read(self, path: Path, encoder_state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
        state = read_state_dict(path, remedy="Set segment.network.weights to a local file, or to null.")
        # Prefixes that the published code's wrappers put before every name.
        state = {re.sub(r"^(module\.|base\.|scale\.)+", "", key): value for key, value in state.items()}
        layout: Layout = "torchvision" if "layer1.0.conv1.weight" in state else "caffe"
        if layout != self.layout:
            msg = f"{path}: its names are those of layout: {layout}; set segment.network.layout to it"
            raise InputError(msg)
        return match_state_dict(published_names(state) if layout == "torchvision" else state, encoder_state, path, name)


def published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's names of a bottleneck ResNet as the published DeepLabV2's; others stay as they are."""
    parts = {"conv1": "reduce.conv", "bn1": "reduce.bn", "conv2": "conv3x3.conv", "bn2": "conv3x3.bn",
             "conv3": "increase.conv", "bn3": "increase.bn", "downsample.0": "shortcut.conv",
             "downsample.1": "shortcut.bn"}  # fmt: skip
    renamed = {}
    for key, value in state.items():
        stem = re.fullmatch(r"(conv1|bn1)\.(.+)", key)
        block = re.fullmatch(r"layer(\d)\.(\d+)\.(downsample\.\d|[a-z]+\d)\.(.+)", key)
        if stem:
            renamed[f"layer1.conv1.{'conv' if stem[1] == 'conv1' else 'bn'}.{stem[2]}"] = value
        elif block and block[3] in parts:
            renamed[f"layer{int(block[1]) + 1}.block{int(block[2]) + 1}.{parts[block[3]]}.{block[4]}"] = value
        else:
            renamed[key] = value
    return renamed
