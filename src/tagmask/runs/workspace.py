"""The run directory: names of artifacts, atomic writes, the manifest, the lock. The only reader and writer
of maps and masks. It knows no maths and no settings.

    runs/NAME/
      recipe.yaml manifest.json log.txt report.html metrics.json problems.jsonl
      classify/  model.safetensors state.ckpt history.jsonl  (2/, 3/, ...: retrainings, the same)
      localize/  maps/ID.npz  NAME.safetensors NAME.json (what a localizer has learnt)
      refine/    masks/ID.png  maps/ID.npz  thresholds.json
                 N-NAME/model.safetensors state.ckpt history.jsonl labels/ID.png (refiner N, if it learns)
      saliency/  maps/ID.png (what stands out, where the loss learns from it)
      segment/   model.safetensors state.ckpt history.jsonl predictions/ID.png  (full/: the same; 2/, 3/, ...: rounds
                 of self-training, the same with the masks/ID.png and margins/ID.png that each was trained on)
      evaluate/  SPLIT-images.npz SPLIT-images.csv
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from tagmask.errors import RunError
from tagmask.interfaces import ActivationMaps, FloatArray, Problem, UInt8Array

SCHEMA = 1
_LONGEST_NAME = 150
_TEMPORARY = ".tmp-"


def artifact_name(sample_id: str) -> str:
    """File name for a sample id: safe on every file system, inside its folder, unique.

    Everything but letters, digits, '-', '_' and '.' is percent-encoded ('/' too, so no id can leave its
    folder); long names keep a readable head and end in a hash.
    """
    name = quote(sample_id, safe="", errors="surrogateescape")  # a Linux file name need not be Unicode
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(sample_id.encode(errors="surrogateescape")).hexdigest()[:16]
        name = f"{name[:_LONGEST_NAME]}~{digest}"
    return name


def voc_palette(n: int = 256) -> list[int]:
    """The PASCAL VOC colour map as a flat list of 3 * n values, R G B of index 0 first."""
    palette = []
    for index in range(n):
        rgb, rest = [0, 0, 0], index
        for bit in range(7, -1, -1):
            for channel in range(3):
                rgb[channel] |= ((rest >> channel) & 1) << bit
            rest >>= 3
        palette.extend(rgb)
    return palette


@cache
def _palette_bytes() -> bytes:
    return bytes(voc_palette())


def is_stage(stage: str, folder: str) -> bool:
    """Whether a folder inside a stage's is a stage of its own: segment/full, segment/2, classify/2, ..."""
    return (stage, folder) == ("segment", "full") or (stage in ("classify", "segment") and folder.isdecimal())


@contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``; it takes the name only when the block ends well.

    Raises:
        RunError: disk full or folder not writable; says which path and what to do.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_TEMPORARY)
        encoding = None if "b" in mode else "utf-8"
        with os.fdopen(handle, mode, encoding=encoding) as stream:
            yield stream
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise write_error(path, error) from error
    except RuntimeError as error:  # torch's archive writer fails once more while it closes
        if isinstance(error.__context__, OSError):
            raise write_error(path, error.__context__) from error
        raise
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_error(path: Path, error: OSError) -> RunError:
    """Translate an OSError of writing into one line with the remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(
            f"{path}: the disk is full. Free some space and start the same command again; "
            "the run goes on where it stopped."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RunError(f"{path}: cannot write here ({error.strerror}). Choose another folder with --output DIR.")
    return RunError(f"{path}: cannot write ({error.strerror or error}).")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: sorted as given, UTF-8, NaN not allowed."""
    with atomic_write(path, "w") as stream:
        stream.write(_json(value, indent=1) + "\n")


def _json(value: Any, indent: int | None = None) -> str:
    """Readable JSON; escapes only where a text (a file name, say) is not valid Unicode."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, allow_nan=False)
    return text


def read_json(path: Path) -> Any:
    """Read a JSON artifact; a broken one is a RunError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read as JSON ({error}). Delete it to make it again."
        raise RunError(msg) from error


