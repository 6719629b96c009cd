"""Labels for learning inter-pixel relations: confident foreground, confident background, unsure in between.

Source: Ahn, Cho, Kwak, CVPR 2019 (IRNet), section 4.2; ``step/cam_to_ir_label.py`` of jiwoon-ahn/irn;
docs/methods/irnet.md.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tagmask.errors import DataError
from tagmask.ops.maps import maps_to_labels
from tagmask.types import BACKGROUND, IGNORE_INDEX, UInt8Array


class LabelsCRF(Protocol):
    """A dense CRF of one image with unaries from labels, such as ``partial(dense_crf_labels, image, ...)``.

    IRNet's has confidence 0.7 and a bilateral kernel of 50 pixels and 5 colour levels.
    """

    def __call__(self, labels: UInt8Array, *, n_labels: int) -> Tensor | NDArray[np.float32]:
        """Probabilities [n_labels, H, W] from labels [H, W] in 0..n_labels - 1."""


def ir_labels(
    maps: Tensor | NDArray[np.float32],
    labels: Tensor | ArrayLike,
    crf: LabelsCRF,
    *,
    foreground: float = 0.30,
    background: float = 0.05,
) -> UInt8Array:
    """Labels of one image from its maps, each of two thresholds sharpened by a CRF.

    A pixel is a class where the CRF on the labels at the high threshold says so, background where the CRF at
    the low threshold finds nothing either, and 255 in between. A pixel that is foreground at the high threshold
    stays it even if the low one calls it background.

    Args:
        maps: float [K, H, W] in [0, 1] at the image's resolution.
        labels: int [K] mask labels (1..254) of the maps.
        crf: called with local labels (0 background, k + 1 for map k) and ``n_labels`` = K + 1.
        foreground: threshold of confident foreground.
        background: threshold of confident background.

    Returns:
        uint8 [H, W]: 0, values of ``labels``, 255. Without maps all 0.

    Raises:
        DataError: shapes or labels do not fit, maps that are not finite, or a CRF result of another shape.
        ValueError: foreground < background.
    """
    if foreground < background:
        msg = f"the threshold of the foreground, {foreground}, is below that of the background, {background}"
        raise ValueError(msg)
    stack = torch.as_tensor(maps).detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(stack).all()):
        msg = "maps hold values that are not finite"
        raise DataError(msg)
    # Checks shapes and labels; the classes come in at the end, the CRF counts from 0.
    maps_to_labels(stack, labels, foreground)
    names = np.append(np.uint8(BACKGROUND), np.asarray(torch.as_tensor(labels).cpu()).astype(np.uint8).reshape(-1))
    if len(names) == 1:
        return np.zeros(stack.shape[1:], np.uint8)
    local = np.arange(1, len(names))
    certain, possible = (maps_to_labels(stack, local, threshold) for threshold in (foreground, background))
    # Where both thresholds give the same labels, the second CRF, half of the cost, is spared.
    certain_labels = _sharpened(certain, crf, len(names))
    possible_labels = certain_labels if np.array_equal(certain, possible) else _sharpened(possible, crf, len(names))
    result: UInt8Array = names[certain_labels]
    result[(certain_labels == BACKGROUND) & (possible_labels != BACKGROUND)] = IGNORE_INDEX
    return result


def _sharpened(labels: UInt8Array, crf: LabelsCRF, n_labels: int) -> NDArray[np.int64]:
    probabilities = np.asarray(torch.as_tensor(crf(labels, n_labels=n_labels)).detach().cpu())
    if probabilities.shape != (n_labels, *labels.shape):
        msg = f"the CRF gave {list(probabilities.shape)} for {n_labels} labels of {list(labels.shape)}"
        raise DataError(msg)
    best: NDArray[np.int64] = probabilities.argmax(axis=0)
    return best
