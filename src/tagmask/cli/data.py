"""``tagmask data check``, ``tagmask data doubts`` and ``tagmask data make-partsworld``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tagmask.cli.recipes import OverrideArguments, find_recipe, shipped
from tagmask.cli.runs import PlainOption
from tagmask.cli.sources import ImagesOption, TagsOption, data_overrides, find_start, named_data, source_and_changes

if TYPE_CHECKING:
    from tagmask.settings.recipe import Recipe
    from tagmask.types import DataSource


def check(
    source: Annotated[
        str | None, typer.Argument(metavar="SOURCE|RECIPE", help="Folder or table of data, a recipe, or a run.")
    ] = None,
    overrides: OverrideArguments = None,
    images: ImagesOption = None,
    tags: TagsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="All findings as JSON.")] = False,
) -> None:
    """Report on the health of a data source.

    Images and tags per class, sizes, duplicates, what cannot be read. Of a recipe also which trainings will be too
    short on the data, of a run why its masks may be bad."""
    from tagmask.data.health import check as health
    from tagmask.storage.records import json_text

    recipe = recipe_of(source, overrides or (), images=images, tags=tags)
    data = recipe.data.open()
    report = health.check(data, max_pixels=data.max_pixels)
    named_run = run_of(source, overrides, images=images, tags=tags)
    advice = _short_trainings(recipe, data) if named_run is None else _diagnosis(named_run, recipe, data)
    if as_json:
        typer.echo(json_text({**report.to_dict(), "advice": advice}, indent=1))
        return
    for line in [*report.lines(), *(["", "advice", *(f"  {text}" for text in advice)] if advice else [])]:
        typer.echo(line)


def doubts(
    source: Annotated[
        str | None, typer.Argument(metavar="RUN|DIR|RECIPE", help="Folder of a run or of data, a table, or a recipe.")
    ] = None,
    overrides: OverrideArguments = None,
    images: ImagesOption = None,
    tags: TagsOption = None,
    first: Annotated[int, typer.Option("--first", min=1, metavar="N", help="Images in the table.")] = 20,
    as_csv: Annotated[bool, typer.Option("--csv", help="All images as CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All images as JSON.")] = False,
    plain: PlainOption = False,
) -> None:
    """List images whose tags a classifier doubts, the most doubtful first.

    The classifier has not seen the tags that it judges, and no mask is opened. 'given': the tag may be wrong;
    'missing': the class may be there without its tag.
    """
    start = find_start(source, overrides or (), images=images, tags=tags)
    from tagmask.cli.terminal import print_table, terminal_progress
    from tagmask.experiments.doubts import doubts as order
    from tagmask.experiments.doubts import state

    with terminal_progress(plain=plain) as progress:
        result = order(start.run or start.recipe, overrides=start.overrides, progress=progress)
    for problem in result.problems:
        typer.echo(f"skipped: {problem.path}: {problem.reason}", err=True)
    if as_csv or as_json:
        typer.echo(result.to_csv().rstrip() if as_csv else result.to_json())
        return
    rows = [row for row in result.rows if row.rank <= first]
    cells = [(str(row.rank), row.image, row.split, row.tag, state(row), f"{row.doubt:.2f}") for row in rows]
    title = f"{min(first, len(result.images))} of {len(result.images)} images; all: --csv or --json"
    print_table(("", "image", "split", "tag", "state", "doubt"), cells, title=title)


def _short_trainings(recipe: Recipe, data: DataSource) -> list[str]:
    """The trainings of a recipe that will be too short on the data."""
    from tagmask.pipeline.recipe_lengths import recipe_lengths
    from tagmask.settings.training_length import too_short

    lengths = [(length.key.rpartition(".")[0], too_short(length.record())) for length in recipe_lengths(recipe, data)]
    return [f"{name}: {shortage}" for name, shortage in lengths if shortage]


def _diagnosis(folder: Path, recipe: Recipe, data: DataSource) -> list[str]:
    """Why the masks of a run may be bad; of one that did not note its trainings, also which are too short."""
    from tagmask.report.run.diagnosis import diagnosis
    from tagmask.report.run.facts import read_facts
    from tagmask.runs.workspace import Workspace

    facts = read_facts(Workspace(folder), data)
    noted = any("trainings" in entry for entry in facts.manifest.get("stages", {}).values())
    return [*([] if noted else _short_trainings(recipe, data)), *diagnosis(facts)]


def make_partsworld(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the data set (VOC layout).")],
    overrides: OverrideArguments = None,
    plain: PlainOption = False,
) -> None:
    """Write the embedded data set in VOC layout.

    KEY=VALUE as below 'data:' in a recipe, such as train=100 or variant=single."""
    from tagmask.cli.terminal import terminal_progress
    from tagmask.data.partsworld.source import PartsWorldSource, write_partsworld
    from tagmask.settings.loading import load_recipe

    changes = [f"data.{override}" for override in overrides or ()]
    settings = load_recipe({"data": {"format": "partsworld"}}, changes).data
    assert isinstance(settings, PartsWorldSource)
    with terminal_progress(plain=plain) as progress:
        progress.start("draw", settings.train + settings.val)
        write_partsworld(folder, settings, progress=lambda done, total: progress.advance())
        progress.finish()
    typer.echo(f"{folder}: written. Look at it with: tagmask data check {folder}")


def data_settings(
    source: str | None, overrides: Sequence[str] = (), *, images: Path | None = None, tags: Path | None = None
) -> Any:
    """The data settings behind a folder or table of data, a recipe, or a run; ``open()`` gives the source."""
    return recipe_of(source, overrides, images=images, tags=tags).data


def recipe_of(
    source: str | None, overrides: Sequence[str] = (), *, images: Path | None = None, tags: Path | None = None
) -> Recipe:
    """The recipe that was named, that of a run, or ``own`` with the data that was named.

    Data without a recipe is read as ``tagmask run`` reads it, with the same images held out.
    """
    from tagmask.settings.loading import load_recipe

    source, overrides = source_and_changes(source, overrides)
    data = named_data(source, images, tags)
    if data is not None:
        return load_recipe(shipped()["own"], [*data_overrides(data), *overrides])
    assert source is not None
    return load_recipe(find_recipe(source).path, overrides)


def run_of(
    source: str | None, overrides: Sequence[str] | None, *, images: Path | None = None, tags: Path | None = None
) -> Path | None:
    """Folder of the run that was named and nothing changed in; None: data, a recipe, or what a run would become."""
    source, changes = source_and_changes(source, overrides)
    if source is None or changes or named_data(source, images, tags) is not None:
        return None
    return find_recipe(source).run
