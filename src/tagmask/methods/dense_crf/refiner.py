"""Fully connected CRF by mean field: labels follow the image's edges; nothing to train.

Source: Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS
2011, as lucasb-eyer/pydensecrf runs it (docs/methods/dense-crf.md). The inference is
:mod:`tagmask.methods.dense_crf.mean_field`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from tagmask.contracts.refiner import MapRefiner, RefineRequest
from tagmask.methods.dense_crf.mean_field import Backend, Pairwise, mean_field
from tagmask.ops.maps import check_maps, upsample_maps
from tagmask.ops.transforms import resize_image, size_within
from tagmask.types import UInt8Array

_SMALLEST = 1e-5  # probability below which a label costs no more

# The published settings (docs/methods/dense-crf.md), as keyword arguments of dense_crf and dense_crf_labels.
PRESETS: dict[str, dict[str, float]] = {
    "irn_labels": {"gaussian_sxy": 3, "gaussian_compat": 3, "bilateral_sxy": 50, "bilateral_srgb": 5,
                   "bilateral_compat": 10},
    "psa": {"gaussian_sxy": 3, "gaussian_compat": 3, "bilateral_sxy": 80, "bilateral_srgb": 13,
            "bilateral_compat": 10},
    "deeplab": {"gaussian_sxy": 1, "gaussian_compat": 3, "bilateral_sxy": 67, "bilateral_srgb": 3,
                "bilateral_compat": 4},
}  # fmt: skip


def _two_kernels(gaussian_sxy: float, gaussian_compat: float, bilateral_sxy: float, bilateral_srgb: float,
                 bilateral_compat: float) -> list[Pairwise]:  # fmt: skip
    return [Pairwise(gaussian_sxy, gaussian_compat), Pairwise(bilateral_sxy, bilateral_compat, bilateral_srgb)]


def _of_present(image: UInt8Array | Tensor, unary: Tensor, there: Tensor, kernels: list[Pairwise],
                **options: Any) -> Tensor:  # fmt: skip
    """Mean field of the labels that are ``there`` (bool [C]); the others get zeros. If none is, all take part."""
    if there.all() or not there.any():
        return mean_field(image, unary, kernels, **options)
    result = torch.zeros_like(unary, dtype=torch.float32)
    result[there] = mean_field(image, unary[there], kernels, **options)
    return result


def dense_crf(
    image: UInt8Array | Tensor,
    probabilities: Tensor,
    *,
    iterations: int = 10,
    gaussian_sxy: float = 3,
    gaussian_compat: float = 3,
    bilateral_sxy: float = 80,
    bilateral_srgb: float = 13,
    bilateral_compat: float = 10,
    keep_absent: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Dense CRF from probabilities; the defaults are PSA's (``PRESETS`` has the others).

    Kraehenbuehl and Koltun, NIPS 2011, as lucasb-eyer/pydensecrf runs it (docs/methods/dense-crf.md).

    A label whose probability is nowhere above 1e-5 costs at least as much as any other at every pixel and stays so in
    every round, so it cannot win anywhere: such labels are left out, which saves their time and changes the
    probabilities of the others by about what it would have got.

    Args:
        image: uint8 [H, W, 3].
        probabilities: [C, H, W] float; clipped to 1e-5..1, not normalised.
        iterations: updates.
        gaussian_sxy: width of the smoothness kernel in pixels; 0 weights switch a kernel off.
        gaussian_compat: its Potts weight.
        bilateral_sxy: width of the appearance kernel in pixels,
        bilateral_srgb: and in grey levels (0..255).
        bilateral_compat: its Potts weight.
        keep_absent: labels that are nowhere take part too, as when the published code is given them.
        backend: see :func:`mean_field`.

    Returns:
        float32 [C, H, W], sum 1 over labels; zeros for labels left out.

    Raises:
        ValueError: see :func:`mean_field`.
    """
    kernels = _two_kernels(gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat)
    p = probabilities.float()
    # ~(<=) so that NaN is there, and found to be wrong
    there = ~(p <= _SMALLEST).flatten(1).all(dim=1) | keep_absent if p.ndim == 3 else torch.ones(1, dtype=torch.bool)
    unary = -p.clamp(_SMALLEST, 1).log()
    return _of_present(image, unary, there, kernels, iterations=iterations, backend=backend)


