"""Changes on the command line: another method in the place of one, items of lists, their order."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tagmask.errors import RecipeError
from tagmask.settings.loading import load_recipe
from tagmask.settings.reading.overrides import DroppedSettings, key_parts

STREET: dict[str, Any] = {
    "classify": {"head": {"name": "hspp", "dropout": 0.3}, "freeze": 1, "epochs": 2},
    "retrain": [{"head": {"name": "recam", "inner": {"name": "hspp", "dropout": 0.3}}, "epochs": 4}, {"epochs": 5}],
    "localize": {"name": "lpcam", "tau": 0.2, "clusters": 7, "scales": [1.0, 1.5], "flip": False, "max_side": 300},
    "refine": [{"name": "irnet", "conf_fg": 0.45}, {"name": "threshold", "value": 0.3}],
    "segment": {
        "epochs": 3,
        "network": {"name": "deeplabv3plus", "decoder_channels": 99},
        "loss": {"name": "aamr", "alpha": 0.5},
        "saliency": {"name": "folder", "path": "grey"},
    },
}
STAGE = {"scales": [1.0, 1.5], "flip": False, "max_side": 300}


def changed(*overrides: str, recipe: Any = STREET) -> tuple[dict[str, Any], list[str]]:
    """The recipe with overrides, and the lines that were said of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values = load_recipe(recipe, overrides).dump()
    return values, [str(line.message) for line in caught if line.category is DroppedSettings]


def default(kind: str, **block: Any) -> dict[str, Any]:
    """The block of a recipe that says nothing else."""
    values: dict[str, Any] = load_recipe({kind: block}).dump()[kind]
    return values


@pytest.mark.parametrize("form", ["localize=cam", "localize.name=cam", "localize={name: cam}"])
def test_another_localizer_keeps_the_stage_and_leaves_the_old_ones_settings(form: str) -> None:
    values, lines = changed(form)
    assert values["localize"] == default("localize", name="cam", **STAGE)
    assert lines == [f"{form}: settings of lpcam are dropped: tau, clusters"]


def test_stage_settings_beside_the_new_name_win() -> None:
    values, _ = changed("localize={name: cam, bias: true, scales: [0.5]}")
    assert values["localize"] == default("localize", **{"name": "cam", "bias": True, **STAGE, "scales": [0.5]})


@pytest.mark.parametrize(
    ("form", "key", "expected", "line"),
    [
        ("classify.head=gap", ("classify", "head"), "gap", "hspp are dropped: dropout"),
        ("classify.head.name=gap", ("classify", "head"), "gap", "hspp are dropped: dropout"),
        ("retrain[0].head.name=gap", ("retrain", 0, "head"), "gap", "recam are dropped: inner"),
        ("retrain.0.head.inner=gap", ("retrain", 0, "head", "inner"), "gap", "hspp are dropped: dropout"),
        ("refine[0].name=pamr", ("refine", 0), "pamr", "irnet are dropped: conf_fg"),
        ("refine.irnet=pamr", ("refine", 0), "pamr", "irnet are dropped: conf_fg"),
        ("refine[0]={name: pamr}", ("refine", 0), "pamr", "irnet are dropped: conf_fg"),
        ("segment.network=upernet", ("segment", "network"), "upernet", "deeplabv3plus are dropped: decoder_channels"),
        ("segment.loss.name=saliency_bce", ("segment", "loss"), "saliency_bce", "aamr are dropped: alpha"),
        ("segment.saliency=minimum_barrier", ("segment", "saliency"), "minimum_barrier", "folder are dropped: path"),
    ],
)
def test_every_kind_of_method_can_be_changed(form: str, key: tuple[Any, ...], expected: str, line: str) -> None:
    values, lines = changed(form)
    before = load_recipe(STREET).dump()
    place: Any = values
    for part in key[:-1]:
        place, before = place[part], before[part]
    assert place[key[-1]]["name"] == expected
    assert lines == [f"{form}: settings of {line}"]
    others = place if isinstance(place, list) else place.items()
    olds = before if isinstance(before, list) else before.items()
    differing = [new for new, old in zip(others, olds, strict=True) if new != old]
    assert len(differing) == 1  # all that stands beside the method is as it was


@pytest.mark.parametrize(
    "form", ["localize=lpcam", "localize.name=lpcam", "classify.head=hspp", "refine[0].name=irnet"]
)
def test_the_name_of_what_is_there_changes_nothing(form: str) -> None:
    assert changed(form) == (load_recipe(STREET).dump(), [])


