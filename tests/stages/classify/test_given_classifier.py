"""A given classifier: every published layout is loaded whole, nothing is trained, and what does not fit is one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from progress_recorder import ProgressRecorder
from published_files import CHANNELS, WIDTH, IrnNet, affinitynet, save, stir
from tagmask import cli
from tagmask.backbones.wide_resnet38 import WideResNet38
from tagmask.errors import InputError, RecipeError
from tagmask.models.classifier import Classifier, load_classifier
from tagmask.pipeline.execute import run
from tagmask.pipeline.named_files import missing_files
from tagmask.pipeline.recipe_lengths import recipe_lengths
from tagmask.pipeline.time_budget import fit, lengths, measure_costs
from tagmask.settings.loading import load_recipe
from tagmask.storage.weights import load_tensors, read_description

N_CLASSES = 8
WIDE = {"backbone": "wide_resnet38", "backbone_args": {"width": WIDTH}, "output_stride": 8}
RESNET = {"backbone": "resnet18", "backbone_args": {"channels": CHANNELS}, "output_stride": 16}


def recipe_of(tiny: dict[str, Any], file: Path, **classify: Any) -> dict[str, Any]:
    """Maps, and masks by a threshold, of a given classifier."""
    return {
        **{key: tiny[key] for key in ("name", "data", "engine", "evaluate") if key in tiny},
        "classify": {"classifier": str(file), **classify},
        "localize": {"name": "cam", "scales": [1.0]},
        "refine": [{"name": "threshold", "value": 0.4}],
        "segment": None,
    }


def names_of(tiny: dict[str, Any]) -> tuple[str, ...]:
    names: tuple[str, ...] = load_recipe(tiny).data.open().classes.foreground
    assert len(names) == N_CLASSES
    return names


def classifier_of(recipe: dict[str, Any], root: Path) -> Classifier:
    settings = load_recipe(recipe)
    return load_classifier(root / "classify" / "model.safetensors", settings.classify, settings.data.open().classes)


def given(recipe: dict[str, Any], root: Path) -> tuple[Classifier, ProgressRecorder]:
    recorder = ProgressRecorder()
    run(recipe, output=root, progress=recorder, until="classify")
    return classifier_of(recipe, root), recorder


def images() -> Tensor:
    return torch.randn(2, 3, 48, 40, generator=torch.Generator().manual_seed(3))


def class_maps(model: Classifier) -> Tensor:
    with torch.no_grad():
        features = model(images()).features
        return functional.conv2d(features, model.class_weights[:, :, None, None], model.class_bias)


def test_psa_from_the_command_line_to_masks(
    tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = affinitynet(N_CLASSES)
    file = save(tmp_path / "res38_cls.pth", tensors)
    recipe = tmp_path / "psa.yaml"
    # The path is relative to the recipe; lengths that would be far too short are no matter.
    recipe.write_text(yaml.safe_dump(recipe_of(tiny, Path(file.name), **WIDE, epochs=1)))

    def tagmask(*arguments: str | Path) -> tuple[str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main([str(argument) for argument in arguments])
        assert left.value.code == 0
        out, err = capsys.readouterr()
        return out, err

    tagmask("recipe", "validate", recipe)
    assert "updates are few" not in tagmask("data", "check", recipe)[0]
    said = tagmask("run", recipe, "--output", tmp_path / "run")[1]
    assert f"classify: {file} (AffinityNet): {len(tensors)} tensors, fc8.weight rows are " in said
    assert "in the data's order; nothing is trained" in said
    assert "updates" not in said
    model = classifier_of(
        yaml.safe_load(recipe.read_text()) | {"classify": {"classifier": str(file), **WIDE}}, tmp_path / "run"
    )
    published = WideResNet38(WIDTH).eval()
    published.load_state_dict({name: value for name, value in tensors.items() if name != "fc8.weight"})
    with torch.no_grad():
        expected = functional.conv2d(published(images())[-1], tensors["fc8.weight"])
    torch.testing.assert_close(class_maps(model), expected)
    (line,) = (tmp_path / "run" / "classify" / "history.jsonl").read_text().splitlines()
    figures = json.loads(line)
    assert figures["step"] == figures["epoch"] == 0
    assert 0 <= figures["val_map"] <= 1
    assert 0 <= figures["train_map"] <= 1
    assert set(figures["val_ap"]) == set(names_of(tiny))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert "trainings" not in manifest["stages"]["classify"]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["splits"]["val"]["maps"]
    assert "trained too little" not in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "run" / "refine" / "masks").exists() or list((tmp_path / "run" / "refine").rglob("*.png"))


def test_sc_cam_with_and_without_its_sub_categories(tiny: dict[str, Any], tmp_path: Path) -> None:
    tensors = affinitynet(N_CLASSES, clusters=3)
    file = save(tmp_path / "sc-cam.pth", {f"module.{name}": value for name, value in tensors.items()})
    model, recorder = given(recipe_of(tiny, file, **WIDE), tmp_path / "plain")
    torch.testing.assert_close(model.class_weights, tensors["fc8_20.weight"].flatten(1))
    assert any("left aside: fc8_200.weight" in line for line in recorder.lines)
    head = {"name": "subcategory", "clusters": 3}
    model, recorder = given(recipe_of(tiny, file, **WIDE, head=head), tmp_path / "both")
    torch.testing.assert_close(model.class_weights, tensors["fc8_20.weight"].flatten(1))
    fine: Any = model.head
    torch.testing.assert_close(fine.subcategory_weights, tensors["fc8_200.weight"].flatten(1))
    assert not any("left aside" in line for line in recorder.lines)
    with pytest.raises(InputError, match=r"fc8_200.weight has 24 rows, 3 a class. Set classify.head.clusters=3$"):
        given(recipe_of(tiny, file, **WIDE, head="subcategory"), tmp_path / "ten")


@pytest.mark.parametrize("names", ["all", "stages", "resnet50", "lists"])
def test_irnet_under_any_of_its_names(tiny: dict[str, Any], tmp_path: Path, names: str) -> None:
    net = IrnNet(N_CLASSES).eval()
    starts = {
        "all": ("",),
        "stages": ("stage", "classifier."),
        "resnet50": ("resnet50.", "classifier."),
        "lists": ("backbone.", "newly_added."),
    }[names]
    tensors = {name: value for name, value in net.state_dict().items() if name.startswith(starts)}
    file = save(tmp_path / "res50_cam.pth", tensors)
    model, recorder = given(recipe_of(tiny, file, **RESNET), tmp_path / "run")
    with torch.no_grad():
        torch.testing.assert_close(class_maps(model), net(images()))
    assert any("(IRNet)" in line and "nothing is trained" in line for line in recorder.lines)


def test_recam_with_its_second_file_and_maps_of_both(tiny: dict[str, Any], tmp_path: Path) -> None:
    net = IrnNet(N_CLASSES)
    file = save(tmp_path / "res50_recam.pth", dict(net.state_dict()))
    rows = torch.randn(N_CLASSES, CHANNELS[-1], 1, 1)
    second = save(tmp_path / "recam_predictor.pth", {"classifier.weight": rows})
    recipe = recipe_of(tiny, file, **RESNET, head="recam", second_classifier=str(second))
    recipe["localize"] = {"name": "recam", "scales": [1.0]}
    run(recipe, output=tmp_path / "run")
    model: Any = classifier_of(recipe, tmp_path / "run")
    torch.testing.assert_close(model.class_weights, net.classifier.weight.flatten(1))
    torch.testing.assert_close(model.head.second_weights, rows.flatten(1))
    del recipe["classify"]["second_classifier"]
    with pytest.raises(
        InputError, match=r"nothing for head.second.weight, .*Set classify.second_classifier to ReCAM's"
    ):
        run(recipe, output=tmp_path / "one")
    with pytest.raises(InputError, match=r"the head gap has no second classifier. Set classify.head=recam"):
        given(recipe_of(tiny, file, **RESNET, second_classifier=str(second)), tmp_path / "gap")
    with pytest.raises(InputError, match=r"res50_recam.pth: holds resnet50.* where classifier.weight alone"):
        run(recipe | {"classify": {**recipe["classify"], "second_classifier": str(file)}}, output=tmp_path / "twice")


def test_a_retraining_follows_a_given_classifier(tiny: dict[str, Any], tmp_path: Path) -> None:
    file = save(tmp_path / "res50_cam.pth", dict(IrnNet(N_CLASSES).state_dict()))
    recipe = recipe_of(tiny, file, **RESNET, batch_size=4, augment={"crop": 48})
    recipe["retrain"] = [{"head": {"name": "recam", "inner": "gap"}, "epochs": 1, "optimizer": {"lr": 1e-9}}]
    assert load_recipe(recipe).retrain[0].classifier is None
    run(recipe, output=tmp_path / "run", until="classify/2")
    first = load_tensors(tmp_path / "run" / "classify" / "model.safetensors")
    again = load_tensors(tmp_path / "run" / "classify" / "2" / "model.safetensors")
    torch.testing.assert_close(again["head.inner.weight.weight"], first["head.weight.weight"], atol=1e-4, rtol=1e-4)
    assert "head.second.weight" in again
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert "trainings" in manifest["stages"]["classify/2"]


def timm_file(path: Path, n_classes: int) -> tuple[Path, dict[str, Tensor]]:
    torch.manual_seed(4)
    model = stir(timm.create_model("resnet18", channels=CHANNELS, num_classes=n_classes))
    save_file(dict(model.state_dict()), path)
    return path, dict(model.state_dict())


def test_a_timm_head_with_a_list_of_its_classes(tiny: dict[str, Any], tmp_path: Path) -> None:
    classes = names_of(tiny)
    rows = ["no such thing", *reversed(classes), "nor this"]
    file, tensors = timm_file(tmp_path / "own.safetensors", len(rows))
    listed = tmp_path / "rows.txt"
    listed.write_text("\n".join(rows) + "\n")
    head = {"name": "gap", "bias": True}
    for number, form in enumerate((str(listed), rows)):
        recipe = recipe_of(tiny, file, **RESNET, head=head, classifier_classes=form)
        model, recorder = given(recipe, tmp_path / f"run{number}")
        assert any("(timm)" in line for line in recorder.lines)
        order = [rows.index(name) for name in classes]
        torch.testing.assert_close(model.class_weights, tensors["fc.weight"][order])
        torch.testing.assert_close(model.class_bias, tensors["fc.bias"][order])
        assert not any("in the data's order" in line for line in recorder.lines)
    with pytest.raises(InputError, match=r"no place for fc.bias. Set classify.head.bias=true$"):
        given(recipe_of(tiny, file, **RESNET, classifier_classes=rows), tmp_path / "bare")
    with pytest.raises(
        InputError, match=r"fc.weight has rows for 10 classes, the data has 8. Name the 10 in their order"
    ):
        given(recipe_of(tiny, file, **RESNET, head=head), tmp_path / "bare")
    with pytest.raises(InputError, match=rf"classifier_classes has no row for the class '{classes[0]}'"):
        given(recipe_of(tiny, file, **RESNET, head=head, classifier_classes=list("abcdefghij")), tmp_path / "bare")
    with pytest.raises(InputError, match="classifier_classes names 'a' twice"):
        given(recipe_of(tiny, file, **RESNET, head=head, classifier_classes=list("abcdefghia")), tmp_path / "bare")


def test_one_of_tagmasks_own(finished: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    start = load_tensors(finished / "classify" / "model.safetensors")
    for name, source in {"run": finished, "file": finished / "classify" / "model.safetensors"}.items():
        recipe = {**tiny, "classify": {**tiny["classify"], "classifier": str(source)}}
        _, recorder = given(recipe, tmp_path / name)
        own = load_tensors(tmp_path / name / "classify" / "model.safetensors")
        assert own.keys() == start.keys()
        assert all(torch.equal(own[name], value) for name, value in start.items())
        assert any("(tagmask)" in line for line in recorder.lines)
    trained = [json.loads(line) for line in (finished / "classify" / "history.jsonl").read_text().splitlines()]
    measured = json.loads((tmp_path / "run" / "classify" / "history.jsonl").read_text())
    last = [line for line in trained if "val_map" in line][-1]
    assert {key: measured[key] for key in ("val_map", "val_ap", "train_map", "train_ap")} == {
        key: last[key] for key in ("val_map", "val_ap", "train_map", "train_ap")
    }


def renamed(finished: Path, path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    from tagmask.storage.weights import save_tensors

    source = finished / "classify" / "model.safetensors"
    description = read_description(source)
    change(description)
    save_tensors(path, load_tensors(source), description)
    return path


def test_rows_of_our_own_by_the_names_of_their_classes(finished: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    def reverse(description: dict[str, Any]) -> None:
        description["classes"][1:] = reversed(description["classes"][1:])

    def other(description: dict[str, Any]) -> None:
        description["classes"][1] = "unicorn"

    def segmenter(description: dict[str, Any]) -> None:
        description["kind"] = "segmenter"

    def recipe(file: Path, **changes: Any) -> dict[str, Any]:
        return {**tiny, "classify": {**tiny["classify"], "classifier": str(file), **changes}}

    file = renamed(finished, tmp_path / "reversed.safetensors", reverse)
    model, _ = given(recipe(file), tmp_path / "run")
    weights = load_tensors(file)["head.weight.weight"].flatten(1)
    torch.testing.assert_close(model.class_weights, weights.flip(0))
    with pytest.raises(InputError, match=r"other.safetensors: has no class '\w+', only unicorn"):
        given(recipe(renamed(finished, tmp_path / "other.safetensors", other)), tmp_path / "x")
    with pytest.raises(InputError, match="is a segmenter, no classifier"):
        given(recipe(renamed(finished, tmp_path / "seg.safetensors", segmenter)), tmp_path / "x")
    with pytest.raises(InputError, match=r"has no head\.inner\.weight\.weight .*Set classify.head=gap"):
        given(recipe(file, head="recam"), tmp_path / "x")
    with pytest.raises(InputError, match=r"Set classify.backbone=resnet10t and its keys"):
        given(recipe(file, backbone_args={"channels": [8, 16, 24, 40], "stem_width": 8}), tmp_path / "x")
    with pytest.raises(InputError, match=r"says all itself.*Leave classify.classifier_classes out"):
        given(recipe(file, classifier_classes=["a"]), tmp_path / "x")


def test_what_does_not_fit_is_one_line_with_file_tensor_and_remedy(tiny: dict[str, Any], tmp_path: Path) -> None:
    good = affinitynet(N_CLASSES)

    def refused(match: str, tensors: dict[str, Any] | None = None, **classify: Any) -> None:
        file = save(tmp_path / "other.pth", good if tensors is None else tensors)
        with pytest.raises(InputError, match=match) as error:
            given(recipe_of(tiny, file, **{**WIDE, **classify}), tmp_path / "run")
        assert "other.pth" in str(error.value)
        assert "\n" not in str(error.value)

    refused("fc8.weight has rows for 20 classes, the data has 8. Name the 20", affinitynet(20))
    refused(
        "has no b4.conv_branch2a.weight. Set classify.backbone",
        {k: v for k, v in good.items() if k != "b4.conv_branch2a.weight"},
    )
    refused("this recipe's classifier has no b9.weight. Set", {**good, "b9.weight": torch.zeros(1)})
    refused(
        r"conv1a.weight is \(2, 3, 1, 1\), in this recipe's classifier \(2, 3, 3, 3\)",
        {**good, "conv1a.weight": torch.zeros(2, 3, 1, 1)},
    )
    refused(
        "has no .*classify.backbone \\(now resnet18\\)",
        **RESNET,
    )
    refused(
        "fc8.weight is for 64 features, the recipe's head gets 128", {**good, "fc8.weight": torch.zeros(8, 64, 1, 1)}
    )
    refused("fc8.weight is 8x128x3x3, where rows", {**good, "fc8.weight": torch.zeros(8, 128, 3, 3)})
    refused("fc8.weight is not finite", {**good, "fc8.weight": good["fc8.weight"] * torch.nan})
    refused("holds no classifier: none of fc8", {k: v for k, v in good.items() if k != "fc8.weight"})
    refused("not a state dict", {**good, "epoch": 3})
    refused("nothing for neck", neck={"convs": 1, "channels": 128})
    refused("has no fc8.bias, .*Set classify.head.bias=false", head={"name": "gap", "bias": True})
    refused("nothing for head.codebook, .*Set classify.head=gap", head="visual_words")
    net = dict(IrnNet(N_CLASSES).state_dict())
    refused(
        "and another name of the same tensor .* differ",
        {**net, "stage1.0.weight": net["stage1.0.weight"] + 1},
        **RESNET,
    )


def test_nothing_in_a_file_is_run(tiny: dict[str, Any], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    file = tmp_path / "trap.pth"
    torch.save({"fc8.weight": Trap()}, file)
    with pytest.raises(InputError, match="neither a safetensors file"):
        given(recipe_of(tiny, file, **WIDE), tmp_path / "run")
    assert not (tmp_path / "sprung").exists()


def test_settings_that_contradict_each_other(tiny: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="set one of the two to null"):
        load_recipe(recipe_of(tiny, Path("a.pth"), warm_start="b"))
    for key in ("classifier_classes", "second_classifier"):
        with pytest.raises(RecipeError, match=f"{key} belongs to a given classifier"):
            load_recipe({"classify": {key: "x"}})
    recipe = load_recipe(recipe_of(tiny, Path("a.pth"), classifier_classes=["a", "b"]))
    assert load_recipe(recipe.dump()) == recipe


def test_the_file_is_part_of_the_fingerprint_and_the_training_is_not(tiny: dict[str, Any], tmp_path: Path) -> None:
    file = save(tmp_path / "psa.pth", affinitynet(N_CLASSES))
    recipe = recipe_of(tiny, file, **WIDE)
    run(recipe, output=tmp_path / "run", until="classify")

    def again(*overrides: str) -> str:
        recorder = ProgressRecorder()
        run(recipe, output=tmp_path / "run", progress=recorder, overrides=overrides, until="classify")
        return recorder.stages["classify"]

    assert again() == "up to date"
    assert again("classify.epochs=30", "classify.optimizer.lr=0.5", "classify.augment.crop=96") == "up to date"
    moved = Path(shutil.move(file, tmp_path / "moved.pth"))
    assert again(f"classify.classifier={moved}") == "up to date"
    assert again() == "up to date", "the file may go once it is loaded"
    save(file, {**affinitynet(N_CLASSES), "fc8.weight": torch.zeros(N_CLASSES, 128, 1, 1)})
    assert again().startswith("changed: classifier sha256")
    # Killed before its end: the stage is done again, to the same.
    (tmp_path / "run" / "classify" / "model.safetensors").unlink()
    assert again() == "1 of its files are gone"
    assert not load_tensors(tmp_path / "run" / "classify" / "model.safetensors")["head.weight.weight"].any()
    with pytest.raises(InputError, match=r"classify.classifier: .*nowhere.pth does not exist"):
        run(recipe, output=tmp_path / "new", overrides=[f"classify.classifier={tmp_path / 'nowhere.pth'}"])


def test_rows_that_know_nothing_of_the_tags_are_doubted(tiny: dict[str, Any], tmp_path: Path) -> None:
    """What a published file does not say, the order of its classes, can only be seen by its answers."""
    tensors = affinitynet(N_CLASSES)
    tensors["fc8.weight"].zero_()
    _, recorder = given(recipe_of(tiny, save(tmp_path / "a.pth", tensors), **WIDE), tmp_path / "run")
    assert sum("are its classes in this order?" in line for line in recorder.warnings) == 1


def test_nothing_speaks_of_its_length_or_times_its_updates(tiny: dict[str, Any]) -> None:
    trained = load_recipe(tiny)
    recipe = load_recipe({**tiny, "classify": {**tiny["classify"], "classifier": "a.safetensors"}, "retrain": [{}]})
    source = recipe.data.open()
    assert [length.key for length in recipe_lengths(trained, source)] == ["classify.iterations", "segment.iterations"]
    assert [length.key for length in recipe_lengths(recipe, source)] == ["retrain.0.iterations", "segment.iterations"]
    assert list(lengths(recipe, source)) == ["segment"]
    costs = measure_costs(recipe, source, 48)
    assert list(costs.updates) == ["segment"]
    assert costs.images > 0
    assert fit(1e6, costs, lengths(recipe, source)).updates.keys() == {"segment"}


def test_weights_that_nobody_reads_are_not_asked_for(tiny: dict[str, Any], tmp_path: Path) -> None:
    """A published recipe names ImageNet weights, which its released classifier makes needless."""
    file = save(tmp_path / "psa.pth", affinitynet(N_CLASSES))
    values = {**recipe_of(tiny, file, **WIDE, weights=str(tmp_path / "imagenet.pth")), "retrain": [{"epochs": 1}]}

    def missing(**changes: Any) -> list[str]:
        return [named.key for named in missing_files(load_recipe({**values, **changes}))]

    assert missing() == []
    assert missing(retrain=[{"epochs": 1, "start": "weights"}]) == ["retrain[0].weights"]
    assert missing(refine=["irnet", "threshold"]) == ["classify.weights"]
    assert missing(refine=[{"name": "irnet", "init": "classifier"}, "threshold"]) == []
    gone = {**values["classify"], "classifier": str(tmp_path / "gone.pth")}
    (line,) = missing_files(load_recipe({**values, "classify": gone}))
    assert str(line).startswith(f"classify.classifier: {tmp_path / 'gone.pth'} does not exist. Name the file")
    del gone["classifier"]
    assert missing(classify=gone) == ["classify.weights"]
