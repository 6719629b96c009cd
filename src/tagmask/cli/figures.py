"""``tagmask evaluate`` and ``tagmask report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagmask.cli.runs import PlainOption, print_result

if TYPE_CHECKING:
    from tagmask.progress import Progress

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]


def evaluate(
    source: Annotated[
        str, typer.Argument(metavar="RUN", help="Folder of a run; with --predictions also a recipe or data.")
    ],
    predictions: Annotated[
        Path | None, typer.Option("--predictions", metavar="DIR", help="Score these masks (PNG) instead.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="With --predictions: which split.")] = "val",
    plain: PlainOption = False,
) -> None:
    """Score a run again, or any folder of masks.

    Nothing is trained. The masks of --predictions may come from any tool."""
    from tagmask.terminal import terminal_progress

    if predictions is not None:
        with terminal_progress(plain=plain) as progress:
            _score_folder(source, predictions, split, progress)
        return
    from tagmask.rescore import evaluate_again

    with terminal_progress(plain=plain) as progress:
        result = evaluate_again(source, progress=progress)
    print_result(result)


def _score_folder(source: str, folder: Path, split: str, progress: Progress) -> None:
    from tagmask.cli.data import data_settings
    from tagmask.report.scores import percent
    from tagmask.rescore import score_folder
    from tagmask.terminal import print_table

    found = score_folder(data_settings(source).open(), folder, split=split, progress=progress)
    ignored, background = found.scores["void_ignored"], found.scores["void_background"]
    columns = ("class", "IoU", "IoU, void = background", "precision", "recall")
    rows = [
        (
            name,
            percent(ignored["iou"][name]),
            percent(background["iou"][name]),
            percent(ignored["precision"][name]),
            percent(ignored["recall"][name]),
        )
        for name in ignored["iou"]
    ]
    rows.append(("mean", percent(ignored["miou"]), percent(background["miou"]), "", ""))
    print_table(columns, rows, title=f"{folder}, split {split}, {ignored['n_images']} images")
    for problem in found.problems:
        typer.echo(f"skipped: {problem.path}: {problem.reason}", err=True)
    if found.missing:
        shown = ", ".join(found.missing[:5]) + (" ..." if len(found.missing) > 5 else "")
        typer.echo(f"warning: {len(found.missing)} images have no mask in {folder}: {shown}", err=True)


def report(run: RunArgument) -> None:
    """Write a run's report.html again."""
    from tagmask.rescore import report_again

    typer.echo(f"report: {report_again(run)}")