def save_palette_png(path: Path, mask: UInt8Array) -> None:
    """Write uint8 [H, W] labels as an 8-bit palette PNG in VOC colours, atomically."""
    image = Image.fromarray(mask, mode=None)
    image.putpalette(_palette_bytes())
    with atomic_write(path) as stream:
        image.save(stream, format="PNG")


class Workspace:
    """Paths and artifacts of one run directory. Creating the object touches nothing."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    # -- names -------------------------------------------------------------------------------------------

    def stage(self, name: str) -> Path:
        """Folder of one stage."""
        return self.root / name

    def map_path(self, sample_id: str, *, stage: str = "localize") -> Path:
        """Activation maps of one image ('localize'), or its refined maps ('refine')."""
        return self.root / stage / "maps" / f"{artifact_name(sample_id)}.npz"

    def mask_path(self, sample_id: str, stage: str = "refine") -> Path:
        """Pseudo mask of one image, or the one that a round of self-training ('segment/2', ...) learns from."""
        return self.root / stage / "masks" / f"{artifact_name(sample_id)}.png"

    def grey_path(self, sample_id: str, stage: str, kind: str) -> Path:
        """A grey picture of one image: saliency ('saliency', 'maps') or margins ('segment/2', 'margins')."""
        return self.root / stage / kind / f"{artifact_name(sample_id)}.png"

    def prediction_path(self, sample_id: str, stage: str = "segment") -> Path:
        """Predicted mask of one image; ``stage`` is 'segment', 'segment/full' or a round of self-training."""
        return self.root / stage / "predictions" / f"{artifact_name(sample_id)}.png"

    def image_counts_path(self, split: str) -> Path:
        """Confusion counts of every image of a split."""
        return self.root / "evaluate" / f"{artifact_name(split)}-images.npz"

    # -- maps and masks ----------------------------------------------------------------------------------

    def save_maps(self, sample_id: str, maps: ActivationMaps, *, stage: str = "localize") -> None:
        """Store maps as float16 npz without pickle."""
        arrays: dict[str, Any] = {
            "schema": np.int64(SCHEMA),
            "classes": maps.classes.astype(np.int64),
            "maps": maps.maps.astype(np.float16),
            "peak": maps.peak.astype(np.float32),
            "image_size": np.asarray(maps.image_size, dtype=np.int64),
        }
        if maps.notes:
            arrays["notes"] = np.array([[str(label), text] for label, text in maps.notes])
        if maps.ranking:
            arrays["ranking"] = np.asarray(maps.ranking, dtype=np.int64)
        with atomic_write(self.map_path(sample_id, stage=stage)) as stream:
            np.savez(stream, **arrays)

    def load_maps(self, sample_id: str, *, stage: str = "localize") -> ActivationMaps:
        """Read maps back as float32; a broken file is a RunError that names it."""
        with stored_arrays(self.map_path(sample_id, stage=stage)) as stored:
            height, width = (int(side) for side in stored["image_size"])
            return ActivationMaps(
                classes=stored["classes"],
                maps=stored["maps"].astype(np.float32),
                peak=stored["peak"],
                image_size=(height, width),
                notes=_notes(stored),
                ranking=tuple(stored["ranking"].tolist()) if "ranking" in stored else (),
            )

    def peaks_and_notes(self, sample_id: str) -> tuple[dict[int, float], tuple[tuple[int, str], ...]]:
        """Label -> maximum of its map before division, and the notes, without reading the maps themselves."""
        with stored_arrays(self.map_path(sample_id)) as stored:
            return dict(zip(stored["classes"].tolist(), stored["peak"].tolist(), strict=True)), _notes(stored)

    @staticmethod
    def save_mask(path: Path, mask: UInt8Array) -> None:
        """Store labels as an 8-bit palette PNG."""
        save_palette_png(path, mask)

    @staticmethod
    def load_mask(path: Path) -> UInt8Array:
        """Read a palette PNG written by :meth:`save_mask`, uint8 [H, W]."""
        try:
            with Image.open(path) as image:
                return np.array(image, dtype=np.uint8)
        except Exception as error:  # a torn PNG raises nearly anything
            reason = " ".join(str(error).split()) or type(error).__name__
            msg = f"{path}: not a readable mask ({reason}). Delete it and run again."
            raise RunError(msg) from error

    @staticmethod
    def save_planes(path: Path, planes: UInt8Array) -> None:
        """Store uint8 [P, H, W] as compressed npz without pickle."""
        with atomic_write(path) as stream:
            np.savez_compressed(stream, schema=np.int64(SCHEMA), planes=planes)

    @staticmethod
    def load_planes(path: Path) -> UInt8Array:
        """Read a file written by :meth:`save_planes`; a broken one is a RunError that names it."""
        with stored_arrays(path, "planes") as stored:
            return np.asarray(stored["planes"], dtype=np.uint8)

    @staticmethod
    def save_grey(path: Path, values: FloatArray) -> None:
        """Store float [H, W] in [0, 1] as an 8-bit grey PNG (steps of 1/255), atomically."""
        levels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
        with atomic_write(path) as stream:
            Image.fromarray(levels).save(stream, format="PNG")

    @classmethod
    def load_grey(cls, path: Path) -> FloatArray:
        """Read a grey PNG written by :meth:`save_grey`, float32 [H, W] in [0, 1]."""
        return cls.load_mask(path).astype(np.float32) / np.float32(255)

    # -- files -------------------------------------------------------------------------------------------

    def count_files(self, stage: str) -> int:
        """Number of artifacts of a stage (a stage inside its folder, such as segment/full, counts for itself)."""
        found = int(stage == "evaluate" and (self.root / "metrics.json").is_file())
        for folder, folders, files in os.walk(self.stage(stage)):
            if Path(folder) == self.stage(stage):
                folders[:] = [name for name in folders if not is_stage(stage, name)]
            found += sum(name != "state.ckpt" and not name.startswith(_TEMPORARY) for name in files)
        return found

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
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=skip, copy_function=_link_or_copy)
        except shutil.Error as error:
            msg = f"{target}: cannot take over {source} ({error.args[0][0][2]})"
            raise RunError(msg) from error
        except OSError as error:
            raise write_error(target, error) from error

    def sweep(self) -> None:
        """Remove what a killed process left half-written; call it under the lock."""
        for path in self.root.rglob(f"{_TEMPORARY}*"):
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
        return str(self.manifest().get("result_stage") or "segment")

    def write_problems(self, stage: str, problems: Sequence[Problem]) -> None:
        """Replace one stage's lines in problems.jsonl (so that a resumed stage does not list twice)."""
        kept = [problem for problem in self.problems() if problem.stage != stage]
        with atomic_write(self.root / "problems.jsonl", "w") as stream:
            for problem in [*kept, *problems]:
                stream.write(_json(asdict(problem)) + "\n")

    def problems(self) -> list[Problem]:
        """All problems of the run so far."""
        return [Problem(**line) for line in read_jsonl(self.root / "problems.jsonl")]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the kernel releases it even after kill -9.

        Raises:
            RunError: another process works in this directory, or it is not writable.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            stream = (self.root / ".lock").open("a+")
        except OSError as error:
            raise write_error(self.root, error) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                msg = f"{self.root}: another tagmask process works in this run. Wait for it, or use --output DIR."
                raise RunError(msg) from None
            yield


@contextmanager
def stored_arrays(path: Path, what: str = "maps") -> Iterator[Any]:
    """The arrays of an npz file; a broken one is a RunError that names it."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            yield stored
    except Exception as error:  # a torn zip raises nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        msg = f"{path}: not a readable {what} file ({reason}). Delete it and run again."
        raise RunError(msg) from error


def _notes(stored: Any) -> tuple[tuple[int, str], ...]:
    return tuple((int(label), str(text)) for label, text in stored["notes"]) if "notes" in stored else ()


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # other file system, or links not supported
        shutil.copy2(source, target)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Lines of a JSON-lines file; a torn last line (killed while appending) is dropped."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
