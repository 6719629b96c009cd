"""``tagmask evaluate`` and ``tagmask report``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tagmask.cli.runs import PlainOption, print_result
from tagmask.errors import InputError

if TYPE_CHECKING:
    from tagmask.progress.listeners import Progress

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]


def evaluate(
    source: Annotated[
        str, typer.Argument(metavar="RUN", help="Folder of a run; with --predictions also a recipe or data.")
    ],
    predictions: Annotated[
        Path | None, typer.Option("--predictions", metavar="DIR", help="Score these masks (PNG) instead.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="With --predictions: which split.")] = "val",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="With --predictions: also write the scores here."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="FILE", help="Score these images alone (ids, one a line), into --output."),
    ] = None,
    plain: PlainOption = False,
) -> None:
    """Score a run again, or any folder of masks.

    Nothing is trained. The masks of --predictions may come from any tool; with --output their scores are written as
    a run has them, so that `tagmask compare --paired` can read them.
    """
    from tagmask.cli.terminal import terminal_progress

    if predictions is not None:
        with terminal_progress(plain=plain) as progress:
            _score_folder(source, predictions, split, output, progress)
        return
    if (output is None) != (images is None):
        msg = "--images needs --output, where the scores of these images go; without it they stand in the run"
        raise InputError(msg)
    if images is not None and output is not None:
        with terminal_progress(plain=plain) as progress:
            _score_images(source, images, output, progress)
        return
    from tagmask.experiments.rescore import evaluate_again

    with terminal_progress(plain=plain) as progress:
        result = evaluate_again(source, progress=progress)
    print_result(result)


def _score_images(source: str, images: Path, output: Path, progress: Progress) -> None:
    from tagmask.cli.terminal import print_table
    from tagmask.experiments.rescore import evaluate_images
    from tagmask.report.summary import SUMMARY_HEADER, summary_rows

    metrics = evaluate_images(source, read_names(images), output, progress=progress)
    print_table(SUMMARY_HEADER, summary_rows(metrics))
    typer.echo(f"scores: {output / 'metrics.json'}")


def read_names(path: Path) -> list[str]:
    """Lines of a list of images; which id a line means is decided where the ids are known.

    Raises:
        InputError: it cannot be read, or is empty.
    """
    from tagmask.data.lists import read_lines

    names = [line for _, line in read_lines(path)]
    if not names:
        msg = f"{path}: names no image. Write one image id per line."
        raise InputError(msg)
    return names


def _score_folder(source: str, folder: Path, split: str, output: Path | None, progress: Progress) -> None:
    from tagmask.cli.data import data_settings
    from tagmask.cli.terminal import print_table
    from tagmask.experiments.rescore import score_folder, write_folder_scores
    from tagmask.report.metrics_file import RULES
    from tagmask.report.score_rows import score_rows

    data = data_settings(source).open()
    result = score_folder(data, folder, split=split, progress=progress)
    images = result.scores["void_ignored"]["n_images"]
    print_table(*_class_table(result.scores), title=f"{folder}, split {split}, {images} images")
    print_table(("score", *RULES.values()), score_rows([result.scores[rule] for rule in RULES]), title="All scores")
    if output is not None:
        write_folder_scores(result, data, output, split=split)
        typer.echo(f"scores: {output / 'metrics.json'}")
    for problem in result.problems:
        typer.echo(f"skipped: {problem.path}: {problem.reason}", err=True)
    if result.missing:
        names = ", ".join(result.missing[:5]) + (" ..." if len(result.missing) > 5 else "")
        typer.echo(f"warning: {len(result.missing)} images have no mask in {folder}: {names}", err=True)


def _class_table(scores: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: every class, then the mean."""
    from tagmask.report.metrics_file import percent

    ignored, background = scores["void_ignored"], scores["void_background"]
    columns = ("class", "IoU", "IoU, void = background", "precision", "recall", "F1", "boundary IoU")
    rows = [
        (
            name,
            percent(ignored["iou"][name]),
            percent(background["iou"][name]),
            *(percent(ignored[key][name]) for key in ("precision", "recall", "f1")),
            percent(ignored["boundary"]["iou"][name]),
        )
        for name in ignored["iou"]
    ]
    means = (ignored["miou"], background["miou"], *(ignored[f"mean_{key}"] for key in ("precision", "recall", "f1")))
    return columns, [*rows, ("mean", *map(percent, means), percent(ignored["boundary"]["miou"]))]


def report(run: RunArgument) -> None:
    """Write a run's report.html again."""
    from tagmask.experiments.rescore import report_again

    typer.echo(f"report: {report_again(run)}")
