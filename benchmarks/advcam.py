"""AdvCAM of a MobileNetV2, 213 x 320, image and mirror, two classes: ours against the published loop, in one run.

    python benchmarks/advcam.py [--images 2] [--steps 6] [--scales 1.0] [--rounds 3] [--threads 2]

Reference: float32, default memory layout, one image, scale and class at a time; each step is a forward pass, Grad-CAM's
backward pass and the loss's backward pass, both with the gradients of all parameters, as in AdvCAM's
obtain_CAM_masking. Ours: the localizer (images side by side, one thread each) at the precision chosen for this device,
and at float32. The backbone's weights are read from shared/weights if they are there, else random: the time does not
depend on them. Rounds are interleaved, so that a busy machine hurts all.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tagmask.engine.engine import Engine
from tagmask.functional import merge_scales
from tagmask.methods.advcam.localizer import AdvCam, steps_and_factors
from tagmask.models.classifier import build_classifier
from tagmask.ops.views import image_and_mirror
from tagmask.settings.classify import ClassifySettings
from tagmask.settings.engine import EngineSettings
from tagmask.settings.localize import LocalizeSettings
from tagmask.stages.localize.stage import activation_maps
from tagmask.types import ActivationMaps, UInt8Array

SIZE, LABELS, CLASSES = (213, 320), (3, 15), 20
WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "weights" / "mobilenetv2_100-imagenet.safetensors"


def published_climb(model: nn.Module, pair: Tensor, channel: int, steps: int, settings: AdvCam) -> Tensor:
    """Summed regions [h, w] of one class at one scale, by two backward passes a step."""
    images, clean, total = pair.clone(), torch.empty(0), torch.zeros(())
    for step in range(steps):
        images = images.detach().requires_grad_()
        features = model(images).features
        features.retain_grad()
        responses = nn.functional.conv2d(features, model.class_weights[:, :, None, None]).relu()
        model.zero_grad()
        responses[:, channel].sum().backward(retain_graph=True)
        gradient = features.grad
        factor = gradient.sum((-2, -1)) / ((gradient > 0).sum() + 1e-12)
        per_view = (factor[..., None, None] * features).sum(1).relu()
        regions = per_view[0] + per_view[1].flip(-1)
        clean = regions.detach() if step == 0 else clean
        total = total + regions.detach()
        scores = responses.mean((-2, -1)).sum(0)
        strong = regions.detach() / regions.detach().max() > settings.score_threshold
        loss = 2 * scores[channel] - scores.sum() - settings.regulariser * ((regions - clean).abs() * strong).sum()
        images.grad = None
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            moved = images + settings.step_size * images.grad / (images.grad.abs().max() + 1e-12)
            images = moved.clamp(float(images.min()), float(images.max()))
    return total


def reference(model: nn.Module, image: UInt8Array, settings: LocalizeSettings) -> Tensor:
    """The published loop."""
    per_scale = []
    scales = tuple(sorted(settings.scales))
    plan = steps_and_factors(scales, settings.method.steps, compensate=False)
    for scale, (steps, factor) in zip(scales, plan, strict=True):
        pair = image_and_mirror(image, scale, flip=True, statistics=model.input_statistics)
        climbs = [published_climb(model, pair, label - 1, steps, settings.method) for label in LABELS]
        per_scale.append(factor * torch.stack(climbs))
    return merge_scales(per_scale, (image.shape[0], image.shape[1]))[0]


def main() -> None:
    """Time and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    engine = Engine(EngineSettings(threads=options.threads), seed=0)
    torch.manual_seed(0)
    recipe = ClassifySettings(
        backbone="mobilenetv2_100", weights=WEIGHTS if WEIGHTS.exists() else None, final_conv=True
    )
    plain = build_classifier(recipe, CLASSES).eval()
    ours = build_classifier(recipe, CLASSES)
    ours.load_state_dict(plain.state_dict())
    fast = engine.place(ours).requires_grad_(False)
    settings = LocalizeSettings(method=AdvCam(steps=options.steps), scales=tuple(options.scales))
    cam = LocalizeSettings(scales=tuple(options.scales))
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (options.images, 14, 20, 3), dtype=np.uint8)
    images = [np.kron(image, np.ones((16, 16, 1), np.uint8))[: SIZE[0], : SIZE[1]] for image in small]

    def ours_at(autocast: bool, method: LocalizeSettings) -> Callable[[UInt8Array], ActivationMaps]:
        def run(image: UInt8Array) -> ActivationMaps:
            with torch.autocast(engine.device.type, torch.bfloat16, enabled=autocast):
                return activation_maps(fast, image, LABELS, method, device=engine.device)

        return run

    full, chosen = ours_at(False, settings), ours_at(engine.precision == "bf16", settings)
    plain_cam = ours_at(engine.precision == "bf16", cam)
    ways: dict[str, Callable[[], object]] = {
        "reference loop, float32": lambda: [reference(plain, image, settings) for image in images],
        "ours, float32": lambda: list(engine.map(full, images, at_once=16)),
        f"ours, {engine.precision} (chosen)": lambda: list(engine.map(chosen, images, at_once=16)),
        f"plain CAM, {engine.precision}": lambda: list(engine.map(plain_cam, images, at_once=16)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            seconds[name].append((time.perf_counter() - begun) / len(images))
    first = float(np.median(seconds["reference loop, float32"][1:]))  # the first round warms up
    print(
        f"MobileNetV2, {SIZE[0]} x {SIZE[1]}, {len(LABELS)} classes, {options.steps} steps, "
        f"scales {settings.scales} + flip, {options.threads} threads"
    )
    for name, times in seconds.items():
        median = float(np.median(times[1:]))
        print(f"{name:28} {median:7.3f} s/image   {median / first:5.2f} of the reference's time")
    expected = reference(plain, images[0], settings)
    for name, one in (("float32", full), (engine.precision, chosen)):
        difference = (torch.from_numpy(one(images[0]).maps) - expected).abs()
        print(
            f"normalised maps, ours at {name}: largest difference {float(difference.max()):.1e}, "
            f"mean {float(difference.mean()):.1e}"
        )


if __name__ == "__main__":
    main()
