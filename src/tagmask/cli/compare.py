"""``tagmask compare``: runs and recipes in one table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from tagmask.cli.recipes import find_recipe, shipped
from tagmask.cli.runs import PlainOption
from tagmask.errors import InputError, UnknownNameError


class Void(StrEnum):
    """What becomes of void pixels of the ground truth."""

    ignored = "ignored"
    background = "background"


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
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="With --paired: write JSON here.")] = None,
    paired: Annotated[
        bool, typer.Option("--paired", help="Two runs, image by image, with the interval of their difference.")
    ] = False,
    split: Annotated[str, typer.Option("--split", help="With --paired: which split.")] = "val",
    measure: Annotated[
        str | None,
        typer.Option("--measure", metavar="NAME[,NAME]", help="With --paired: what of both, or of each, e.g. maps."),
    ] = None,
    void: Annotated[Void, typer.Option("--void", help="With --paired: what becomes of void pixels.")] = Void.ignored,
    draws: Annotated[int, typer.Option("--draws", min=1, help="With --paired: bootstrap samples.")] = 2000,
    plain: PlainOption = False,
) -> None:
    """Compare runs and recipes in one table.

    Recipes are run first; stages they share are done once. Runs that differ only in their seed become one
    row, mean ± std; gains and costs are relative to plain CAM, where it is among them. With --paired, two runs
    (or results of evaluate --predictions --output) are compared on the images that both have scored.
    """
    files: tuple[tuple[Literal["md", "csv", "html"], Path | None], ...] = (
        ("md", markdown),
        ("csv", csv),
        ("html", html),
    )
    if paired:
        if seeds is not None:
            msg = "--paired compares two runs that are there; --seeds is for recipes"
            raise InputError(msg)
        measures = measure.split(",") if measure else []
        kinds: tuple[Literal["md", "csv", "json", "html"], ...] = ("md", "csv", "json", "html")
        folder = [] if output is None else [(kind, output / f"pair.{kind}") for kind in kinds]
        _pair(sources, split, measures, void, draws, [*files, ("json", json), *folder])
        return
    if json is not None or measure is not None:
        msg = "--json and --measure go with --paired"
        raise InputError(msg)
    _compare(sources, seeds, output, files, plain=plain)


def _compare(
    sources: Sequence[str],
    seeds: str | None,
    output: Path | None,
    files: Sequence[tuple[Literal["md", "csv", "html"], Path | None]],
    *,
    plain: bool,
) -> None:
    """Run the recipes, print the tables and write what is asked for."""
    overrides = [text for text in sources if _OVERRIDE.match(text) and not Path(text).exists()]
    paths = [_run_or_recipe(text) for text in sources if text not in overrides]
    from tagmask.cli.terminal import print_table, terminal_progress
    from tagmask.experiments.compare import compare as compare_sources
    from tagmask.experiments.compare import write_file

    with terminal_progress(plain=plain) as progress:
        result = compare_sources(paths, overrides=overrides, seeds=_numbers(seeds), output=output, progress=progress)
    for part in result.table.parts():
        print_table(part.header, part.rows, title=part.title)
    for note in result.table.notes:
        typer.echo(note)
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


def _pair(
    sources: Sequence[str],
    split: str,
    measures: Sequence[str],
    void: Void,
    draws: int,
    files: Sequence[tuple[Literal["md", "csv", "json", "html"], Path | None]],
) -> None:
    """Print the paired comparison of two runs and write what is asked for."""
    if len(sources) != 2:
        msg = f"--paired compares two runs; {len(sources)} are named"
        raise InputError(msg)
    from tagmask.cli.terminal import print_table
    from tagmask.experiments.paired import pair, write_pair
    from tagmask.report.several.paired_table import CLASS_HEADER, IMAGE_HEADER

    result = pair(sources[0], sources[1], split=split, measures=measures, void=void.value, draws=draws)
    table = result.table
    typer.echo(f"first:  {table.names[0]}")
    typer.echo(f"second: {table.names[1]}")
    print_table(CLASS_HEADER, table.class_rows(), title=table.what)
    for title, places in zip(("Largest losses", "Largest gains"), table.extremes(5), strict=True):
        if places:
            print_table(IMAGE_HEADER, table.image_rows(places), title=title)
    typer.echo(table.sentence())
    typer.echo(table.counts())
    for note in table.notes:
        typer.echo(note)
    for kind, path in files:
        if path is not None:
            write_pair(result, kind, path)
            typer.echo(f"written: {path}", err=True)


def _run_or_recipe(text: str) -> Path:
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
