"""Cost of every registered localizer, with the head it needs, relative to plain multi-scale CAM in the same run.

    python benchmarks/localizer_cost.py [NAME ...] [--images 4] [--tags 2] [--scales 1 1.5] [--classifier FILE]
        [--setting "class_conditional={split: false, economy: true}"]

MobileNetV2 with its last convolution, 213 x 320, the same views for all, at the precision chosen for this device;
default settings, but AdvCAM takes 6 steps (its own loop to compare with is in benchmarks/advcam.py). Photographs and
weights are read from the folder shared beside the repository if it is there, else noise and random weights take their
place. Only class-conditional inference, whose cuts and rounds depend on the maps, is sensitive to that: with
``--classifier runs/msrc-cam/classify/model.safetensors`` it works on a trained classifier and the photographs' own
tags. Every round runs every localizer once, so that a busy machine hurts all; a ratio is the median of the rounds'
ratios. On a CPU the process's own time is measured, which other processes change little. "pixels" is how many went
through the network, relative to plain CAM: what a localizer takes beyond that is not the network's.

"learning" is the pass over the training images before the first map, per image, against plain CAM of an image.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from tagmask import registry
from tagmask.contracts.localizer import Localizer, Trained
from tagmask.engine.engine import Engine
from tagmask.models.classifier import build_classifier
from tagmask.models.folding import fold_batch_norms
from tagmask.ops.views import Views
from tagmask.registry.validation import build_method
from tagmask.settings.classify import ClassifySettings
from tagmask.settings.engine import EngineSettings
from tagmask.settings.localize import LocalizeSettings
from tagmask.stages.localize.stage import activation_maps
from tagmask.storage.weights import load_tensors
from tagmask.types import UInt8Array

SIZE, CLASSES = (213, 320), 20
SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "weights" / "mobilenetv2_100-imagenet.safetensors"
MSRC = SHARED / "data" / "msrc"

CHANGED = {"advcam": {"steps": 6}}
AIMS = {"recam": 1.1, "visual_words": 1.15, "ssa": 1.3, "lpcam": 1.2, "class_conditional": 2.5}
LEARNING_AIMS = {"lpcam": 1.5}
ONE_IMAGE = ("advcam",)  # so slow that one image a round does


def pictures(
    count: int, tags: int, size: tuple[int, int], *, own_tags: bool
) -> tuple[list[UInt8Array], list[tuple[int, ...]]]:
    """Images of one size, photographs where there are any, and labels of each: its own, or made up ones."""
    found = sorted((MSRC / "JPEGImages").glob("*"))
    found = found[:: max(1, len(found) // count)][:count]
    made_up = [tuple(range(3, 3 + tags))] * count
    if not found:
        small = np.random.default_rng(0).integers(0, 256, (count, 14, 20, 3), dtype=np.uint8)
        return [
            np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.NEAREST)) for image in small
        ], made_up
    images = [Image.open(path).convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC) for path in found]
    if not own_tags:
        return [np.asarray(image) for image in images], made_up
    names = (MSRC / "classes.txt").read_text().split()
    rows = dict(line.split(",") for line in (MSRC / "labels.csv").read_text().splitlines()[1:])
    known = [tuple(sorted(names.index(tag) for tag in rows[path.stem].split("|"))) for path in found]
    return [np.asarray(image) for image in images], known


def head_for(localizer: Localizer) -> Any:
    """gap, and around it what the localizer needs."""
    head = registry.get("head", "gap")()
    for need in sorted(need for part in localizer.parts() for need in part.requires):
        if need not in head.offers():
            having = [other for other in registry.entries("head") if need in registry.get("head", other).provides]
            head = registry.get("head", having[0])(inner=head)
    return head


@dataclass
class Way:
    """One localizer on the classifier that it needs."""

    method: Localizer
    settings: LocalizeSettings
    model: Any
    engine: Engine
    images: list[UInt8Array]
    labels: list[tuple[int, ...]]
    learnt: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    pixels: int = 0  # that went through the network for the maps of all images
    total: int = 0

    def count(self, views: torch.Tensor) -> None:
        """Remember what the network is about to look at."""
        self.total += views.shape[0] * views.shape[2] * views.shape[3]

    def maps(self) -> None:
        """Maps of all images, side by side as in a run."""

        def one(pair: tuple[UInt8Array, tuple[int, ...]]) -> object:
            image, labels = pair
            with self.engine.autocast():
                return activation_maps(
                    self.model, image, labels, self.settings, learnt=self.learnt, device=self.engine.device
                )

        before = self.total
        for _ in self.engine.map(one, list(zip(self.images, self.labels, strict=True)), at_once=16):
            pass
        self.pixels = self.total - before

    def study(self, part: Localizer) -> list[Any]:
        """What all images offer to one of the localizers that learn."""
        views = Views(self.settings.scales, self.settings.flip, self.model.input_statistics)
        trained = Trained(self.model, self.learnt, self.engine.device)

        def one(number: int) -> Any:
            channels = torch.tensor([label - 1 for label in self.labels[number]], device=self.engine.device)
            with self.engine.autocast(), torch.inference_mode():
                return part.study(trained, self.images[number], channels, views, np.random.default_rng(number))

        return list(self.engine.map(one, range(len(self.images)), at_once=16))

    def learn(self, n_classes: int) -> None:
        """Let every part learn, inner ones first."""
        for part in reversed(list(self.method.parts())):
            if part.learns:
                reservoir = part.reservoir()
                for number, offered in enumerate(self.study(part)):
                    reservoir.add(number, offered)
                trained = Trained(self.model, self.learnt, self.engine.device)
                with torch.inference_mode():
                    result = part.learn(trained, reservoir, [f"class {index}" for index in range(n_classes)], 0)
                self.learnt[part.name] = {key: value.to(self.engine.device) for key, value in result.tensors.items()}


def prepare(
    name: str, engine: Engine, images: list[UInt8Array], labels: list[tuple[int, ...]], options: argparse.Namespace
) -> Way:
    """A localizer, its classifier, and what it has learnt."""
    changed = {**CHANGED, **{key: yaml.safe_load(text) for key, text in options.setting}}
    method = build_method("localizer", {"name": name, **changed.get(name, {})}, where="benchmark", base=Path())
    torch.manual_seed(0)
    recipe = ClassifySettings(
        backbone="mobilenetv2_100",
        backbone_args={"pad_type": "same"},
        weights=WEIGHTS if WEIGHTS.exists() else None,
        final_conv=True,
        head=head_for(method),
    )
    trained = load_tensors(options.classifier) if options.classifier else {}
    n_classes = len(trained["head.weight.weight"]) if trained else CLASSES
    model: Any = build_classifier(recipe, n_classes)
    inner = "inner." * (len(list(recipe.head.parts())) - 1)
    known = {key.replace("head.", f"head.{inner}", 1): value for key, value in trained.items()}
    model.load_state_dict(known, strict=False)
    model.eval().requires_grad_(False)
    fold_batch_norms(model, torch.zeros(1, 3, 64, 64))  # as the stage has it
    engine.place(model)
    settings = LocalizeSettings(method=method, scales=tuple(options.scales))
    some = 1 if name in ONE_IMAGE else len(images)
    way = Way(method, settings, model, engine, images[:some], labels[:some])
    way.learn(n_classes)
    model.register_forward_pre_hook(lambda _, given: way.count(given[0]))
    return way


def seconds(work: Callable[[], object], engine: Engine) -> float:
    """Time of a call: the process's on a CPU, the wall's elsewhere."""
    clock = time.process_time if engine.device.type == "cpu" else time.perf_counter
    begun = clock()
    work()
    if engine.device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - begun


def main() -> None:
    """Time and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="localizers; all by default")
    parser.add_argument(
        "--setting", action="append", default=[], type=lambda text: text.split("=", 1), metavar="NAME={KEY: VALUE}"
    )
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--tags", type=int, default=2)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.5])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=SIZE, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--classifier", type=Path, help="trained gap classifier; images then have their own tags")
    options = parser.parse_args()
    engine = Engine(EngineSettings(threads=options.threads), seed=0)
    size = options.size[0], options.size[1]
    images, labels = pictures(options.images, options.tags, size, own_tags=options.classifier is not None)
    names = ["cam", *(name for name in options.names or sorted(registry.entries("localizer")) if name != "cam")]
    ways = {name: prepare(name, engine, images, labels, options) for name in names}
    work: dict[str, tuple[Callable[[], object], int]] = {}
    for name, way in ways.items():
        work[name] = (way.maps, len(way.images))
        if way.method.learns:
            work[f"{name}, learning"] = (lambda way=way: way.study(way.method), len(way.images))  # type: ignore[misc]
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(options.rounds + 1):
        for name, (task, count) in work.items():
            times[name].append(seconds(task, engine) / count)
    tags = sum(map(len, labels)) / len(labels)
    print(
        f"MobileNetV2, {size[0]} x {size[1]}, {tags:.3g} tags, scales {tuple(options.scales)} + flip, "
        f"{options.threads} threads, {engine.precision}"
    )
    plain = np.array(times["cam"][1:])  # the first round warms up
    for name, found in times.items():
        own, _, learning = name.partition(", ")
        aim = (LEARNING_AIMS if learning else AIMS).get(own)
        ratio = float(np.median(np.array(found[1:]) / plain))
        head = "" if learning else f"head {ways[own].model.head.__class__.__name__}"
        seen = ways[own].pixels / len(ways[own].images) / (ways["cam"].pixels / len(ways["cam"].images))
        pixels = "" if learning else f"pixels {seen:5.2f}x"
        print(
            f"{name:24} {np.median(found[1:]):7.3f} s/image {ratio:7.2f}x{f'  (aim {aim}x)' if aim else '':14} "
            f"{pixels:15} {head}"
        )


if __name__ == "__main__":
    main()
