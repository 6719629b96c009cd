"""The localize stage: one file an image, the published rule inside, resumed image by image."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden_net import GoldenNet
from progress_recorder import ProgressRecorder
from tagmask.data.coco.source import CocoSource
from tagmask.errors import InputError
from tagmask.methods.cam.localizer import Cam
from tagmask.methods.lpcam.localizer import Lpcam
from tagmask.runs.context import Context
from tagmask.runs.trained import trained_classifier
from tagmask.runs.workspace import Workspace
from tagmask.settings.loading import load_recipe
from tagmask.settings.localize import LocalizeSettings
from tagmask.stages.localize.stage import activation_maps, make_maps, samples_to_study
from tagmask.storage.records import read_json

Golden = Callable[[str], Mapping[str, np.ndarray[Any, Any]]]


def test_the_stages_maps_are_the_published_ones(golden: Golden) -> None:
    stored = golden("multi_scale_cam")
    labels = tuple(int(index) + 1 for index in stored["expected_class_indices"])
    settings = LocalizeSettings(scales=tuple(float(scale) for scale in stored["scales"]))
    found = activation_maps(GoldenNet(stored), stored["image_uint8"], labels, settings)
    np.testing.assert_allclose(found.maps, stored["expected_strided_cam"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.maps.max((1, 2)), found.peak / (found.peak + 1e-5), rtol=1e-6)
    assert found.image_size == (75, 101)


def test_artifacts_hold_the_images_tags_as_half_floats(finished: Path) -> None:
    source = load_recipe(finished / "recipe.yaml").data.open()
    for split in ("train", "val"):
        for sample in source.split(split):
            with np.load(Workspace(finished).map_path(sample.id), allow_pickle=False) as stored:
                assert stored["maps"].dtype == np.float16
                assert stored["maps"].shape == (len(sample.tags), 12, 12)
                assert stored["peak"].dtype == np.float32
                assert tuple(stored["classes"]) == sample.tags
                assert tuple(stored["image_size"]) == (48, 48)
    assert len(list((finished / "localize" / "maps").iterdir())) == 16


def test_an_artifact_does_not_depend_on_the_images_around_it(
    context_of: Callable[..., Context], tiny: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    context = context_of(tiny, root=tmp_path / "run")
    model = trained_classifier(context_of(tiny, root=finished))
    chosen = context.samples("val")[2]
    alone = activation_maps(model, np.asarray(_read(chosen.image_path)), chosen.tags, context.recipe.localize)
    context.workspace.save_maps(chosen.id, alone)
    path = context.workspace.map_path(chosen.id)
    assert path.read_bytes() == Workspace(finished).map_path(chosen.id).read_bytes()


def _read(path: Path) -> Any:
    from tagmask.storage.images import read_image

    return read_image(path)


def test_only_missing_images_are_computed(
    context_of: Callable[..., Context], tiny: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    context = context_of(tiny, root=tmp_path / "run")
    model = trained_classifier(context_of(tiny, root=finished))
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, views: seen.append(len(views[0])))
    ready = context.samples("train")[:10]
    for sample in ready:
        context.workspace.save_maps(sample.id, Workspace(finished).load_maps(sample.id))
    assert not [problem for problem in make_maps(context, model) if problem.left_out]
    assert seen == [2] * 2 * 6  # six images, two scales, each with its mirror
    assert not [problem for problem in make_maps(context, model) if problem.left_out]
    assert len(seen) == 12


def test_what_a_localizer_has_to_say_stands_in_the_log_once(
    context_of: Callable[..., Context],
    tiny: dict[str, Any],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Cam, "remarks", lambda self, trained, views: iter([f"scales {views.scales}"]))
    recorder = ProgressRecorder()
    recipe = {**tiny, "localize": {"name": "ssa", "scales": [1.0], "inner": "cam"}}
    context = context_of(recipe, root=tmp_path / "run", progress=recorder)
    make_maps(context, trained_classifier(context_of(tiny, root=finished)))
    assert recorder.lines == ["scales (1.0,)"]


@pytest.mark.parametrize(("flip", "views"), [(True, 2), (False, 1)])
def test_the_mirror_can_be_left_out(golden: Golden, flip: bool, views: int) -> None:
    stored = golden("multi_scale_cam")
    net, seen = GoldenNet(stored), []
    net.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    activation_maps(net, stored["image_uint8"], (1,), LocalizeSettings(scales=(1.0,), flip=flip))
    assert seen == [views]


def test_localizers_learn_from_the_listed_images_alone(
    context_of: Callable[..., Context], tiny: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "list.txt"
    recipe = {**tiny, "localize": {"name": "lpcam", "scales": [1.0], "study_list": str(listed)}}
    context = context_of(recipe, root=tmp_path / "run")
    model = trained_classifier(context_of(tiny, root=finished))
    with pytest.raises(InputError, match=r"list\.txt: no such list\. localize\.study_list holds"):
        make_maps(context, model)
    listed.write_text("nobody\n")
    with pytest.raises(InputError, match="names none of the"):
        make_maps(context, model)
    chosen = [sample.id for sample in context.samples("train") if sample.tags][:3]
    listed.write_text("".join(f"./{name}.jpg 1\r\n" for name in chosen))  # as tools write them
    make_maps(context, model)
    shown = read_json(tmp_path / "run" / "localize" / "lpcam.json")["groups"]
    assert {patch["id"] for group in shown for patch in group["patches"]} <= set(chosen)


def test_lpcams_draw_of_coco_runs_over_ascending_image_ids(tmp_path: Path) -> None:
    """The published code numbers a class's images by ascending id; instances_train2014.json is in another order."""
    ids = [57870, 9, 131075, 25, 30, 110]
    categories = {1: [57870, 9, 25, 110], 3: [131075, 30, 9]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2014").mkdir()
    for number in ids:
        (tmp_path / "train2014" / f"COCO_train2014_{number:012}.jpg").touch()
    content = {
        "images": [{"id": number, "file_name": f"COCO_train2014_{number:012}.jpg"} for number in ids],
        "categories": [{"id": number, "name": f"c{number}"} for number in categories],
        "annotations": [
            {"id": 100 * label + number, "image_id": number, "category_id": label, "bbox": [0, 0, 2, 2]}
            for label, numbers in categories.items()
            for number in numbers
        ],
    }
    (tmp_path / "annotations" / "instances_train2014.json").write_text(json.dumps(content))
    samples = CocoSource(root=tmp_path, train_split="train2014", val_fraction=0).open().split("train")
    assert [int(sample.id[-12:]) for sample in samples] == ids  # the file's order, so that something is tested
    drawn = [(int(sample.id[-12:]), sample.tags) for sample in samples_to_study(Lpcam(images_per_class=7), samples, 2)]
    np.random.seed(666)
    expected = [
        (int(number), (label,))
        for label, numbers in enumerate(categories.values(), start=1)
        for number in np.random.choice(sorted(numbers), 7)
    ]
    assert drawn == expected
