"""A run directory as a real run leaves it, made in a second: pictures, maps, masks, predictions, metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tagmask.metrics.segmentation import confusion_matrix, scores
from tagmask.runs.workspace import Workspace
from tagmask.storage.pictures import save_mask
from tagmask.storage.records import write_json
from tagmask.types import ActivationMaps, ClassList, DataSource, Problem, Sample, UInt8Array

STAGES = ("classify", "localize", "refine", "segment", "segment/full", "evaluate")
FOUR = ("cow", "sheep", "boat", "aeroplane")


@dataclass
class FakeRun:
    """The run, its source, and how often each real mask was opened."""

    workspace: Workspace
    source: DataSource


def make_source(
    root: Path, names: Sequence[str] = FOUR, *, train: int = 10, val: int = 8, masks: bool = True, seed: int = 0
) -> DataSource:
    """Ellipses on a gradient, one or two classes an image; every class occurs if there are enough images."""
    rng = np.random.default_rng(seed)
    truths: dict[str, UInt8Array] = {}
    splits: dict[str, tuple[Sample, ...]] = {}
    for split, count in (("train", train), ("val", val)):
        samples = []
        for index in range(count):
            first = index % len(names) + 1
            second = int(rng.integers(1, len(names) + 1))
            tags = tuple(sorted({first, second} if index % 2 else {first}))
            sample_id = f"{split}/{index:03d}"
            truths[sample_id], picture = _scene(rng, tags, tall=index % 3 == 2)
            path = root / f"{split}-{index:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path, quality=90)
            samples.append(Sample(sample_id, path, tags, path if masks else None))
        splits[split] = tuple(samples)
    reader = (lambda sample: truths[sample.id]) if masks else None
    return DataSource("fake", ClassList(("background", *names)), splits, "f" * 16, mask_reader=reader)


def _scene(rng: np.random.Generator, tags: Sequence[int], *, tall: bool) -> tuple[UInt8Array, UInt8Array]:
    height, width = (96, 72) if tall else (72, 96)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    picture = np.stack([60 + x, 110 + 0.6 * y, 90 + 0.4 * x], axis=2)
    mask = np.zeros((height, width), np.uint8)
    for place, tag in enumerate(tags):
        centre = ((place + 0.5) * width / len(tags), height * rng.uniform(0.4, 0.6))
        radius = ((x - centre[0]) / (width / len(tags) * 0.36)) ** 2 + ((y - centre[1]) / (height * 0.3)) ** 2
        mask[radius < 1.15] = 255
        mask[radius < 1] = tag
        picture[radius < 1] = rng.uniform(40, 220, 3)
    picture += rng.normal(0, 6, picture.shape)
    return mask, picture.clip(0, 255).astype(np.uint8)


def make_run(
    root: Path,
    source: DataSource,
    *,
    name: str = "fake-cam",
    seed: int = 0,
    stages: Sequence[str] = STAGES,
    problems: Sequence[Problem] = (),
) -> Workspace:
    """Artifacts of the given stages, in Workspace's formats, from the real masks and some noise."""
    rng = np.random.default_rng(seed)
    workspace = Workspace(root)
    truths = {s.id: _truth(source, s) for samples in source.splits.values() for s in samples}
    made: dict[tuple[str, str], list[tuple[UInt8Array, UInt8Array]]] = {}
    for split, samples in source.splits.items():
        for sample in samples:
            for measure, mask in _artifacts(workspace, sample, split, truths[sample.id], stages, rng).items():
                made.setdefault((split, measure), []).append((mask, truths[sample.id]))
    _write_histories(workspace, source, stages, rng)
    if "refine" in stages:
        thresholds = [index / 100 for index in range(101)]
        statistic = [0.1 - (value - 0.37) ** 2 for value in thresholds]
        record = {"value": 0.37, "rule": "auto", "statistic": "colour mutual information"}
        curve = {"thresholds": thresholds, "statistic": statistic}
        write_json(workspace.stage("refine") / "thresholds.json", {**record, "curve": curve})
    _write_manifest(workspace, source, stages, name, seed)
    (root / "recipe.yaml").write_text(_recipe(name, seed), encoding="utf-8")
    workspace.write_problems("classify", problems)
    if "evaluate" in stages:
        write_json(root / "metrics.json", make_metrics(source, made, rng))
    return workspace


def _truth(source: DataSource, sample: Sample) -> UInt8Array:
    if source.mask_reader is not None:
        return source.read_mask(sample)
    with Image.open(sample.image_path) as image:
        width, height = image.size
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : -height // 4, width // 4 : -width // 4] = sample.tags[0] if sample.tags else 0
    return mask