def test_settings_without_a_name_are_of_the_method_that_is_there() -> None:
    values, lines = changed("localize={tau: 0.4}", "classify.head={dropout: 0.1}")
    assert (values["localize"]["name"], values["localize"]["tau"], values["localize"]["clusters"]) == ("lpcam", 0.4, 7)
    assert (values["classify"]["head"]["name"], values["classify"]["head"]["dropout"]) == ("hspp", 0.1)
    assert lines == []


def test_what_the_command_line_sets_stays_in_whatever_order() -> None:
    orders = (["localize.inner=cam", "localize.name=ssa"], ["localize.name=ssa", "localize.inner=cam"])
    for order in orders:
        values, lines = (
            changed("localize.blocks=1", *order) if order[0].endswith("cam") else changed(*order, "localize.blocks=1")
        )
        assert values["localize"]["name"] == "ssa"
        assert values["localize"]["blocks"] == 1
        assert [line.partition(": ")[2] for line in lines] == ["settings of lpcam are dropped: tau, clusters"]


def test_nothing_is_said_where_only_defaults_go(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(load_recipe({"localize": {"name": "lpcam"}}).to_yaml())
    values, lines = changed("localize=cam", recipe=tmp_path / "recipe.yaml")  # every default written out, as in a run
    assert values["localize"] == default("localize", name="cam")
    assert lines == []
    values, lines = changed("localize.name=cam", recipe={"localize": {"bias": True}})  # cam is the default
    assert (values["localize"]["bias"], lines) == (True, [])


def test_another_format_keeps_what_all_have(tmp_path: Path) -> None:
    recipe = {"data": {"format": "voc", "root": str(tmp_path), "val_fraction": 0.5, "year": 2012, "train_list": "a"}}
    values, lines = changed("data.format=folders", recipe=recipe)
    assert values["data"] == default("data", format="folders", root=str(tmp_path), val_fraction=0.5)
    assert lines == ["data.format=folders: settings of voc are dropped: year, train_list"]
    recipe = {"data": {"root": str(tmp_path), "tags_file": "a.csv"}}  # whose format is to be looked for
    values, lines = changed("data.format=table", recipe=recipe)
    assert (values["data"]["tags_file"], lines) == ("a.csv", [])


def test_items_of_lists_by_number() -> None:
    values, _ = changed("retrain[0].freeze=6", "retrain.1.freeze=2", "refine[1].value=0.4", "refine.irnet.epochs=9")
    assert [item["freeze"] for item in values["retrain"]] == [6, 2]
    assert values["refine"][1]["value"] == 0.4
    assert values["refine"][0]["epochs"] == 9
    assert changed("localize.scales[1]=2.0")[0]["localize"]["scales"] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("retrain[2].freeze=6", "retrain.2: no item '2' in the list. It has 2 items, counted from 0."),
        ("refine[5].value=1", "refine.5: no item '5' in the list. It has 2 items, counted from 0."),
        ("refine.treshold.value=1", "Did you mean 'threshold'?"),
        ("retrain[x].freeze=6", "'retrain[x].freeze=6' is not an override; write key=value"),
        ("retrain[0.freeze=6", "is not an override"),
        ("[0].freeze=6", "is not an override"),
    ],
)
def test_what_is_no_item_is_told(override: str, said: str) -> None:
    with pytest.raises(RecipeError) as raised:
        load_recipe(STREET, [override])
    assert said in str(raised.value)


def test_keys_in_parts() -> None:
    assert key_parts("retrain[0].head.name") == key_parts("retrain.0.head.name") == ["retrain", "0", "head", "name"]
    assert key_parts("a[1][20]") == ["a", "1", "20"]
    assert key_parts("a..b") == key_parts("") == key_parts("a[") == []


def test_the_line_is_printed(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("localize: {name: lpcam, tau: 0.2, scales: [1.0, 1.5]}\n")
    code, out, err = command("recipe", "show", recipe, "localize=cam")
    assert code == 0
    assert "scales:\n  - 1.0\n  - 1.5\n" in out
    assert err == "note: localize=cam: settings of lpcam are dropped: tau\n"


def test_a_recipe_that_extends_another_by_a_short_name_keeps_the_stage(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("localize: {name: lpcam, tau: 0.2, scales: [1.0, 1.5]}\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nlocalize: cam\n")
    assert load_recipe(tmp_path / "mine.yaml").dump()["localize"] == default("localize", name="cam", scales=[1.0, 1.5])
