"""``tagmask run`` and ``tagmask status``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagmask.cli.recipes import OverrideArguments
from tagmask.cli.sources import ImagesOption, SourceArgument, TagsOption, check_output, find_start

if TYPE_CHECKING:
    from tagmask.runs.run import Run

ReuseOption = Annotated[
    list[Path] | None,
    typer.Option("--reuse", metavar="RUN", help="Take finished stages from this run where they fit; may be repeated."),
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")]
PlainOption = Annotated[bool, typer.Option("--plain", help="Plain progress lines instead of bars.")]


def run(
    recipe: SourceArgument = None,
    overrides: OverrideArguments = None,
    images: ImagesOption = None,
    tags: TagsOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder of the run (default: runs/NAME)."),
    ] = None,
    devices: Annotated[
        int | None, typer.Option("--devices", min=1, metavar="N", help="Number of processes or GPUs.")
    ] = None,
    reuse: ReuseOption = None,
    until: UntilOption = None,
    plain: PlainOption = False,
) -> None:
    """Run on images and tags, by a recipe, or go on with a run.

    Tags in; masks, model and report out. Images and tags alone are run by the recipe 'own', with what follows from
    the data (see 'tagmask suggest'). Started again, it goes on where it stopped; after a change only what depends on
    it is redone.
    """
    start = find_start(recipe, overrides or (), images=images, tags=tags)
    from tagmask.cli.suggest import summary
    from tagmask.cli.terminal import first_rank, terminal_progress
    from tagmask.pipeline.execute import run as run_pipeline
    from tagmask.settings.loading import load_recipe

    loaded = load_recipe(start.recipe, start.overrides)
    if start.data is not None:
        check_output(output, loaded.name, start.data)
        if first_rank():
            typer.echo("\n".join(summary(start)), err=True)
    with terminal_progress(plain=plain) as progress:
        result = run_pipeline(
            loaded, output=output or start.run, devices=devices, reuse=reuse, progress=progress, until=until
        )
    if first_rank():
        print_result(result)


def print_result(result: Run) -> None:
    """The scores of a run and where its report is, on standard output."""
    from tagmask.cli.terminal import print_table
    from tagmask.report.summary import SUMMARY_HEADER, summary_rows

    metrics = result.metrics
    if metrics:
        print_table(SUMMARY_HEADER, summary_rows(metrics))
        if metrics.get("without_masks"):
            typer.echo(str(metrics["without_masks"]))
    typer.echo(f"run:    {result.path}")
    if Path(result.report).is_file():
        typer.echo(f"report: {result.report}")


def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
) -> None:
    """Show what each stage of a run has done."""
    from tagmask.cli.terminal import print_table
    from tagmask.pipeline.execute import status as stages_of

    rows = stages_of(run)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    print_table(columns, [[_cell(row.get(column)) for column in columns] for row in rows], title=str(run))


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
