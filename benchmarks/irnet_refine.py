"""Refining maps with a trained IRNet: images per second and peak memory.

    python benchmarks/irnet_refine.py [--size 213 320] [--images 24] [--maps 3] [--threads 2] [--backbone NAME]

Asked: 5 images per second on 2 cores at MSRC's size, and less than 6 GB for a photograph of 3000 x 2000
(``--size 2000 3000 --images 1 --threads 1``). What a network has learnt does not change what it costs, so it has
random weights. Images go in threads as in the refine stage. The clock counts the machine's other work too; processor
time does not, and what the cores would do without it follows from it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from tagmask.backbones.build import BackboneSettings
from tagmask.engine.engine import Engine
from tagmask.engine.memory import peak_megabytes, reset_peak
from tagmask.methods.irnet.refiner import IRNet
from tagmask.settings.engine import EngineSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=[213, 320], metavar=("H", "W"))
    for name, default in (("images", 24), ("maps", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    options = parser.parse_args()
    engine = Engine(EngineSettings(device="cpu", precision="float32", threads=options.threads), seed=0)
    height, width = options.size
    generator = torch.Generator().manual_seed(0)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    maps = torch.rand(options.maps, -(-height // 4), -(-width // 4), generator=generator)
    settings = IRNet()
    network = engine.place(
        settings.build(BackboneSettings(backbone=options.backbone).build(), 20).requires_grad_(False)
    )
    refiner = settings.trained(network)
    stages = {
        "boundaries": lambda _: refiner.predictions(image),
        "boundaries and walk": lambda _: refiner.refine(image, maps),
    }
    print(f"{width} x {height} pixels, {options.maps} maps, {options.backbone}, {options.threads} thread(s)")
    for name, work in stages.items():
        for number in (1, options.images):  # once before the clock
            reset_peak()
            wall, processor = time.perf_counter(), time.process_time()
            list(engine.map(work, range(number), at_once=16))
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
        rate, per_core = options.images / wall, options.images / processor
        print(
            f"{name:<22}{rate:>8.1f} images/s by the clock, {per_core * options.threads:.1f} by processor time "
            f"({1000 / per_core:.0f} ms an image); peak memory {peak_megabytes():.0f} MiB"
        )


if __name__ == "__main__":
    main()
