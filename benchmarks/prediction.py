"""Masks of a folder of images against the bare network's forward rate, in one run.

    python benchmarks/prediction.py [--images 48] [--rounds 4] [--threads 2] [--size 320]

DeepLabV3+ with MobileNetV2, 21 classes, one scale, no flip. Bare: the network alone on images that are decoded,
normalised and in memory already, one image a thread, as it was trained (its batch norms as they are); nothing is done
with its logits. Ours: ``predict_images``, what
``tagmask predict`` calls: JPEG files in, palette PNGs out (no overlays). Both at the precision chosen for this machine.
The bare network with all threads on one image is printed too. Rounds are interleaved, and the ratio is that of the
medians, to the faster of the two. Random weights: the time does not depend on them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from tagmask.methods.deeplabv3plus.network import DeepLabV3Plus
from tagmask.ops.transforms import normalise
from tagmask.predict.images import collect, predict_images
from tagmask.predict.predictor import load
from tagmask.storage.images import read_image
from tagmask.storage.weights import save_weights


def make(folder: Path, n_images: int, size: int) -> nn.Module:
    """A model file and photographs that compress as photographs do; the network of the file."""
    network = DeepLabV3Plus(encoder="mobilenetv2_100", encoder_args={"pad_type": "same"})
    description = {
        "kind": "segmenter",
        "classes": ["background", *(f"class {n}" for n in range(1, 21))],
        "network": network.dump(),
        "scales": [1.0],
        "flip": False,
    }
    torch.manual_seed(0)
    model = network.build(21)
    save_weights(folder / "model.safetensors", model, description)
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(n_images):
        coarse = Image.fromarray(rng.integers(0, 256, (size // 16, size // 16, 3), dtype=np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(folder / "images" / f"{number}.jpg", quality=90)
    return model


def main() -> None:
    """Time and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=320)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make(folder, options.images, options.size)
        predictor = load(folder / "model.safetensors")
        engine = predictor.engine
        model = engine.place(model)
        targets = collect([str(folder / "images")])
        images = [normalise(read_image(path), model.input_statistics)[None] for path in targets.values()]
        ready = [image.to(engine.device) for image in images]
        ready = [image.to(memory_format=torch.channels_last) for image in ready]

        def forward(image: torch.Tensor) -> None:
            with torch.inference_mode(), engine.autocast():
                model(image)

        def bare() -> None:
            for _ in engine.map(forward, ready, at_once=16):
                pass

        def together() -> None:
            for image in ready:
                forward(image)

        rounds = iter(range(10**6))

        def ours() -> None:
            predict_images(predictor, targets, folder / f"out{next(rounds)}", overlay=False)

        ways = {"bare": bare, "ours": ours}
        if options.threads > 1:
            ways["bare, all threads on one image"] = together
        seconds: dict[str, list[tuple[float, float]]] = {key: [] for key in ways}
        for number in range(options.rounds + 1):
            for key, way in ways.items():
                begun, spent = time.perf_counter(), time.process_time()
                way()
                if number:  # the first is for warming up
                    seconds[key].append((time.perf_counter() - begun, time.process_time() - spent))
    taken = {key: np.median(values, axis=0) / options.images for key, values in seconds.items()}
    for key, (wall, cpu) in taken.items():
        print(f"{key}: {1 / wall:.1f} images/s, {1000 * cpu:.1f} ms of CPU time an image")
    fastest = np.min([value for key, value in taken.items() if key != "ours"], axis=0)
    rate, work = fastest / taken["ours"]
    print(f"ours / bare: {rate:.3f} (rate), {work:.3f} (CPU time; what a busy machine does not change)")
    print(f"{engine.precision}, {options.threads} threads, {options.size} px")


if __name__ == "__main__":
    main()
