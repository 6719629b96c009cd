"""``tagmask suggest``: the recipe for a data set, with a reason per line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from tagmask.cli.recipes import OverrideArguments
from tagmask.cli.sources import ImagesOption, SourceArgument, Start, TagsOption, find_start
from tagmask.errors import InputError
from tagmask.progress.listeners import printable


def suggest(
    data: SourceArgument = None,
    overrides: OverrideArguments = None,
    images: ImagesOption = None,
    tags: TagsOption = None,
) -> None:
    """Print the recipe that 'tagmask run DIR' would run, with the reasons.

    What follows from the data is decided by a table of rules. Nothing is trained. Keep it, change it, run it:
    tagmask suggest DIR > mine.yaml, then tagmask run mine.yaml.
    """
    start = find_start(data, overrides or (), images=images, tags=tags)
    if start.data is None:
        msg = f"{data}: is a recipe or a run, which says all itself: tagmask recipe show {data}"
        raise InputError(msg)
    from tagmask.settings.loading import load_recipe, written_values

    load_recipe(start.recipe, start.overrides)
    values = written_values(start.recipe, start.overrides)
    typer.echo("\n".join(recipe_lines(values, start)))


def recipe_lines(values: Mapping[str, Any], start: Start) -> Iterator[str]:
    """The recipe as YAML, the reason of each setting behind it."""
    from tagmask.settings.annotated import annotated_lines

    yield f"# The recipe own for {printable(str(start.data))}"
    if start.facts is not None:
        yield f"# {start.facts.line()}"
    reasons = {
        "name": "the run goes to runs/NAME",
        "data.root": "the folder of your images",
        **{item.key: item.reason for item in start.suggestions},
    }
    yield from annotated_lines(values, reasons)


def summary(start: Start) -> Iterator[str]:
    """What follows from the data, in short: one line for the data, one for each setting that differs from ``own``."""
    if start.facts is not None:
        yield f"recipe own: {start.facts.line()}"
    for item in start.suggestions:
        if item.value is not None:
            yield f"  {item.override}: {item.reason}"
