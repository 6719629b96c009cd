"""``tagmask crf``: refine a folder of masks or maps with the dense CRF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagmask.cli.runs import PlainOption
from tagmask.errors import InputError

if TYPE_CHECKING:
    from tagmask.methods.dense_crf.refiner import DenseCrf


def crf(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of images.")],
    masks: Annotated[Path, typer.Argument(metavar="MASKS", help="Folder of masks (.png) or maps (.npz).")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of dense_crf, such as preset=deeplab."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the masks go.")] = Path("crf"),
    confidence: Annotated[float, typer.Option("--confidence", help="How sure the labels of masks are, 0 to 1.")] = 0.7,
    channels: Annotated[
        str | None,
        typer.Option("--channels", metavar="N,N,...", help="Bands of the images, counted from 1, as data.channels."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="Processes (default: one per core).")
    ] = None,
    plain: PlainOption = False,
) -> None:
    """Refine a folder of masks, or of maps, with the dense CRF.

    Writes DIR/NAME.png for MASKS/NAME.png or NAME.npz and the image of that name. Finished masks are kept, so the
    same command goes on where it stopped. What cannot be read is listed at the end and in DIR/problems.jsonl.
    """
    method, bands = _method(settings or []), _bands(channels)
    from tagmask.cli.terminal import terminal_progress
    from tagmask.engine.processes import available_cores
    from tagmask.predict.crf_folder import refine_folder

    n_workers = workers or available_cores()
    with terminal_progress(plain=plain) as progress:
        result = refine_folder(
            images,
            masks,
            output,
            crf=method,
            confidence=confidence,
            channels=bands,
            workers=n_workers,
            progress=progress,
        )
    for problem in result.problems:
        typer.echo(f"skipped: {problem.path}: {problem.reason}", err=True)
    earlier = f", {result.kept} were there" if result.kept else ""
    typer.echo(f"{result.done} masks refined{earlier}, {len(result.problems)} left out, in {output}")
    if not result.done and not result.kept:
        msg = f"no mask of {masks} could be refined; {output / 'problems.jsonl'} says why"
        raise InputError(msg)


def _bands(text: str | None) -> tuple[int, ...] | None:
    numbers = [part.strip() for part in text.split(",")] if text is not None else None
    if numbers is None:
        return None
    if not all(number.isdecimal() and int(number) > 0 for number in numbers):
        msg = f"--channels {text}: numbers of bands between commas are wanted, counted from 1, such as 4,3,2"
        raise InputError(msg)
    return tuple(map(int, numbers))


def _method(settings: list[str]) -> DenseCrf | None:
    """The refiner with these settings; None without any."""
    if not settings:
        return None
    import yaml

    from tagmask.registry.validation import build_method

    values = {}
    for text in settings:
        key, sign, value = text.partition("=")
        if not sign:
            msg = f"'{text}' is not a setting: write KEY=VALUE, such as iterations=5"
            raise InputError(msg)
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            msg = f"'{text}': the value is not YAML"
            raise InputError(msg) from error
    method: DenseCrf = build_method("refiner", {"name": "dense_crf", **values}, where="crf", base=Path())
    return method
