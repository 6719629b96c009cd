"""Each cause of bad masks has its sentence, a run without any has none, and no content of a run ends in a crash."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bad_runs import CAUSES, PSEUDO_MASKS, SEGMENTATION, TRAINING, facts_of
from fake_run import FakeRun
from tagmask.report.run.diagnosis import LIMITS, diagnosis
from tagmask.report.run.facts import read_facts
from tagmask.stages.refine.constant_maps import UNLEARNT


def test_the_error_of_constant_maps_and_the_report_judge_tags_alike() -> None:
    assert LIMITS["train_map"] == UNLEARNT


def test_a_good_run_has_nothing_to_say() -> None:
    assert diagnosis(facts_of()) == []


@pytest.mark.parametrize(
    ("cause", "start", "remedy"),
    [
        ("too few updates", "The classifier was trained too little: 16 updates, where 124", "Set classify.iter"),
        ("tags not learnt", "The classifier does not know its own training images (average precision 31.0", "weights"),
        ("tags learnt by heart", "The classifier knows its training images (average precision 98.0", "More images"),
        ("a class not learnt", "Not learnt even on the training images: sheep. Such", "add images of them"),
        ("empty maps", "In 9 of 60 images the map of a tag is zero everywhere", "classify.output_stride=8"),
        ("threshold at its upper end", "The automatic background threshold is 0.98, at the upper", "refine.threshold."),
        ("threshold at its lower end", "The automatic background threshold is 0.01, at the lower", "refine.threshold."),
        ("empty pseudo masks", "40.0 % of the tagged training images have an empty pseudo mask", "refine.threshold."),
        ("little foreground", "Pseudo masks mark 1.0 % of the pixels. If objects are larger", "value lower"),
        ("flooded pseudo masks", "Pseudo masks mark 70.0 % of the pixels, and nearly all in 40.0 %", "raise refine."),
        ("much foreground", "Pseudo masks mark 90.0 % of the pixels, and nearly all in 10.0 %", "raise refine."),
        ("classes confused", "Only 43.0 % of what the network marks on val has a class", "segment.tag_gate=0.05"),
        ("empty predictions", "On 60.0 % of the tagged val images the network marks nothing", "trained too little"),
        ("false alarms", "On val images without a tag the network marks 12.0 %", "segment.tag_gate=0.05"),
        ("good pseudo masks, bad predictions", "Pseudo masks are good (70.0 mIoU on train) but", "too few images"),
    ],
)
def test_each_cause_has_its_sentence_alone(cause: str, start: str, remedy: str) -> None:
    (sentence,) = diagnosis(facts_of(**CAUSES[cause]))
    assert sentence.startswith(start)
    assert remedy in sentence[len(start) :]


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {**TRAINING, "updates": TRAINING["least"]}},
        {"history": {"train_map": LIMITS["train_map"], "val_map": 0.7}},
        {"history": {"train_map": 0.84, "val_map": 0.5}},
        {"history": {"train_map": 0.84, "val_map": 0.49}},
        {"history": {"train_map": 0.9, "train_ap": {"cow": LIMITS["train_ap"], "sheep": None}}},
        {"history": {"val_map": 0.1}},  # of a version that did not measure training images
        {"history": {}},
        {"empty": 6},
        {"threshold": 0.95},
        {"threshold": 1.0, "rule": "fixed"},
        {"pseudo_masks": {"foreground": 0.02, "empty": 0.25, "flooded": 0.25}},
        {"pseudo_masks": {**PSEUDO_MASKS, "foreground": 0.8}},
        {"segmentation": {"in_tags": 0.6, "empty": 0.25, "foreground_untagged": 0.05}},
        {"segmentation": {"in_tags": None, "empty": None, "foreground_untagged": None}},
        {"miou": (0.45, 0.1)},  # the pseudo masks are bad themselves
        {"miou": (0.7, 0.5)},
        {"miou": (None, None)},
    ],
)
def test_at_a_limit_nothing_is_said(changes: dict[str, Any]) -> None:
    assert diagnosis(facts_of(**changes)) == []


def test_the_causes_stand_along_the_pipeline() -> None:
    sentences = diagnosis(
        facts_of(
            training={**TRAINING, "updates": 3},
            history={"train_map": 0.1},
            empty=30,
            threshold=1.0,
            pseudo_masks={"foreground": 0.0, "empty": 1.0, "flooded": 0.0},
            segmentation={**SEGMENTATION, "in_tags": 0.1, "empty": 1.0},
        )
    )
    starts = [text.split()[:3] for text in sentences]
    assert starts == [
        ["The", "classifier", "was"], ["The", "classifier", "does"], ["In", "30", "of"],
        ["The", "automatic", "background"], ["100.0", "%", "of"], ["Only", "10.0", "%"], ["On", "100.0", "%"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "name", "start"),
    [
        ("classify/2", "classify/2", "The classifier was trained too little: 16"),
        ("refine", "1-irnet", "1-irnet was trained too little: 16"),
        ("segment", "segment", "The network was trained too little: 16"),
    ],
)
def test_every_training_is_judged(stage: str, name: str, start: str) -> None:
    record = {"updates": 16, "least": 124, "classes": 16}  # without a key, as of an older version
    manifest = {"stages": {stage: {"trainings": {name: record}}, "evaluate": {}}}
    (sentence,) = diagnosis(replace(facts_of(), manifest=manifest))
    assert sentence.startswith(start)
    assert sentence.endswith("for 16 classes.")


def test_a_later_training_of_the_classifier_counts() -> None:
    facts = facts_of()
    again = {**facts.histories, "classify/2": ({"step": 5, "train_map": 0.2},)}
    (only,) = diagnosis(replace(facts, histories=again))
    assert "does not know its own training images (average precision 20.0" in only


def test_whatever_a_run_holds(full_run: FakeRun) -> None:
    assert isinstance(diagnosis(read_facts(full_run.workspace, full_run.source)), list)
    broken = facts_of(
        training={"updates": "many", "least": None}, history={"train_map": "x", "train_ap": [1]},
        threshold=None, pseudo_masks=3, segmentation=None,
    )  # fmt: skip
    assert diagnosis(broken) == []
