"""What a network says of an image whose tags are known, as labels to learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from tagmask.methods.dense_crf.refiner import PRESETS, dense_crf
from tagmask.models.probabilities import constrain_to_tags
from tagmask.ops.confidence import margin_of
from tagmask.ops.transforms import colour_view
from tagmask.types import BACKGROUND, IGNORE_INDEX, UInt8Array


def labels_within_tags(
    image: UInt8Array, probabilities: Tensor, tags: Sequence[int], *, crf: str | None = "deeplab", ignore: float = 0.0
) -> tuple[UInt8Array, Tensor]:
    """The label of an image's pixels when its tags are known, and by how much it won.

    Args:
        image: uint8 [H, W, 3] RGB, or of other channels, whose colour view is taken.
        probabilities: [C + 1, H, W] of a segmentation network.
        tags: labels 1..C of the image.
        crf: kernels of a dense CRF (its ``PRESETS``) over the background and the tags; None: no CRF.
        ignore: pixels whose margin is smaller become 255.

    Returns:
        uint8 [H, W]: 0, labels of ``tags``, 255; and float32 [H, W] in [0, 1], the margin: 1 - highest other / own
        probability within the tags, before the CRF; 0 where the CRF overruled the network.
    """
    allowed = [BACKGROUND, *sorted(tags)]
    scores = constrain_to_tags(probabilities, tags)[allowed]
    refined = scores
    if crf is not None and len(allowed) > 1:
        refined = dense_crf(colour_view(image), scores, **PRESETS[crf])  # type: ignore[arg-type]
    winners = refined.argmax(0)
    # Of the network's own probabilities: after ten rounds of a CRF nearly every pixel is sure.
    margin = margin_of(scores, winners)
    labels: UInt8Array = np.asarray(allowed, np.uint8)[winners.numpy()]
    labels[(margin < ignore).numpy()] = IGNORE_INDEX
    return labels, margin
