"""Peak memory and time of every refiner on one photograph: below 6 GB at 3000 x 2000 is the aim.

    python benchmarks/refine_memory.py [NAME ...] [--height 2000 --width 3000] [--maps 3] [--backbone resnet50]

Each refiner has its default settings and a process of its own; its peak is that of the whole process (Python, torch and
the photograph take the first half gigabyte). One that learns has an untrained network on ``--backbone``, and its labels
are measured too. Seconds are one run, compiling included.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tagmask import registry
from tagmask.backbones.build import BackboneSettings
from tagmask.contracts.refiner import RefineRequest
from tagmask.contracts.trainable import TrainableRefiner
from tagmask.engine.memory import peak_megabytes, reset_peak
from tagmask.types import UInt8Array

LIMIT = 6000  # MB


def scene(height: int, width: int, n_maps: int) -> tuple[UInt8Array, Tensor]:
    """A smooth image with some noise, and smooth maps at stride 4."""
    generator = torch.Generator().manual_seed(0)
    smooth = functional.interpolate(torch.rand(1, 3, 8, 12, generator=generator), (height, width), mode="bilinear")[0]
    smooth += 0.02 * torch.randn(smooth.shape, generator=generator)
    image = (smooth.clamp_(0, 1) * 255).byte().permute(1, 2, 0).contiguous().numpy()
    small = torch.rand(1, n_maps, 8, 12, generator=generator)
    maps = functional.interpolate(small, (-(-height // 4), -(-width // 4)), mode="bilinear")[0]
    return image, maps / maps.amax((1, 2), keepdim=True)


def measure(name: str, options: argparse.Namespace) -> tuple[float, float]:
    """(peak in MB of this process, seconds) of one refiner."""
    torch.set_num_threads(1)
    image, maps = scene(options.height, options.width, options.maps)
    classes = torch.arange(1, options.maps + 1)
    method = registry.get("refiner", name)()
    refiner = method
    if isinstance(method, TrainableRefiner):
        backbone = BackboneSettings(backbone=options.backbone, output_stride=options.output_stride).build()
        refiner = method.trained(method.build(backbone, options.maps).eval().requires_grad_(False))
    reset_peak()
    start = time.perf_counter()
    if method.makes == "labels":
        found = method.labels(maps, classes, image.shape[:2], 0.5)
        assert found.shape == image.shape[:2]
    else:
        request = RefineRequest(image=image, maps=maps, classes=classes)
        if isinstance(method, TrainableRefiner):
            tags, rng = torch.ones(options.maps), np.random.default_rng(0)
            method.item(image, method.targets(request), tags, rng, backbone.input_statistics)
        with torch.no_grad():
            refined = refiner.refine(request)
        assert refined.shape == maps.shape
        assert torch.isfinite(refined).all()
    return peak_megabytes(), time.perf_counter() - start


def main() -> None:
    """Measure each refiner in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="refiners; all by default")
    for name, value in (("height", 2000), ("width", 3000), ("maps", 3), ("output-stride", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(*measure(options.one, options))
        return
    print(f"{options.width} x {options.height}, {options.maps} maps, 1 thread; networks on {options.backbone}")
    over = []
    for name in options.names or sorted(registry.entries("refiner")):
        command = [sys.executable, __file__, "--one", name]
        for key in ("height", "width", "maps", "output_stride", "backbone"):
            command += [f"--{key.replace('_', '-')}", str(getattr(options, key))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peak, seconds = (float(value) for value in done.stdout.split()[-2:])
        print(f"{name:<16} peak {peak:6.0f} MB {seconds:7.1f} s", flush=True)
        over += [name] if peak > LIMIT else []
    if over:
        raise SystemExit(f"above {LIMIT} MB: {', '.join(over)}")


if __name__ == "__main__":
    main()
