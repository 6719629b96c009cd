"""The classifier of a run, read back for the stages that use it."""

from __future__ import annotations

import torch

from tagmask.errors import RunError
from tagmask.models.classifier import Classifier, load_classifier
from tagmask.models.folding import fold_batch_norms
from tagmask.runs.context import Context


def trained_classifier(context: Context, stage: str | None = None) -> Classifier:
    """The classifier of one training (the last by default) on the engine's device, ready for inference.

    Its batch norms are folded into its convolutions, which rounds differently; it cannot be trained or saved again.

    Raises:
        RunError: a weight is not finite.
    """
    stage = stage or context.recipe.last_training
    path = context.workspace.model_path(stage)
    model = load_classifier(path, context.recipe.trainings[stage], context.source.classes)
    for name, value in model.state_dict().items():
        if not torch.isfinite(value).all():
            msg = f"{path}: {name} is not finite. Lower classify.optimizer.lr and train again (delete its folder)."
            raise RunError(msg)
    fold_batch_norms(model, torch.zeros(1, len(model.input_statistics.mean), 64, 64))
    context.engine.place(model)
    return model
