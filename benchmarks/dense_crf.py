"""Dense CRF: the compiled lattice against the same sums as plain numpy, label by label, on one thread.

    python benchmarks/dense_crf.py [--height 375 --width 500] [--iterations 10] [--threads 2] [--skip-plain]
        [--image PHOTO]

Without --image the scene is smooth with some noise, which makes a lattice five times as large as a photograph does.
The plain way takes the lattice's tables and does every step label by label with numpy. Compiling is not timed, the
building of the lattice is. Seconds are wall time, the fastest and the median of --repeats, and the least processor time
of all threads together, which others on the machine disturb less; the ratio is that of processor times.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np
import torch
from torch.nn import functional

from tagmask.methods.dense_crf.lattice.filter import Lattice, Team
from tagmask.methods.dense_crf.mean_field import Pairwise, mean_field
from tagmask.ops.transforms import resize_image
from tagmask.storage.images import read_image

KERNELS = [Pairwise(3, 3), Pairwise(80, 10, 13)]


def scene(labels: int, height: int, width: int, photo: str | None = None) -> tuple[np.ndarray, torch.Tensor]:
    """Image, and costs of labels whose scores are smooth."""
    generator = torch.Generator().manual_seed(0)
    smooth = functional.interpolate(torch.rand(1, 3, 12, 16, generator=generator), (height, width), mode="bicubic")
    noisy = (smooth + 0.01 * torch.randn(1, 3, height, width, generator=generator)).clamp(0, 1)
    scores = functional.interpolate(torch.rand(1, labels, 12, 16, generator=generator), (height, width))[0]
    image = (noisy[0] * 255).byte().permute(1, 2, 0).contiguous().numpy()
    if photo is not None:
        image = resize_image(read_image(photo), (height, width))
    return image, (4 * scores).log_softmax(0).neg()


def plain(image: np.ndarray, unary: torch.Tensor, iterations: int) -> torch.Tensor:
    """The update of docs/methods/dense-crf.md, label by label, in numpy on one thread."""
    with Team(1) as team:
        lattices = [Lattice.of([kernel.features(image)], [kernel.compat], team) for kernel in KERNELS]
    cost = unary.flatten(1).numpy()
    q = torch.softmax(-unary, 0).flatten(1).numpy()
    for _ in range(iterations):
        energy = -cost.copy()
        for lattice in lattices:
            m = lattice.begins[-1]
            vertex = np.repeat(np.arange(m), np.diff(lattice.starts))
            for label, row in enumerate(q):
                values = np.zeros(m + 1)
                values[:m] = np.bincount(vertex, lattice.splat_weights * row[lattice.points], m)
                for pair in lattice.neighbours:
                    values[:m] += 0.5 * values[pair].sum(1)
                energy[label] += (values[lattice.vertices] * lattice.weights).sum(1)
        q = torch.softmax(torch.from_numpy(energy), 0).numpy()
    return torch.from_numpy(q).view(unary.shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("height", 375), ("width", 500), ("iterations", 10), ("threads", 2), ("repeats", 9)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--skip-plain", action="store_true")
    parser.add_argument("--image")
    options = parser.parse_args()
    for labels in (2, 21):
        mean_field(*scene(labels, 8, 8), KERNELS, iterations=1)  # compile
    print(f"{options.height} x {options.width}, {options.iterations} iterations, {options.threads} thread(s)")
    for labels in (21, 3):
        image, unary = scene(labels, options.height, options.width, options.image)
        seconds, processor = [], []
        for _ in range(options.repeats):
            start, used = time.perf_counter(), time.process_time()
            found = mean_field(image, unary, KERNELS, iterations=options.iterations, threads=options.threads)
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - used)
        line = f"{labels:>3} labels: {min(seconds):.3f} s (median {np.median(seconds):.3f} s)"
        line += f", processor {min(processor):.3f} s"
        if not options.skip_plain:
            used = time.process_time()
            other = plain(image, unary, options.iterations)
            taken = time.process_time() - used
            line += f", plain {taken:.2f} s ({taken / min(processor):.1f}x), |dQ| <= {(found - other).abs().max():.0e}"
        print(line)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(f"peak memory of the process: {peak:.0f} MB")


if __name__ == "__main__":
    main()
