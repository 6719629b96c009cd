"""Random walk: the sparse stencil against IRNet's dense squaring, in one run.

    python benchmarks/random_walk.py [--full] [--threads 1]

Asked on 94 x 125, 1 thread: at most 0.25 s and 64 MB beside the input, 1000 times faster than dense squaring, equal to
2e-4. The dense way is run on a small grid and, with --full, on 94 x 125 (7 minutes and 3 GB on one core); without
it its time there is extrapolated by the cube of the number of pixels. Results are compared with the same walk
in float64, where the published float32 squaring has an error of its own, which is printed too. Memory is the peak of
the process above what it held before the first call on the large grid.
"""

from __future__ import annotations

import argparse
import importlib
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from tagmask.engine.memory import peak_megabytes, reset_peak
from tagmask.functional import random_walk

walk_module = importlib.import_module("tagmask.ops.random_walk")
BETA, RADIUS, SQUARINGS = 10.0, 5, 8
SMALL, LARGE = (32, 40), (94, 125)


def dense_walk(maps: Tensor, edge: Tensor) -> Tensor:
    """The published way: N x N transition matrix, squared 8 times, in the dtype of its input."""
    height, width = edge.shape
    n = height * width
    matrix = torch.eye(n, dtype=edge.dtype)
    numbers = torch.arange(n).view(height, width)
    planes = walk_module.path_affinity(edge, RADIUS)
    for plane, (dy, dx) in zip(planes, walk_module.stencil_offsets(RADIUS), strict=True):
        inside = slice(0, height - dy), slice(max(0, -dx), width - max(0, dx))
        here = numbers[inside].flatten()
        there = here + dy * width + dx
        matrix[here, there] = matrix[there, here] = plane[inside].flatten()
    matrix = matrix**BETA
    matrix /= matrix.sum(0, keepdim=True)
    for _ in range(SQUARINGS):
        matrix = matrix @ matrix
    return ((maps * (1 - edge)).flatten(1) @ matrix).view_as(maps)


def step_by_step(maps: Tensor, edge: Tensor) -> Tensor:
    """256 sparse products one after the other, CSR, in the dtype of its input."""
    height, width = edge.shape
    numbers = torch.arange(height * width).view(height, width)
    rows, columns, values = [numbers.flatten()], [numbers.flatten()], [torch.ones(height * width, dtype=edge.dtype)]
    planes = walk_module.path_affinity(edge, RADIUS) ** BETA
    for plane, (dy, dx) in zip(planes, walk_module.stencil_offsets(RADIUS), strict=True):
        inside = slice(0, height - dy), slice(max(0, -dx), width - max(0, dx))
        here = numbers[inside].flatten()
        there = here + dy * width + dx
        rows += [here, there]
        columns += [there, here]
        values += [plane[inside].flatten()] * 2
    indices = torch.stack([torch.cat(rows), torch.cat(columns)])
    total = torch.zeros(height * width, dtype=edge.dtype).index_add_(0, indices[0], torch.cat(values))
    values = torch.cat(values) / total[indices[0]]
    matrix = torch.sparse_coo_tensor(indices, values, (height * width,) * 2).coalesce().to_sparse_csr()
    state = (maps * (1 - edge)).flatten(1).T.contiguous()
    for _ in range(2**SQUARINGS):
        state = matrix @ state
    return state.T.reshape(maps.shape)


def scene(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Two random maps, and a boundary map with closed contours and noise."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, height, width, generator=generator)
    field = torch.nn.functional.interpolate(
        torch.rand(1, 1, 6, 8, generator=generator), (height, width), mode="bicubic", align_corners=False
    )[0, 0]
    contours = torch.exp(-((torch.sin(12 * field) / 0.3) ** 2))
    edge = 0.9 * contours + 0.1 * torch.rand(height, width, generator=generator)
    return maps, edge.clamp(0, 1)


def extra_memory() -> float:
    """MiB that a walk on the large grid takes beside its input; before anything else has left memory to reuse."""
    random_walk(*scene(*SMALL), steps=1)
    maps, edge = scene(*LARGE)
    reset_peak()
    before = peak_megabytes()
    random_walk(maps, edge)
    return peak_megabytes() - before


def timed(work: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    """Best time of ``repeats`` runs, and the result; on one thread processor time: a busy machine leaves it alone."""
    best = float("inf")
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in range(repeats):
        start = clock()
        result = work()
        best = min(best, clock() - start)
    return best, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="run the dense way on 94 x 125 too")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message="Sparse")
    print(f"2 maps, {2**SQUARINGS} steps, radius {RADIUS}, {options.threads} thread(s)")
    print(f"{'grid':<10}{'way':<36}{'seconds':>10}{'ratio':>11}{'error':>14}")
    worst, dense_small, memory = 0.0, 0.0, extra_memory()
    for height, width in (SMALL, LARGE):
        maps, edge = scene(height, width)
        exact = step_by_step(maps.double(), edge.double())
        rows = [("sparse stencil (ours)", *timed(lambda: random_walk(maps, edge), 5))]  # noqa: B023
        rows.append(("the same, tolerance 1e-3", *timed(lambda: random_walk(maps, edge, tolerance=1e-3), 5)))  # noqa: B023
        rows.append(("sparse CSR, step by step", *timed(lambda: step_by_step(maps, edge), 2)))  # noqa: B023
        ours = rows[0][1]
        if (height, width) == SMALL or options.full:
            rows.append(("dense squaring (published way)", *timed(lambda: dense_walk(maps, edge), 1)))  # noqa: B023
        if (height, width) == SMALL:
            dense_small = rows[-1][1]
            dense_exact = dense_walk(maps.double(), edge.double())
            worst = max(worst, float((exact - dense_exact).abs().max()))
        for name, seconds, walked in rows:
            error = float((walked - exact).abs().max() / exact.max())
            grid = f"{height}x{width}" if name == rows[0][0] else ""
            print(f"{grid:<10}{name:<36}{seconds:>10.3f}{seconds / ours:>10.1f}x{error:>14.1e}")
        worst = max(worst, float((rows[0][2] - exact).abs().max() / exact.max()))
    if not options.full:
        dense = dense_small * (LARGE[0] * LARGE[1] / (SMALL[0] * SMALL[1])) ** 3
        print(f"{'':<10}{'dense squaring, extrapolated':<36}{dense:>10.0f}{dense / ours:>10.0f}x")
    print(f"memory of ours on {LARGE[0]}x{LARGE[1]} beside the input: {memory:.0f} MiB")
    print(f"largest relative difference of ours from dense and sparse float64: {worst:.1e}")
    if not worst <= 2e-4:
        raise SystemExit("the walks differ")


if __name__ == "__main__":
    main()
