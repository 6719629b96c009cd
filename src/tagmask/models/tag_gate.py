"""A gate on what a segmentation network may say: classes that the tag classifier does not see are shut out. Ours.

Tags are clean where pseudo masks are not, so the tag classifier knows better which classes an image holds than the
network does that was trained on the masks; the network knows better where foreground is. The gate leaves the split into
foreground and background alone, and divides the foreground among the classes that the classifier sees.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tagmask.contracts.network import SegmentationModel
from tagmask.models.classifier import Classifier
from tagmask.ops.transforms import renormalise
from tagmask.types import InputStatistics

Heir = Literal["classes", "background"]
_SHUT = -30.0  # added to the logits of classes that are shut out


def gated_logits(
    logits: Tensor, tag_logits: Tensor, threshold: float, clean: float = 0.0, heir: Heir = "classes"
) -> Tensor:
    """Logits with classes shut out.

    Images in which the classifier sees nothing at all become background: they have no class whose tag is sure.

    Args:
        logits: [B, C + 1, H, W] float, background first.
        tag_logits: [B, C] float, of independent (sigmoid) tags.
        threshold: classes with a smaller probability are shut out, but for the most probable one.
        clean: an image whose most probable class has a smaller probability than this is background all over.
        heir: what the probability of shut classes goes to: the open ``classes``, in proportion, and the background's
            stays as it was; or the ``background``, where objects are told apart better than they are told from it.

    Returns:
        float32 [B, C + 1, H, W].
    """
    logits, tag_scores = logits.float(), tag_logits.float().sigmoid()
    # At least one class stays open: where none reaches the threshold the foreground must still be something.
    is_open = (tag_scores >= threshold) | (tag_scores == tag_scores.amax(1, keepdim=True))
    foreground = logits[:, 1:]
    gated = torch.where(is_open[:, :, None, None], foreground, foreground + _SHUT)
    if heir == "classes":
        # Foreground against background stays as the network has it: that is what it knows better than the classifier.
        shift = foreground.logsumexp(1, keepdim=True) - gated.logsumexp(1, keepdim=True)
        result = torch.cat([logits[:, :1], gated + shift], dim=1)
    else:
        kept = torch.where(is_open[:, :, None, None], -torch.inf, foreground)
        result = torch.cat([torch.cat([logits[:, :1], kept], 1).logsumexp(1, keepdim=True), gated], dim=1)
    if not clean:
        return result
    # Here the background takes all: a faultless part has no object whose share could go to another class.
    empty = torch.cat([torch.zeros_like(logits[:, :1]), torch.full_like(foreground, _SHUT)], dim=1)
    return torch.where((tag_scores.amax(1) < clean)[:, None, None, None], empty, result)


class TagGated(nn.Module):
    """A trained network behind the gate of a trained tag classifier; inference only.

    Args:
        model: normalised images [B, 3, H, W] -> logits [B, C + 1, H, W].
        classifier: the same images, normalised with its own ``input_statistics`` -> ClassifierOutput.
        threshold: see :func:`gated_logits`.
        clean: see there too.
        heir: and there.
    """

    def __init__(
        self,
        model: SegmentationModel,
        classifier: Classifier,
        threshold: float,
        clean: float = 0.0,
        heir: Heir = "classes",
    ) -> None:
        super().__init__()
        self.model, self.classifier = model, classifier
        self.threshold, self.clean, self.heir = threshold, clean, heir

    @property
    def input_statistics(self) -> InputStatistics:
        """What its images are normalised with: the network's."""
        return self.model.input_statistics

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> logits [B, C + 1, H, W]."""
        seen = renormalise(images, self.model.input_statistics, self.classifier.input_statistics)
        return gated_logits(self.model(images), self.classifier(seen).logits, self.threshold, self.clean, self.heir)


#: What predicts: takes images normalised with its ``input_statistics``, gives logits.
Segmenter = SegmentationModel | TagGated
