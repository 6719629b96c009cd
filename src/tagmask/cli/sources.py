"""What a command starts from: a recipe, a run, or just data: images and their tags, for which the recipe is ``own``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tagmask.cli.recipes import find_recipe, shipped
from tagmask.errors import InputError

if TYPE_CHECKING:
    from tagmask.data.facts import DataFacts
    from tagmask.settings.rules import Suggestion

SourceArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="DIR|RECIPE",
        help="Folder of images and tags, or their table; a recipe file or shipped recipe; folder of a run.",
    ),
]
ImagesOption = Annotated[
    Path | None, typer.Option("--images", metavar="DIR", help="Folder of images; their tags: --tags.")
]
TagsOption = Annotated[
    Path | None, typer.Option("--tags", metavar="FILE", help="Table of the tags of the images in --images.")
]


@dataclass(frozen=True)
class Start:
    """A recipe file, what is changed in it, the user's own changes last, and the run that is gone on with.

    ``data``, ``suggestions`` and ``facts``: where data alone was named, its folder and what follows from it.
    """

    recipe: Path
    overrides: tuple[str, ...] = ()
    run: Path | None = None
    data: Path | None = None
    suggestions: tuple[Suggestion, ...] = ()
    facts: DataFacts | None = None


def source_and_changes(source: str | None, overrides: Sequence[str] | None) -> tuple[str | None, list[str]]:
    """Source and changes as meant: where options name the data, the first word is a change already."""
    if source is not None and "=" in source and not Path(source).exists():
        return None, [source, *(overrides or ())]
    return source, list(overrides or ())


def named_data(source: str | None, images: Path | None, tags: Path | None) -> dict[str, str] | None:
    """Settings of the data that was named, by options, as a folder or as a file; None: a recipe or a run.

    Raises:
        InputError: what was named is not there, or names no data.
    """
    path = Path(source) if source is not None and _is_data(Path(source)) else None
    folder, table = (path, None) if path is not None and path.is_dir() else (None, path)
    if (images and folder) or (tags and table):
        msg = f"{source}: named beside {f'--images {images}' if folder else f'--tags {tags}'}. Leave one of them out."
        raise InputError(msg)
    if images is None and tags is None:
        if source is None:
            msg = (
                "name your images (tagmask run DIR, or tagmask run --images DIR --tags FILE), a run, or a recipe "
                "(tagmask recipe list)"
            )
            raise InputError(msg)
        return _of_folder(folder) if folder else _of_file(table) if table else None
    images, tags = images or folder, tags or table
    if images is None:
        msg = f"--tags {tags}: the folder of the images is missing: tagmask run --images DIR --tags {tags}"
        raise InputError(msg)
    if not images.is_dir():
        what = "is a file, not a folder" if images.is_file() else "does not exist"
        msg = f"--images {images}: {what}. Name the folder of the images."
        raise InputError(msg)
    return _of_folder(images) if tags is None else _of_table(images, tags)


def find_start(
    source: str | None, overrides: Sequence[str] = (), *, images: Path | None = None, tags: Path | None = None
) -> Start:
    """The recipe behind what the user named. Data alone means the recipe ``own``, with what follows from the data.

    Raises:
        InputError: nothing of that name, or data that is none; one line with the command that helps.
    """
    source, overrides = source_and_changes(source, overrides)
    data = named_data(source, images, tags)
    if data is None:
        assert source is not None
        recipe_file = find_recipe(source)
        return Start(recipe_file.path, tuple(overrides), run=recipe_file.run)
    if source is not None and not _is_data(Path(source)):
        recipe_file = find_recipe(source)
        if recipe_file.run is not None:
            msg = f"{source}: is a run, which has its data. Without it: tagmask run --images {data['root']} ..."
            raise InputError(msg)
        return Start(recipe_file.path, (f"data={json.dumps(data)}", *overrides))
    from tagmask.data.facts import facts_of
    from tagmask.settings.loading import load_recipe, run_name
    from tagmask.settings.rules import suggestions

    own = shipped()["own"]
    name = run_name(Path(data["root"]).resolve().name)
    changes = (f"name={name}", *data_overrides(data))
    facts = facts_of(load_recipe(own, [*changes, *overrides]).data.open())
    user_keys = [override.partition("=")[0].strip() for override in overrides]
    advice = tuple(item for item in suggestions(facts) if not any(_touch(item.key, key) for key in user_keys))
    changes += tuple(item.override for item in advice if item.value is not None)
    return Start(own, (*changes, *overrides), data=Path(data["root"]), suggestions=advice, facts=facts)


def data_overrides(data: Mapping[str, str]) -> tuple[str, ...]:
    """Settings of the data as changes of a recipe, the format left to what lies in the folder unless it is known."""
    return tuple(f"data.{key}={json.dumps(value)}" for key, value in data.items())


def check_output(output: Path | None, name: str, data: Path) -> None:
    """Make sure that a run is not written among its own images, where its pictures would be taken for data.

    Raises:
        InputError: it would be.
    """
    target = output or Path("runs") / name
    if target.resolve().is_relative_to(data.resolve()):
        beside = os.path.relpath(data.resolve().parent / "runs" / name)
        msg = f"{target}: the run would be written among its images in {data}. Add --output {beside}."
        raise InputError(msg)


def _is_data(path: Path) -> bool:
    from tagmask.data.table.per_image import YOLO_FILES
    from tagmask.data.table.read import TABLE_FILES

    if path.is_dir():
        return not (path / "recipe.yaml").is_file()
    if path.is_file():
        return path.suffix.lower() not in {".yaml", ".yml"} or path.name.lower() in YOLO_FILES
    return path.suffix.lower() in TABLE_FILES


def _of_folder(folder: Path) -> dict[str, str]:
    runs = sorted(path.parent for path in folder.glob("*/manifest.json"))
    if runs:
        msg = f"{folder}: holds runs, not images. Go on with one of them: tagmask run {runs[0]}."
        raise InputError(msg)
    return {"root": str(folder.absolute())}


def _of_file(path: Path) -> dict[str, str]:
    from tagmask.data.detect import file_settings

    if not path.is_file():
        msg = f"{path}: does not exist. Name the table of the tags, or the folder of the images."
        raise InputError(msg)
    settings = file_settings(path)
    return {**settings, "root": str(Path(settings["root"]).absolute())}


def _of_table(images: Path, tags: Path) -> dict[str, str]:
    from tagmask.data.table.find import is_coco_file

    if not tags.is_file():
        what = "is a folder, not a file" if tags.is_dir() else "does not exist"
        msg = f"--tags {tags}: {what}. Name the table of the tags, such as a CSV with the columns image,tags."
        raise InputError(msg)
    root, table = str(images.absolute()), str(tags.absolute())
    if is_coco_file(tags):
        return {"format": "coco", "root": root, "annotations": table, "images": root}
    return {"format": "table", "root": root, "tags_file": table}


def _touch(key: str, other: str) -> bool:
    """Whether a change of ``other`` decides ``key``: the same key, one that holds it, or a preset."""
    if other == "segment.preset":
        return key.startswith("segment.")
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")
