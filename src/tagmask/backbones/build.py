"""Backbones: any timm model with ``features_only``, at a chosen output stride, and a few of our own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import swin_transformer
from torch import Tensor, nn

from tagmask.backbones import inception_v3, vgg16, wide_resnet38
from tagmask.backbones.channels import set_input
from tagmask.backbones.installed import load_installed
from tagmask.backbones.published import published_copy
from tagmask.backbones.statistics import statistics_of
from tagmask.errors import InputError, UnknownNameError
from tagmask.ops.narrow import full_precision_if_narrow
from tagmask.storage.state_dict import match_state_dict, read_state_dict
from tagmask.storage.weights import read_description, stored_statistics
from tagmask.types import IMAGENET, InputStatistics


def build_backbone(
    name: str,
    *,
    args: dict[str, Any] | None = None,
    weights: Path | str | None = None,
    output_stride: int = 16,
    dilate: bool = True,
    final_conv: bool = False,
) -> Backbone:
    """Create a feature extractor.

    Args:
        name: timm architecture, 'wide_resnet38', 'vgg16_wsol' or 'inception_v3_wsol'.
        args: further arguments of its constructor.
        weights: a safetensors file of the full timm model, 'timm' for its published weights, 'installed' for those of
            a package, None for random. The three that are not timm's take a state dict saved by torch too.
        output_stride: stride of the last feature map.
        dilate: whether removed strides are made up for by dilation. False is IRNet's ResNet-50 (docs/methods/cam.md).
        final_conv: end in what the model itself pools (MobileNet's and EfficientNet's last 1x1 convolution
            included) instead of the last stage's output.

    Raises:
        UnknownNameError: timm has no such model.
        InputError: the weights do not fit, or the model cannot do this.
    """
    statistics = statistics_of(name, weights, setting="classify.weights")
    if name == wide_resnet38.NAME:
        model = _wide_resnet38(dict(args or {}), weights, output_stride, dilate=dilate, final_conv=final_conv)
        return Backbone(model, statistics=statistics)
    if name in _UNDILATED:
        model = _undilated(name, dict(args or {}), weights, output_stride, dilate=dilate, final_conv=final_conv)
        return Backbone(model, statistics=IMAGENET if name == inception_v3.NAME else statistics)
    if not timm.is_model(name):
        raise UnknownNameError("backbone", name, [*timm.list_models(), wide_resnet38.NAME, *_UNDILATED])
    options: dict[str, Any] = dict(args or {})
    if isinstance(weights, Path):
        check_weights(weights, name, options)
        options.update(pretrained=True, pretrained_cfg_overlay={"file": str(weights)})
    else:
        options.update(pretrained=weights == "timm")
    if output_stride != 32:
        options["output_stride"] = output_stride
    # ``features_only`` ends at the last stage; the final 1x1 convolution of MobileNets belongs to the head for timm.
    options.update({"num_classes": 0} if final_conv else {"features_only": True})
    model = create_timm(name, options, setting="classify.backbone")
    if final_conv and not hasattr(model, "forward_intermediates"):
        msg = f"classify.backbone={name}: timm gives no stages with its final convolution; set final_conv: false"
        raise InputError(msg)
    if weights == "installed":
        load_installed(model, name, setting="classify.weights")
    if not dilate:
        _remove_dilation(model)
    backbone = Backbone(model, final_conv=final_conv, statistics=statistics)
    _try_any_size(backbone, name)
    return backbone


def _wide_resnet38(
    args: dict[str, Any], weights: Path | str | None, output_stride: int, *, dilate: bool, final_conv: bool
) -> nn.Module:
    """WideResNet-38, which is made for one stride and one dilation."""
    name = wide_resnet38.NAME
    for wrong, remedy in (
        (output_stride != 8, "its stride is 8 (set output_stride: 8)"),
        (not dilate, "its dilation is part of it (set dilate: true)"),
        (final_conv, "it has no other end (set final_conv: false)"),
        (isinstance(weights, str), "timm has no weights of it (set weights to a local file, or to null)"),
    ):
        if wrong:
            msg = f"classify.backbone={name}: {remedy}"
            raise InputError(msg)
    unknown = sorted(set(args) - {"width", "dropout"})
    if unknown:
        msg = f"classify.backbone_args: {name} has width and dropout, not {', '.join(unknown)}"
        raise InputError(msg)
    return wide_resnet38.build_wide_resnet38(weights if isinstance(weights, Path) else None, **args)


#: Networks of object localisation, and timm's name of the network whose weights they take.
_UNDILATED: dict[str, tuple[Callable[..., nn.Module], str]] = {
    vgg16.NAME: (vgg16.Vgg16, "vgg16"),
    inception_v3.NAME: (inception_v3.InceptionV3, "inception_v3.tv_in1k"),
}


def _undilated(
    name: str,
    args: dict[str, Any],
    weights: Path | str | None,
    output_stride: int,
    *,
    dilate: bool,
    final_conv: bool,
) -> nn.Module:
    """VGG16 or InceptionV3 with pools or strides left out and nothing in their place."""
    build, twin = _UNDILATED[name]
    for wrong, remedy in (
        (output_stride == 32, "its stride is 16, or 8 with a pool less (set output_stride)"),
        (dilate, "what it leaves out is not made up for by dilation (set dilate: false)"),
        (final_conv, "it has no other end (set final_conv: false)"),
    ):
        if wrong:
            msg = f"classify.backbone={name}: {remedy}"
            raise InputError(msg)
    try:
        model = build(output_stride, **args)
    except TypeError as error:
        msg = f"classify.backbone_args: {' '.join(str(error).split())} ({name})"
        raise InputError(msg) from error
    if isinstance(weights, Path):
        stored = read_state_dict(weights, remedy=f"Set classify.weights to a local file of {name}, or to null.")
        model.load_state_dict(match_state_dict(stored, model.state_dict(), weights, name), assign=True)
    elif weights == "timm":
        full = create_timm(twin, {"pretrained": True, "num_classes": 0}, setting="classify.backbone")
        tensors = match_state_dict(full.state_dict(), model.state_dict(), Path(f"timm's {twin}"), name)
        model.load_state_dict(tensors, assign=True)
    return model


def _try_any_size(backbone: Backbone, name: str) -> None:
    """Many transformers take one image size only; better known now than in the middle of a run."""
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.inference_mode():
            # No multiple of anything, and not square.
            backbone(torch.zeros(1, 3, 67, 45))
    except (AssertionError, RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        msg = (
            f"classify.backbone={name}: does not take images of any size ({text}). A vision transformer may with "
            "backbone_args: {dynamic_img_size: true, dynamic_img_pad: true}"
        )
        raise InputError(msg) from error
    backbone.train(was_training)


def create_timm(name: str, options: dict[str, Any], *, setting: str) -> Any:
    """timm.create_model with its failures in one line; ``setting`` is the recipe key to name.

    Raises:
        InputError: the model cannot be built like this, or its published weights cannot be had.
    """
    logging.getLogger("timm").setLevel(logging.ERROR)  # it warns of the unused classifier weights every time
    downloads = bool(options.get("pretrained")) and "pretrained_cfg_overlay" not in options
    try:
        copy = published_copy(name, setting) if downloads else None
        if copy is not None:  # asked for them itself, timm would look whether the network has newer ones
            options = {**options, "pretrained_cfg_overlay": {"file": str(copy)}}
        return timm.create_model(name, **options)
    except (TypeError, NotImplementedError, RuntimeError, AttributeError, AssertionError, OSError) as error:
        text = " ".join(str(error).split())[:200]
        if downloads:
            msg = (
                f"{setting}={name}: no published weights of it could be had ({text}). Without a network, set weights "
                "to 'installed', to a local safetensors file, or to null to start from scratch."
            )
            raise InputError(msg) from error
        remedy = ". Set output_stride: 32 to leave the model's as it is" if "output_stride" in options else ""
        msg = f"{setting}={name} with {options}: timm cannot build it like this: {text or type(error).__name__}{remedy}"
        raise InputError(msg) from error


def check_weights(path: Path, name: str, args: dict[str, Any]) -> None:
    """Say in one line why a weights file does not fit; timm's own loading is lenient with feature extractors."""
    stored = read_state_dict(path, remedy="Set classify.weights to a safetensors file, 'timm' or null.")
    with torch.device("meta"):
        full = timm.create_model(name, **{k: v for k, v in args.items() if k != "output_stride"})
    if "layers.0.downsample.reduction.weight" in stored:  # Swin's own release counts otherwise; timm translates
        stored = swin_transformer.checkpoint_filter_fn(stored, full)
    stored_shapes = {key: tuple(value.shape) for key, value in stored.items()}
    # A classifier of other classes is no reason to refuse: it is left behind.
    head: Any = full.get_classifier()  # type: ignore[operator]
    heads = {id(parameter) for parameter in head.parameters()} if isinstance(head, nn.Module) else set()
    shapes = {key: tuple(value.shape) for key, value in full.named_parameters() if id(value) not in heads}
    missing = [key for key in shapes if key not in stored_shapes]
    if missing:
        msg = f"{path}: not weights of {name}: {len(missing)} of {len(shapes)} tensors missing, such as {missing[0]}"
        raise InputError(msg)
    wrong = [key for key in shapes if stored_shapes[key] != shapes[key]]
    if wrong:
        msg = (
            f"{path}: not weights of {name}: {wrong[0]} is {stored_shapes[wrong[0]]}, the model has {shapes[wrong[0]]}"
        )
        raise InputError(msg)


