"""A trained segmentation network, read back."""

from __future__ import annotations

from typing import Any, cast

import torch

from tagmask.contracts.network import SegmentationModel
from tagmask.models.classifier import build_classifier
from tagmask.models.folding import fold_batch_norms
from tagmask.models.tag_gate import TagGated
from tagmask.settings.classify import RetrainSettings
from tagmask.storage.weights import load_weights, read_description


def load_segmenter(path: Any, network: Any) -> SegmentationModel | TagGated:
    """A stored network (:func:`tagmask.storage.weights.save_weights`) to predict with, behind its gate if it has one.

    Its batch norms are folded into its convolutions, which rounds differently; it cannot be trained or saved again.
    """
    description = read_description(path)
    n_labels, gate = len(description["classes"]), description.get("tag_gate")
    model: SegmentationModel | TagGated = network.build(n_labels, pretrained=False)
    if gate is not None:
        settings = RetrainSettings.model_validate(gate["classifier"])  # the last training's, which may be a later one
        classifier = build_classifier(settings, n_labels - 1, pretrained=False)
        model = TagGated(cast(SegmentationModel, model), classifier, gate["threshold"])
    load_weights(path, model)
    fold_batch_norms(model.eval(), torch.zeros(1, 3, 64, 64))
    return model
