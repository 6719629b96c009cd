"""Score again: a whole run against ground truth that changed, or any folder of masks from any tool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tagmask.data.lists import match_ids
from tagmask.engine.engine import IMAGES_AT_ONCE, Engine
from tagmask.engine.image_loop import consume
from tagmask.engine.processes import available_cores
from tagmask.engine.threads import map_in_threads
from tagmask.errors import DataError, InputError, TagmaskError
from tagmask.metrics.image_counts import ImageCounts
from tagmask.metrics.mask_scores import MaskCounts, MaskScores, count_mask
from tagmask.metrics.segmentation import Average
from tagmask.progress.listeners import Progress, SilentProgress
from tagmask.report import write_report
from tagmask.runs.context import Context
from tagmask.runs.image_counts import SplitCounts, write_split_counts
from tagmask.runs.run import Run, open_run
from tagmask.runs.stage_names import EVALUATE
from tagmask.runs.workspace import Workspace
from tagmask.stages.evaluate import stage as evaluate
from tagmask.storage.arrays import SCHEMA
from tagmask.storage.files import artifact_name
from tagmask.storage.pictures import load_mask
from tagmask.storage.records import read_json, write_json
from tagmask.types import DataSource, Problem, Sample

PREDICTIONS = "predictions"  # what a folder of masks is called where runs say 'segmentation'


@dataclass(frozen=True)
class FolderScores:
    """Scores objects (docs/artifacts.md) of a folder of masks by void rule, its images' counts, what was left out."""

    scores: dict[str, dict[str, Any]]
    missing: tuple[str, ...]
    problems: tuple[Problem, ...]
    images: ImageCounts


def evaluate_again(path: Path | str, *, progress: Progress | None = None) -> Run:
    """Run the evaluate stage on what a run holds now and write metrics.json and the report again.

    Nothing is trained or predicted. To change settings: ``tagmask run RUN evaluate.thresholds=200``.

    Raises:
        InputError: not a run directory, or its data is gone.
        RunError: the run is locked, or not writable.
    """
    run, listener = open_run(path), progress or SilentProgress()
    source: DataSource = run.recipe.data.open()
    engine = Engine(run.recipe.engine.model_copy(update={"devices": 1}), seed=run.recipe.seed)
    with run.workspace.lock():
        if run.workspace.manifest().get("data", {}).get("fingerprint") != source.fingerprint:
            listener.warning("the data changed since this run; scoring its artifacts against the data as it is now")
        listener.stage(EVALUATE, "asked for")
        problems = evaluate.measure(Context(run.recipe, run.workspace, engine, source, listener))
        run.workspace.write_problems(EVALUATE, problems)
        write_report(run.workspace, source)
    return run


def evaluate_images(
    path: Path | str, images: Sequence[str], output: Path, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Score what a run holds on some of its images, as if its data had no others; the run stays as it is.

    For published protocols: maps of all of VOC's train_aug, scored on the 1,464 images of train, the threshold
    chosen on these.

    Args:
        path: the run.
        images: ids, or lines of a list of images; those of either split are scored in their split.
        output: folder for metrics.json and the counts of the images.
        progress: who to tell.

    Returns:
        The metrics.

    Raises:
        InputError: not a run directory, its data is gone, or it has none of the images.
        RunError: the scores cannot be written.
    """
    run, listener = open_run(path), progress or SilentProgress()
    source: DataSource = run.recipe.data.open()
    known = {sample.id for samples in source.splits.values() for sample in samples}
    names = match_ids(images, known)
    ids = known.intersection(names)
    if not ids:
        msg = f"{path}: its data has none of the {len(names)} images of the list"
        raise InputError(msg)
    if len(ids) < len(names):
        listener.warning(f"{len(names) - len(ids)} images of the list are not in the data of this run")
    splits = {name: tuple(s for s in samples if s.id in ids) for name, samples in source.splits.items()}
    engine = Engine(run.recipe.engine.model_copy(update={"devices": 1}), seed=run.recipe.seed)
    target, part = Workspace(output), replace(source, splits=splits)
    problems = evaluate.measure(Context(run.recipe, run.workspace, engine, part, listener), target)
    target.write_problems(EVALUATE, problems)
    metrics: dict[str, Any] = read_json(output / "metrics.json")
    return metrics


def report_again(path: Path | str) -> Path:
    """Write a run's report.html from its artifacts; returns its path."""
    run = open_run(path)
    with run.workspace.lock():
        write_report(run.workspace, run.recipe.data.open())
    return run.report


def score_folder(
    source: DataSource,
    folder: Path,
    *,
    split: str = "val",
    average: Average = "occurring",
    progress: Progress | None = None,
) -> FolderScores:
    """Score masks (PNG, values = class numbers, 255 counts as background) against a source's ground truth.

    Args:
        source: where the ground truth is.
        folder: masks named after the sample: ``a/b.png``, ``a%2Fb.png`` or ``b.png`` for the id ``a/b``.
        split: which samples to score.
        average: over which classes the means go, see :func:`tagmask.metrics.mean_iou`.
        progress: who to tell.

    Raises:
        UnknownNameError: no such split.
        DataError: the split has no ground truth, or the folder holds no mask of any of its images.
    """
    samples = [sample for sample in source.split(split) if source.has_mask(sample)]
    if not samples:
        msg = f"split '{split}' of this data has no ground truth, so nothing can be scored"
        raise DataError(msg)
    names = source.classes.names
    paths = {sample.id: path for sample in samples if (path := _mask_of(sample, folder)) is not None}
    scores, problems = MaskScores(len(names)), list[Problem]()

    def work(sample: Sample) -> tuple[Sample, MaskCounts | Problem]:
        path = paths[sample.id]
        try:
            return sample, count_mask(load_mask(path), source.read_mask(sample), len(names))
        except TagmaskError as error:
            return sample, Problem(EVALUATE, sample.id, str(path), str(error))

    def take(result: tuple[Sample, MaskCounts | Problem]) -> None:
        sample, counts = result
        if isinstance(counts, Problem):
            problems.append(counts)
        else:
            scores.add(sample.id, counts, n_tags=len(sample.tags))

    pairs = [sample for sample in samples if sample.id in paths]
    results = map_in_threads(work, pairs, min(available_cores(), IMAGES_AT_ONCE))
    consume(results, take, progress=progress or SilentProgress(), description=f"evaluate {split}", total=len(pairs))
    if not scores.n_images:
        reason = f"; the first: {problems[0].path}: {problems[0].reason}" if problems else ""
        msg = f"{folder}: no usable mask of any of the {len(samples)} images of split '{split}'{reason}"
        raise DataError(msg)
    missing = tuple(sample.id for sample in samples if sample.id not in paths)
    return FolderScores(scores.result(names, average), missing, tuple(problems), scores.images())


def write_folder_scores(result: FolderScores, source: DataSource, output: Path, *, split: str) -> None:
    """Write the scores as a run has them: metrics.json and evaluate/SPLIT-images.npz; the measure is 'predictions'.

    Raises:
        RunError: they cannot be written.
    """
    names = source.classes.names
    workspace = Workspace(output)
    write_split_counts(workspace, split, SplitCounts(names, source.fingerprint, {PREDICTIONS: result.images}))
    splits = {split: {PREDICTIONS: result.scores}}
    write_json(output / "metrics.json", {"schema": SCHEMA, "classes": list(names), "splits": splits})


def _mask_of(sample: Sample, folder: Path) -> Path | None:
    names = (f"{sample.id}.png", f"{artifact_name(sample.id)}.png", f"{Path(sample.id).name}.png")
    return next((folder / name for name in names if (folder / name).is_file()), None)
