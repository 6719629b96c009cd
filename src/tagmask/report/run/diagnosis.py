"""Why masks are bad, in plain sentences with a remedy, from what a run left: along the pipeline, the first cause first.

What is bad early makes everything behind it bad, so whoever reads should begin with the first sentence;
docs/bad-masks.md says more about each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tagmask.report.metrics_file import dig, mapping, miou, number, percent, rules
from tagmask.report.run.facts import Facts
from tagmask.runs.stage_names import CLASSIFY, LOCALIZE, family

#: When a sentence is said. Ours, not published: shares, average precision and mIoU in [0, 1].
LIMITS = {
    "train_map": 0.6,  # below: the training images themselves are not told apart
    "train_ap": 0.5,  # of a class, below
    "val_map": 0.5,  # below, and
    "val_map_gap": 0.35,  # train above val by more: learnt by heart
    "empty_maps": 0.1,  # share of the images, above
    "threshold_end": 0.04,  # from 0 or 1, nearer
    "empty_masks": 0.25,  # share of the tagged images, above
    "foreground_low": 0.02,  # mean share of the pixels, below
    "foreground_high": 0.8,  # above
    "flooded_masks": 0.25,  # share of the tagged images, above
    "in_tags": 0.6,  # share of what is marked, below
    "untagged": 0.05,  # mean share of the pixels marked in images without a tag, above
    "pseudo_good": 0.5,  # mIoU of pseudo masks on train, from here on, and
    "prediction_gap": 0.2,  # predictions on val below them by more
}


def diagnosis(facts: Facts) -> list[str]:
    """Sentences, none where nothing stands out."""
    return [
        *_short_trainings(facts),
        *_tags(facts),
        *_maps(facts),
        *_threshold(facts),
        *_pseudo_masks(facts),
        *_predictions(facts),
    ]


def _short_trainings(facts: Facts) -> Iterator[str]:
    for stage, entry in mapping(facts.manifest.get("stages")).items():
        for name, training in mapping(dig(entry, "trainings")).items():
            updates, least, key = number(dig(training, "updates")), number(dig(training, "least")), dig(training, "key")
            if updates is None or least is None or updates >= least:
                continue
            what = {"classify": "The classifier", "segment": "The network"}.get(family(str(stage)), str(name))
            remedy = f" Set {key}=auto." if key else ""
            yield (
                f"{what} was trained too little: {updates:.0f} updates, where {least:.0f} or more are advised for "
                f"{dig(training, 'classes')} classes.{remedy}"
            )


def _tags(facts: Facts) -> Iterator[str]:
    """Whether the classifier knows the tags: without that there are no maps."""
    line = _last_validation(facts)
    train, val = number(line.get("train_map")), number(line.get("val_map"))
    if train is None:
        return
    if train < LIMITS["train_map"] and _is_given(facts):
        yield (
            f"The given classifier does not know these images (average precision {percent(train)} of 100): its maps "
            "mean little. Look whether its classes are in the data's order (classify.classifier_classes), whether the "
            "images are of its kind, and whether tags belong to their images."
        )
        return
    if train < LIMITS["train_map"]:
        yield (
            f"The classifier does not know its own training images (average precision {percent(train)} of 100): its "
            "maps mean little. Train it longer, start it from pretrained weights as the recipe own does, and look "
            "whether tags belong to their images."
        )
        return
    if val is not None and val < LIMITS["val_map"] and train - val > LIMITS["val_map_gap"]:
        yield (
            f"The classifier knows its training images (average precision {percent(train)} of 100) but not new ones "
            f"({percent(val)}): it has learnt them by heart. More images of each class help most; then pretrained "
            "weights, and tags without errors."
        )
    precision = {str(name): number(value) for name, value in mapping(line.get("train_ap")).items()}
    unlearnt = [name for name, value in precision.items() if value is not None and value < LIMITS["train_ap"]]
    if unlearnt:
        yield (
            f"Not learnt even on the training images: {', '.join(unlearnt)}. Such maps mean nothing; check these tags, "
            "and add images of them."
        )


def _is_given(facts: Facts) -> bool:
    """Whether the classifier came from a file, and was not trained again."""
    stages = mapping(facts.manifest.get("stages"))
    trained = any(family(str(name)) == CLASSIFY and dig(entry, "trainings") for name, entry in stages.items())
    return not trained and bool(dig(stages, CLASSIFY, "settings", "settings", "classifier"))


def _last_validation(facts: Facts) -> Mapping[str, Any]:
    """The last line with average precision on training images, of the last training of the classifier."""
    histories = [history for stage, history in facts.histories.items() if family(stage) == CLASSIFY]
    lines = [line for history in histories for line in history if "train_map" in line]
    return lines[-1] if lines else {}


def _maps(facts: Facts) -> Iterator[str]:
    images = sum(facts.splits.get(split, 0) for split in ("train", "val"))
    empty = {
        str(problem.get("id"))
        for problem in facts.problems
        if problem.get("stage") == LOCALIZE and "zero everywhere" in str(problem.get("reason"))
    }
    if images and len(empty) > LIMITS["empty_maps"] * images:
        yield (
            f"In {len(empty)} of {images} images the map of a tag is zero everywhere: the classifier sees nothing of "
            "it. Either it has not learnt the class, or the objects are too small for the cells of its maps "
            "(classify.output_stride=8, larger localize.scales)."
        )


def _threshold(facts: Facts) -> Iterator[str]:
    value = number(facts.thresholds.get("value"))
    if facts.thresholds.get("rule") != "auto" or value is None:
        return
    if value < LIMITS["threshold_end"] or value > 1 - LIMITS["threshold_end"]:
        end = "lower" if value < 0.5 else "upper"
        yield (
            f"The automatic background threshold is {value:.2f}, at the {end} end of its range: the maps do not follow "
            "the colours of the images. Look at them in the gallery, and set refine.threshold.value (0.3 to 0.5 is "
            "usual)."
        )


def _pseudo_masks(facts: Facts) -> Iterator[str]:
    marked = mapping(dig(facts.metrics, "marked", "train", "pseudo_masks"))
    foreground, empty, flooded = (number(marked.get(key)) for key in ("foreground", "empty", "flooded"))
    if empty is not None and empty > LIMITS["empty_masks"]:
        yield (
            f"{percent(empty)} % of the tagged training images have an empty pseudo mask: the threshold is too high "
            "(refine.threshold.value), or maps are empty."
        )
    elif foreground is not None and foreground < LIMITS["foreground_low"]:
        yield (
            f"Pseudo masks mark {percent(foreground)} % of the pixels. If objects are larger, the threshold is too "
            "high: set refine.threshold.value lower. If they are that small, they need finer maps "
            "(classify.output_stride=8, larger localize.scales)."
        )
    if (flooded or 0) > LIMITS["flooded_masks"] or (foreground or 0) > LIMITS["foreground_high"]:
        yield (
            f"Pseudo masks mark {percent(foreground)} % of the pixels, and nearly all in {percent(flooded)} % of the "
            "images. If objects do not fill the images, raise refine.threshold.value, or add images without a tag."
        )


def _predictions(facts: Facts) -> Iterator[str]:
    """What the network makes of pseudo masks: on new images, without their tags."""
    marked = mapping(dig(facts.metrics, "marked", "val", "segmentation"))
    in_tags, empty, untagged = (number(marked.get(key)) for key in ("in_tags", "empty", "foreground_untagged"))
    if in_tags is not None and in_tags < LIMITS["in_tags"]:
        yield (
            f"Only {percent(in_tags)} % of what the network marks on val has a class that the image is tagged with: it "
            "confuses classes. Train it longer, add images of the confused classes, or let the classifier decide which "
            "classes there are (segment.tag_gate=0.05)."
        )
    if empty is not None and empty > LIMITS["empty_masks"]:
        yield (
            f"On {percent(empty)} % of the tagged val images the network marks nothing: it was trained too little, or "
            "its pseudo masks are nearly empty."
        )
    if untagged is not None and untagged > LIMITS["untagged"]:
        yield (
            f"On val images without a tag the network marks {percent(untagged)} % of the pixels: add such images to "
            "the training, or let the classifier decide which classes there are (segment.tag_gate=0.05)."
        )
    for rule in rules(facts.metrics)[:1]:
        pseudo = miou(facts.metrics, "train", "pseudo_masks", rule)
        model = miou(facts.metrics, "val", "segmentation", rule)
        if pseudo is None or model is None or pseudo < LIMITS["pseudo_good"]:
            continue
        if pseudo - model > LIMITS["prediction_gap"]:
            yield (
                f"Pseudo masks are good ({percent(pseudo)} mIoU on train) but predictions are not ({percent(model)} on "
                "val): the network was trained too little, or there are too few images for it to know new ones."
            )
