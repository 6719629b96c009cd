"""Recipes on the command line: where they are found, and list, show, validate, copy."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tagmask.errors import InputError, MissingFilesError, UnknownNameError
from tagmask.settings.reading.places import is_shipped, shipped_folder, starting_folder

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Recipe file, name of a shipped recipe, or folder of a run.")
]
OverrideArguments = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as classify.epochs=3.")
]


_DATA_KEYS = ("root", "path", "weights", "classifier", "second_classifier", "warm_start")


@dataclass(frozen=True)
class RecipeFile:
    """A recipe file, and the run it belongs to when the user named a run."""

    path: Path
    run: Path | None = None


def shipped() -> dict[str, Path]:
    """Recipes that come with tagmask: name ('demo', 'msrc/cam') -> file."""
    root = shipped_folder()
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.glob("**/*.yaml"))}


def find_recipe(source: str) -> RecipeFile:
    """The recipe behind what the user typed: a file, a run's folder, or a shipped name.

    Raises:
        InputError: a folder that is no run.
        UnknownNameError: nothing of that name; offers the nearest shipped recipe.
    """
    path = Path(source)
    if path.is_file():
        return RecipeFile(path)
    if path.is_dir():
        if (path / "recipe.yaml").is_file():
            return RecipeFile(path / "recipe.yaml", run=path)
        msg = f"{source}: this folder is not a run (no recipe.yaml in it). Name a recipe file or a run."
        raise InputError(msg)
    names = shipped()
    short = source.removeprefix("./").removeprefix("recipes/").removesuffix(".yaml").removesuffix(".yml")
    if short in names:
        return RecipeFile(names[short])
    raise UnknownNameError("recipe", source, names)


def list_recipes() -> None:
    """List the shipped recipes."""
    from tagmask.cli.terminal import print_table

    rows = [(name, _headline(path)) for name, path in shipped().items()]
    print_table(("recipe", "what it is"), rows)


def show(recipe: RecipeArgument, overrides: OverrideArguments = None) -> None:
    """Print a recipe as it would be run, every default written out."""
    recipe_file = find_recipe(recipe)
    from tagmask.settings.loading import load_recipe

    sys.stdout.write(load_recipe(recipe_file.path, overrides or ()).to_yaml())


def validate(recipe: RecipeArgument, overrides: OverrideArguments = None) -> None:
    """Check a recipe without running it: its settings, and the files that it names ('data check' looks at the data)."""
    recipe_file = find_recipe(recipe)
    from tagmask.pipeline.named_files import missing_files
    from tagmask.settings.loading import load_recipe

    loaded = load_recipe(recipe_file.path, overrides or ())
    missing = missing_files(loaded)
    if missing:
        raise MissingFilesError(str(file) for file in missing)
    typer.echo(f"{recipe_file.path}: ok, run name '{loaded.name}'")


def copy(
    recipe: RecipeArgument,
    destination: Annotated[Path, typer.Argument(help="File or folder to copy it to.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Copy a recipe to change it.

    The copy is named after its file; its relative paths still lead to the same files.
    """
    from tagmask.storage.files import write_error

    source = find_recipe(recipe).path
    target = destination / source.name if destination.is_dir() else destination
    if target.exists() and not force:
        msg = f"{target}: exists already. Choose another name, or overwrite it with --force."
        raise InputError(msg)
    text = relocated(source, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise write_error(target, error) from error
    typer.echo(f"{target}: copied. Edit it, then: tagmask run {target}")


def relocated(source: Path, target: Path) -> str:
    """The recipe under the target's name, each relative path that leads somewhere rewritten to lead there."""
    own_folder, target_folder = source.resolve().parent, target.resolve().parent

    def relocate(line: re.Match[str]) -> str:
        value = line["value"].strip("'\"")
        looks_like_path = "/" in value or "." in value
        beside = line["key"].strip() == "extends:" or value.startswith(("./", "../"))
        path = (own_folder if beside else starting_folder(source)) / value
        # Of a shipped recipe data may be named that is not there yet.
        is_path = path.exists() or (is_shipped(source) and "/" in value and line["name"] in _DATA_KEYS)
        if not looks_like_path or os.path.isabs(value) or not is_path:
            return line[0]
        return f"{line['key']}{Path(os.path.relpath(path, target_folder)).as_posix()}"

    text = source.read_text(encoding="utf-8")
    if re.fullmatch(r"[\w.-]+", target.stem):  # else the copy's run would go into the folder of the original's
        text = re.sub(r"^name:.*$", f"name: {target.stem}", text, count=1, flags=re.M)
    return re.sub(r"(?P<key>(?:^|[{,])[ \t]*(?P<name>[\w.]+):[ \t]+)(?P<value>[^\s#,{}]+)", relocate, text, flags=re.M)


def _headline(path: Path) -> str:
    """The first comment of a recipe file says what it is."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            return line.lstrip("# ").strip()
        if line.strip():
            break
    return ""
