"""Everything the page says about a run, read once. What is missing stays empty; what is broken is noted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tagmask.errors import TagmaskError
from tagmask.report.metrics_file import dig, mapping
from tagmask.runs.stage_names import CLASSIFY, REFINE, SEGMENT, SEGMENT_FULL
from tagmask.runs.workspace import Workspace
from tagmask.storage.records import read_json, read_jsonl
from tagmask.types import DataSource

T = TypeVar("T")
History = tuple[Mapping[str, Any], ...]

#: Stage folders that keep a training history, with the name people know them by.
TRAINED = {CLASSIFY: "Classifier", SEGMENT: "Segmentation", SEGMENT_FULL: "Full supervision"}


@dataclass(frozen=True)
class Facts:
    """Content of a run directory. ``classes`` has the background first and may be empty."""

    root: Path
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    recipe: str
    thresholds: Mapping[str, Any]
    histories: Mapping[str, History]
    problems: History
    classes: tuple[str, ...]
    splits: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the run, else of its folder."""
        return str(self.manifest.get("name") or self.root.resolve().name)


def read_facts(workspace: Workspace, source: DataSource | None = None) -> Facts:
    """Read all small files of a run directory; never raises for what it finds there.

    Args:
        workspace: the run; any part may be missing.
        source: gives class names and counts when the manifest does not have them yet.
    """
    notes: list[str] = []

    def attempt(read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except (TagmaskError, OSError, ValueError) as error:
            notes.append(str(error))
            return otherwise

    def lines(path: Path) -> History:
        nothing: list[dict[str, Any]] = []
        values = attempt(lambda: read_jsonl(path), nothing)
        return tuple(line for line in values if isinstance(line, Mapping))

    root = workspace.root
    empty: dict[str, Any] = {}
    manifest = mapping(attempt(workspace.manifest, empty))
    metrics_path, recipe_path = root / "metrics.json", root / "recipe.yaml"
    thresholds_path = workspace.stage(REFINE) / "thresholds.json"
    metrics = mapping(attempt(lambda: read_json(metrics_path), empty) if metrics_path.exists() else empty)
    recipe = attempt(lambda: recipe_path.read_text(encoding="utf-8"), "") if recipe_path.exists() else ""
    counts = {split: len(samples) for split, samples in source.splits.items()} if source else {}
    return Facts(
        root=root,
        manifest=manifest,
        metrics=metrics,
        recipe=recipe,
        thresholds=mapping(attempt(lambda: read_json(thresholds_path), empty) if thresholds_path.exists() else empty),
        histories={stage: lines(workspace.stage(stage) / "history.jsonl") for stage in trainings(manifest)},
        problems=lines(root / "problems.jsonl"),
        classes=_class_names(manifest, metrics, source),
        splits={str(k): v for k, v in mapping(dig(manifest, "data", "images")).items()} or counts,
        notes=tuple(notes),
    )


def trainings(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Title of every training by its stage, in order; retrainings of the classifier stand behind the first."""
    again = sorted(name for name in mapping(manifest.get("stages")) if name.startswith(f"{CLASSIFY}/"))
    later = {name: f"{TRAINED[CLASSIFY]}, training {name.removeprefix(f'{CLASSIFY}/')}" for name in again}
    return {CLASSIFY: TRAINED[CLASSIFY], **later, **TRAINED}


def _class_names(manifest: Mapping[str, Any], metrics: Mapping[str, Any], source: DataSource | None) -> tuple[str, ...]:
    """Names with the background first: from the source, the scores, or the manifest."""
    if source is not None:
        return source.classes.names
    for names in (metrics.get("classes"), dig(manifest, "data", "classes")):
        if isinstance(names, list) and names:
            return tuple(str(name) for name in names)
    return ()
