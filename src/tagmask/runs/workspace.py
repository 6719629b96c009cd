"""The run directory: names of artifacts, atomic writes, the manifest, the lock. The only reader and writer
of maps and masks. It knows no maths and no settings.

    runs/NAME/
      recipe.yaml manifest.json log.txt report.html metrics.json problems.jsonl
      classify/  model.safetensors state.ckpt history.jsonl  (2/, 3/, ...: retrainings, the same)
      localize/  maps/ID.npz  NAME.safetensors NAME.json (what a localizer has learnt)
      refine/    masks/ID.png  maps/ID.npz  thresholds.json  masks.json (what masks/ held when the stage was done)
                 N-NAME/model.safetensors state.ckpt history.jsonl labels/ID.png (refiner N, if it learns)
      corrections/ masks/ID.png (pseudo masks that were edited)
      saliency/  maps/ID.png (what stands out, where the loss learns from it)
      segment/   model.safetensors state.ckpt history.jsonl predictions/ID.png  (full/: the same; 2/, 3/, ...: rounds
                 of self-training, the same with the masks/ID.png and margins/ID.png that each was trained on)
      evaluate/  SPLIT-images.npz SPLIT-images.csv
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from tagmask.errors import RunError
from tagmask.runs.stage_names import EVALUATE, LOCALIZE, MODEL, REFINE, SEGMENT, is_stage
from tagmask.storage.arrays import SCHEMA, differences, stored_arrays, summed
from tagmask.storage.files import TEMPORARY_PREFIX, artifact_name, atomic_write, link_or_copy, write_error
from tagmask.storage.records import json_text, read_json, read_jsonl, write_json
from tagmask.types import ActivationMaps, FloatArray, Problem


class Workspace:
    """Paths and artifacts of one run directory. Creating the object touches nothing."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    # -- names -------------------------------------------------------------------------------------------

    def stage(self, name: str) -> Path:
        """Folder of one stage."""
        return self.root / name

    def model_path(self, stage: str) -> Path:
        """The trained network of a stage."""
        return self.stage(stage) / MODEL

    def map_path(self, sample_id: str, *, stage: str = LOCALIZE) -> Path:
        """Activation maps of one image ('localize'), or its refined maps ('refine')."""
        return self.root / stage / "maps" / f"{artifact_name(sample_id)}.npz"

    def mask_path(self, sample_id: str, stage: str = REFINE) -> Path:
        """Pseudo mask of one image, or the one that a round of self-training ('segment/2', ...) learns from."""
        return self.root / stage / "masks" / f"{artifact_name(sample_id)}.png"

    def grey_path(self, sample_id: str, stage: str, kind: str) -> Path:
        """A grey picture of one image: saliency ('saliency', 'maps') or margins ('segment/2', 'margins')."""
        return self.root / stage / kind / f"{artifact_name(sample_id)}.png"

    def prediction_path(self, sample_id: str, stage: str = SEGMENT) -> Path:
        """Predicted mask of one image; ``stage`` is 'segment', 'segment/full' or a round of self-training."""
        return self.root / stage / "predictions" / f"{artifact_name(sample_id)}.png"

    def image_counts_path(self, split: str) -> Path:
        """Confusion counts of every image of a split."""
        return self.root / EVALUATE / f"{artifact_name(split)}-images.npz"

    # -- maps and masks ----------------------------------------------------------------------------------

    def save_maps(self, sample_id: str, maps: ActivationMaps, *, stage: str = LOCALIZE) -> None:
        """Store maps as float16 npz without pickle; those that are known at full size only as whole differences."""
        arrays: dict[str, Any] = {
            "schema": np.int64(SCHEMA),
            "classes": maps.classes.astype(np.int64),
            # Half the space; whoever reads maps, thresholds included, sees the same rounded values.
            "maps": maps.maps.astype(np.float16),
            "peak": maps.peak.astype(np.float32),
            "image_size": np.asarray(maps.image_size, dtype=np.int64),
        }
        if maps.notes:
            arrays["notes"] = np.array([[str(label), text] for label, text in maps.notes])
        if maps.ranking:
            arrays["ranking"] = np.asarray(maps.ranking, dtype=np.int64)
        if maps.frame is not None and maps.seen is not None:
            arrays["frame"] = np.asarray([*maps.frame, *maps.seen], dtype=np.int64)
        large = [grid.shape[1:] == maps.seen for grid in maps.grids]
        for number, grid in enumerate(maps.grids):
            # A whole map takes 16 times the space of the strided one, its differences, compressed, 4 times.
            arrays[f"full{number}" if large[number] else f"grid{number}"] = (
                differences(grid) if large[number] else grid.astype(np.float16)
            )
        with atomic_write(self.map_path(sample_id, stage=stage)) as stream:
            (np.savez_compressed if any(large) else np.savez)(stream, **arrays)

    def load_maps(self, sample_id: str, *, stage: str = LOCALIZE) -> ActivationMaps:
        """Read maps back as float32; a broken file is a RunError that names it."""
        with stored_arrays(self.map_path(sample_id, stage=stage)) as stored:
            height, width = (int(side) for side in stored["image_size"])
            frame, seen = _frame(stored)
            return ActivationMaps(
                classes=stored["classes"],
                maps=stored["maps"].astype(np.float32),
                peak=stored["peak"],
                image_size=(height, width),
                notes=_notes(stored),
                ranking=tuple(stored["ranking"].tolist()) if "ranking" in stored else (),
                grids=tuple(_grids(stored)),
                frame=frame,
                seen=seen,
            )

    def peaks_and_notes(self, sample_id: str) -> tuple[dict[int, float], tuple[tuple[int, str], ...]]:
        """Label -> maximum of its map before division, and the notes, without reading the maps themselves."""
        with stored_arrays(self.map_path(sample_id)) as stored:
            return dict(zip(stored["classes"].tolist(), stored["peak"].tolist(), strict=True)), _notes(stored)

    # -- files -------------------------------------------------------------------------------------------

    def count_files(self, stage: str) -> int:
        """Number of artifacts of a stage (a stage inside its folder, such as segment/full, counts for itself)."""
        count = int(stage == EVALUATE and (self.root / "metrics.json").is_file())
        for folder, folders, files in os.walk(self.stage(stage)):
            if Path(folder) == self.stage(stage):
                folders[:] = [name for name in folders if not is_stage(stage, name)]
            count += sum(name != "state.ckpt" and not name.startswith(TEMPORARY_PREFIX) for name in files)
        return count

    def clear(self, stage: str) -> None:
        """Remove a stage's artifacts and what its training left out (a stage inside its folder, such as segment/full,
        stays), before it is redone."""
        folder, training = self.stage(stage), f"{stage} (training)"
        if any(problem.stage == training for problem in self.problems()):
            self.write_problems(training, ())
        for entry in folder.iterdir() if folder.is_dir() else ():
            if is_stage(stage, entry.name):
                continue
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def link_artifacts(self, other: Workspace, stage: str) -> None:
        """Take over a stage's artifacts of another run, by hard links where the file system has them.

        Raises:
            RunError: disk full or folder not writable.
        """
        source, target = other.stage(stage), self.stage(stage)

        def skip(folder: str, names: list[str]) -> list[str]:
            return [name for name in names if is_stage(stage, name)] if Path(folder) == source else []

        try:
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=skip, copy_function=link_or_copy)
        except shutil.Error as error:
            msg = f"{target}: cannot take over {source} ({error.args[0][0][2]})"
            raise RunError(msg) from error
        except OSError as error:
            raise write_error(target, error) from error

    def sweep(self) -> None:
        """Remove what a killed process left half-written; call it under the lock."""
        for path in self.root.rglob(f"{TEMPORARY_PREFIX}*"):
            path.unlink(missing_ok=True)

    # -- manifest, problems, history -----------------------------------------------------------------------

    def manifest(self) -> dict[str, Any]:
        """The manifest, or an empty one for a new run."""
        path = self.root / "manifest.json"
        return read_json(path) if path.exists() else {"schema": SCHEMA, "stages": {}}

    def update_manifest(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Read, change, write atomically."""
        manifest = self.manifest()
        change(manifest)
        write_json(self.root / "manifest.json", manifest)

    def result_stage(self) -> str:
        """The training on pseudo masks that is the run's result: 'segment', or its last round of self-training."""
        return str(self.manifest().get("result_stage") or SEGMENT)

    def write_problems(self, stage: str, problems: Sequence[Problem]) -> None:
        """Replace one stage's lines in problems.jsonl (so that a resumed stage does not list twice)."""
        # A stage says all of its problems at its end; lines of an interrupted try must not stand beside them.
        others = [problem for problem in self.problems() if problem.stage != stage]
        with atomic_write(self.root / "problems.jsonl", "w") as stream:
            for problem in [*others, *problems]:
                stream.write(json_text(asdict(problem)) + "\n")

    def problems(self) -> list[Problem]:
        """All problems of the run so far."""
        return [Problem(**line) for line in read_jsonl(self.root / "problems.jsonl")]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the system releases it even after kill -9.

        Raises:
            RunError: another process works in this directory, or it is not writable.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            held = FileLock(self.root / ".lock").acquire(blocking=False)
        except Timeout:
            msg = f"{self.root}: another tagmask process works in this run. Wait for it, or use --output DIR."
            raise RunError(msg) from None
        except OSError as error:
            raise write_error(self.root, error) from error
        with held:
            yield


def _grids(stored: Any) -> Iterator[FloatArray]:
    number = 0
    while (small := f"grid{number}") in stored or f"full{number}" in stored:
        yield stored[small].astype(np.float32) if small in stored else summed(stored[f"full{number}"])
        number += 1


def _frame(stored: Any) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """What the grids are stretched over, and what it is cut to; None of maps that were made before there were any."""
    if "frame" not in stored:
        return None, None
    outer_height, outer_width, height, width = (int(side) for side in stored["frame"])
    return (outer_height, outer_width), (height, width)


def _notes(stored: Any) -> tuple[tuple[int, str], ...]:
    return tuple((int(label), str(text)) for label, text in stored["notes"]) if "notes" in stored else ()
