"""PAMR: slices added in place against the straightforward way that unfolds the neighbours of every mask.

    python benchmarks/pamr.py [--iterations 10] [--threads 1]

375 x 500 pixels, 21 masks. Each way runs in a process of its own, whose peak of memory beyond the inputs is
printed. Seconds are wall time, one run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time

import torch
from torch import Tensor
from torch.nn import functional

from tagmask.functional import pamr

SIZE, GRID, MASKS = (375, 500), (94, 125), 21
DILATIONS = (1, 2, 4, 8, 12, 24)
CENTRE = 4


def unfolded(values: Tensor) -> Tensor:
    """The 3x3 windows of [1, C, H, W] at every dilation: [C, dilations, 9, H, W]."""
    channels, height, width = values.shape[1:]
    windows = [functional.unfold(functional.pad(values, (d,) * 4, mode="replicate"), 3, dilation=d) for d in DILATIONS]
    return torch.stack([window.view(channels, 9, height, width) for window in windows], dim=1)


def neighbours(values: Tensor) -> Tensor:
    """The eight neighbours at every dilation: [C, 48, H, W]."""
    windows = unfolded(values)
    keep = [i for i in range(9) if i != CENTRE]
    return windows[:, :, keep].flatten(1, 2)


def pamr_unfolded(image: Tensor, masks: Tensor, *, iterations: int) -> Tensor:
    """The definition, tensor by tensor."""
    masks = functional.interpolate(masks, image.shape[2:], mode="bilinear", align_corners=True)
    deviation = unfolded(image).flatten(1, 2).std(dim=1)
    difference = (neighbours(image) - image[0][:, None]).abs()
    weights = (-difference / (1e-8 + 0.1 * deviation[:, None])).mean(0).softmax(0)
    for _ in range(iterations):
        masks = (neighbours(masks) * weights).sum(1)[None]
    return masks


WAYS = {"slices in place (ours)": pamr, "unfold (straightforward)": pamr_unfolded}


def scene() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    smooth = functional.interpolate(torch.rand(1, 3, 12, 16, generator=generator), SIZE, mode="bicubic")
    image = (smooth + 0.03 * torch.randn(1, 3, *SIZE, generator=generator)).clamp(0, 1)
    return image, torch.rand(1, MASKS, *GRID, generator=generator)


def peak() -> float:
    """Highest resident memory so far, MB."""
    value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return value / 2**20 if sys.platform == "darwin" else value / 2**10


def measure(job: tuple[str, int, int]) -> tuple[float, float, Tensor]:
    """(seconds, MB beyond the inputs, result) of one way."""
    name, iterations, threads = job
    torch.set_num_threads(threads)
    image, masks = scene()
    before, start = peak(), time.perf_counter()
    result = WAYS[name](image, masks, iterations=iterations)
    return time.perf_counter() - start, peak() - before, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print(f"{SIZE[0]} x {SIZE[1]}, {MASKS} masks, {options.iterations} iterations, {options.threads} thread(s)")
    print(f"{'way':<28}{'seconds':>10}{'ratio':>9}{'MB':>9}")
    rows = []
    for name in WAYS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows.append((name, *pool.apply(measure, ((name, options.iterations, options.threads),))))
    for name, seconds, memory, _ in rows:
        print(f"{name:<28}{seconds:>10.2f}{seconds / rows[0][1]:>8.1f}x{memory:>9.0f}")
    difference = float((rows[0][3] - rows[1][3]).abs().max())
    print(f"largest difference: {difference:.1e}")
    if not difference <= 1e-5:
        raise SystemExit("the results differ")


if __name__ == "__main__":
    main()
