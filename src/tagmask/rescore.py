"""Score again: a whole run against ground truth that changed, or any folder of masks from any tool."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagmask.context import Context
from tagmask.errors import DataError, InputError, TagmaskError
from tagmask.evaluate import stage as evaluate
from tagmask.evaluate.segmentation import VOID_RULES, ConfusionCounter, scores
from tagmask.interfaces import DataSource, Problem, Sample
from tagmask.progress import Progress, SilentProgress
from tagmask.recipe import load_recipe
from tagmask.report import write_report
from tagmask.street import Run
from tagmask.workspace import Workspace, artifact_name


@dataclass(frozen=True)
class FolderScores:
    """A *scores* object (docs/artifacts.md) by void rule for a folder of masks, and what was left out."""

    scores: dict[str, dict[str, Any]]
    missing: tuple[str, ...]
    problems: tuple[Problem, ...]


def open_run(path: Path | str) -> Run:
    """An existing run as a :class:`Run`, nothing done.

    Raises:
        InputError: not a run directory.
    """
    root = Path(path)
    if not (root / "manifest.json").is_file() or not (root / "recipe.yaml").is_file():
        msg = f"{path}: not a run directory (no manifest.json and recipe.yaml in it)"
        raise InputError(msg)
    return Run(root, load_recipe(root / "recipe.yaml"))


def evaluate_again(path: Path | str, *, progress: Progress | None = None) -> Run:
    """Run the evaluate stage on what a run holds now and write metrics.json and the report again.

    Nothing is trained or predicted. To change settings: ``tagmask run RUN evaluate.thresholds=200``.

    Raises:
        InputError: not a run directory, or its data is gone.
        RunError: the run is locked, or not writable.
    """
    from tagmask.engine import Engine

    run, voice = open_run(path), progress or SilentProgress()
    source: DataSource = run.recipe.data.open()
    engine = Engine(run.recipe.engine.model_copy(update={"devices": 1}), seed=run.recipe.seed)
    with run.workspace.lock():
        if run.workspace.manifest().get("data", {}).get("fingerprint") != source.fingerprint:
            voice.warning("the data changed since this run; scoring its artifacts against the data as it is now")
        voice.stage("evaluate", "asked for")
        problems = evaluate.run(Context(run.recipe, run.workspace, engine, source, voice))
        run.workspace.write_problems("evaluate", problems)
        write_report(run.workspace, source)
    return run


def report_again(path: Path | str) -> Path:
    """Write a run's report.html from its artifacts; returns its path."""
    run = open_run(path)
    with run.workspace.lock():
        write_report(run.workspace, run.recipe.data.open())
    return run.report


def score_folder(
    source: DataSource, folder: Path, *, split: str = "val", progress: Progress | None = None
) -> FolderScores:
    """Score masks (PNG, values = class numbers, 255 counts as background) against a source's ground truth.

    Args:
        source: where the ground truth is.
        folder: masks named after the sample: ``a/b.png``, ``a%2Fb.png`` or ``b.png`` for the id ``a/b``.
        split: which samples to score.
        progress: who to tell.

    Raises:
        UnknownNameError: no such split.
        DataError: the split has no ground truth, or the folder holds no mask of any of its images.
    """
    voice = progress or SilentProgress()
    samples = [sample for sample in source.split(split) if source.has_mask(sample)]
    if not samples:
        msg = f"split '{split}' of this data has no ground truth, so nothing can be scored"
        raise DataError(msg)
    counter = ConfusionCounter(len(source.classes.names))
    missing: list[str] = []
    problems: list[Problem] = []
    voice.start(f"evaluate {split}", len(samples))
    for sample in samples:
        found = _mask_of(sample, folder)
        if found is None:
            missing.append(sample.id)
        else:
            try:
                truth = source.read_mask(sample)
                counter.update(Workspace.load_mask(found), truth, n_tags=len(sample.tags))
            except TagmaskError as error:
                problems.append(Problem("evaluate", sample.id, str(found), str(error)))
        voice.advance()
    voice.finish()
    if not counter.n_images:
        reason = f"; the first: {problems[0].path}: {problems[0].reason}" if problems else ""
        msg = f"{folder}: no usable mask of any of the {len(samples)} images of split '{split}'{reason}"
        raise DataError(msg)
    return FolderScores(
        {
            rule: scores(counter.confusion(void), source.classes.names, n_images=counter.n_images)
            for rule, void in VOID_RULES
        },
        tuple(missing),
        tuple(problems),
    )


def _mask_of(sample: Sample, folder: Path) -> Path | None:
    names = (f"{sample.id}.png", f"{artifact_name(sample.id)}.png", f"{Path(sample.id).name}.png")
    return next((folder / name for name in names if (folder / name).is_file()), None)
