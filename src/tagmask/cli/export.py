"""``tagmask export``: results in the form that other programs want them."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tagmask.cli.evaluate import read_names
from tagmask.errors import InputError


class Competition(StrEnum):
    """The server's two competitions for segmentation."""

    comp5 = "comp5"
    comp6 = "comp6"


def voc_submission(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_MASKS", help="A run, or a folder of masks (PNG).")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where results/ goes.")],
    competition: Annotated[
        Competition, typer.Option("--competition", help="comp5: trained on VOC alone; comp6: with other data.")
    ] = Competition.comp6,
    image_set: Annotated[str, typer.Option("--set", help="Name of the list of images.")] = "test",
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="FILE", help="List of image ids; all must be there, no others are taken."),
    ] = None,
) -> None:
    """Masks as the PASCAL VOC evaluation server takes them.

    Writes DIR/results/VOC2012/Segmentation/COMP_SET_cls/ID.png; pack the folder results and upload it.
    """
    from tagmask.export.voc_submission import write_voc_submission

    names = None if images is None else read_names(images)
    folder = write_voc_submission(source, output, competition=competition.value, image_set=image_set, images=names)
    typer.echo(f"{sum(1 for _ in folder.glob('*.png'))} masks in {folder}")


def onnx(
    source: Annotated[str, typer.Argument(metavar="RUN_OR_FILE", help="A run's folder, or its model file.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The .onnx file.")],
    size: Annotated[
        str | None, typer.Option("--size", metavar="HxW", help="For images of this size alone; else of any size.")
    ] = None,
) -> None:
    """Write the segmentation network as one ONNX file and check it against torch.

    Input 'images': uint8 [B, H, W, 3], RGB. Output 'logits': float32 [B, classes, H, W].
    """
    from tagmask.export.onnx import check_installed, export_onnx
    from tagmask.predict.predictor import load

    check_installed()
    shape = _size(size)
    predictor = load(Path(source), device="cpu")
    max_side = predictor.inference.max_side
    agreement = export_onnx(
        predictor.model, output, classes=predictor.classes, size=shape, max_side=max_side, pixels=predictor.pixels
    )
    for_size = "any size" if agreement.dynamic else f"{agreement.sizes[0][0]}x{agreement.sizes[0][1]} alone"
    typer.echo(f"{output}: {len(predictor.classes)} classes, images of {for_size}")
    if max_side is not None:
        typer.echo(f"reduce images with a side of more than {max_side} pixels to that before they go in (max_side)")
    if predictor.pixels is not None:
        typer.echo(f"images go in as {predictor.pixels.line()}, in 8 bits (pixels)")
    typer.echo(
        f"against torch: largest difference of a logit {agreement.largest:.2g}, "
        f"{100 * agreement.other_labels:.3g} % of the pixels with another label"
    )


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    if match is None or "0" in (match[1], match[2]):
        msg = f"--size {text}: height and width are wanted, such as 512x512"
        raise InputError(msg)
    return int(match[1]), int(match[2])
