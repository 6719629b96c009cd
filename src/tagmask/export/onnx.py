"""A segmentation network as an ONNX file, and how far its logits are from torch's.

The file takes images as they are, uint8 [B, H, W, 3] in RGB (or the channels that the metadata name): normalisation and
padding are part of it. Its output are logits [B, C + 1, H, W]; the class names stand in its metadata, and so does the
network's working size. One view alone: averaging scales and mirrors, and reducing images larger than the working size,
is the caller's.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional

from tagmask.errors import InputError, RunError
from tagmask.models.tag_gate import Segmenter
from tagmask.storage.pixel_values import pixels_entry
from tagmask.types import PixelValues

NEEDED = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "images", "logits"
_OPSET = 18


@dataclass(frozen=True)
class Agreement:
    """ONNX against torch: ``largest`` difference of a logit over the checked ``sizes``, and pixels with another label.

    ``dynamic``: whether the file takes any image size, or the exported one alone.
    """

    largest: float
    other_labels: float
    sizes: tuple[tuple[int, int], ...]
    dynamic: bool


class WithNormalisation(nn.Module):
    """uint8 [B, H, W, channels] -> logits [B, C + 1, H, W] of a network, with its own normalisation before it."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(model.input_statistics.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(model.input_statistics.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        pixels = images.permute(0, 3, 1, 2).float() / 255
        logits: Tensor = self.model((pixels - self.mean) / self.std)
        return logits


def check_installed() -> None:
    """Raise InputError if what the export needs is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        msg = f"export onnx needs {', '.join(missing)}: pip install 'tagmask[onnx]'"
        raise InputError(msg)


def export_onnx(
    model: Segmenter,
    path: Path,
    *,
    classes: Sequence[str],
    size: tuple[int, int] | None = None,
    max_side: int | None = None,
    pixels: PixelValues | None = None,
) -> Agreement:
    """Write a network to one file, and hold it against torch.

    Args:
        model: images [B, 3, H, W], normalised with its ``input_statistics`` -> logits [B, C + 1, H, W]; it is put on
            the CPU, in eval mode.
        path: the .onnx file.
        classes: names, the background first.
        size: (H, W): a file for images of this size alone; None: of any size.
        max_side: the network's working size, for the metadata: images with a longer side are to be reduced to it before
            they go in. None: there is none.
        pixels: how values of more than 8 bits, and which bands, become the uint8 that go in, for the metadata.

    Raises:
        InputError: a package is not installed, or the network cannot be exported for any size (name one).
        RunError: the file's logits are not torch's.
    """
    check_installed()
    if size is None and (reason := _one_size_alone(model)):
        msg = f"this network can be exported for images of one size only ({reason}): --size 512x512"
        raise InputError(msg)
    whole = WithNormalisation(model.cpu().eval().to(memory_format=torch.contiguous_format)).eval()
    program = _program(traceable(whole), size)
    program.model.metadata_props["classes"] = json.dumps(list(classes), ensure_ascii=False)
    program.model.metadata_props["max_side"] = json.dumps(max_side)
    program.model.metadata_props["pixels"] = json.dumps(pixels_entry(pixels).get("pixels"))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        # Checked under another name: a file that stands at its path has torch's logits.
        program.save(str(temporary), external_data=False)
        agreement = compare(whole, temporary, size)
        temporary.replace(path)
    except OSError as error:
        msg = f"{path}: cannot be written ({error.strerror or error})"
        raise RunError(msg) from error
    finally:
        temporary.unlink(missing_ok=True)
    return agreement


class SamePadding(nn.Module):
    """timm's Conv2dSame (TensorFlow's 'same'), its padding written so that it can be traced for any size.

    timm's ``max((ceil(n / stride) - 1) * stride + reach - n, 0)`` nests a maximum per layer into the size of the next,
    and the export does not end in minutes; ``(-n mod stride) + reach - stride`` is the same where reach >= stride.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        sides = zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
        self.beyond = [(stride, (kernel - 1) * dilation + 1 - stride) for kernel, stride, dilation in sides]

    def forward(self, features: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, E, ceil(h / stride), ceil(w / stride)]."""
        sides: list[int] = []
        for length, (stride, more) in zip(features.shape[-2:], self.beyond, strict=True):
            total = -length % stride + more
            sides = [total // 2, total - total // 2, *sides]
        conv = self.conv
        padded = functional.pad(features, sides)
        return functional.conv2d(padded, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


def traceable(model: nn.Module) -> nn.Module:
    """A copy with :class:`SamePadding` where the original has timm's."""
    duplicate = copy.deepcopy(model)
    for parent in list(duplicate.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Conv2dSame):
                same = SamePadding(child)
                if all(more >= 0 for _, more in same.beyond):
                    setattr(parent, name, same)
    return duplicate


def _one_size_alone(model: nn.Module) -> str:
    """What in a network depends on the size in a way that ONNX cannot hold; empty if there is nothing."""
    for module in model.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in (1, (1, 1)):
            return "pooling to a grid"
        if hasattr(module, "window_size"):
            return "attention in windows"
    return ""


def _program(whole: nn.Module, size: tuple[int, int] | None) -> Any:
    height, width = size or (96, 128)
    example = torch.randint(0, 256, (2, height, width, _n_channels(whole)), dtype=torch.uint8)
    any_size = torch.export.Dim.DYNAMIC
    shape = {0: any_size} if size else {0: any_size, 1: any_size, 2: any_size}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                whole,
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={"images": shape},
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever its parts raise
        text = " ".join(str(error).split())[:200]
        msg = f"this network cannot be exported ({type(error).__name__}: {text}){_remedy(size)}"
        raise InputError(msg) from error
    assert program is not None
    return program


def _n_channels(whole: nn.Module) -> int:
    return len(whole.get_buffer("mean"))


def _remedy(size: tuple[int, int] | None) -> str:
    return "" if size else ". It may for images of one size: --size 512x512"


def compare(whole: nn.Module, path: Path, size: tuple[int, int] | None, *, tolerance: float = 1e-3) -> Agreement:
    """The file's logits on the CPU against those of the module it was made of, on noise of several sizes.

    Raises:
        InputError: the file does not run.
        RunError: a logit differs by more than ``tolerance`` times the largest one.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    sizes = (size,) if size else ((96, 128), (33, 250), (160, 97))
    largest, highest, other_labels, total = 0.0, 0.0, 0, 0
    for number, (height, width) in enumerate(sizes):
        coarse = torch.rand(1, _n_channels(whole), 5, 5, generator=torch.Generator().manual_seed(number))
        smooth = functional.interpolate(coarse, size=(height, width), mode="bilinear")
        images = (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        with torch.inference_mode():
            expected = whole(images)
        try:
            logits = torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
        except Exception as error:  # onnxruntime's errors have no common class
            text = " ".join(str(error).split())[:200]
            msg = f"the exported network does not run on images of {height}x{width} ({text}){_remedy(size)}"
            raise InputError(msg) from error
        largest = max(largest, float((logits - expected).abs().max()))
        highest = max(highest, float(expected.abs().max()))
        other_labels += int((logits.argmax(1) != expected.argmax(1)).sum())
        total += height * width
    if not largest <= tolerance * max(1.0, highest):
        msg = f"{path.name}: its logits differ from torch's by up to {largest:.2g}; the file is not kept"
        raise RunError(msg)
    return Agreement(largest, other_labels / total, sizes, dynamic=size is None)
