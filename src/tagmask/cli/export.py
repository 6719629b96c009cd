"""``tagmask export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tagmask.cli.figures import read_ids


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
    from tagmask.submission import write_voc_submission

    wanted = None if images is None else read_ids(images)
    folder = write_voc_submission(source, output, competition=competition.value, image_set=image_set, images=wanted)
    typer.echo(f"{sum(1 for _ in folder.glob('*.png'))} masks in {folder}")
