"""Many images at once: find them, predict each, write mask and overlay, go on where an earlier call stopped."""

from __future__ import annotations

import glob
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tagmask.data.files import IMAGE_SUFFIXES, ImageFile, files_below
from tagmask.data.lookup import match_files
from tagmask.data.table.read import read_columns
from tagmask.data.table.roles import TableLayout
from tagmask.data.table.tag_table import group_rows, read_tag_table, united_tags
from tagmask.data.tags import TagResolver
from tagmask.data.working_size import LARGE
from tagmask.engine.image_loop import process_images
from tagmask.errors import DataError, InputError, RunError
from tagmask.ops.transforms import colour_view, resize_mask
from tagmask.predict.predictor import Predictor
from tagmask.progress.listeners import Progress, SilentProgress
from tagmask.storage.files import atomic_write
from tagmask.storage.images import read_image
from tagmask.storage.pictures import save_palette_png, voc_palette
from tagmask.storage.records import write_json
from tagmask.types import ClassList, Problem, UInt8Array

STAGE = "predict"
RECORD = "prediction.json"
CLASSES = "classes.txt"
MOST_AT_TOP = 0.05  # of an image's values; a brighter camera than that of the training images is not to go unnoticed
MOST_LARGER = 2.0  # times the training images' long side, where no working size is set
OVERLAY_SIDE = 2048  # longest side of overlays of images that are predicted at a working size


def collect(patterns: Sequence[str], output: Path | None = None) -> dict[str, Path]:
    """Images behind paths, folders (with all folders inside) and globs: artifact name -> path.

    Of folders and globs hidden files are left out, and the masks and overlays of this or an earlier call that lie among
    the images: they would be taken for photographs.

    The name is the path below the folder (or the file name) without suffix; where two would be the same,
    the suffix stays, and after that a number is added.

    Raises:
        InputError: a path that does not exist, or nothing found at all.
    """
    relative_paths: dict[Path, Path] = {}
    made = _written_folders([output] if output is not None else [])
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            earlier = _written_folders(record.parent for record in path.rglob(RECORD))
            inside = files_below(path, without=[*made, *earlier])
            if not inside:
                msg = f"{pattern}: no image in this folder (looked for {', '.join(IMAGE_SUFFIXES)})"
                raise InputError(msg)
            relative_paths.update({image: image.relative_to(path) for image in inside})
        elif path.is_file():
            relative_paths[path] = Path(path.name)
        else:
            matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True) if Path(match).is_file())
            matches = [match for match in matches if not any(match.resolve().is_relative_to(folder) for folder in made)]
            if not matches:
                msg = f"{pattern}: no such image or folder, and no file matches it as a pattern"
                raise InputError(msg)
            relative_paths.update({match: Path(match.name) for match in matches})
    images: dict[str, Path] = {}
    for path, relative in relative_paths.items():
        name = relative.with_suffix("").as_posix()
        if name in images:
            name = relative.as_posix()
        number = 2
        while name in images:
            name, number = f"{relative.as_posix()}-{number}", number + 1
        images[name] = path
    return images


def _written_folders(outputs: Iterable[Path]) -> list[Path]:
    """The folders of masks and overlays that calls have written to."""
    return [(output / name).resolve() for output in outputs for name in ("masks", "overlays")]


@dataclass(frozen=True)
class KnownTags:
    """Tags of some images: labels 1..C by the image's name, with or without folder and suffix."""

    path: Path
    labels: Mapping[str, tuple[int, ...]]
    problems: tuple[Problem, ...]
    #: The table's name of an image whose own differs from it.
    aliases: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, classes: Sequence[str]) -> KnownTags:
        """A table as the data format ``table`` reads it: an image column, and tags or 0/1 columns.

        Raises:
            DataError: no such table, or it cannot be read.
            UnknownNameError: no image or tags column, or not one tag is a class.
        """
        table = read_tag_table(read_columns(path), TableLayout())
        resolver = TagResolver(ClassList(tuple(classes)), str(path))
        groups, problems = group_rows(((_key(row.image), row) for row in table.rows), path)
        labels = {key: resolver.resolve(united_tags(rows), rows[0].image, str(path)) for key, rows in groups.items()}
        resolver.check()
        return cls(path, labels, (*table.problems, *problems, *resolver.problems))

    def of(self, name: str, path: Path) -> tuple[int, ...] | None:
        """Tags of one image, or None if it is not in the table."""
        key = self._key_of(name, path) or self.aliases.get(name)
        return None if key is None else self.labels[key]

    def _key_of(self, name: str, path: Path) -> str | None:
        keys = (_key(path.as_posix()), _key(name), Path(name).stem)
        return next((key for key in keys if key in self.labels), None)

    def for_images(self, images: Mapping[str, Path]) -> KnownTags:
        """The same for images whose names are not quite the table's, as in a training table; that is told.

        Args:
            images: name -> path, as :func:`collect` makes it.
        """
        own = {self._key_of(name, path) for name, path in images.items()}
        nameless = {name: path for name, path in images.items() if self._key_of(name, path) is None}
        files = [ImageFile(path, _key(name) + path.suffix, 0) for name, path in nameless.items()]
        name_of = {file.path: name for file, name in zip(files, nameless, strict=True)}
        matches = match_files((key for key in self.labels if key not in own), files)
        aliases = {name_of[file.path]: key for key, file in matches.files.items()}
        return replace(self, aliases=aliases, problems=(*self.problems, *matches.problems(self.path)))


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
    """Write masks/NAME.png (palette PNG, values = class numbers) and overlays/NAME.jpg of every image, and classes.txt.

    classes.txt says what the numbers mean: the name of class n in line n + 1, the background in the first.

    What an earlier call with the same model and settings finished is not done again, unless the image has changed
    since. On CPUs several images are worked on at a time.

    Args:
        predictor: from ``tagmask.load``.
        targets: name -> path, as :func:`collect` makes it.
        output: folder; also gets problems.jsonl and prediction.json, what it was made with.
        overlay: whether to write overlays.
        tags: known tags; other classes cannot be predicted. An image that is not among them is predicted freely.
        progress: who to tell; silent by default.

    Returns:
        Images that could not be read, and what else was amiss; they are also in problems.jsonl.
    """
    tags = tags.for_images(targets) if tags else None
    _same_as_before(predictor, targets, output, tags)
    with atomic_write(output / CLASSES, "w") as stream:
        stream.writelines(f"{name}\n" for name in predictor.classes)
    problems: list[Problem] = list(tags.problems) if tags else []
    n_table_problems, names = len(problems), list(targets)

    def done(name: str) -> bool:
        return _is_older_than(targets[name], _files(output, name, overlay=overlay))

    def work(name: str) -> Problem | None:
        problem = _predict_image(predictor, name, targets[name], output, overlay=overlay, tags=tags)
        if problem is not None:
            problems.append(problem)
        return problem

    try:
        process_images(
            predictor.engine, names, work, done=done, progress=progress or SilentProgress(), description="predict"
        )
    except RunError:  # also raised when not one image could be read: that is for the caller to judge
        if sum(problem.left_out for problem in problems[n_table_problems:]) < len(names):
            raise
    # Threads append in any order.
    position = {name: number for number, name in enumerate(names)}
    problems[n_table_problems:] = sorted(problems[n_table_problems:], key=lambda problem: position[problem.id])
    with atomic_write(output / "problems.jsonl", "w") as stream:
        stream.writelines(json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems)
    return problems