def _remove_dilation(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and max(module.dilation) > 1:
            kernel = module.kernel_size
            module.dilation = (1, 1)
            # Padding goes with the dilation, or the map would grow.
            module.padding = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2)


class Backbone(nn.Module):
    """Stage features of one network; stage numbers count from 1 (stem) to ``n_stages``.

    ``input_statistics`` are what its images are normalised with; who loads stored weights sets those stored with them.
    """

    def __init__(self, model: nn.Module, *, final_conv: bool = False, statistics: InputStatistics = IMAGENET) -> None:
        super().__init__()
        self.model, self.final_conv, self.input_statistics = model, final_conv, statistics
        info: Any = model.feature_info
        self.channels: list[int] = list(info.channels()) if not final_conv else [item["num_chs"] for item in info]
        if final_conv:
            self.channels.append(int(model.num_features))  # type: ignore[arg-type]

    @property
    def n_channels(self) -> int:
        """Channels of its images."""
        return len(self.input_statistics.mean)

    @property
    def n_stages(self) -> int:
        """Number of feature maps."""
        return len(self.channels)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Normalised images [B, 3, H, W] -> {stage: features [B, D, h, w]}."""
        images, precision = full_precision_if_narrow(images)
        with precision:
            features = self._features(images)
        return {stage: _channels_first(value, self.channels[stage - 1]) for stage, value in enumerate(features, 1)}

    def _features(self, images: Tensor) -> list[Tensor]:
        if not self.final_conv:
            features: list[Tensor] = self.model(images)
            return features
        final, stages = self.model.forward_intermediates(images)  # type: ignore[operator]
        return [*stages, final]

    def parameters_up_to(self, stage: int) -> list[nn.Parameter]:
        """Parameters that the features of ``stage`` depend on: without gradient once its output is detached.

        Raises:
            InputError: there are not so many stages.
        """
        if stage == 0:
            return []
        if stage > self.n_stages:
            msg = f"classify.freeze={stage}: this backbone has {self.n_stages} stages"
            raise InputError(msg)
        probe = torch.zeros(1, self.n_channels, 64, 64)
        was_training = self.model.training
        self.model.eval()
        with torch.enable_grad():
            self.model.zero_grad(set_to_none=True)
            # Asked of autograd, as no list of names covers all of timm: what gets a gradient is what the stage depends
            # on.
            torch.autograd.backward(self._features(probe)[stage - 1].sum())
        sources = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        self.model.zero_grad(set_to_none=True)
        self.model.train(was_training)
        return sources


def keep_statistics(model: nn.Module) -> None:
    """Put every batch norm into eval mode; its affine parameters still train."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _channels_first(features: Tensor, channels: int) -> Tensor:
    """Some transformers return [B, h, w, D]; everything else here is [B, D, h, w]."""
    if features.shape[1] != channels and features.shape[-1] == channels:
        return features.permute(0, 3, 1, 2)
    return features


