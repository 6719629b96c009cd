"""What a recipe's stages are, and the fingerprint of everything that each one's result depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tagmask.settings.recipe import Recipe
from tagmask.stages.table import SEE_TRUTH
from tagmask.storage.arrays import SCHEMA
from tagmask.types import DataSource


@dataclass(frozen=True)
class Step:
    """One stage as planned: everything its result depends on."""

    name: str
    settings: Mapping[str, Any]
    upstream: tuple[str, ...]
    fingerprint: str


def wanted(recipe: Recipe) -> list[tuple[str, Any, tuple[str, ...]]]:
    """The stages of a recipe in order: name, settings, upstream."""
    dumped = recipe.stated()
    supervision = recipe.segment.supervision if recipe.segment else None
    from_classifier = bool(recipe.segment and getattr(recipe.segment.network, "weights", None) == "classifier")
    later = ("rounds", "relabel")
    segment = {k: v for k, v in (dumped["segment"] or {}).items() if k not in ("supervision", *later)}
    stages: list[tuple[str, Any, tuple[str, ...]]] = []
    if supervision != "full" or from_classifier:
        stages.append(("classify", dumped["classify"], ()))
        for name, settings in zip(list(recipe.trainings)[1:], dumped["retrain"], strict=True):
            stages.append((name, settings, (stages[-1][0],)))
    trained = tuple(name for name, *_ in stages[-1:])
    if supervision != "full":
        stages.append(("localize", dumped["localize"], trained))
        if recipe.refine.chain:
            stages.append(("refine", dumped["refine"], ("localize",)))
    if recipe.segment and supervision in ("weak", "both"):
        if recipe.segment.needs_saliency:
            stages.append(("saliency", dumped["segment"]["saliency"], ()))
        given = (*(trained if from_classifier else ()), "refine", *(("saliency",) * recipe.segment.needs_saliency))
        for name in recipe.segment.stages:
            again = name != recipe.segment.stages[0]
            settings = {**segment, "relabel": dumped["segment"]["relabel"]} if again else segment
            stages.append((name, settings, (*given, stages[-1][0]) if again else given))
    if supervision in ("full", "both"):
        # Real masks are trained by plain cross entropy: they need no guard against wrong labels.
        real = {k: v for k, v in segment.items() if k not in ("loss", "saliency", "confidence")}
        stages.append(("segment/full", real, trained if from_classifier else ()))
    stages.append(("evaluate", dumped["evaluate"], tuple(name for name, *_ in stages)))
    return stages


def plan(recipe: Recipe, source: DataSource, precision: str) -> list[Step]:
    """The stages of a recipe in order, each with the hash of its settings, its upstream and the data."""
    common = {"seed": recipe.seed, "precision": precision}
    masks = _mask_fingerprint(source)
    steps: list[Step] = []
    prints: dict[str, str] = {}
    for name, settings, upstream in wanted(recipe):
        # What is measured is the same whatever the seed and the precision of what made it.
        own = {"settings": settings, **({} if name == "evaluate" else common)}
        # Masks are part of it only for stages that may open them: an edited mask does not retrain what never saw it.
        data = [source.fingerprint, masks if name in SEE_TRUTH else None]
        if name == "saliency" and recipe.segment and recipe.segment.saliency:
            data.append(recipe.segment.saliency.state())
        # Fingerprints form a chain: each holds those of its upstream, so whatever changes, everything behind it is
        # redone and nothing before it.
        text = json.dumps([SCHEMA, name, own, [prints[u] for u in upstream], data], sort_keys=True)
        prints[name] = hashlib.sha256(text.encode()).hexdigest()[:24]
        steps.append(Step(name, own, upstream, prints[name]))
    return steps


def _mask_fingerprint(source: DataSource) -> str:
    """Hash of all boxes and of the mask files' sizes and times: an edit redoes what looks at them, and nothing else."""
    digest = hashlib.sha256()
    for samples in source.splits.values():
        for sample in samples:
            if sample.boxes:
                digest.update(f"{sample.id} {sample.boxes}\n".encode("utf-8", "backslashreplace"))
        for path in (sample.mask_path for sample in samples if sample.mask_path is not None):
            try:
                found = path.stat()
            except OSError:
                continue  # evaluate lists a mask that is gone
            digest.update(f"{path.name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()
