"""EDAM's label rule: inside the salient region the highest map wins, outside it is background.

Source: Wu et al., "Embedded Discriminative Attention Mechanism for Weakly Supervised Semantic Segmentation", CVPR 2021;
``infer_cls.py`` of allenwu97/EDAM; docs/methods/edam.md. ReCAM-M (Chen et al., CVPR 2022) and LPCAM in EDAM (Chen and
Sun, CVPR 2023) put other maps in front of it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from tagmask.contracts.labeller import Labeller, LabelRequest
from tagmask.contracts.planes import SALIENCY
from tagmask.errors import DataError
from tagmask.ops.maps import divide_by_peaks, maps_to_labels
from tagmask.types import BACKGROUND, UInt8Array

#: Above and below every map and every background: what a map is set to that must win, or lose.
_WINS, _LOSES = 2.0, -2.0


def saliency_labels(
    maps: Tensor,
    classes: Tensor,
    saliency: UInt8Array,
    *,
    theta: float = 0.2,
    alpha: float = 1e-6,
    beta: float = 0.99999,
) -> UInt8Array:
    """Labels of one image from its maps and its saliency.

    Args:
        maps: float [K, H, W] in [0, 1], at the image's size.
        classes: int64 [K] mask labels (1..C) of the maps.
        saliency: uint8 [H, W], grey levels, white where the image is salient.
        theta: pixels of grey level 100 * theta and less are not salient.
        alpha: maps below it lose against everything.
        beta: maps above it win over everything, outside the salient region too.

    Returns:
        uint8 [H, W]: 0 and values of ``classes``. Of equal values the background, then the smaller place, wins.

    Raises:
        DataError: shapes do not fit.
    """
    planes = maps.detach().float().cpu().numpy()
    if planes.ndim != 3 or len(planes) != len(classes) or saliency.shape != planes.shape[1:]:
        msg = f"maps {list(planes.shape)}, {len(classes)} classes and saliency {list(saliency.shape)} do not fit"
        raise DataError(msg)
    background = (saliency <= 100 * theta).astype(np.float32)
    planes = np.where(planes < alpha, np.float32(_LOSES), planes)
    planes = np.where(planes > beta, np.float32(_WINS), planes)
    names = np.append(np.uint8(BACKGROUND), classes.cpu().numpy().astype(np.uint8))
    labels: UInt8Array = names[np.concatenate([background[None], planes]).argmax(0)]
    return labels


class SaliencyRule(Labeller):
    """Labeller: :func:`saliency_labels`. ``normalise``: maps are divided by their own maximum before, as EDAM's are, so
    that each has a pixel above ``beta``; behind a dense CRF, whose planes are probabilities, it is false.
    """

    name: ClassVar[str] = "saliency_rule"
    needs: ClassVar[frozenset[str]] = frozenset({SALIENCY})

    theta: Annotated[float, Field(ge=0, le=2.55)] = Field(
        0.2, description="pixels of grey level 100 * theta and less are not salient"
    )
    alpha: Annotated[float, Field(ge=0, le=1)] = Field(1e-6, description="maps below it are never foreground")
    beta: Annotated[float, Field(ge=0, le=1)] = Field(0.99999, description="maps above it always are")
    normalise: bool = True

    @property
    def background(self) -> float | Literal["auto", "masks"]:
        """The threshold of an image without saliency, as in the published code."""
        return min(self.theta, 1.0)

    def labels(self, request: LabelRequest) -> UInt8Array:
        """See :meth:`Labeller.labels`."""
        full = self.full_maps(request)
        if self.normalise:
            full = divide_by_peaks(full)
        plane = request.planes.get(SALIENCY)
        if plane is None:
            return maps_to_labels(full, request.classes, request.threshold)
        grey = np.rint(plane * 255).astype(np.uint8)
        return saliency_labels(full, request.classes, grey, theta=self.theta, alpha=self.alpha, beta=self.beta)
