"""Activation maps of a ResNet-50, 4 scales and flip, 375 x 500: ours against the published loop, in one run.

    python benchmarks/cam_extraction.py [--images 4] [--rounds 3] [--threads 2]

Reference: float32, default memory layout, one image and one scale at a time (with its mirror), as in irn's make_cam.
Ours: the localize stage's function (images side by side, one thread each) at the precision chosen for this device, and
at float32. Random weights: the time does not depend on them. Rounds are interleaved, so that a busy machine hurts all.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from tagmask.engine.engine import Engine
from tagmask.functional import merge_scales
from tagmask.models.classifier import build_classifier
from tagmask.ops.views import image_and_mirror
from tagmask.settings.classify import ClassifySettings
from tagmask.settings.engine import EngineSettings
from tagmask.settings.localize import LocalizeSettings
from tagmask.stages.localize.stage import activation_maps
from tagmask.types import ActivationMaps, UInt8Array

SIZE, LABELS = (375, 500), (3, 15)


def reference(model: torch.nn.Module, image: UInt8Array, settings: LocalizeSettings) -> torch.Tensor:
    """The published loop."""
    per_scale = []
    with torch.inference_mode():
        for scale in settings.scales:
            pair = image_and_mirror(image, scale, flip=True, statistics=model.input_statistics)
            features = model(pair).features
            maps = functional.relu(functional.conv2d(features, model.class_weights[:, :, None, None]))
            per_scale.append(maps[0] + maps[1].flip(-1))
    strided, _ = merge_scales(per_scale, (image.shape[0], image.shape[1]))
    return strided[[label - 1 for label in LABELS]]


def main() -> None:
    """Time and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    engine = Engine(EngineSettings(threads=options.threads), seed=0)
    torch.manual_seed(0)
    recipe = ClassifySettings(backbone="resnet50", dilate=False)
    plain = build_classifier(recipe, 20).eval()
    ours = build_classifier(recipe, 20)
    ours.load_state_dict(plain.state_dict())
    fast = engine.place(ours)
    settings = LocalizeSettings()
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (options.images, 24, 32, 3), dtype=np.uint8)
    images = [np.kron(image, np.ones((16, 16, 1), np.uint8))[: SIZE[0], : SIZE[1]] for image in small]

    def ours_at(autocast: bool) -> Callable[[UInt8Array], ActivationMaps]:
        def run(image: UInt8Array) -> ActivationMaps:
            with torch.autocast(engine.device.type, torch.bfloat16, enabled=autocast):
                return activation_maps(fast, image, LABELS, settings, device=engine.device)

        return run

    full = ours_at(autocast=False)
    chosen = ours_at(autocast=engine.precision == "bf16")
    ways: dict[str, Callable[[], object]] = {
        "reference loop, float32": lambda: [reference(plain, image, settings) for image in images],
        "ours, float32": lambda: list(engine.map(full, images, at_once=16)),
        f"ours, {engine.precision} (chosen)": lambda: list(engine.map(chosen, images, at_once=16)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            seconds[name].append((time.perf_counter() - begun) / len(images))
    first = np.median(seconds["reference loop, float32"][1:])  # the first round warms up
    print(f"ResNet-50, {SIZE[0]} x {SIZE[1]}, scales {settings.scales} + flip, {options.threads} threads")
    for name, times in seconds.items():
        median = float(np.median(times[1:]))
        print(f"{name:28} {median:6.2f} s/image {first / median:6.2f}x")
    expected = reference(plain, images[0], settings)
    for name, one in (("float32", full), (engine.precision, chosen)):
        difference = float((torch.from_numpy(one(images[0]).maps) - expected).abs().max())
        print(f"largest difference of the normalised maps, ours at {name}: {difference:.1e}")


if __name__ == "__main__":
    main()
