"""Class activation maps. Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.

R_c(p) = ReLU(w_c . F_p) per view, before anything is summed (docs/methods/cam.md).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tagmask.contracts.localizer import Trained, ViewLocalizer
from tagmask.ops.views import Flips, merge_flips
from tagmask.registry.method import LATER
from tagmask.types import ClassifierOutput


def cam(features: Tensor, class_weights: Tensor, class_bias: Tensor | None = None) -> Tensor:
    """Class activation maps: the rectified responses ReLU(w_c F(p)) of each class c at each place p, not normalised.

    Zhou et al., CVPR 2016; docs/methods/cam.md.

    Args:
        features: [B, D, h, w] float, what the classifier pools.
        class_weights: [C, D] float, cast to the dtype of the features.
        class_bias: [C] float, added before the ReLU; with the head's biases these are its class maps, rectified.

    Returns:
        [B, C, h, w] of the dtype of ``features``, >= 0.

    Raises:
        RuntimeError: the numbers of channels differ.
    """
    bias = None if class_bias is None else class_bias.to(features.dtype)
    return functional.relu(functional.conv2d(features, class_weights[:, :, None, None].to(features.dtype), bias))


class LinearView(ViewLocalizer):
    """A view method whose response is linear in the features, so that it has a gradient worth climbing (AdvCAM)."""

    def weights(self, classifier: Any) -> Tensor:
        """Weights [C, D] of the response."""
        raise NotImplementedError

    def class_bias(self, classifier: Any) -> Tensor | None:
        """What is added to the response of each class before the ReLU, [C]; None for nothing."""
        del classifier
        return None

    def view_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
        """See :meth:`ViewLocalizer.view_maps`."""
        weights = torch.index_select(self.weights(trained.classifier), 0, channels)
        bias = self.class_bias(trained.classifier)
        return cam(output.features.float(), weights.float(), None if bias is None else bias[channels].float())


class Cam(LinearView):
    """The plain baseline: the weights that make the classifier's logits.

    ``bias`` adds the head's biases, if it has any: the class maps whose mean is the logit (object localisation).
    ``flip_merge: max`` keeps the larger value of image and mirror, as the published maps of VWE and HSPP do.
    """

    name: ClassVar[str] = "cam"
    bias: bool = Field(False, json_schema_extra=LATER)
    flip_merge: Flips = Field("sum", json_schema_extra=LATER)

    def class_bias(self, classifier: Any) -> Tensor | None:
        """The head's biases [C] where they are asked for."""
        bias: Tensor | None = classifier.class_bias if self.bias else None
        return bias

    def weights(self, classifier: Any) -> Tensor:
        """The classifier's own weights [C, D]."""
        weights: Tensor = classifier.class_weights
        return weights

    def scale_maps(self, trained: Trained, output: ClassifierOutput, channels: Tensor) -> Tensor:
        """See :meth:`ViewLocalizer.scale_maps`."""
        return merge_flips(self.view_maps(trained, output, channels), self.flip_merge)
