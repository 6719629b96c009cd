"""Training settings as published, to be named in one word: ``segment: {preset: deeplabv2-voc}``.

Sources: DeepLabV2: kazuto1011/deeplab-pytorch with the settings of AdvCAM, ReCAM and LPCAM (docs/methods/deeplabv2.md);
UPerNet: the segmentation code of Swin Transformer, as ReCAM and LPCAM use it (docs/methods/upernet.md); DeepLabV3+: how
ReCAM's Table S1 was trained is not published; crop, rates and iterations are DeepLabV2's.

Published numbers of iterations are for the training set they were published with, ``per_images`` images. On another
set they are scaled so that each image is seen as often, and with them the warm-up.

Deviations: images are resized by Pillow's bicubic, where DeepLab's code has OpenCV's bilinear; UPerNet's photometric
distortion is a jitter of brightness, contrast and saturation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tagmask.errors import UnknownNameError

#: Keys of ``augment`` that say more of the crops' sizes than ``scale`` does.
CROP_SIZES = ("scale_choices", "short_side", "most_of_one")
VOC, COCO = 10_582, 82_783  # training images of VOC 2012 with SBD, and of COCO 2014

_DEEPLAB: dict[str, Any] = {
    "batch_norm": "eval",
    "augment": {
        "kind": "scale_crop", "crop": 321, "scale": [0.5, 1.5], "scale_choices": [0.5, 0.75, 1.0, 1.25, 1.5],
        "colour_jitter": 0.0,
    },
    "optimizer": {
        "kind": "sgd", "lr": 2.5e-4, "head_lr": 2.5e-3, "weight_decay": 5e-4, "momentum": 0.9, "warmup_steps": 0,
    },
    "scales": [1.0],
    "flip": False,
}  # fmt: skip
_V2: dict[str, Any] = {
    **_DEEPLAB,
    "network": {"name": "deeplabv2", "weights": "timm"},
    "optimizer": {**_DEEPLAB["optimizer"], "bias_rate": 2.0},
    "hold": 10,
}
_V3PLUS: dict[str, Any] = {
    **_DEEPLAB,
    "network": {"name": "deeplabv3plus", "encoder": "resnet101.tv_in1k", "weights": "timm", "decoder_channels": 256},
    "batch_norm": "train",
    "batch_size": 10,
}
_UPERNET: dict[str, Any] = {
    "network": {"name": "upernet", "encoder": "swin_small_patch4_window7_224", "weights": "timm"},
    "batch_size": 16,
    "batch_norm": "train",
    "augment": {
        "kind": "scale_crop", "crop": 512, "short_side": 512, "scale": [0.5, 2.0], "most_of_one": 0.75,
        "colour_jitter": 0.4,
    },
    "optimizer": {
        "kind": "adamw", "lr": 6e-5, "head_lr": 6e-5, "weight_decay": 0.01, "warmup_steps": 1500, "power": 1.0,
    },
    "scales": [1.0],
    "short_side": 512,
    "flip": False,
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "deeplabv2-voc": {**_V2, "batch_size": 5, "accumulate": 2, "iterations": 20_000, "per_images": VOC},
    "deeplabv2-coco": {**_V2, "batch_size": 10, "iterations": 100_000, "per_images": COCO},
    "deeplabv3plus-voc": {**_V3PLUS, "iterations": 20_000, "per_images": VOC},
    "deeplabv3plus-coco": {**_V3PLUS, "iterations": 100_000, "per_images": COCO},
    "upernet-voc": {**_UPERNET, "iterations": 40_000, "per_images": VOC},
    "upernet-coco": {**_UPERNET, "iterations": 80_000, "per_images": COCO},
}


def with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the segment stage with those of their preset below them; what is written wins.

    ``epochs`` alone takes the place of the preset's iterations; ``iterations`` alone is not scaled. ``augment.scale``
    takes the place of all that the preset says of the crops' sizes, ``scales`` of its ``short_side``; so do the
    recipes that runs hold of the time before presets had these keys.

    Raises:
        UnknownNameError: no such preset.
    """
    name = values.get("preset")
    if name is None:
        return dict(values)
    if name not in PRESETS:
        raise UnknownNameError("preset", str(name), PRESETS, "segment")
    below = dict(PRESETS[name])
    if "iterations" in values or "epochs" in values:
        for key in {"iterations", "per_images"} - set(values):
            below[key] = None
    if "scale" in (values.get("augment") or {}):
        below["augment"] = {key: value for key, value in below["augment"].items() if key not in CROP_SIZES}
    if "scales" in values:
        below.pop("short_side", None)
    return _over(below, values)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings; another network does not inherit the settings of the preset's."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if key == "network" and isinstance(value, str):
            value = {"name": value}
        merged[key] = value
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            same = value.get("name", old.get("name")) == old.get("name")
            merged[key] = _over(old, value) if same else value
    return merged