def _artifacts(
    workspace: Workspace,
    sample: Sample,
    split: str,
    truth: UInt8Array,
    stages: Sequence[str],
    rng: np.random.Generator,
) -> dict[str, UInt8Array]:
    """Write what the stages would; returns measure -> label mask."""
    written: dict[str, UInt8Array] = {}
    maps = np.stack([_map(truth, tag, rng) for tag in sample.tags] or [np.zeros((1, 1))])[: len(sample.tags)]
    full = np.stack([_enlarge(m, truth.shape) for m in maps]) if len(maps) else np.zeros((0, *truth.shape))
    if "localize" in stages:
        tags = np.asarray(sample.tags, np.int64)
        peak = rng.uniform(2, 12, len(tags)).astype(np.float32)
        height, width = truth.shape
        workspace.save_maps(sample.id, ActivationMaps(tags, maps.astype(np.float32), peak, (height, width)))
        written["maps"] = _labels(full, sample.tags, truth.shape, 0.45)
    if "refine" in stages:
        refined = np.sqrt(maps).astype(np.float32)
        workspace.save_maps(
            sample.id,
            ActivationMaps(np.asarray(sample.tags, np.int64), refined, np.ones(len(refined), np.float32), truth.shape),
            stage="refine",
        )
        written["refined_maps"] = _labels(np.sqrt(full), sample.tags, truth.shape, 0.6)
    if "refine" in stages and split == "train":
        mask = _labels(full, sample.tags, truth.shape, 0.35)
        mask[(full.max(axis=0, initial=0) > 0.30) & (mask == 0)] = 255
        save_mask(workspace.mask_path(sample.id), mask)
        written["pseudo_masks"] = mask
    for stage, measure, threshold in (("segment", "segmentation", 0.3), ("segment/full", "segmentation_full", 0.2)):
        if stage in stages and split == "val":
            mask = _labels(full, sample.tags, truth.shape, threshold + rng.uniform(-0.05, 0.2))
            if rng.random() < 0.2 and sample.tags:
                mask[mask == sample.tags[0]] = 1
            save_mask(workspace.prediction_path(sample.id, stage), mask)
            written[measure] = mask
    return written


