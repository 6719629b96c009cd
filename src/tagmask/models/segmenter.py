"""A trained segmentation network, read back."""

from __future__ import annotations

from typing import Any

import torch

from tagmask.backbones.channels import set_input
from tagmask.contracts.network import SegmentationModel
from tagmask.models.classifier import build_classifier
from tagmask.models.folding import fold_batch_norms
from tagmask.models.tag_gate import Segmenter, TagGated
from tagmask.settings.classify import RetrainSettings
from tagmask.storage.weights import load_weights, read_description, stored_statistics


def load_segmenter(path: Any, settings: Any) -> Segmenter:
    """A stored network (:func:`tagmask.storage.weights.save_weights`) to predict with, behind its gate if it has one.

    Its batch norms are folded into its convolutions, which rounds differently; it cannot be trained or saved again.
    """
    description = read_description(path)
    n_labels, gate = len(description["classes"]), description.get("tag_gate")
    network: SegmentationModel = settings.build(n_labels, pretrained=False)
    set_input(network, stored_statistics(description, path))
    model: Segmenter = network
    if gate is not None:
        classify = RetrainSettings.model_validate(gate["classifier"])  # the last training's, which may be a later one
        classifier = build_classifier(classify, n_labels - 1, pretrained=False)
        set_input(classifier.backbone, stored_statistics(gate, path))
        model = TagGated(network, classifier, gate["threshold"], gate.get("clean", 0.0), gate.get("heir", "classes"))
    load_weights(path, model)
    fold_batch_norms(model.eval(), torch.zeros(1, len(model.input_statistics.mean), 64, 64))
    return model
