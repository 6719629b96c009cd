"""``tagmask suggest``: the recipe for a data set, with a reason per line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tagmask.cli.recipes import OverrideArguments
from tagmask.cli.sources import ImagesOption, SourceArgument, Start, TagsOption, find_start
from tagmask.errors import InputError
from tagmask.progress.listeners import printable

if TYPE_CHECKING:
    from tagmask.settings.recipe import Recipe


def suggest(
    data: SourceArgument = None,
    overrides: OverrideArguments = None,
    images: ImagesOption = None,
    tags: TagsOption = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.1, metavar="N", help="Time there is: trainings that fit into it, here."),
    ] = None,
) -> None:
    """Print the recipe that 'tagmask run DIR' would run, with the reasons.

    What follows from the data is decided by a table of rules. Nothing is trained; with --minutes both networks are
    timed for some seconds. Keep it, change it, run it:
    tagmask suggest DIR > mine.yaml, then tagmask run mine.yaml.
    """
    start = find_start(data, overrides or (), images=images, tags=tags)
    if start.data is None:
        msg = f"{data}: is a recipe or a run, which says all itself: tagmask recipe show {data}"
        raise InputError(msg)
    from tagmask.settings.loading import load_recipe, written_values

    recipe = load_recipe(start.recipe, start.overrides)
    if minutes is not None:
        start = within(minutes, start, recipe)
    values = written_values(start.recipe, start.overrides)
    typer.echo("\n".join(recipe_lines(values, start)))


def within(minutes: float, start: Start, recipe: Recipe) -> Start:
    """The start with trainings that fit into so many minutes on this machine, measured there, and the reason."""
    from tagmask.pipeline.time_budget import fit, lengths, measure_costs
    from tagmask.settings.rules import Suggestion

    source = recipe.data.open()
    trainings = lengths(recipe, source)
    assert start.facts is not None
    costs = measure_costs(recipe, source, start.facts.long_side)
    budget = fit(60 * minutes, costs, trainings)
    advice = {item.key: item for item in start.suggestions}
    for name, updates in budget.updates.items():
        length, each = trainings[name], f"{costs.updates[name]:.2g} s each on this machine"
        change = f"shortened from {length.updates}" if updates < length.updates else "not shortened"
        advice[length.key] = Suggestion(length.key, updates, f"{change}; {each}")
    late = " although trainings are as short as is advised" if budget.seconds > 60 * minutes else ""
    advice["name"] = Suggestion(
        "name", None, f"the run goes to runs/NAME and takes about {budget.seconds / 60:.2g} min{late}"
    )
    changes = tuple(f"{length.key}={budget.updates[name]}" for name, length in trainings.items())
    return replace(start, overrides=(*start.overrides, *changes), suggestions=tuple(advice.values()))


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
