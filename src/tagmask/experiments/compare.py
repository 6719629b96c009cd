"""The field's table over runs and recipes: recipes are run first, sharing what is alike, then all are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeGuard

from tagmask.errors import InputError, RunError, TagmaskError
from tagmask.experiments.points import Point, check_one_process, is_run, run_points, safe_name
from tagmask.progress.listeners import Progress, SilentProgress
from tagmask.report.several.compare_page import compare_html
from tagmask.report.several.groups import grouped_runs
from tagmask.report.several.score_table import Members, ScoreTable, score_table
from tagmask.runs.pixels import with_stored_pixels
from tagmask.runs.workspace import Workspace
from tagmask.settings.loading import Recipe, load_recipe
from tagmask.storage.files import atomic_write
from tagmask.types import DataSource


@dataclass(frozen=True)
class Comparison:
    """What was compared; ``path`` is the folder with table.md, table.csv and compare.html, None if none was wanted."""

    table: ScoreTable
    runs: tuple[Path, ...]
    failed: tuple[Point, ...]
    path: Path | None
    groups: tuple[Members, ...] = field(repr=False, default=())

    def to_html(self) -> str:
        """A self-contained page: the tables, and the maps side by side where the data can be opened."""
        source, note = open_source(self.runs)
        return compare_html(self.table, self.groups, source, notes=[note] if note else [])


def compare(
    sources: Sequence[Recipe | str | Path | Mapping[str, Any]],
    *,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] = (),
    output: Path | str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare runs and recipes in one table.

    Args:
        sources: run directories, which are compared as they are, and recipes, which are run first or found up to date.
        overrides: ``key=value`` texts on top of every recipe.
        seeds: run every recipe once per seed; default the recipe's own.
        output: folder of the new runs, table.md, table.csv and compare.html; with recipes ``comparisons/NAMES`` by
            default, else nothing is written.
        progress: who to tell; silent by default.

    Returns:
        The comparison; recipes that failed are listed in it, the others are compared.

    Raises:
        InputError: nothing to compare, a recipe is wrong, or a run was not evaluated.
        RunError: every recipe failed, and there is no run besides.
    """
    recipes: dict[int, list[Recipe]] = {
        place: [_load_seeded(source, overrides, seed) for seed in (seeds or (None,))]
        for place, source in enumerate(sources)
        if not _is_folder(source)
    }
    if (overrides or seeds) and not recipes:
        msg = "changes and seeds are for recipes; runs are compared as they are"
        raise InputError(msg)
    to_run = [recipe for several in recipes.values() for recipe in several]
    folder = Path(output) if output is not None else _default_folder(to_run)
    reusable = [Path(source) for source in sources if _is_folder(source) and is_run(Path(source))]
    points = run_points(_points(to_run, folder), reuse=reusable, progress=progress or SilentProgress())
    failed = tuple(point for point in points if point.error is not None)
    remaining = iter(points)
    runs: list[Path] = []
    for place, source in enumerate(sources):
        own_points = [next(remaining) for _ in recipes.get(place, ())]
        runs += [Path(source)] if _is_folder(source) else [point.path for point in own_points if point.error is None]
    if not runs and failed:
        msg = f"no recipe could be run; the first: {failed[0].name}: {failed[0].error}"
        raise RunError(msg)
    groups = grouped_runs(runs)
    result = Comparison(score_table(("recipe",), groups), tuple(runs), failed, folder, tuple(groups))
    if folder is not None:
        write_file(result, "md", folder / "table.md")
        write_file(result, "csv", folder / "table.csv")
        write_file(result, "html", folder / "compare.html")
    return result


def write_file(result: Comparison, kind: Literal["md", "csv", "html"], path: Path) -> None:
    """Write the comparison as Markdown, CSV or HTML."""
    make = {"md": result.table.to_markdown, "csv": result.table.to_csv, "html": result.to_html}[kind]
    with atomic_write(path, "w") as stream:
        stream.write(make())


def _is_folder(source: Any) -> TypeGuard[str | Path]:
    return isinstance(source, str | Path) and Path(source).is_dir()


def _load_seeded(source: Any, overrides: Sequence[str], seed: int | None) -> Recipe:
    recipe = load_recipe(source, [*overrides, *([] if seed is None else [f"seed={seed}"])])
    check_one_process(recipe)
    return recipe


def _points(recipes: Sequence[Recipe], folder: Path | None) -> list[Point]:
    """A run directory for every recipe and seed, named like those of ``tagmask run``."""
    points: list[Point] = []
    for recipe in recipes if folder is not None else ():
        name = recipe.name if recipe.seed == 0 else f"{recipe.name}-seed{recipe.seed}"
        if any(point.name == name for point in points):
            msg = f"two of the recipes are named '{recipe.name}': give one of them another name"
            raise InputError(msg)
        points.append(Point(name, Path(str(folder)) / name, {}, recipe))
    return points


def _default_folder(recipes: Sequence[Recipe]) -> Path | None:
    names = list(dict.fromkeys(recipe.name for recipe in recipes))
    return Path("comparisons") / safe_name("+".join(names)) if names else None


def open_source(runs: Sequence[Path]) -> tuple[DataSource | None, str]:
    """The data of the first run, or why there are no pictures."""
    try:
        opened: DataSource = load_recipe(runs[0] / "recipe.yaml").data.open()
        source = with_stored_pixels(opened, Workspace(runs[0]))
    except (TagmaskError, OSError) as error:
        return None, f"No pictures: the data cannot be opened ({error})."
    return source, ""