def dense_crf_labels(
    image: UInt8Array | Tensor,
    labels: Tensor | NDArray[np.integer],
    *,
    n_labels: int,
    confidence: float = 0.7,
    unsure: int | None = None,
    iterations: int = 10,
    gaussian_sxy: float = 3,
    gaussian_compat: float = 3,
    bilateral_sxy: float = 50,
    bilateral_srgb: float = 5,
    bilateral_compat: float = 10,
    keep_absent: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Dense CRF from hard labels; the defaults are those of IRNet's pair labels.

    Labels that no pixel has cannot win (see :func:`dense_crf`) and are left out, unless ``confidence`` is below
    1 / C, where they are likelier than the given one. The costs of those that stay are those among all C labels.

    Args:
        image: uint8 [H, W, 3].
        labels: int [H, W] in 0..n_labels - 1; label 0 is as sure as any other.
        n_labels: C.
        confidence: probability of the given label; the others share the rest.
        unsure: a value of ``labels`` besides (such as 255) that says nothing: there all labels are equally likely.
        iterations: updates; the kernels' arguments are those of :func:`dense_crf`.
        keep_absent: labels that no pixel has take part too, as in the published code.
        backend: see :func:`mean_field`.

    Returns:
        float32 [C, H, W]; zeros for labels left out. With one label: all ones.

    Raises:
        ValueError: labels outside 0..n_labels - 1, confidence outside (0, 1), and see :func:`mean_field`.
    """
    label_map = torch.as_tensor(labels).long()
    unknown = torch.zeros_like(label_map, dtype=torch.bool) if unsure is None else label_map == unsure
    label_map = label_map.masked_fill(unknown, 0)
    if label_map.ndim != 2 or not label_map.numel() or not 0 <= int(label_map.min()) <= int(label_map.max()) < n_labels:
        msg = f"dense CRF: labels must be [H, W] within 0..{n_labels - 1}, got shape {list(label_map.shape)}"
        raise ValueError(msg)
    if not 0 < confidence < 1:
        msg = f"dense CRF: confidence must lie between 0 and 1, got {confidence}"
        raise ValueError(msg)
    # The unsure rest is shared by all C labels, as in the published code, also when absent labels are left out below.
    others = (1 - confidence) / max(n_labels - 1, 1)
    planes = (functional.one_hot(label_map, n_labels).permute(2, 0, 1) > 0) & ~unknown
    there = planes.flatten(1).any(dim=1) | keep_absent | (confidence < others)
    unary = -torch.where(planes, confidence, others).masked_fill(unknown, 1 / n_labels).log()
    kernels = _two_kernels(gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat)
    return _of_present(image, unary, there, kernels, iterations=iterations, backend=backend)


def dense_crf_maps(
    image: UInt8Array | Tensor,
    maps: Tensor,
    *,
    background: Literal["power", "level"] = "power",
    alpha: float = 4,
    level: float = 0.3,
    power: float = 1,
    **options: Any,
) -> Tensor:
    """Dense CRF from maps and a background score beside them. Maps that are positive nowhere take no part.

    Args:
        image: uint8 [H, W, 3].
        maps: [K, H, W] float in [0, 1] (clipped to it) at the image's size.
        background: ``power``: the score is (1 - highest map) ^ alpha; ``level``: it is ``level`` everywhere.
        alpha: exponent of ``power``.
        level: score of ``level``, in (0, 1).
        power: exponent on the maps before that.
        **options: those of :func:`dense_crf` from ``iterations`` on.

    Returns:
        float32 [K + 1, H, W], the background first; zeros for maps left out, and a background of ones if all are.

    Raises:
        ValueError: alpha, level or power out of range, and see :func:`mean_field`.
    """
    if not (alpha > 0 and power > 0 and 0 < level < 1) or background not in ("power", "level"):
        msg = f"dense CRF: no background with {background=}, {alpha=}, {level=}, {power=}"
        raise ValueError(msg)
    if maps.ndim != 3 or tuple(maps.shape[1:]) != tuple(image.shape[:2]) or not torch.isfinite(maps).all():
        msg = f"dense CRF: maps must be finite and [K, {image.shape[0]}, {image.shape[1]}], got {list(maps.shape)}"
        raise ValueError(msg)
    there = maps.flatten(1).amax(dim=1) > 0 if len(maps) else torch.zeros(0, dtype=torch.bool)
    result = maps.new_zeros((len(maps) + 1, *maps.shape[1:]), dtype=torch.float32)
    # No map is positive: the background is all there is.
    if not there.any():
        result[0] = 1
        return result
    scores = maps[there].float().clamp(0, 1) ** power
    top = scores.amax(dim=0, keepdim=True)
    behind = (1 - top) ** alpha if background == "power" else torch.full_like(top, level)
    result[torch.cat([there.new_ones(1), there])] = dense_crf(image, torch.cat([behind, scores]), **options)
    return result


class DenseCrf(MapRefiner):
    """Refiner of maps: background beside the maps, :func:`dense_crf` on the image, averaged back to the maps' grid.

    The background plane is (1 - highest map) ^ alpha (``background: power``), or the constant ``level``
    (``background: level``); ``power`` is an exponent on the maps before that. Maps that are zero everywhere take no
    part. What comes out are probabilities beside that of the background, so a following threshold of 0.5 marks what is
    likelier than all else together. An image with more than ``max_pixels`` is reduced to them first; the widths in
    pixels are those of the reduced image.
    """

    name: ClassVar[str] = "dense_crf"

    preset: Literal["psa", "irn_labels", "deeplab"] | None = None
    power: Annotated[float, Field(gt=0, le=10)] = 1.0
    background: Literal["power", "level"] = "power"
    alpha: Annotated[float, Field(gt=0, le=256)] = 4.0
    level: Annotated[float, Field(gt=0, lt=1)] = 0.3
    iterations: Annotated[int, Field(ge=0, le=1000)] = 10
    gaussian_sxy: Annotated[float, Field(gt=0)] = 3.0
    gaussian_compat: Annotated[float, Field(ge=0)] = 3.0
    bilateral_sxy: Annotated[float, Field(gt=0)] = 80.0
    bilateral_srgb: Annotated[float, Field(gt=0)] = 13.0
    bilateral_compat: Annotated[float, Field(ge=0)] = 10.0
    max_pixels: Annotated[int, Field(ge=256, le=10_000_000)] = 262_144

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, values: Any) -> Any:
        """A preset sets the kernels; what is written beside it wins."""
        if isinstance(values, dict) and values.get("preset") in PRESETS:
            return {**PRESETS[values["preset"]], **values}
        return values

    def inference(self) -> dict[str, Any]:
        """Iterations and kernels, as arguments of the functions."""
        return {key: getattr(self, key) for key in ("iterations", *PRESETS["psa"])}

    def reduced(self, image: UInt8Array) -> UInt8Array:
        """The image at ``max_pixels`` or less."""
        return resize_image(image, size_within((image.shape[0], image.shape[1]), self.max_pixels))

    def probabilities(self, image: UInt8Array, maps: Tensor) -> Tensor:
        """Of the background and each map, float32 [K + 1, h', w'] at the size of the reduced image.

        Raises:
            ValueError: not a uint8 RGB image, or maps [K, h, w] that are not finite or do not fit it.
        """
        check_maps(image, maps)
        small = self.reduced(image)
        background = {key: getattr(self, key) for key in ("power", "background", "alpha", "level")}
        full = upsample_maps(maps, (small.shape[0], small.shape[1]))
        return dense_crf_maps(small, full, **background, **self.inference())

    def refine(self, request: RefineRequest) -> Tensor:
        """Refined maps of one image: uint8 [H, W, 3] and [K, h, w] in [0, 1] -> [K, h, w] in [0, 1].

        Raises:
            ValueError: not a uint8 RGB image, or maps that are not finite or do not fit it.
        """
        image, maps = request.colours, request.maps
        check_maps(image, maps)
        small = self.reduced(image)
        q = self.probabilities(image, request.full((small.shape[0], small.shape[1])))[1:]
        if not len(maps):
            return maps.clone()
        return functional.adaptive_avg_pool2d(q, (maps.shape[1], maps.shape[2])).clamp(0, 1).to(maps.dtype)
