"""IRNet's pair labels and losses of one training step: counts per pixel against gathering all paths.

    python benchmarks/irnet_step.py [--batch 2] [--grid 128] [--radius 10] [--threads 1] [--repeats 3] [--device cpu]

The reference way is the published code's: index lists of all path points (made once, outside the clock), the
boundary gathered at each and max-pooled, pair labels gathered by index lists on the CPU image by image, one
logarithm per pair and mask. A step is pair labels, losses and gradients; the network around it is the same in
both and left out. Both ways must agree.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tagmask.methods.irnet.losses import irnet_losses
from tagmask.ops.pixel_pairs import path_points, source_region, stencil_offsets


class PublishedWay:
    """``PathIndex``, ``GetAffinityLabelFromIndices`` and ``AffinityDisplacementLoss`` by their definition."""

    def __init__(self, grid: int, radius: int, device: str) -> None:
        numbers = np.arange(grid * grid).reshape(grid, grid)
        sources = source_region(grid, grid, radius)
        rows, columns = slice(0, sources.height), slice(sources.left, sources.left + sources.width)

        def index(y: int, x: int) -> np.ndarray:
            return numbers[y:, :][rows][:, columns.start + x : columns.stop + x].ravel()

        groups: dict[int, list[tuple[int, int]]] = {}
        for offset in stencil_offsets(radius):
            groups.setdefault(len(path_points(offset)), []).append(offset)
        self.offsets = [offset for size in sorted(groups) for offset in groups[size]]
        self.paths = [
            torch.tensor(np.array([[index(*point) for point in path_points(offset)] for offset in groups[size]]))
            for size in sorted(groups)
        ]
        self.paths = [paths.to(device) for paths in self.paths]
        self.source, self.partners = index(0, 0), np.array([index(*offset) for offset in self.offsets])
        self.source_t = torch.tensor(self.source, device=device)
        self.partners_t = torch.tensor(self.partners, device=device)
        self.delta = torch.tensor(self.offsets, device=device, dtype=torch.float32).T.view(1, 2, -1, 1)

    def pair_labels(self, labels: np.ndarray) -> list[Tensor]:
        """bg, fg and negative masks of one image, float [offsets, sources]."""
        flat = labels.ravel()
        here, there = flat[self.source][None], flat[self.partners]
        valid = (here != 255) & (there != 255)
        equal = here == there
        background = equal & valid & (here == 0)
        masks = background, equal & valid & (here > 0), valid & ~equal
        return [torch.from_numpy(mask.astype(np.float32)) for mask in masks]

    def affinity(self, edge: Tensor) -> Tensor:
        """[B, 1, h, w] -> [B, offsets, sources]."""
        flat = edge.flatten(1)
        parts = []
        for paths in self.paths:
            values = torch.index_select(flat, 1, paths.flatten()).view(len(edge), *paths.shape)
            parts.append(functional.max_pool2d(values, (paths.shape[1], 1)).squeeze(2))
        return 1 - torch.cat(parts, dim=1)

    def loss(self, logits: Tensor, labels: Tensor, displacement: Tensor | None) -> Tensor:
        """Pair labels and the total loss of a batch."""
        masks = zip(*(self.pair_labels(image) for image in labels.numpy()), strict=True)
        background, foreground, negative = (torch.stack(list(mask)).to(logits.device) for mask in masks)
        a = self.affinity(torch.sigmoid(logits))
        alike, different = -torch.log(a + 1e-5), -torch.log(1 + 1e-5 - a)
        positive = (alike * background).sum() / (background.sum() + 1e-5) / 2
        positive = positive + (alike * foreground).sum() / (foreground.sum() + 1e-5) / 2
        total = (positive + (different * negative).sum() / (negative.sum() + 1e-5)) / 2
        if displacement is None:
            return total
        flat = displacement.flatten(2)
        there = flat.index_select(2, self.partners_t.flatten()).view(*flat.shape[:2], *self.partners.shape)
        difference = flat.index_select(2, self.source_t)[:, :, None] - there
        fg = ((difference - self.delta).abs() * foreground[:, None]).sum() / (2 * foreground.sum() + 1e-5)
        bg = (difference.abs() * background[:, None]).sum() / (2 * background.sum() + 1e-5)
        return total + (fg + bg) / 2


def scene(batch: int, grid: int) -> tuple[Tensor, Tensor, Tensor]:
    """Smooth regions as labels with an unsure band, logits and displacements like noise."""
    generator = torch.Generator().manual_seed(0)
    field = functional.interpolate(torch.rand(batch, 1, 6, 6, generator=generator), (grid, grid), mode="bicubic")[:, 0]
    labels = torch.zeros(batch, grid, grid, dtype=torch.uint8)
    labels[field > 0.45], labels[field > 0.5], labels[field > 0.75] = 255, 1, 2
    noise = torch.randn(batch, 3, grid, grid, generator=generator)
    return noise[:, :1].clone(), labels, 5 * noise[:, 1:]


def step(loss: Callable[..., Tensor], inputs: list[Tensor], labels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients."""
    leaves = [values.detach().requires_grad_() for values in inputs]
    value = loss(leaves[0], labels, leaves[1] if len(leaves) > 1 else None)
    return value.detach(), list(torch.autograd.grad(value, leaves))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("batch", 2), ("grid", 128), ("radius", 10), ("threads", 1), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logits, labels, displacement = scene(options.batch, options.grid)
    published = PublishedWay(options.grid, options.radius, options.device)

    def ours(logits: Tensor, labels: Tensor, displacement: Tensor | None) -> Tensor:
        return irnet_losses(logits, labels.to(logits.device), displacement, radius=options.radius)["loss"]

    print(f"batch {options.batch}, grid {options.grid}, radius {options.radius}, {options.threads} thread(s)")
    for title, values in (("boundary only", [logits]), ("boundary and displacement", [logits, displacement])):
        inputs = [value.to(options.device) for value in values]
        times: dict[str, float] = {}
        results = {}
        for _ in range(options.repeats):  # turn by turn: a busy machine slows both
            for name, loss in (("published", published.loss), ("ours", ours)):
                begin = time.perf_counter()
                value, gradients = step(loss, inputs, labels)
                results[name] = [value.cpu(), *(gradient.cpu() for gradient in gradients)]
                times[name] = min(times.get(name, float("inf")), time.perf_counter() - begin)
        apart = max(
            float((a - b).abs().max() / b.abs().max())
            for a, b in zip(results["ours"], results["published"], strict=True)
        )
        print(
            f"{title:<28} published {times['published']:.3f} s, ours {times['ours']:.3f} s, "
            f"step rate x {times['published'] / times['ours']:.1f}, largest relative difference {apart:.1e}"
        )
        if not apart < 1e-4:
            raise SystemExit("the two ways differ")


if __name__ == "__main__":
    main()
