"""What the pages say is true: commands parse, recipes exist, settings and defaults are those of the code."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tagmask import cli, registry
from tagmask.cli.recipes import find_recipe
from tagmask.cli.sources import source_and_changes
from tagmask.registry import Kind
from tagmask.settings.augment import AugmentSettings
from tagmask.settings.classify import ClassifySettings, RetrainSettings
from tagmask.settings.engine import EngineSettings
from tagmask.settings.evaluate import EvaluateSettings
from tagmask.settings.loading import load_recipe
from tagmask.settings.localize import LocalizeSettings
from tagmask.settings.recipe import Recipe
from tagmask.settings.segment import SegmentSettings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands() -> list[tuple[str, list[str]]]:
    """(page, words after 'tagmask') of every tagmask command in a bash block."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if "tagmask" in words:
                    found.append((page.name, words[words.index("tagmask") + 1 :]))
    return found


def parse(words: list[str]) -> dict[str, Any]:
    """Parse a command without running it; usage errors pass through."""
    command: Any = typer.main.get_command(cli.app)
    rest = words
    while hasattr(command, "commands"):
        assert rest, "a group without a command"
        assert rest[0] in command.commands, f"no command '{rest[0]}'"
        command, rest = command.commands[rest[0]], rest[1:]
    context = command.make_context("tagmask", list(rest))
    return dict(context.params)


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 25


@pytest.mark.parametrize(("page", "words"), commands(), ids=lambda value: " ".join(value) if value else "")
def test_every_command_of_the_pages_parses(page: str, words: list[str]) -> None:
    values = parse(words)
    recipe, changes = source_and_changes(values.get("recipe"), values.get("overrides"))
    if recipe is None and "recipe" in values:
        recipe = "own"  # what images and tags are run by
    readers = ("shop", "shop/labels.csv", "shop.yaml", "mine.yaml")
    if recipe is None or recipe.startswith("runs/") or recipe in readers:
        return  # made by an earlier command of the page, or the reader's data
    overrides = [text for text in changes if not text.startswith("data.root")]
    if recipe == "own":
        overrides.append("data.format=table")  # found by looking into the reader's folder, which is not here
    load_recipe(find_recipe(recipe).path, overrides)


def test_links_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


def documented(page: str = "recipes.md") -> dict[str, dict[str, str]]:
    """Key -> default of each table of a page, by heading, or by the method in the first column."""
    tables: dict[str, dict[str, str]] = {}
    heading = method = ""
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading, method = line.lstrip("# "), ""
        cells = [cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and not cells[0].startswith("-") and cells[1] != "key":
            method = cells[0] or method
            tables.setdefault(method, {})[cells[1]] = cells[2].replace("\\|", "|")
        elif len(cells) == 3 and not cells[0].startswith("-") and cells[0] != "key":
            tables.setdefault(heading, {})[cells[0]] = cells[1]
    return tables


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def expected(model: type[BaseModel], *leave_out: str) -> dict[str, str]:
    return {key: default(field) for key, field in model.model_fields.items() if key not in leave_out}


def test_recipes_page_names_every_setting_and_its_default() -> None:
    from tagmask.contracts.optimizer import OptimizerSettings
    from tagmask.data.source import SourceSettings

    tables = documented()
    assert tables["engine"] == expected(EngineSettings)
    assert tables["classify"] == expected(ClassifySettings)
    assert tables["optimizer"] == expected(OptimizerSettings)
    assert tables["augment"] == expected(AugmentSettings)
    assert tables["localize"] == {"name": "cam", **expected(LocalizeSettings, "method")}
    assert tables["segment"] == expected(SegmentSettings)
    assert tables["evaluate"] == expected(EvaluateSettings)
    again = set(RetrainSettings.model_fields) - set(ClassifySettings.model_fields)
    assert set(tables["retrain"]) == again
    assert set(tables["The recipe"]) == set(Recipe.model_fields)
    shared = expected(SourceSettings)
    assert tables["data"] == shared
    for name in registry.entries("data"):
        own = registry.get("data", name)
        common = () if name == "partsworld" else tuple(shared)
        assert tables[name] == expected(own, "format", *common), name


@pytest.mark.parametrize("kind", ["head", "localizer", "refiner", "network", "loss", "saliency"])
def test_every_methods_page_names_its_settings(kind: Kind) -> None:
    pages = sorted(path.relative_to(ROOT / "docs") for path in (ROOT / "docs" / "methods").glob("*.md"))
    found = {heading: table for page in pages for heading, table in documented(str(page)).items()}
    text = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in pages)
    for name in registry.entries(kind):
        heading = f"{kind}: {name}"
        assert f"### {heading}\n" in text, heading
        assert found.get(heading, {}) == expected(registry.get(kind, name)), heading


def test_readme_lists_the_registered_methods() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for kind in ("head", "localizer", "refiner", "network", "loss", "saliency"):
        for name in registry.entries(kind):
            assert re.search(rf"\| {kind} \| \[?`{name}`", readme), f"{kind} {name}"
    for name in registry.entries("data"):
        assert f"`{name}`" in readme


def test_the_table_of_training_lengths_is_the_one_of_the_code() -> None:
    from tagmask.settings.training_length import TRAINING_LENGTH

    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name, rule in TRAINING_LENGTH.items():
        row = f"| `{name}` | {rule.passes:g} | {rule.floor:,} | {rule.per_class} | {rule.ceiling:,} |"
        assert row in page, row
