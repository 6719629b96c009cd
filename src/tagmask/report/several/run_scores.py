"""What tables of several runs are made of: one run's scores, recipe and seconds, read without trusting them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from tagmask.errors import InputError, nearest
from tagmask.report.metrics_file import ERRORS as BOX_ERRORS
from tagmask.report.metrics_file import dig, localization_of, mapping, miou, number, scores
from tagmask.runs.stage_names import CLASSIFY, LOCALIZE, REFINE, SEGMENT, family
from tagmask.runs.workspace import Workspace
from tagmask.storage.records import read_json

Kind = Literal["percent", "number", "seconds", "ratio", "gain"]


@dataclass(frozen=True)
class RunScores:
    """One run. ``settings`` tells runs apart that differ in more than name, seed and machine ('' if unknown)."""

    path: Path
    name: str
    seed: str
    data: str
    metrics: Mapping[str, Any]
    recipe: Mapping[str, Any]
    settings: str
    seconds: Mapping[str, float]
    resumed: tuple[str, ...]

    @property
    def is_plain_cam(self) -> bool:
        """Whether this is the baseline of every table: CAM on a head of global average pooling, trained once."""
        localize, head = self.recipe.get("localize"), dig(self.recipe, "classify", "head")
        method = localize if isinstance(localize, str) else dig(localize, "name")
        pooling = head if isinstance(head, str) else dig(head, "name")
        return method == "cam" and pooling == "gap" and not self.recipe.get("retrain")

    @property
    def map_seconds(self) -> float | None:
        """Seconds of the classifier's trainings and of the maps together, None unless both are known."""
        trained = [value for name, value in self.seconds.items() if family(name) == CLASSIFY]
        maps = self.seconds.get(LOCALIZE)
        return sum(trained) + maps if trained and maps is not None else None


def read_run(path: Path, *, need_scores: bool = True) -> RunScores:
    """Read what a run directory says of itself.

    Args:
        path: the run directory.
        scored: whether a run without metrics.json is an error.

    Raises:
        InputError: not a run directory, or not evaluated.
        RunError: a manifest or metrics file is broken.
    """
    if not path.is_dir():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        msg = f"{path}: is not a run directory. {nearest(path.name, beside)}"
        raise InputError(msg)
    has_scores = (path / "metrics.json").exists()
    if need_scores and not has_scores:
        msg = f"{path}: has no metrics.json. Run `tagmask evaluate {path}` first."
        raise InputError(msg)
    manifest = Workspace(path).manifest()
    stages = {str(name): mapping(entry) for name, entry in mapping(manifest.get("stages")).items()}
    seconds = {name: number(entry.get("seconds")) for name, entry in stages.items()}
    recipe = _recipe(path / "recipe.yaml")
    own = {key: value for key, value in recipe.items() if key not in ("name", "seed", "engine")}
    return RunScores(
        path=path,
        name=str(manifest.get("name") or path.resolve().name),
        seed=str(manifest.get("seed", "?")),
        data=str(dig(manifest, "data", "fingerprint") or ""),
        metrics=mapping(read_json(path / "metrics.json")) if has_scores else {},
        recipe=recipe,
        settings=json.dumps(own, sort_keys=True, default=str) if own else "",
        seconds={name: value for name, value in seconds.items() if value is not None},
        resumed=tuple(name for name, entry in stages.items() if entry.get("reason") == "resumed"),
    )


def _recipe(path: Path) -> Mapping[str, Any]:
    """The recipe as plain values, whichever version wrote it; empty if it cannot be read."""
    try:
        return mapping(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}


@dataclass(frozen=True)
class Column:
    """A score of a run, or its seconds: its name, the table it stands in, how it is written, how it is read.

    ``read(run, rule)`` gives a fraction, a number, or None. ``by_void_rule``: whether the void rule matters.
    """

    name: str
    table: str
    kind: Kind
    read: Callable[[RunScores, str], float | None]
    by_void_rule: bool = True


BOXES = "localisation, error of boxes"
MAPS, LATER, COUNTS, COST = "mIoU of the maps", "mIoU of what follows", "maps by number of classes", "cost"
OTHERS = "segmentation on val, other scores"
FALSE_ALARMS = "false alarms"
ERRORS = {"train": "maps, errors on train", "val": "maps, errors on val"}


