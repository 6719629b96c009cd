"""Why the maps of a run are all constant, in words, from what the training of its classifier left."""

from __future__ import annotations

from typing import Any

from tagmask.runs.context import Context
from tagmask.settings.training_length import too_short
from tagmask.storage.records import read_jsonl

#: Mean average precision of tags below which the classifier is to blame. Ours, not published; the
#: report says the same from there on (report/run/diagnosis.py), which knows no stage.
UNLEARNT = 0.6


def why_constant(context: Context) -> str:
    """The cause and the remedy: nearly always a classifier that has learnt nothing.

    Maps are rectified. A classifier that has only learnt that most classes are absent has negative weights, and zeros
    for maps.
    """
    stage, workspace = context.recipe.last_training, context.workspace
    record = workspace.manifest()["stages"].get(stage, {})
    training: dict[str, Any] = record.get("trainings", {}).get(stage, {})
    if shortage := too_short(training):
        return f"The classifier ({stage}) was trained too little: {shortage}."
    precision: list[float] = [
        float(line["train_map"] if "train_map" in line else line["val_map"])
        for line in read_jsonl(workspace.stage(stage) / "history.jsonl")
        if "train_map" in line or "val_map" in line
    ]
    if precision and precision[-1] < UNLEARNT:
        if record.get("settings", {}).get("settings", {}).get("classifier"):
            return (
                f"The given classifier does not know the tags (mean average precision {precision[-1]:.2f}): look "
                "whether its classes are in the data's order (classify.classifier_classes), and whether tags belong to "
                "their images."
            )
        return (
            f"The classifier ({stage}) has not learnt the tags (mean average precision {precision[-1]:.2f}): train it "
            "longer, start it from pretrained weights as the recipe own does, or look whether tags belong to their "
            "images."
        )
    return (
        "The classifier has learnt the tags, but nothing stands out in its maps: look at them and at the images, or "
        "set refine.threshold.value."
    )
