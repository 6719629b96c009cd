"""Class activation maps. Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.

R_c(p) = ReLU(w_c . F_p) per view, before anything is summed (methods.md 0.4, 2).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from tagmask.interfaces import ClassifierOutput
from tagmask.method import Method


def cam(features: Tensor, class_weights: Tensor) -> Tensor:
    """Rectified class responses, not normalised.

    Args:
        features: [B, D, h, w] float.
        class_weights: [C, D] float.

    Returns:
        [B, C, h, w] float, >= 0.
    """
    return functional.relu(functional.conv2d(features, class_weights[:, :, None, None].to(features.dtype)))


class Cam(Method):
    """The plain baseline: a view method without settings."""

    name: ClassVar[str] = "cam"

    def view_maps(self, output: ClassifierOutput, class_weights: Tensor, channels: Tensor) -> Tensor:
        """Maps of each image of a view.

        Args:
            output: of B views (the image and its mirror).
            class_weights: [C, D].
            channels: int64 [K] classifier channels asked for.

        Returns:
            [B, K, h, w] float32, >= 0.
        """
        return cam(output.features.float(), torch.index_select(class_weights, 0, channels).float())
