"""Facts of a run without fault, and of runs with one each: what makes masks bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tagmask.report.run.facts import Facts

TRAINING = {"key": "classify.iterations", "updates": 130, "least": 124, "classes": 16}
PSEUDO_MASKS = {"foreground": 0.3, "empty": 0.0, "flooded": 0.0}
SEGMENTATION = {"empty": 0.0, "in_tags": 0.9, "foreground_untagged": 0.01}
GOOD: dict[str, Any] = {
    "training": TRAINING,
    "history": {"step": 130, "train_map": 0.97, "train_ap": {"cow": 0.9, "sheep": 1.0}, "val_map": 0.8},
    "empty": 0,
    "threshold": 0.4,
    "pseudo_masks": PSEUDO_MASKS,
    "segmentation": SEGMENTATION,
    "miou": (0.7, 0.6),
}
#: What is changed in GOOD, by the cause.
CAUSES: dict[str, dict[str, Any]] = {
    "too few updates": {"training": {**TRAINING, "updates": 16}},
    "tags not learnt": {"history": {"train_map": 0.31, "val_map": 0.22}},
    "tags unknown to a given classifier": {"given": "sha256 0123", "history": {"train_map": 0.31, "val_map": 0.22}},
    "tags learnt by heart": {"history": {"train_map": 0.98, "val_map": 0.4}},
    "a class not learnt": {"history": {"train_map": 0.95, "val_map": 0.8, "train_ap": {"cow": 0.99, "sheep": 0.2}}},
    "empty maps": {"empty": 9},
    "threshold at its upper end": {"threshold": 0.98},
    "threshold at its lower end": {"threshold": 0.01},
    "empty pseudo masks": {"pseudo_masks": {**PSEUDO_MASKS, "foreground": 0.1, "empty": 0.4}},
    "little foreground": {"pseudo_masks": {**PSEUDO_MASKS, "foreground": 0.01}},
    "flooded pseudo masks": {"pseudo_masks": {**PSEUDO_MASKS, "foreground": 0.7, "flooded": 0.4}},
    "much foreground": {"pseudo_masks": {**PSEUDO_MASKS, "foreground": 0.9, "flooded": 0.1}},
    "classes confused": {"segmentation": {**SEGMENTATION, "in_tags": 0.43}},
    "empty predictions": {"segmentation": {**SEGMENTATION, "empty": 0.6}},
    "false alarms": {"segmentation": {**SEGMENTATION, "foreground_untagged": 0.12}},
    "good pseudo masks, bad predictions": {"miou": (0.7, 0.4)},
}


def facts_of(**changes: Any) -> Facts:
    """Facts of the good run with these changes."""
    values = {**GOOD, **changes}
    classify = {"status": "done", "trainings": {"classify": values["training"]}}
    if "given" in values:
        classify = {"status": "done", "settings": {"settings": {"classifier": values["given"]}}}
    pseudo, model = ({"void_ignored": {"miou": value}} for value in values["miou"])
    return Facts(
        root=Path("run"),
        manifest={"stages": {"classify": classify}},
        metrics={
            "marked": {
                "train": {"pseudo_masks": values["pseudo_masks"]},
                "val": {"segmentation": values["segmentation"]},
            },
            "splits": {"train": {"pseudo_masks": pseudo}, "val": {"segmentation": model}},
        },
        recipe="",
        thresholds={"rule": values.get("rule", "auto"), "value": values["threshold"]},
        histories={"classify": ({"step": 1, "loss": 0.7}, values["history"]), "segment": ()},
        problems=tuple(
            {"stage": "localize", "id": str(number), "reason": f"{number}.jpg: the map of cow is zero everywhere: none"}
            for number in range(values["empty"])
        ),
        classes=("background", "cow", "sheep"),
        splits={"train": 48, "val": 12},
    )
