"""Minimum barrier saliency (MB+): what the image's border cannot reach without crossing an edge stands out.

Source: Zhang, Sclaroff, Lin, Shen, Price, Mech, "Minimum Barrier Salient Object Detection at 80 FPS", ICCV 2015.
The barrier of a path is the largest minus the smallest value on it; a pixel's distance is that of its best path from
the border, found approximately by raster scans (Algorithm 1), summed over the channels of CIE Lab. The backgroundness
cue compares colours with those along each side of the image (Eq. 7 and 8); the maps are added, smoothed by opening and
closing by reconstruction, weighted towards the centre, and their contrast is raised (section 4.3).

Deviations: the sigmoid that raises the contrast stands at Otsu's threshold of each map, not at 0.5, so that 0.5 parts
what stands out from what does not (``centre: 0.5`` is the paper's, which leaves all but the brightest parts dark); a
map without any contrast stays 0; the smoothing works on squares of the paper's width rounded to an odd number.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch.nn import functional

from tagmask.contracts.saliency import SaliencySource
from tagmask.ops.transforms import reduced_to
from tagmask.types import FloatArray, UInt8Array

_BAND = 0.1  # share of the image along each side that the colour cue takes for background
_SMOOTHING = 50.0  # width of the smoothing, times the root of the map's mean
_STEEPNESS = 10.0  # of the contrast's sigmoid


def lab(image: UInt8Array) -> FloatArray:
    """CIE Lab (D65) of sRGB: uint8 [H, W, 3] -> float32 [H, W, 3]."""
    rgb = image.astype(np.float64) / 255
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    planes = [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])]
    return np.stack(planes, axis=2).astype(np.float32)


def barrier_distance(values: FloatArray, *, passes: int = 3) -> FloatArray:
    """Minimum barrier distance of every pixel from the border, by raster scans.

    Args:
        values: float32 [H, W].
        passes: scans, from the top left and from the bottom right in turn.

    Returns:
        float32 [H, W] >= 0; 0 on the border.
    """
    from tagmask.methods.minimum_barrier.raster import barrier_scan

    distance = np.full(values.shape, np.inf, np.float32)
    distance[[0, -1], :] = 0
    distance[:, [0, -1]] = 0
    plane = np.ascontiguousarray(values, np.float32)
    highest, lowest = plane.copy(), plane.copy()
    for number in range(passes):
        barrier_scan(plane, distance, highest, lowest, number % 2 == 1)
    return distance


def backgroundness(colours: FloatArray) -> FloatArray:
    """How little a colour is like those along the sides: Mahalanobis distances, the sum but for the largest.

    Args:
        colours: float32 [H, W, 3].

    Returns:
        float32 [H, W] >= 0.
    """
    height, width = colours.shape[:2]
    rows, columns = max(1, round(_BAND * height)), max(1, round(_BAND * width))
    sides = [colours[:rows], colours[-rows:], colours[:, :columns], colours[:, -columns:]]
    distances = []
    for side in sides:
        pixels = side.reshape(-1, 3).astype(np.float64)
        mean = pixels.mean(axis=0)
        spread = np.cov(pixels, rowvar=False, ddof=0) + 1e-3 * np.eye(3)  # a side of one colour has no inverse
        away = colours - mean
        distance = np.sqrt(np.einsum("hwi,ij,hwj->hw", away, np.linalg.inv(spread), away).clip(min=0))
        distances.append(distance / max(float(distance.max()), 1e-12))
    stacked = np.stack(distances)
    # Without the largest: a salient object that touches one side of the image is like that side's colours, and unlike
    # the other three.
    result: FloatArray = (stacked.sum(axis=0) - stacked.max(axis=0)).astype(np.float32)
    return result


def _stretched(values: FloatArray) -> FloatArray:
    """To [0, 1]; all zeros where there is no contrast."""
    low, high = float(values.min()), float(values.max())
    return np.zeros_like(values) if high - low < 1e-6 else (values - low) / np.float32(high - low)


def _window_maximum(values: FloatArray, width: int) -> FloatArray:
    pooled = functional.max_pool2d(torch.from_numpy(values)[None, None], width, stride=1, padding=width // 2)
    result: FloatArray = pooled[0, 0].numpy()
    return result


def smoothed(values: FloatArray, width: int) -> FloatArray:
    """Opening, then closing, by reconstruction: spots smaller than ``width`` vanish, outlines stay.

    Args:
        values: float32 [H, W].
        width: odd side of the square.
    """
    from tagmask.methods.minimum_barrier.raster import reconstruct

    opened = reconstruct(np.ascontiguousarray(-_window_maximum(-values, width)), values)
    closed: FloatArray = -reconstruct(np.ascontiguousarray(-_window_maximum(opened, width)), -opened)
    return closed


def _centred(size: tuple[int, int]) -> NDArray[np.float32]:
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    middle = ((size[0] - 1) / 2, (size[1] - 1) / 2)
    away = np.hypot(y - middle[0], x - middle[1])
    centred: NDArray[np.float32] = (1 - away / max(np.hypot(*middle), 1)).astype(np.float32)
    return centred


def otsu(values: FloatArray) -> float:
    """The threshold that parts values in [0, 1] into two groups of the least variance (256 bins).

    Between two groups that lie apart every threshold is as good: the middle of those is taken.
    """
    counts, edges = np.histogram(values, 256, (0, 1))
    shares, middles = counts / counts.sum(), (edges[1:] + edges[:-1]) / 2
    below, mean = shares.cumsum(), (shares * middles).cumsum()
    between = (mean[-1] * below - mean) ** 2 / (below * (1 - below)).clip(1e-12)
    return float(middles[between >= between.max() - 1e-9].mean())


def minimum_barrier_saliency(
    image: UInt8Array, *, max_side: int = 300, passes: int = 3, centre: float | Literal["otsu"] = "otsu"
) -> FloatArray:
    """MB+ saliency of one image: what its border cannot reach without crossing an edge.

    Zhang et al., ICCV 2015.

    Args:
        image: uint8 [H, W, 3] RGB.
        max_side: larger images are reduced to this first.
        passes: raster scans of the barrier distance.
        centre: value that becomes 0.5 when the contrast is raised.

    Returns:
        float32 [H, W] in [0, 1]; 1 stands out. All 0 for an image of one colour.

    Raises:
        ValueError: not a uint8 RGB image.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        msg = f"the image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}"
        raise ValueError(msg)
    size = (image.shape[0], image.shape[1])
    small = reduced_to(image, max_side)
    colours = lab(small)
    # Channel by channel, as the paper: a barrier of vectors has no cheap update.
    barrier = sum(barrier_distance(colours[..., c], passes=passes) for c in range(3))
    both = _stretched(np.asarray(barrier)) + _stretched(backgroundness(colours))
    saliency = _stretched(both)
    width = 2 * int(_SMOOTHING * float(saliency.mean()) ** 0.5 / 10) + 1
    saliency = _stretched(smoothed(saliency, width)) * _centred(saliency.shape)
    saliency = _stretched(saliency)
    # Contrast raised from nothing would be the sigmoid's value at 0 everywhere.
    if not saliency.any():
        return np.zeros(size, np.float32)
    middle = otsu(saliency) if centre == "otsu" else centre
    raised = 1 / (1 + np.exp(-_STEEPNESS * (saliency - middle)))
    full = Image.fromarray(raised.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    result: FloatArray = np.clip(np.asarray(full), 0, 1)
    return result


class MinimumBarrier(SaliencySource):
    """:func:`minimum_barrier_saliency`: classical, nothing to train or download, some hundredths of a second."""

    name: ClassVar[str] = "minimum_barrier"

    max_side: Annotated[int, Field(ge=16, le=4096)] = 300
    passes: Annotated[int, Field(ge=1, le=20)] = 3
    centre: Annotated[float, Field(ge=0, le=1)] | Literal["otsu"] = "otsu"

    def find(self, sample_id: str, image: UInt8Array) -> FloatArray:
        """See :class:`~tagmask.contracts.saliency.SaliencySource`."""
        del sample_id
        return minimum_barrier_saliency(image, max_side=self.max_side, passes=self.passes, centre=self.centre)