def _miou(name: str, split: str, measure: str) -> Column:
    table = MAPS if measure == "maps" else LATER
    return Column(name, table, "percent", lambda run, rule: miou(run.metrics, split, measure, rule))


def _of_maps(name: str, table: str, kind: Kind, split: str, *keys: str) -> Column:
    return Column(name, table, kind, lambda run, rule: number(dig(scores(run.metrics, split, "maps", rule), *keys)))


def _of_segmentation(name: str, *keys: str) -> Column:
    return Column(
        name, OTHERS, "percent", lambda run, rule: number(dig(scores(run.metrics, "val", "segmentation", rule), *keys))
    )


def _seconds(name: str, read: Callable[[RunScores], float | None]) -> Column:
    return Column(name, COST, "seconds", lambda run, rule: read(run), by_void_rule=False)


def _training_seconds(run: RunScores) -> float | None:
    seconds = [value for name, value in run.seconds.items() if family(name) == CLASSIFY]
    return sum(seconds) if seconds else None


def _error(key: str, title: str) -> Column:
    return Column(
        f"{title} error",
        BOXES,
        "percent",
        lambda run, rule: number(localization_of(run.metrics)[1].get(key)),
        by_void_rule=False,
    )


_SPLITS = ("train", "val")

#: Every column in the order of the tables; those that need a baseline are added by the comparison.
COLUMNS: tuple[Column, ...] = (
    _miou("maps train", "train", "maps"),
    _miou("maps val", "val", "maps"),
    Column("tags mAP", MAPS, "percent", lambda run, rule: number(dig(run.metrics, "tags", "map")), by_void_rule=False),
    _miou("refined maps train", "train", "refined_maps"),
    _miou("refined maps val", "val", "refined_maps"),
    _miou("pseudo masks train", "train", "pseudo_masks"),
    _miou("pseudo masks val", "val", "pseudo_masks"),
    _miou("segmentation train", "train", "segmentation"),
    _miou("segmentation val", "val", "segmentation"),
    _miou("full supervision val", "val", "segmentation_full"),
    Column("ratio to full", LATER, "percent", lambda run, rule: number(dig(run.metrics, "ratio_to_full", rule))),
    *(_error(name, title) for name, title in BOX_ERRORS.items()),
    _of_segmentation("F1", "mean_f1"),
    _of_segmentation("pixel accuracy", "pixel_accuracy"),
    _of_segmentation("boundary mIoU", "boundary", "miou"),
    _of_segmentation("smallest quarter", "by_object_size", "quarters", "smallest quarter", "miou"),
    _of_segmentation("largest quarter", "by_object_size", "quarters", "largest quarter", "miou"),
    _of_segmentation("mIoU of the objects", "miou_foreground"),
    _of_segmentation("left clean", "image_level", "left_clean"),
    _of_segmentation(FALSE_ALARMS, "image_level", "false_alarm_area"),
    _of_segmentation("AUC any class", "image_level", "auc_any"),
    _of_segmentation("AUC mean", "image_level", "auc_mean"),
    *(
        column
        for split in _SPLITS
        for column in (
            _of_maps(f"precision {split}", ERRORS[split], "percent", split, "mean_precision_foreground"),
            _of_maps(f"recall {split}", ERRORS[split], "percent", split, "mean_recall_foreground"),
            _of_maps(f"FP {split}", ERRORS[split], "percent", split, "errors", "fp"),
            _of_maps(f"FN {split}", ERRORS[split], "percent", split, "errors", "fn"),
            _of_maps(f"threshold {split}", ERRORS[split], "number", split, "threshold"),
        )
    ),
    *(
        _of_maps(f"{count} {split}", COUNTS, "percent", split, "by_class_count", count.partition(" ")[0])
        for split in _SPLITS
        for count in ("1 class", "2 classes", "3+ classes")
    ),
    _seconds("classify s", _training_seconds),
    _seconds("localize s", lambda run: run.seconds.get(LOCALIZE)),
    _seconds("refine s", lambda run: run.seconds.get(REFINE)),
    _seconds("segment s", lambda run: run.seconds.get(SEGMENT)),
    _seconds("until maps s", lambda run: run.map_seconds),
)