class BackboneSettings(BaseModel):
    """A backbone and the weights it starts from; the keys mean what they mean in ``classify``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    backbone_args: dict[str, Any] = Field(default_factory=dict)
    weights: Path | Literal["timm", "installed"] | None = None
    output_stride: Literal[8, 16, 32] = 16
    dilate: bool = True
    final_conv: bool = False

    def build(self, *, pretrained: bool = True) -> Backbone:
        """The backbone; ``pretrained=False`` skips the weights (they are about to be loaded)."""
        return build_backbone(
            self.backbone,
            args=self.backbone_args,
            weights=self.weights if pretrained else None,
            output_stride=self.output_stride,
            dilate=self.dilate,
            final_conv=self.final_conv,
        )


def take_classifier_backbone(backbone: Backbone, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put the backbone of a stored classifier (tensors ``backbone.*``), and its statistics, into ``backbone``.

    Raises:
        InputError: it is another architecture; names ``path``.
    """
    set_input(backbone, stored_statistics(read_description(path), path))
    stored = {key.removeprefix("backbone."): value for key, value in tensors.items() if key.startswith("backbone.")}
    own = backbone.state_dict()
    wrong = [key for key, value in own.items() if key not in stored or stored[key].shape != value.shape]
    if wrong or len(stored) != len(own):
        msg = (
            f"{path}: the classifier's backbone is not the one of this refiner ({(wrong or sorted(stored))[0]} does "
            "not fit); set init: weights, or backbone: null"
        )
        raise InputError(msg)
    backbone.load_state_dict(stored)


def classifier_backbone(path: Path | None) -> dict[str, Tensor]:
    """Tensors of the backbone in a tag classifier's file, by timm's names.

    Raises:
        InputError: there is no classifier, or it cannot be read.
    """
    if path is None:
        msg = "segment.network.weights=classifier: there is no classifier here; name a weights file or null"
        raise InputError(msg)
    try:
        stored = load_file(path)
    except (SafetensorError, OSError) as error:
        msg = f"{path}: not a readable classifier ({error}). Delete its folder to train it again."
        raise InputError(msg) from error
    prefix = "backbone.model."
    return {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}


def not_the_backbone(name: str, settings: str) -> InputError:
    """The error for a network that cannot start from the run's classifier."""
    return InputError(
        f"segment.network.weights=classifier: '{name}' is not the classifier's backbone; "
        f"set segment.network.{settings} to classify.backbone and backbone_args"
    )
