"""``tagmask sweep``: a recipe with every combination of some values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagmask.cli.recipes import RecipeArgument, find_recipe
from tagmask.cli.runs import PlainOption, ReuseOption, UntilOption

GridArguments = Annotated[
    list[str],
    typer.Argument(metavar="KEY=A,B,C...", help="Values to combine; one value is a fixed change, as in 'run'."),
]


def sweep(
    recipe: RecipeArgument,
    grid: GridArguments,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder of the sweep (default: sweeps/NAME-KEYS)."),
    ] = None,
    reuse: ReuseOption = None,
    until: UntilOption = None,
    plain: PlainOption = False,
) -> None:
    """Run a recipe with every combination of values.

    Stages that several runs share are done once. Started again, it goes on where it stopped. Runs that
    differ in their seed only become one row of the table, mean ± std.
    """
    recipe_file = find_recipe(recipe)
    from tagmask.cli.terminal import print_table, terminal_progress
    from tagmask.experiments.sweep import sweep as run_sweep

    with terminal_progress(plain=plain) as progress:
        result = run_sweep(recipe_file.path, grid, output=output, reuse=reuse or (), until=until, progress=progress)
    for part in result.table().parts():
        print_table(part.header, part.rows, title=part.title)
    for point in result.failed:
        typer.echo(f"failed: {point.name}: {point.error}", err=True)
    typer.echo(f"table:  {result.path / 'table.csv'}")
    typer.echo(f"page:   {result.page}")
    if result.failed:
        raise typer.Exit(1)
