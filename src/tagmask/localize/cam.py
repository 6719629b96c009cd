"""Class activation maps. Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.

R_c(p) = ReLU(w_c . F_p) per view, before anything is summed (methods.md 0.4, 2).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from tagmask.interfaces import ClassifierOutput
from tagmask.localize.localizer import Trained, ViewLocalizer


def cam(features: Tensor, class_weights: Tensor) -> Tensor:
    """Rectified class responses, not normalised.

    Args:
        features: [B, D, h, w] float.
        class_weights: [C, D] float.

    Returns:
        [B, C, h, w] float, >= 0.
    """
    return functional.relu(functional.conv2d(features, class_weights[:, :, None, None].to(features.dtype)))


class LinearView(ViewLocalizer):
    """A view method whose response is linear in the features, so that it has a gradient worth climbing (AdvCAM)."""

    def weights(self, classifier: Any) -> Tensor:
        """Weights [C, D] of the response."""
        raise NotImplementedError

    def view_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
        """See :meth:`ViewLocalizer.view_maps`."""
        weights = torch.index_select(self.weights(trained.classifier), 0, channels)
        return cam(output.features.float(), weights.float())


class Cam(LinearView):
    """The plain baseline, without settings: the weights that make the classifier's logits."""

    name: ClassVar[str] = "cam"

    def weights(self, classifier: Any) -> Tensor:
        """The classifier's own weights [C, D]."""
        weights: Tensor = classifier.class_weights
        return weights
