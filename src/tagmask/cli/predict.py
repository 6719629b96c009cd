"""``tagmask predict``: masks of new images from a run or an exported model file."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagmask.cli.runs import PlainOption
from tagmask.errors import DataError, InputError

if TYPE_CHECKING:
    from tagmask.interfaces import Problem, UInt8Array
    from tagmask.predictor import Predictor
    from tagmask.progress import Progress


def predict(
    source: Annotated[str, typer.Argument(metavar="RUN_OR_FILE", help="A run's folder, or its model file.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Images, folders, or quoted globs.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the masks go.")],
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Also write the image with the mask over it.")
    ] = True,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    plain: PlainOption = False,
) -> None:
    """Predict the masks of images.

    Writes DIR/masks/NAME.png (palette PNG, values = class numbers) and DIR/overlays/NAME.jpg.
    Images that cannot be read are left out, listed at the end and in DIR/problems.jsonl.
    """
    targets = collect(images)
    from tagmask.predictor import load
    from tagmask.terminal import terminal_progress

    predictor = load(Path(source), device=device)
    with terminal_progress(plain=plain) as progress:
        problems = predict_all(predictor, targets, output, overlay=overlay, progress=progress)
    for problem in problems:
        typer.echo(f"skipped: {problem.path}: {problem.reason}", err=True)
    typer.echo(f"{len(targets) - len(problems)} of {len(targets)} masks in {output / 'masks'}")
    if len(problems) == len(targets):
        msg = f"none of the {len(targets)} images could be read; {output / 'problems.jsonl'} says why"
        raise InputError(msg)


def collect(patterns: list[str]) -> dict[str, Path]:
    """Images behind paths, folders (with all folders inside) and globs: artifact name -> path.

    The name is the path below the folder (or the file name) without suffix; where two would be the same,
    the suffix stays, and after that a number is added.

    Raises:
        InputError: a path that does not exist, or nothing found at all.
    """
    from tagmask.data.files import IMAGE_SUFFIXES

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


def predict_all(
    predictor: Predictor, targets: dict[str, Path], output: Path, *, overlay: bool, progress: Progress
) -> list[Problem]:
    """Write mask and overlay of every image; returns those that could not be read, also in problems.jsonl."""
    import json
    from dataclasses import asdict

    from tagmask.interfaces import Problem
    from tagmask.workspace import atomic_write, save_palette_png

    problems = []
    progress.start("predict", len(targets))
    for name, path in targets.items():
        try:
            mask = predictor(path).mask
        except DataError as error:
            problems.append(Problem("predict", name, str(path), str(error)))
        else:
            save_palette_png(output / "masks" / f"{name}.png", mask)
            if overlay:
                with atomic_write(output / "overlays" / f"{name}.jpg") as stream:
                    stream.write(overlay_jpeg(path, mask))
        progress.advance()
    progress.finish()
    with atomic_write(output / "problems.jsonl", "w") as stream:
        stream.writelines(json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems)
    return problems


def overlay_jpeg(path: Path, mask: UInt8Array) -> bytes:
    """The image with its mask in palette colours at half strength, background untouched; JPEG bytes."""
    import io

    import numpy as np
    from PIL import Image

    from tagmask.data.images import read_image
    from tagmask.workspace import voc_palette

    image = read_image(path).astype(np.float32)
    colours = np.asarray(voc_palette(), dtype=np.float32).reshape(-1, 3)[mask]
    strength = np.where(mask == 0, 0.0, 0.5)[..., None]
    mixed = (image * (1 - strength) + colours * strength).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(mixed).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()
