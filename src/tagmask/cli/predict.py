"""``tagmask predict``: masks of new images from a run or an exported model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagmask.cli.runs import PlainOption
from tagmask.errors import InputError


def predict(
    source: Annotated[str, typer.Argument(metavar="RUN_OR_FILE", help="A run's folder, or its model file.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Images, folders, or quoted globs.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the masks go.")],
    overlay: Annotated[
        bool, typer.Option("--overlay/--no-overlay", help="Also write the image with the mask over it.")
    ] = True,
    tags: Annotated[
        Path | None, typer.Option("--tags", metavar="TABLE", help="Known tags: no other class is predicted.")
    ] = None,
    scales: Annotated[str | None, typer.Option("--scales", metavar="S,S,...", help="Instead of the recipe's.")] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Instead of the recipe's.")] = None,
    tile: Annotated[
        int | None, typer.Option("--tile", metavar="PIXELS", help="Predict larger images in parts; 0: whole.")
    ] = None,
    crf: Annotated[
        str | None, typer.Option("--crf", metavar="KERNELS", help="Dense CRF: deeplab, psa, irn_labels or none.")
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option("--max-side", metavar="PIXELS", help="Predict larger images reduced to this side; 0: whole."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    plain: PlainOption = False,
) -> None:
    """Predict the masks of images.

    Writes DIR/masks/NAME.png (palette PNG, values = class numbers), DIR/overlays/NAME.jpg and DIR/classes.txt, the
    names of the classes: the background first, one a line.
    Images that cannot be read are left out, listed at the end and in DIR/problems.jsonl.
    The same command again does what is missing.
    """
    from tagmask.cli.terminal import terminal_progress
    from tagmask.predict.images import STAGE, KnownTags, collect, predict_images
    from tagmask.predict.predictor import load

    targets = collect(images, output)
    predictor = load(
        Path(source), device=device, scales=_numbers(scales), flip=flip, tile=tile, crf=crf, max_side=max_side
    )
    known = KnownTags.read(tags, predictor.classes) if tags else None
    with terminal_progress(plain=plain) as progress:
        problems = predict_images(predictor, targets, output, overlay=overlay, tags=known, progress=progress)
    for problem in problems:
        typer.echo(f"{'skipped' if problem.left_out else 'note'}: {problem.path}: {problem.reason}", err=True)
    skipped = {problem.id for problem in problems if problem.stage == STAGE and problem.left_out}
    typer.echo(f"{len(targets) - len(skipped)} of {len(targets)} masks in {output / 'masks'}")
    if len(skipped) == len(targets):
        msg = f"none of the {len(targets)} images could be read; {output / 'problems.jsonl'} says why"
        raise InputError(msg)


def _numbers(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError as error:
        msg = f"--scales {text}: numbers between commas are wanted, such as 1.0,1.5"
        raise InputError(msg) from error
