"""Many images at once: find them, predict each, write mask and overlay, go on where an earlier call stopped."""

from __future__ import annotations

import glob
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tagmask.data.files import IMAGE_SUFFIXES
from tagmask.data.table.columns import read_columns
from tagmask.data.table.tag_table import TableLayout, read_tag_table
from tagmask.data.tags import TagResolver
from tagmask.engine.image_loop import process_images
from tagmask.errors import DataError, InputError, RunError
from tagmask.predict.predictor import Predictor
from tagmask.progress.listeners import Progress, SilentProgress
from tagmask.storage.files import atomic_write
from tagmask.storage.images import read_image
from tagmask.storage.pictures import save_palette_png, voc_palette
from tagmask.storage.records import write_json
from tagmask.types import ClassList, Problem, UInt8Array

STAGE = "predict"
RECORD = "prediction.json"


def collect(patterns: Sequence[str]) -> dict[str, Path]:
    """Images behind paths, folders (with all folders inside) and globs: artifact name -> path.

    The name is the path below the folder (or the file name) without suffix; where two would be the same,
    the suffix stays, and after that a number is added.

    Raises:
        InputError: a path that does not exist, or nothing found at all.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not inside:
                msg = f"{pattern}: no image in this folder (looked for {', '.join(IMAGE_SUFFIXES)})"
                raise InputError(msg)
            found.update({image: image.relative_to(path) for image in inside})
        elif path.is_file():
            found[path] = Path(path.name)
        else:
            matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file())
            if not matches:
                msg = f"{pattern}: no such image or folder, and no file matches it as a pattern"
                raise InputError(msg)
            found.update({match: Path(match.name) for match in matches})
    named: dict[str, Path] = {}
    for path, relative in found.items():
        name = relative.with_suffix("").as_posix()
        if name in named:
            name = relative.as_posix()
        number = 2
        while name in named:
            name, number = f"{relative.as_posix()}-{number}", number + 1
        named[name] = path
    return named


@dataclass(frozen=True)
class KnownTags:
    """Tags of some images: labels 1..C by the image's name, with or without folder and suffix."""

    path: Path
    labels: Mapping[str, tuple[int, ...]]
    problems: tuple[Problem, ...]

    @classmethod
    def read(cls, path: Path, classes: Sequence[str]) -> KnownTags:
        """A table as the data format ``table`` reads it: an image column, and tags or 0/1 columns.

        Raises:
            DataError: no such table, or it cannot be read.
            UnknownNameError: no image or tags column, or not one tag is a class.
        """
        table = read_tag_table(read_columns(path), TableLayout())
        resolver = TagResolver(ClassList(tuple(classes)), str(path))
        labels = {_key(row.image): resolver.resolve(row.tags, row.image, str(path)) for row in table.rows}
        resolver.check()
        return cls(path, labels, (*table.problems, *resolver.problems))

    def of(self, name: str, path: Path) -> tuple[int, ...] | None:
        """Tags of one image, or None if it is not in the table."""
        for key in (_key(path.as_posix()), _key(name), Path(name).stem):
            if key in self.labels:
                return self.labels[key]
        return None


def _key(image: str) -> str:
    path = Path(image.replace("\\", "/"))
    return (path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path).as_posix()


def predict_images(
    predictor: Predictor,
    targets: Mapping[str, Path],
    output: Path,
    *,
    overlay: bool = True,
    tags: KnownTags | None = None,
    progress: Progress | None = None,
) -> list[Problem]:
    """Write masks/NAME.png (palette PNG, values = class numbers) and overlays/NAME.jpg of every image.

    What an earlier call with the same model and settings finished is not done again, unless the image has changed
    since. On CPUs several images are worked on at a time.

    Args:
        predictor: from ``tagmask.load``.
        targets: name -> path, as :func:`collect` makes it.
        output: folder; also gets problems.jsonl and prediction.json, what it was made with.
        overlay: whether overlays are wanted.
        tags: known tags; other classes cannot be predicted. An image that is not among them is predicted freely.
        progress: who to tell; silent by default.

    Returns:
        Images that could not be read, and what else was amiss; they are also in problems.jsonl.
    """
    _same_as_before(predictor, targets, output, tags)
    masks, overlays = output / "masks", output / "overlays"
    problems: list[Problem] = list(tags.problems) if tags else []
    made_before = len(problems)

    def done(name: str) -> bool:
        files = [masks / f"{name}.png", *([overlays / f"{name}.jpg"] if overlay else [])]
        try:
            changed = targets[name].stat().st_mtime_ns
            return all(file.stat().st_mtime_ns >= changed for file in files)
        except OSError:
            return False

    def work(name: str) -> Problem | None:
        path = targets[name]
        try:
            image = read_image(path)
        except DataError as error:
            problems.append(Problem(STAGE, name, str(path), str(error)))
            return problems[-1]
        known = tags.of(name, path) if tags else None
        mask = predictor.labels(image, tags=known)
        save_palette_png(masks / f"{name}.png", mask)
        if overlay:
            with atomic_write(overlays / f"{name}.jpg") as stream:
                stream.write(overlay_jpeg(image, mask))
        if tags and known is None:
            problems.append(
                Problem(STAGE, name, str(path), f"{tags.path}: no tags of it; all classes allowed", left_out=False)
            )
            return problems[-1]
        return None

    names = list(targets)
    try:
        process_images(
            predictor.engine, names, work, done=done, progress=progress or SilentProgress(), description="predict"
        )
    except RunError:  # also raised when not one image could be read: that is for the caller to judge
        if sum(problem.left_out for problem in problems[made_before:]) < len(names):
            raise
    place = {name: position for position, name in enumerate(names)}
    problems[made_before:] = sorted(problems[made_before:], key=lambda problem: place[problem.id])
    with atomic_write(output / "problems.jsonl", "w") as stream:
        stream.writelines(json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems)
    return problems


def _same_as_before(predictor: Predictor, targets: Mapping[str, Path], output: Path, tags: KnownTags | None) -> None:
    """Masks that another model, or other settings, left under these names are no longer finished work."""
    record: dict[str, Any] = {"model": predictor.fingerprint, **asdict(predictor.inference), "tags": None}
    record["scales"] = list(predictor.inference.scales)
    if tags:
        record["tags"] = hashlib.sha256(repr(sorted(tags.labels.items())).encode()).hexdigest()
    path = output / RECORD
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if before == record:
        return
    for name in targets:
        (output / "masks" / f"{name}.png").unlink(missing_ok=True)
    write_json(path, record)


def overlay_jpeg(image: UInt8Array, mask: UInt8Array) -> bytes:
    """The image with its mask in palette colours at half strength, background untouched; JPEG bytes."""
    colours = np.asarray(voc_palette(), dtype=np.uint16).reshape(-1, 3)[mask]
    mixed = np.where(mask[..., None] == 0, image, (image.astype(np.uint16) + colours + 1) // 2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(mixed).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()
