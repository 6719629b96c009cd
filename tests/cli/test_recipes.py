from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tagmask import cli
from tagmask.cli.recipes import find_recipe, relocated, shipped
from tagmask.errors import InputError, UnknownNameError


def leave(*arguments: str) -> int:
    """Exit code of a command."""
    with pytest.raises(SystemExit) as left:
        cli.main(list(arguments))
    return int(left.value.code or 0)


def test_shipped_recipes_are_the_repository_s(root: Path) -> None:
    inside = {path.relative_to(root / "recipes").with_suffix("").as_posix() for path in root.glob("recipes/**/*.yaml")}
    assert set(shipped()) == inside
    assert "demo" in inside


@pytest.mark.parametrize("typed", ["demo", "demo.yaml", "recipes/demo.yaml", "./recipes/demo.yaml"])
def test_a_shipped_recipe_is_found_from_anywhere(typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = find_recipe(typed)
    assert result.path.name == "demo.yaml"
    assert result.run is None


def test_a_file_comes_before_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text("name: mine\n")
    assert find_recipe("demo").path == Path("demo")


def test_a_run_is_found_by_its_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run"):
        find_recipe(str(tmp_path))
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    assert find_recipe(str(tmp_path)).run == tmp_path


def test_a_typo_offers_the_nearest_recipe() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'demo'"):
        find_recipe("dmeo")


def test_the_recipe_for_own_data_finds_the_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels.csv").write_text("image,tags\na.jpg,shoe\n")
    assert leave("recipe", "show", "own", f"data.root={tmp_path}", "name=shop") == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert (values["name"], values["data"]["format"]) == ("shop", "table")
    assert leave("recipe", "validate", "own", f"data.root={tmp_path / 'nowhere'}") == 2


@pytest.mark.parametrize("name", sorted(set(shipped()) - {"own"}))
def test_every_shipped_recipe_is_valid(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("recipe", "validate", name) == 0
    assert ": ok" in capsys.readouterr().out


def test_every_shipped_recipe_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("recipe", "list") == 0
    shown = capsys.readouterr().out
    for name, path in shipped().items():
        assert name in shown
        assert path.read_text(encoding="utf-8").startswith("# "), f"{name}: first line should say what it is"


def test_show_prints_defaults_and_overrides_and_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("recipe", "show", "demo", "classify.epochs=3", "seed=7") == 0
    text = capsys.readouterr().out
    values = yaml.safe_load(text)
    assert values["classify"]["epochs"] == 3
    assert values["seed"] == 7
    again = tmp_path / "again.yaml"
    again.write_text(text, encoding="utf-8")
    assert leave("recipe", "show", str(again)) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("classify.epohcs=3", "Did you mean 'epochs'"),
        ("localize.name=camm", "Did you mean 'cam'"),
        ("classify.epochs=many", "classify.epochs"),
        ("classify", "key=value"),
    ],
)
def test_a_wrong_override_is_one_line_and_exit_code_2(
    override: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leave("recipe", "validate", "demo", override) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert hint in err


def test_copy_refuses_to_overwrite_and_the_copy_is_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave("recipe", "copy", "demo", str(tmp_path)) == 0
    assert leave("recipe", "copy", "demo", str(tmp_path / "shop.yaml")) == 0
    assert "name: shop\n" in (tmp_path / "shop.yaml").read_text(encoding="utf-8")
    assert leave("recipe", "copy", "demo", str(tmp_path / "demo.yaml")) == 2
    assert leave("recipe", "copy", "demo", str(tmp_path / "demo.yaml"), "--force") == 0
    assert leave("recipe", "validate", str(tmp_path / "demo.yaml")) == 0
    assert "--force" in capsys.readouterr().err


def test_a_moved_recipe_still_leads_to_its_files(tmp_path: Path) -> None:
    (tmp_path / "a" / "images").mkdir(parents=True)
    (tmp_path / "a" / "base.yaml").write_text("name: base\n")
    source = tmp_path / "a" / "mine.yaml"
    source.write_text("# c\nextends: base.yaml\ndata:\n  root: ./images # here\n  other: 0.5\n  gone: ../nowhere\n")
    text = relocated(source, tmp_path / "b" / "c" / "mine.yaml")
    assert text == (
        "# c\nextends: ../../a/base.yaml\ndata:\n  root: ../../a/images # here\n  other: 0.5\n  gone: ../nowhere\n"
    )
