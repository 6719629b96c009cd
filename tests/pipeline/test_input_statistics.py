"""A network whose weights want mean 0.5 and deviation 0.5 gets them in every stage, in `load` and in ONNX.

Such pixels lie on the grid of the 256 grey levels: (x + 1) * 127.5 is whole, which no pixel normalised with ImageNet's
statistics is. Padding is exactly 0. So the input of every first convolution says what it was normalised with.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import tagmask
from tagmask.models.classifier import build_classifier
from tagmask.models.tag_gate import TagGated
from tagmask.ops.transforms import normalise, renormalise
from tagmask.pipeline.execute import run
from tagmask.settings.classify import ClassifySettings
from tagmask.storage.weights import read_description
from tagmask.types import IMAGENET, InputStatistics

HALF = InputStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
ENTRY = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return path


@pytest.fixture
def seen() -> Iterator[Counter[bool]]:
    """How many images first convolutions have seen: on the grid of 0.5 and 0.5 (True), or not."""
    counts: Counter[bool] = Counter()

    def watch(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and bool(inputs[0].any()):
            levels = (inputs[0].double() + 1) * 127.5
            whole = (levels - levels.round()).abs() < 1e-3
            counts[bool((whole | (inputs[0] == 0)).all())] += len(inputs[0])

    handle = nn.modules.module.register_module_forward_pre_hook(watch)
    yield counts
    handle.remove()


def recipe(values: dict[str, Any], weights: Path, **changes: Any) -> dict[str, Any]:
    start = {"weights": str(weights)}
    network = {**values["segment"]["network"], "encoder": "test_resnet", "encoder_args": {}, **start}
    classify = {**values["classify"], "backbone": "test_resnet", "backbone_args": {}, "epochs": 1, **start}
    segment = {**values["segment"], "network": network, "epochs": 1}
    return {**values, "classify": classify, "segment": segment, **changes}


def entry(path: Path) -> Any:
    return read_description(path)["input_statistics"]


STREETS: dict[str, dict[str, Any]] = {
    "plain": {},
    "retrained": {
        "retrain": [
            {"head": {"name": "subcategory", "clusters": 2, "inner": "gap"}, "epochs": 1},
            {"epochs": 1, "split_unite": True},
        ],
        "localize": {"name": "ssa", "inner": "lpcam", "scales": [0.5], "ranking": "ten_crops"},
    },
    "climbing": {
        "localize": {"name": "advcam", "steps": 1, "step_size": 1e-9, "scales": [0.5]},
        "refine": ["threshold"],
    },
    "cut": {"localize": {"name": "class_conditional", "iterate": False, "scales": [1.0], "ranking": "whole"}},
    "words": {
        "retrain": [{"head": {"name": "visual_words", "words": 4, "inner": "gap"}, "epochs": 1}],
        "localize": {"name": "visual_words", "scales": [0.5]},
    },
    "irnet": {
        "refine": [
            {"name": "irnet", "crop": 96, "epochs": 1, "instances": True, "crf_max_pixels": 2304},
            {"name": "threshold", "value": 0.4},
        ]
    },
    "affinitynet": {
        "refine": [
            {"name": "affinitynet", "init": "classifier", "crop": 96, "radius": 2, "epochs": 1},
            {"name": "threshold", "value": 0.4},
        ]
    },
}


@pytest.mark.parametrize("name", STREETS)
def test_every_stage_feeds_them(
    name: str, tiny: dict[str, Any], weights: Path, seen: Counter[bool], tmp_path: Path
) -> None:
    values = recipe(tiny, weights, **STREETS[name])
    values["segment"] |= {"rounds": 2, "tag_gate": 0.05, "supervision": "both"} if name == "plain" else {}
    values["segment"] = values["segment"] if name == "plain" else None
    done = run(values, output=tmp_path / "run")
    assert seen[True] > 0
    assert seen[False] == 0
    stored = sorted(done.path.rglob("model.safetensors"))
    assert len(stored) == {"plain": 4, "retrained": 3, "words": 2, "irnet": 2, "affinitynet": 2}.get(name, 1)
    for path in stored:
        assert entry(path) == ENTRY, path
    if name == "plain":
        gate = read_description(done.path / "segment" / "2" / "model.safetensors")["tag_gate"]
        assert gate["input_statistics"] == ENTRY


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, weights: Path, finished: Path) -> Path:
    """A finished run of such networks, with a gate."""
    values = recipe(yaml.safe_load((finished / "recipe.yaml").read_text(encoding="utf-8")), weights)
    values["segment"] |= {"supervision": "weak", "tag_gate": 0.05}
    return run(values, output=tmp_path_factory.mktemp("half") / "run").path


def picture() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def test_a_loaded_model_feeds_them(half: Path, seen: Counter[bool]) -> None:
    predictor = tagmask.load(half, device="cpu")
    predictor(picture())
    predictor.labels(picture())
    tagmask.load(half, device="cpu", flip=False).labels(picture())
    tagmask.load(half, device="cpu", scales=[0.5, 1.0], tile=64, flip=False)(picture())
    assert seen[True] > 0
    assert seen[False] == 0


def test_what_is_exported_has_them_inside(half: Path) -> None:
    from tagmask.export.onnx import WithNormalisation

    model = tagmask.load(half, device="cpu").model
    with torch.inference_mode():
        expected, other = (model(normalise(picture(), statistics)[None]) for statistics in (HALF, IMAGENET))
        logits = WithNormalisation(model)(torch.from_numpy(picture())[None])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, other, rtol=1e-2, atol=1e-2)


def without_entry(path: Path) -> None:
    """The file as a version before wrote it."""
    with safe_open(path, framework="pt") as stored:
        description = json.loads(stored.metadata()["tagmask"])
    description.pop("input_statistics")
    description.get("tag_gate", {}).pop("input_statistics", None)
    save_file(load_file(path), path, metadata={"tagmask": json.dumps(description)})


def test_a_run_of_an_older_version_is_fed_imagenets_and_stays_up_to_date(
    half: Path, tmp_path: Path, seen: Counter[bool]
) -> None:
    shutil.copytree(half, tmp_path / "run")
    for path in (tmp_path / "run").rglob("model.safetensors"):
        without_entry(path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.npz")}
    run(tagmask.load_recipe(half / "recipe.yaml"), output=tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.npz")} == before
    assert sum(seen.values()) == 0  # nothing was computed again
    old = tagmask.load(tmp_path / "run", device="cpu")
    assert old.model.input_statistics == IMAGENET
    old(picture())
    assert seen[True] == 0
    assert seen[False] > 0


def test_a_gate_may_want_others_than_its_network(weights: Path) -> None:
    """The classifier behind the gate sees what it would see alone."""
    from tagmask import registry

    torch.manual_seed(0)
    network = registry.get("network", "deeplabv3plus")(encoder="test_resnet", decoder_channels=8).build(3)
    classifier = build_classifier(ClassifySettings(backbone="test_resnet", weights=weights), 2)
    assert (network.input_statistics, classifier.input_statistics) == (IMAGENET, HALF)
    gated = TagGated(network, classifier, 0.5).eval()
    assert gated.input_statistics == IMAGENET
    views: list[Tensor] = []
    classifier.register_forward_pre_hook(lambda _, inputs: views.append(inputs[0]))
    with torch.no_grad():
        gated(normalise(picture(), IMAGENET)[None])
    torch.testing.assert_close(views[0][0], normalise(picture(), HALF), rtol=0, atol=1e-6)


def test_renormalised_with_the_same_is_the_same_tensor() -> None:
    views = torch.randn(2, 3, 4, 5)
    assert renormalise(views, HALF, InputStatistics(HALF.mean, HALF.std)) is views
    back = renormalise(renormalise(views, HALF, IMAGENET), IMAGENET, HALF)
    torch.testing.assert_close(back, views, rtol=1e-5, atol=1e-6)
