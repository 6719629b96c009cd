"""Refiners that learn inside the refine stage: their labels, their training, resumed anywhere, at any position."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml

from progress_recorder import ProgressRecorder
from requests_of import refine_request
from tagmask.contracts.refiner import RefineRequest
from tagmask.engine import training
from tagmask.errors import InputError, RunError
from tagmask.methods.irnet.refiner import IRNet
from tagmask.pipeline.execute import run as walk_street
from tagmask.runs.context import Context
from tagmask.stages.refine import fitting
from tagmask.stages.refine.fitting import fitted_chain
from tagmask.stages.refine.instance_masks import instance_paths
from tagmask.stages.refine.stage import run
from tagmask.storage.arrays import load_planes
from tagmask.storage.images import read_image
from tagmask.storage.pictures import load_mask
from tagmask.storage.weights import load_tensors, read_description
from tagmask.types import Problem

IRNET = {"name": "irnet", "epochs": 2, "batch_size": 4, "crop": 48, "pair_radius": 4, "conf_bg": 0.1, "steps": 16}
AFFINITYNET = {"name": "affinitynet", "epochs": 2, "batch_size": 4, "crop": 72, "scale": 2.0, "steps": 16}
FIXED = {"name": "threshold", "value": 0.4}


@pytest.fixture
def located(context_of: Callable[..., Context], finished: Path, tmp_path: Path) -> Callable[..., Context]:
    """``located(chain)``: a context whose localize stage is done, with that chain of refiners."""

    def make(chain: list[Any], *, name: str = "run", **changes: Any) -> Context:
        values = yaml.safe_load((finished / "recipe.yaml").read_text())
        root = tmp_path / name
        if not root.exists():
            for stage in ("localize", "classify"):
                shutil.copytree(finished / stage, root / stage)
        context = context_of({**values, "refine": chain}, root=root)
        return context_of({**values, "refine": chain}, root=root, **{"source": context.source.weak(), **changes})

    return make


def artifacts(context: Context) -> dict[str, bytes]:
    folder = context.workspace.stage("refine")
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items()}


def test_it_learns_and_refines(located: Callable[..., Context]) -> None:
    """Maps are what the stored network makes of the maps that came in, by hand on one image."""
    context = located(["colour_walk", IRNET, FIXED])
    assert run(context) == []
    folder = context.workspace.stage("refine")
    assert {path.name for path in folder.iterdir()} == {"2-irnet", "maps", "masks", "masks.json", "thresholds.json"}
    assert {path.name for path in (folder / "2-irnet").iterdir()} == {"labels", "model.safetensors", "history.jsonl"}
    assert len(list((folder / "2-irnet" / "labels").iterdir())) == 12  # train only
    assert read_description(folder / "2-irnet" / "model.safetensors")["settings"]["crop"] == 48
    lines = [json.loads(line) for line in (folder / "2-irnet" / "history.jsonl").read_text().splitlines()]
    assert len(lines) == 2 * 3
    assert {"loss", "positive", "negative", "lr"} <= lines[0].keys()
    sample = context.source.split("val")[1]
    stored, image = context.workspace.load_maps(sample.id), read_image(sample.image_path)
    (walk, learnt), _ = fitted_chain(context, context.recipe.refine.chain[:-1], [])
    maps = learnt.refine(refine_request(image, walk.refine(refine_request(image, torch.from_numpy(stored.maps)))))
    kept = context.workspace.load_maps(sample.id, stage="refine")
    np.testing.assert_allclose(kept.maps, maps.numpy(), atol=1e-3)
    labels = load_mask(folder / "2-irnet" / "labels" / "train_00004.png")
    tags = context.source.split("train")[4].tags
    assert labels.shape == (48, 48)
    assert set(np.unique(labels).tolist()) <= {0, 255, *tags}


PLACES = [
    ("1-*/labels/*", 5),
    ("1-*/state.ckpt", 0),
    ("1-*/history.jsonl", 2),
    ("1-*/state.ckpt", 3),
    ("1-*/model.safetensors", 0),
    ("maps/*.npz", 6),
]


@pytest.mark.parametrize("refiner", [IRNET, AFFINITYNET], ids=lambda refiner: refiner["name"])
def test_stopped_anywhere_it_ends_the_same(
    located: Callable[..., Context], monkeypatch: pytest.MonkeyPatch, refiner: dict[str, Any]
) -> None:
    chain = [refiner, "colour_walk", FIXED]
    whole, context = located(chain, name="whole"), located(chain)
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: 0.0))  # a checkpoint after every step
    run(whole)
    really_replace = os.replace
    for pattern, left in PLACES:
        seen = [left]

        def replace(source: Any, target: Any, pattern: str = pattern, seen: list[int] = seen) -> None:
            if fnmatch.fnmatch(str(target), f"*/refine/{pattern}"):
                if seen[0] == 0:
                    raise KeyboardInterrupt
                seen[0] -= 1
            really_replace(source, target)

        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            run(context)
        monkeypatch.setattr(os, "replace", really_replace)
    run(context)
    found, expected = artifacts(context), artifacts(whole)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    monkeypatch.setattr(fitting, "train", None)  # what is there is not made again
    run(context)
    assert artifacts(context) == expected


def test_two_of_them_learn_one_after_the_other(located: Callable[..., Context]) -> None:
    context = located([{**IRNET, "epochs": 1}, {**IRNET, "epochs": 1, "conf_fg": 0.5}, FIXED])
    run(context)
    folder = context.workspace.stage("refine")
    first, second = (load_tensors(folder / f"{n}-irnet" / "model.safetensors") for n in (1, 2))
    assert not torch.equal(first["boundary.logit.weight"], second["boundary.logit.weight"])


def test_an_unreadable_image_is_left_out_and_named(located: Callable[..., Context], tmp_path: Path) -> None:
    context = located([{**IRNET, "epochs": 1}, FIXED])
    train = list(context.source.split("train"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    train[2] = type(train[2])(train[2].id, broken, train[2].tags)
    splits = {**context.source.splits, "train": tuple(train)}
    source = type(context.source)(context.source.format, context.source.classes, splits, context.source.fingerprint)
    context = located([{**IRNET, "epochs": 1}, FIXED], source=source)
    problems = run(context)
    assert [(problem.stage, problem.id) for problem in problems] == [
        ("refine (training)", train[2].id),
        ("refine", train[2].id),
    ]
    assert run(context) == problems  # all of it known again after a stop
    assert len(artifacts(context)) == 11 + 2 + 2 * 15 + 2  # thresholds.json, masks.json


def test_the_backbone_starts_from_its_weights_or_from_the_classifier(located: Callable[..., Context]) -> None:
    names = {}
    for init in ("weights", "classifier"):
        recorder = ProgressRecorder()
        context = located([{**IRNET, "epochs": 1, "init": init}, FIXED], name=init, progress=recorder)
        run(context)
        assert sum("random weights" in text for text in recorder.warnings) == (init == "weights")
        names[init] = load_tensors(context.workspace.stage("refine") / "1-irnet" / "model.safetensors")
    stored = load_tensors(context.workspace.stage("classify") / "model.safetensors")
    key = "backbone.model.conv1.0.weight"
    assert torch.equal(names["classifier"][key], stored[key])
    assert not torch.equal(names["weights"][key], stored[key])
    assert names["classifier"].keys() == names["weights"].keys()


def test_a_classifier_of_another_architecture_is_refused(located: Callable[..., Context]) -> None:
    backbone = {"backbone": "resnet10t", "backbone_args": {"channels": [8, 8, 8, 8], "stem_width": 8}}
    with pytest.raises(InputError, match=r"model\.safetensors: the classifier's backbone is not .* init: weights"):
        run(located([{**IRNET, "init": "classifier", "backbone": backbone}, FIXED]))
    context = located([{**IRNET, "epochs": 1, "backbone": backbone}, FIXED], name="other")
    run(context)
    tensors = load_tensors(context.workspace.stage("refine") / "1-irnet" / "model.safetensors")
    assert tensors["backbone.model.layer4.0.conv1.weight"].shape[1] == 8


class Planes(IRNet):
    """Learns from planes instead of labels, and measures something at the end."""

    name: ClassVar[str] = "planes"
    targets_are = "planes"
    finished: ClassVar[list[int]] = []

    def targets(self, request: RefineRequest) -> Any:
        return np.stack([super().targets(request)] * (1 + len(request.classes)))

    def item(self, image: Any, targets: Any, *rest: Any) -> dict[str, torch.Tensor]:
        return super().item(image, targets[-1], *rest)

    def finish(self, network: Any, images: Any, device: torch.device) -> None:
        self.finished.append(sum(image.shape == (48, 48, 3) for image in images))


def test_planes_are_kept_too(located: Callable[..., Context]) -> None:
    settings = {key: value for key, value in IRNET.items() if key != "name"}
    same, context = located([IRNET, FIXED], name="same"), located([Planes(**settings), FIXED])
    run(same)
    run(context)
    assert Planes.finished == [12]
    kept = load_planes(context.workspace.stage("refine") / "1-planes" / "labels" / "train_00004.npz")
    assert kept.dtype == np.uint8
    assert kept.shape == (1 + len(context.source.split("train")[4].tags), 48, 48)
    tensors = [load_tensors(c.workspace.stage("refine") / f) for c, f in (
        (same, "1-irnet/model.safetensors"), (context, "1-planes/model.safetensors"),
    )]  # fmt: skip
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])


def test_nothing_to_learn_from(located: Callable[..., Context]) -> None:
    context = located([IRNET, FIXED])
    for path in (context.workspace.stage("localize") / "maps").glob("train*"):
        path.unlink()
    with pytest.raises(RunError, match="irnet has no train image to learn from"):
        run(context)


def test_what_an_earlier_training_left_out_goes_with_it(located: Callable[..., Context]) -> None:
    workspace = located([IRNET, FIXED]).workspace
    workspace.write_problems("refine (training)", [Problem("refine (training)", "x", "x", "gone")])
    workspace.write_problems("data", [Problem("data", "y", "y", "stays")])
    workspace.clear("refine")
    assert [problem.id for problem in workspace.problems()] == ["y"]


def test_two_processes_train_one_network(finished: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load((finished / "recipe.yaml").read_text())
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "refine": [IRNET, FIXED], "segment": None}))
    arguments = ("run", "recipe.yaml", "--reuse", str(finished), "--devices", "2", "--until", "refine", "--plain")
    done = subprocess.run(
        [sys.executable, "-m", "tagmask", *arguments, "--output", "run"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run" / "refine"
    assert len(list((folder / "maps").iterdir())) == len(list((folder / "masks").iterdir())) == 16
    assert len((folder / "1-irnet" / "history.jsonl").read_text().splitlines()) == 6
    # One process finds everything done.
    again = walk_street(tmp_path / "run", overrides=["engine.devices=1"], until="refine")
    assert again.workspace.manifest()["stages"]["refine"]["status"] == "done"
    assert not list(folder.rglob("state.ckpt"))


def test_instances_are_written_and_found_again(located: Callable[..., Context]) -> None:
    irnet = {**IRNET, "epochs": 1, "instances": True, "instance_min_area": 0.0}
    context = located(["colour_walk", irnet, "dense_crf", FIXED])
    assert run(context) == []
    folder = context.workspace.stage("refine") / "instances"
    assert len(list(folder.iterdir())) == 2 * 16
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = 0
    for sample in context.samples("train", "val"):
        mask, listing = instance_paths(context, sample.id)
        ids, listed = load_mask(mask), json.loads(listing.read_text())["instances"]
        assert set(np.unique(ids).tolist()) - {0} == {one["id"] for one in listed}
        assert {one["label"] for one in listed} <= set(sample.tags)
        assert all(one["class"] == context.source.classes.names[one["label"]] for one in listed)
        found += len(listed)
    assert found
    tensors = load_tensors(context.workspace.stage("refine") / "2-irnet" / "model.safetensors")
    assert tensors["displacement.shift.running_mean"].any()
    for name in sorted(written)[::3]:
        (folder / name).unlink()
    run(context)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == written
