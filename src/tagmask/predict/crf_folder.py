"""Refine a folder of masks, or of maps, with the dense CRF in worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tagmask.data.files import files_below
from tagmask.data.pixels import own_pixels
from tagmask.engine.processes import map_in_processes
from tagmask.errors import DataError, InputError, RunError
from tagmask.methods.dense_crf.masks import refine_maps, refine_mask
from tagmask.methods.dense_crf.refiner import DenseCrf
from tagmask.ops.transforms import colour_view
from tagmask.progress.listeners import Progress, SilentProgress
from tagmask.runs.workspace import Workspace
from tagmask.storage.arrays import stored_arrays
from tagmask.storage.files import artifact_name
from tagmask.storage.images import read_image
from tagmask.storage.label_masks import read_mask_png
from tagmask.storage.pictures import save_palette_png
from tagmask.storage.records import read_json, write_json
from tagmask.types import IGNORE_INDEX, Problem, UInt8Array

STAGE = "crf"


@dataclass(frozen=True)
class Job:
    """One mask to make."""

    name: str  # path below the folder, without suffix
    image: Path
    source: Path  # .png: a mask; .npz: maps
    target: Path


@dataclass(frozen=True)
class FolderResult:
    """What a call of :func:`refine_folder` did."""

    done: int  # masks written
    kept: int  # masks that were there
    problems: tuple[Problem, ...]


def refine_folder(
    images: Path | str,
    sources: Path | str,
    output: Path | str,
    *,
    crf: DenseCrf | None = None,
    confidence: float = 0.7,
    channels: tuple[int, ...] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> FolderResult:
    """Refine every mask (.png of class numbers, 255 = unsure) or maps file (.npz) of a folder with the dense CRF.

    Writes ``output``/NAME.png (palette PNG) for ``sources``/NAME.png or NAME.npz and the image of that name below
    ``images``, in folders as deep as they are. Masks that are there are kept, so that a call that was stopped goes on.
    What cannot be read, or does not fit, is left out and listed in ``output``/problems.jsonl.

    Args:
        images: folder of images.
        sources: folder of masks, or of maps as runs write them (``maps`` [K, h, w] in [0, 1] and ``classes`` [K]).
        output: folder, made if need be.
        crf: default: the published settings for what there is, ``irn_labels`` for masks and ``psa`` for maps.
        confidence: how sure the labels of masks are.
        channels: bands of the images, counted from 1; the CRF sees the first three. None: colours.
        workers: processes; one image at a time each. With more than one a script that calls this needs
            ``if __name__ == "__main__":``. With one the CRF itself uses several threads.
        progress: told about every image.

    Raises:
        InputError: a folder that does not exist or holds nothing of the kind, a name both as .png and .npz, or an
            output folder made with other settings.
        RunError: a worker process died (names its image), or the output cannot be written.
    """
    if not 0 < confidence < 1:
        msg = f"confidence must lie between 0 and 1, got {confidence}"
        raise InputError(msg)
    listener, target = progress or SilentProgress(), Path(output)
    jobs, problems = _jobs(Path(images), Path(sources), target)
    settings: dict[str, object] = {"crf": crf.dump() if crf else None, "confidence": confidence}
    _check_settings(target / "crf.json", settings | ({"channels": list(channels)} if channels else {}))
    missing = [job for job in jobs if not job.target.is_file()]
    listener.start("dense CRF", len(jobs), len(jobs) - len(missing))
    if workers > 1 and len(missing) > 1:
        _compile()
    work = partial(_refine, crf=crf, confidence=confidence, channels=channels)
    for problem in map_in_processes(work, missing, workers, name=lambda job: str(job.image), initializer=_one_thread):
        problems += [problem] if problem else []
        listener.advance()
    listener.finish()
    Workspace(target).write_problems(STAGE, problems)
    failed = sum(problem.id in {job.name for job in missing} for problem in problems)
    return FolderResult(len(missing) - failed, len(jobs) - len(missing), tuple(problems))


def _jobs(images: Path, sources: Path, output: Path) -> tuple[list[Job], list[Problem]]:
    for folder in (images, sources):
        if not folder.is_dir():
            msg = f"{folder}: no such folder"
            raise InputError(msg)
    for folder, fate in (
        (sources, "masks, which would be taken for finished"),
        (images, "images, which would be lost"),
    ):
        if output.resolve() == folder.resolve():
            msg = f"{output}: the output folder is that of the {fate}. Choose another --output."
            raise InputError(msg)
    files = files_below(sources, without=[output], suffixes=(".png", ".npz"))
    if not files:
        msg = f"{sources}: no masks (.png) or maps (.npz) in this folder"
        raise InputError(msg)
    images_of: dict[str, list[Path]] = {}
    for path in files_below(images, without=[output]):
        name = path.relative_to(images).with_suffix("").as_posix()
        for key in {name, artifact_name(name)}:  # runs write the artifacts of a/b as a%2Fb
            images_of.setdefault(key, []).append(path)
    jobs, problems, names = [], [], set()
    for path in files:
        name = path.relative_to(sources).with_suffix("").as_posix()
        if name in names:
            msg = f"{sources / name}: is there as .png and as .npz; keep one of them"
            raise InputError(msg)
        names.add(name)
        candidates = images_of.get(name, [])
        if len(candidates) == 1:
            jobs.append(Job(name, candidates[0], path, output / f"{name}.png"))
        else:
            why = f"{len(candidates)} images are called '{name}'" if candidates else f"no image is called '{name}'"
            problems.append(Problem(STAGE, name, str(path), f"{path}: {why} below {images}"))
    return jobs, problems


def _check_settings(path: Path, settings: dict[str, object]) -> None:
    """Masks made with other settings must not be taken for finished."""
    if path.exists() and read_json(path) != settings:
        msg = f"{path.parent}: holds masks made with other settings ({path.name}); choose another --output or delete it"
        raise InputError(msg)
    write_json(path, settings)


def _refine(job: Job, *, crf: DenseCrf | None, confidence: float, channels: tuple[int, ...] | None) -> Problem | None:
    """Make one mask; what is wrong with its files is a problem, anything else an error."""
    try:
        mask = _refined_mask(job, crf, confidence, channels)
    except (DataError, ValueError) as error:
        return Problem(STAGE, job.name, str(job.source), " ".join(str(error).split()))
    save_palette_png(job.target, mask)
    return None


def _refined_mask(job: Job, crf: DenseCrf | None, confidence: float, channels: tuple[int, ...] | None) -> UInt8Array:
    image = colour_view(read_image(job.image, pixels=own_pixels(job.image, channels)))
    if job.source.suffix.lower() == ".png":
        mask = read_mask_png(job.source, (image.shape[0], image.shape[1]), IGNORE_INDEX)
        return refine_mask(crf or DenseCrf(preset="irn_labels"), image, mask, confidence=confidence)
    try:
        with stored_arrays(job.source) as arrays:
            maps, classes = arrays["maps"].astype(np.float32), arrays["classes"]
    except RunError as error:
        raise DataError(str(error)) from error
    if maps.ndim != 3:
        msg = f"{job.source}: maps must be [K, h, w], got {list(maps.shape)}"
        raise DataError(msg)
    return refine_maps(crf or DenseCrf(preset="psa"), image, maps, classes)


def _compile() -> None:
    """Once here, so that the processes find the compiled code."""
    refine_mask(DenseCrf(iterations=1), np.zeros((2, 2, 3), np.uint8), np.array([[0, 1], [1, 1]], np.uint8))


def _one_thread() -> None:
    torch.set_num_threads(1)


__all__: Sequence[str] = ["FolderResult", "refine_folder"]
