from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tagmask import cli
from tagmask.cli.recipes import find_recipe, relocated, shipped
from tagmask.errors import InputError, UnknownNameError
from tagmask.settings.loading import load_recipe


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
    assert leave("recipe", "show", name) == 0
    assert capsys.readouterr().out.startswith("name: ")


@pytest.mark.parametrize(
    "name", [name for name in shipped() if name.startswith(("voc12/", "coco14/", "cub/", "ilsvrc/"))]
)
def test_published_recipes_name_files_below_the_current_folder_and_all_are_checked(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "voc12/mini":
        pytest.skip("its photographs lie beside a checkout")
    monkeypatch.chdir(tmp_path)
    assert leave("recipe", "validate", name) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: data.root: ")
    for line in lines:
        key, path, remedy = re.fullmatch(r"error: ([\w.\[\]]+): (\S+) does not exist\. (.+)", line).groups()  # type: ignore[union-attr]
        assert Path(path).parts[: len(tmp_path.parts) + 1] in [(*tmp_path.parts, top) for top in ("data", "weights")]
        assert key in remedy
    # The page's commands, with the data elsewhere.
    data = published_data(tmp_path / "elsewhere", name)
    for line in lines[1:]:
        path = Path(line.split()[2])
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert leave("recipe", "validate", name, f"data.root={data.relative_to(tmp_path)}") == 0
    assert ": ok" in capsys.readouterr().out


def published_data(root: Path, name: str) -> Path:
    """What of the published data sets the recipes name, without any image."""
    files = {
        "voc12": ("VOC2012/ImageSets/Segmentation/train.txt", "VOC2012/ImageSets/Segmentation/train_aug.txt"),
        "coco14": ("annotations/instances_train2014.json", "annotations/instances_val2014.json"),
    }
    for file in (*files.get(name.split("/")[0], ()), "VOC2012/JPEGImages/a.jpg"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def test_lpcams_study_list_belongs_to_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = published_data(tmp_path / "elsewhere", "voc12/lpcam")
    for name in ("voc12/lpcam", "voc12/lpcam-irnet"):
        recipe = load_recipe(shipped()[name], ["data.root=elsewhere"])
        assert recipe.localize.study_list == data / "VOC2012/ImageSets/Segmentation/train.txt"
        assert recipe.data.root == data  # type: ignore[attr-defined]
        assert load_recipe(recipe).localize.study_list == recipe.localize.study_list


def test_each_missing_file_is_a_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "labels.csv").write_text("image,tags\na.jpg,shoe\n")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "data: {format: table, root: photos, val_tags_file: val.csv, classes: names.txt}\n"
        "real_masks: lists/hand.txt\n"
        "classify: {weights: w/net.safetensors, warm_start: runs/old}\n"
        "retrain: [{epochs: 1, weights: w/unread}, {start: weights, weights: w/other.safetensors}]\n"
        "localize: {name: cam, study_list: study.txt}\n"
        "refine: [{name: irnet, backbone: {backbone: resnet18, weights: w/net.safetensors}}, threshold]\n"
        "segment: {network: {name: deeplabv2, weights: w/v2.pth}, corrections: fixed,\n"
        "  loss: aamr, saliency: {name: folder, path: grey}}\n"
        "evaluate: {full_run: runs/full}\n"
    )
    assert leave("recipe", "validate", str(recipe)) == 2
    lines = capsys.readouterr().err.splitlines()
    parts = [re.fullmatch(r"error: (\S+): (\S+) does not exist\. .+", line) for line in lines]
    assert {part[1]: Path(part[2]).relative_to(tmp_path).as_posix() for part in parts if part} == {
        "data.val_tags_file": "photos/val.csv",
        "data.classes": "photos/names.txt",
        "real_masks": "lists/hand.txt",
        "classify.warm_start": "runs/old",
        "retrain[1].weights": "w/other.safetensors",
        # Not those of classify, which starts from another classifier.
        "refine[0].backbone.weights": "w/net.safetensors",
        "localize.study_list": "photos/study.txt",
        "segment.network.weights": "w/v2.pth",
        "segment.corrections": "fixed",
        "segment.saliency.path": "grey",
        "evaluate.full_run": "runs/full",
    }
    assert all(parts)


def test_the_data_folder_on_the_command_line_starts_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "recipes").mkdir()
    recipe = tmp_path / "recipes" / "mine.yaml"
    recipe.write_text("data: {format: table, root: photos}\nlocalize: {name: cam, study_list: lists/study.txt}\n")
    monkeypatch.chdir(tmp_path / "here")
    written, typed = load_recipe(recipe), load_recipe(recipe, ["data.root=photos"])
    assert written.localize.study_list == tmp_path / "recipes/photos/lists/study.txt"
    assert typed.localize.study_list == tmp_path / "here/photos/lists/study.txt"
    listed = load_recipe(recipe, ["localize.study_list=other.txt"])
    assert listed.localize.study_list == tmp_path / "recipes/photos/other.txt"


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


def test_a_copy_of_a_shipped_recipe_still_looks_below_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("voc12/aamr", "voc12/cam", "cub/cam", "voc12/affinitynet", "coco14/lpcam"):
        assert leave("recipe", "copy", name, "mine/copy.yaml", "--force") == 0
        copy, original = load_recipe(Path("mine/copy.yaml")).dump(), load_recipe(shipped()[name]).dump()
        assert {**copy, "name": ""} == {**original, "name": ""}
        assert copy["data"]["root"].startswith(str(tmp_path / "data"))