def _map(truth: UInt8Array, tag: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A blob over a part of the object, at stride 4, maximum just below 1."""
    height, width = truth.shape
    y, x = np.mgrid[: -(-height // 4), : -(-width // 4)] * 4.0
    ys, xs = np.nonzero(truth == tag)
    if len(ys) == 0:
        ys, xs = np.array([height // 2]), np.array([width // 2])
    pick = rng.integers(len(ys))
    cy, cx = 0.65 * ys.mean() + 0.35 * ys[pick], 0.65 * xs.mean() + 0.35 * xs[pick]
    sy, sx = max(ys.std(), 6) * 1.25, max(xs.std(), 6) * 1.25
    blob = np.exp(-(((y - cy) / sy) ** 2 + ((x - cx) / sx) ** 2) / 2) + rng.uniform(0, 0.05, y.shape)
    return np.asarray(blob / (blob.max() + 1e-5))


def _enlarge(small: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    image = Image.fromarray(small.astype(np.float32)).resize(shape[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image)


def _labels(full: np.ndarray[Any, Any], tags: Sequence[int], shape: tuple[int, ...], threshold: float) -> UInt8Array:
    mask = np.zeros(shape, np.uint8)
    if len(tags):
        strongest = np.asarray(tags, np.uint8)[full.argmax(axis=0)]
        over = full.max(axis=0) > threshold
        mask[over] = strongest[over]
    return mask


def _write_histories(workspace: Workspace, source: DataSource, stages: Sequence[str], rng: np.random.Generator) -> None:
    names = source.classes.foreground
    for stage, start in (("classify", 0.7), ("segment", 1.6), ("segment/full", 1.4)):
        if stage not in stages:
            continue
        lines: list[dict[str, Any]] = []
        for step in range(1, 121):
            loss = start * np.exp(-step / 40) + 0.05 + abs(rng.normal(0, 0.04))
            lines.append({"step": step, "epoch": step / 24, "loss": round(float(loss), 4), "lr": 1e-4})
            if stage == "classify" and step % 24 == 0:
                ap = {name: round(float(rng.uniform(0.6, 1)), 3) for name in names}
                lines.append({"step": step, "epoch": step // 24, "val_map": 0.96 - 0.5 / step**0.5, "val_ap": ap})
        path = workspace.stage(stage) / "history.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _write_manifest(workspace: Workspace, source: DataSource, stages: Sequence[str], name: str, seed: int) -> None:
    seconds = {"classify": 401.2, "localize": 122.9, "refine": 18.4, "segment": 611.0, "segment/full": 598.2}

    def change(manifest: dict[str, Any]) -> None:
        manifest.update(name=name, created="2026-01-01T12:00:00Z", seed=seed)
        manifest["environment"] = {
            "tagmask": "0.1.0", "python": "3.11.7", "torch": "2.7.0", "device": "cpu", "precision": "bf16",
            "threads": 2, "processes": 1, "platform": "Linux-6.1-x86_64",
        }  # fmt: skip
        manifest["data"] = {
            "format": source.format,
            "fingerprint": source.fingerprint,
            "classes": list(source.classes.names),
            "images": {split: len(samples) for split, samples in source.splits.items()},
        }
        manifest["stages"] = {
            stage: {
                "status": "done", "fingerprint": "0" * 16, "seconds": seconds.get(stage, 6.5),
                "peak_memory_mb": 700.0 + 90 * place, "images": 275, "reason": "new",
            }
            for place, stage in enumerate(stages)
        }  # fmt: skip

    workspace.root.mkdir(parents=True, exist_ok=True)
    workspace.update_manifest(change)


def _recipe(name: str, seed: int) -> str:
    return (
        f"name: {name}\nseed: {seed}\ndata:\n  format: fake\n  root: pictures\nclassify:\n"
        "  backbone: mobilenetv2_100  # any timm name\n  epochs: 5\nlocalize:\n  name: cam\n"
        "  scales: [0.5, 1.0, 1.5, 2.0]\nrefine:\n- name: threshold\n  value: auto\n"
    )


def make_metrics(source: DataSource, made: Mapping[tuple[str, str], Any], rng: np.random.Generator) -> dict[str, Any]:
    """metrics.json of docs/artifacts.md, scored with tagmask's own counts."""
    names = source.classes.names
    ap: dict[str, float | None] = {name: float(rng.uniform(0.7, 1)) for name in names[1:]}
    ap[names[-1]] = None
    result: dict[str, Any] = {
        "schema": 1,
        "classes": list(names),
        "tags": {"map": 0.957, "ap": ap},
        "threshold": {"value": 0.37, "rule": "auto"},
        "splits": {},
        "ratio_to_full": {},
        "without_masks": None,
    }
    if source.mask_reader is None:
        result["without_masks"] = "The data source has no masks, so there is no mIoU."
        return result
    for (split, measure), pairs in made.items():
        result["splits"].setdefault(split, {})[measure] = {
            rule: _scores(pairs, names, measure, void) for rule, void in RULE_OF_VOID
        }
    val = result["splits"].get("val", {})
    if "segmentation" in val and "segmentation_full" in val:
        for rule, _ in RULE_OF_VOID:
            result["ratio_to_full"][rule] = val["segmentation"][rule]["miou"] / val["segmentation_full"][rule]["miou"]
    return result


RULE_OF_VOID: tuple[tuple[str, Callable[[UInt8Array], UInt8Array]], ...] = (
    ("void_ignored", lambda truth: truth),
    ("void_background", lambda truth: np.where(truth == 255, 0, truth).astype(np.uint8)),
)


def _scores(
    pairs: Sequence[tuple[UInt8Array, UInt8Array]],
    names: Sequence[str],
    measure: str,
    void: Callable[[UInt8Array], UInt8Array],
) -> dict[str, Any]:
    total = np.zeros((len(names), len(names)), np.int64)
    groups = {group: np.zeros_like(total) for group in ("1", "2", "3+")}
    for mask, truth in pairs:
        target = void(truth)
        counts = confusion_matrix(mask, target, len(names))
        total += counts
        present = len(set(np.unique(target)) - {0, 255})
        groups["3+" if present >= 3 else str(max(present, 1))] += counts
    result = scores(total, names, n_images=len(pairs), by_class_count=groups)
    if measure in ("maps", "refined_maps"):
        thresholds = np.linspace(0, 1, 101)
        best = 0.42
        curve = result["miou"] * np.exp(-(((thresholds - best) / 0.4) ** 2))
        result["threshold"] = best
        result["threshold_curve"] = {"thresholds": thresholds.tolist(), "miou": curve.tolist()}
    return result
