"""``tagmask compare``: runs and recipes in one table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from tagmask.cli.recipes import find_recipe, shipped
from tagmask.cli.runs import PlainOption
from tagmask.errors import InputError, UnknownNameError

_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")


def compare(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="RUN|RECIPE... [KEY=VALUE]...", help="Runs, recipes to run first, changes to these."),
    ],
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="N,N,...", help="Run every recipe once per seed.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder of new runs and tables (default: comparisons/NAMES)."
        ),
    ] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help="Write Markdown here.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write CSV here.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write HTML here.")] = None,
    plain: PlainOption = False,
) -> None:
    """Compare runs and recipes in one table.

    Recipes are run first; stages they share are done once. Runs that differ only in their seed become one
    row, mean ± std; gains and costs are relative to plain CAM, where it is among them.
    """
    overrides = [text for text in sources if _OVERRIDE.match(text) and not Path(text).exists()]
    wanted = [_find(text) for text in sources if text not in overrides]
    from tagmask.comparison import compare as walk
    from tagmask.comparison import write_file
    from tagmask.terminal import print_table, terminal_progress

    with terminal_progress(plain=plain) as progress:
        result = walk(wanted, overrides=overrides, seeds=_numbers(seeds), output=output, progress=progress)
    for part in result.table.parts():
        print_table(part.header, part.rows, title=part.title)
    for note in result.table.notes:
        typer.echo(note)
    files: tuple[tuple[Literal["md", "csv", "html"], Path | None], ...] = (
        ("md", markdown),
        ("csv", csv),
        ("html", html),
    )
    for kind, path in files:
        if path is not None:
            write_file(result, kind, path)
            typer.echo(f"written: {path}", err=True)
    if result.path is not None:
        typer.echo(f"page:   {result.path / 'compare.html'}")
    for point in result.failed:
        typer.echo(f"failed: {point.name}: {point.error}", err=True)
    if result.failed:
        raise typer.Exit(1)


def _find(text: str) -> Path:
    """A folder as it is, else the recipe behind the name."""
    path = Path(text)
    if path.is_dir():
        return path
    try:
        return find_recipe(text).path
    except UnknownNameError:
        beside = [str(path.parent / entry.name) for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UnknownNameError("run or recipe", text, [*beside, *shipped()]) from None


def _numbers(seeds: str | None) -> list[int]:
    try:
        return [int(text) for text in seeds.split(",")] if seeds else []
    except ValueError:
        msg = f"--seeds {seeds}: expected whole numbers such as 0,1,2"
        raise InputError(msg) from None