def _files(output: Path, name: str, *, overlay: bool) -> list[Path]:
    """The mask of an image, and the overlay if it gets one."""
    return [output / "masks" / f"{name}.png", *([output / "overlays" / f"{name}.jpg"] if overlay else [])]


def _is_older_than(image: Path, files: Sequence[Path]) -> bool:
    """Whether all files are there and were written after the image: one that was replaced is predicted again."""
    try:
        changed = image.stat().st_mtime_ns
        return all(file.stat().st_mtime_ns >= changed for file in files)
    except OSError:
        return False


def _predict_image(
    predictor: Predictor, name: str, path: Path, output: Path, *, overlay: bool, tags: KnownTags | None
) -> Problem | None:
    """Write the mask and the overlay of one image; a problem if it cannot be read, or has no tags."""
    try:
        image, size = predictor.read(path)
    except DataError as error:
        return Problem(STAGE, name, str(path), str(error))
    labels = tags.of(name, path) if tags else None
    at_top = float((image == 255).mean())
    mask = predictor.labels(image, tags=labels, size=size)
    mask_path, *overlay_paths = _files(output, name, overlay=overlay)
    save_palette_png(mask_path, mask)
    for overlay_path in overlay_paths:
        picture = image
        if image.shape[:2] != size:  # it was read smaller than a picture to look at should be
            picture = read_image(path, max_side=OVERLAY_SIDE, pixels=predictor.pixels)
            mask = resize_mask(mask, (picture.shape[0], picture.shape[1]))
        with atomic_write(overlay_path) as stream:
            stream.write(overlay_jpeg(colour_view(picture), mask))
    if tags and labels is None:
        return Problem(STAGE, name, str(path), f"{tags.path}: no tags of it; all classes allowed", left_out=False)
    reason = _unlike_training(predictor, image, at_top)
    return Problem(STAGE, name, str(path), reason, left_out=False) if reason else None


def _unlike_training(predictor: Predictor, image: UInt8Array, at_top: float) -> str:
    """In what an image is far from those that the network was trained on; empty where nothing is known to be.

    Args:
        predictor: which has read the image.
        image: as it was predicted, [h, w, channels].
        at_top: share of its values that are 255.
    """
    if predictor.pixels is not None and at_top > MOST_AT_TOP:
        return f"{at_top:.0%} of its values are at the top of the trained range or beyond ({predictor.pixels.line()})"
    long_side, trained, inference = max(image.shape[:2]), predictor.trained_long_side, predictor.inference
    if inference.max_side is None and inference.tile is None and 0 < MOST_LARGER * trained < long_side:
        return (
            f"{long_side} pixels long, the network was trained on images of up to {trained}: things look unlike what "
            f"it learnt. --max-side {max(LARGE, trained)} predicts it smaller"
        )
    return ""


def _same_as_before(predictor: Predictor, targets: Mapping[str, Path], output: Path, tags: KnownTags | None) -> None:
    """Masks that another model, or other settings, left under these names are no longer finished work."""
    record: dict[str, Any] = {"model": predictor.fingerprint, **asdict(predictor.inference), "tags": None}
    record["scales"] = list(predictor.inference.scales)
    if record["max_side"] is None:  # as records were before there were such settings
        del record["max_side"]
    if record["short_side"] is None:
        del record["short_side"]
    if tags:
        record["tags"] = hashlib.sha256(repr(sorted(tags.labels.items())).encode()).hexdigest()
    path = output / RECORD
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if before == record:
        return
    # Without its mask an image is not done; its overlay is written again with it.
    for name in targets:
        (output / "masks" / f"{name}.png").unlink(missing_ok=True)
    write_json(path, record)


def overlay_jpeg(image: UInt8Array, mask: UInt8Array) -> bytes:
    """The image with its mask in palette colours at half strength, background untouched; JPEG bytes."""
    colours = np.asarray(voc_palette(), dtype=np.uint16).reshape(-1, 3)[mask]
    blend = np.where(mask[..., None] == 0, image, (image.astype(np.uint16) + colours + 1) // 2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blend).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()
