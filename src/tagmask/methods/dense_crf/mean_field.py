"""Mean field inference of a fully connected CRF with Gaussian kernels (docs/methods/dense-crf.md).

Q <- softmax(-U + sum of the kernels' messages), all pixels at once; the message of a pixel to itself is included,
every kernel is normalised symmetrically, Potts messages are added. The kernels are summed over the permutohedral
lattice: compiled for the CPU (``lattice.filter``, imported with its compiler when first used), where
the result does not depend on the number of threads, to the bit; in torch (``lattice.in_torch``) for
other devices.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tagmask.types import UInt8Array

Backend = Literal["auto", "compiled", "torch"]

_NEVER = -1e30  # energy of the columns that fill a row up to whole vectors


@dataclass(frozen=True)
class Pairwise:
    """One kernel: position, and colour if ``srgb`` is given.

    ``compat`` is a Potts weight w (w for every two labels that differ), or a matrix [C, C] of what two labels cost.
    """

    sxy: float
    compat: float | NDArray[np.floating]
    srgb: float | None = None

    def __post_init__(self) -> None:
        if not self.sxy > 0 or (self.srgb is not None and not self.srgb > 0) or not np.isfinite(self.compat).all():
            msg = f"the widths of a CRF's kernel must be positive and its weights finite, got {self}"
            raise ValueError(msg)

    def features(self, image: UInt8Array) -> NDArray[np.float32]:
        """float32 [H * W, 2 or 5]: x and y, and the colours, each in units of its width."""
        y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
        planes = [x / np.float32(self.sxy), y / np.float32(self.sxy)]
        if self.srgb is not None:
            planes += [image[..., c] / np.float32(self.srgb) for c in range(3)]
        return np.stack([plane.ravel() for plane in planes]).astype(np.float32, copy=False).T

    def mixing(self, width: int) -> NDArray[np.float32] | None:
        """What messages of ``width`` labels are multiplied by, [width, width]; None for a Potts weight."""
        # Potts: equal labels cost nothing, others w. Adding w to the label that is equal is the same up to a constant,
        # which softmax does not see, so the weight needs no matrix.
        if np.ndim(self.compat) == 0:
            return None
        matrix = np.zeros((width, width), np.float32)
        n = len(self.compat)  # type: ignore[arg-type]
        matrix[:n, :n] = -np.asarray(self.compat).T
        return matrix


def _threads() -> int:
    """As many as torch uses; one in a thread that is already one of several."""
    return torch.get_num_threads() if threading.current_thread() is threading.main_thread() else 1


def _compiled(image: UInt8Array, unary: NDArray[np.float32], kernels: list[Pairwise], iterations: int,
              threads: int) -> NDArray[np.float32]:  # fmt: skip
    """Mean field on the CPU: [C, n] -> [C, n]."""
    from tagmask.methods.dense_crf.lattice import rows
    from tagmask.methods.dense_crf.lattice.filter import Lattice, Team

    n_labels, n = unary.shape
    # Rows of whole vectors of 4; the filling columns never get probability.
    width = n_labels + -n_labels % 4
    negative, q = np.empty((n, width), np.float32), np.empty((n, width), np.float32)
    mixing = [kernel.mixing(width) for kernel in kernels]
    weights = [1.0 if np.ndim(kernel.compat) else float(kernel.compat) for kernel in kernels]
    with Team(threads) as team:
        team.run(lambda a, b: rows.start(unary, np.float32(_NEVER), negative, q, a, b), team.split(n))
        lattice = Lattice.of([kernel.features(image) for kernel in kernels], weights, team)
        buffers = lattice.buffers(width)
        for _ in range(iterations):
            blurred = lattice.blurred(q, buffers, team)
            lattice.mix(blurred, mixing, team)
            lattice.update(blurred, negative, q, team)
        # The largest arrays go before the result is made: the peak of memory is here.
        del buffers, lattice
        out = np.empty((n_labels, n), np.float32)
        team.run(lambda a, b: rows.planes(q, out, a, b), team.split(n))
    return out


def _in_torch(image: UInt8Array, unary: Tensor, kernels: list[Pairwise], iterations: int) -> Tensor:
    """Mean field where ``unary`` [C, n] is: [C, n]."""
    from tagmask.methods.dense_crf.lattice.in_torch import TorchLattice

    lattices = [TorchLattice.of(torch.from_numpy(kernel.features(image)).to(unary.device)) for kernel in kernels]
    mixing = [kernel.mixing(len(unary)) for kernel in kernels]
    negative = -unary.T.contiguous()
    q = torch.softmax(negative, dim=1)
    for _ in range(iterations):
        energy = negative.clone()
        for lattice, kernel, matrix in zip(lattices, kernels, mixing, strict=True):
            if matrix is None:
                energy.add_(lattice(q), alpha=float(kernel.compat))
            else:
                energy += lattice(q) @ torch.from_numpy(matrix).to(unary.device)
        q = torch.softmax(energy, dim=1)
    return q.T.contiguous()


def _checked_image(image: UInt8Array | Tensor, unary: Tensor) -> UInt8Array:
    pixels = np.ascontiguousarray(image.cpu().numpy() if isinstance(image, Tensor) else image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        msg = f"the image must be uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}"
        raise ValueError(msg)
    if unary.ndim != 3 or not len(unary) or tuple(unary.shape[1:]) != pixels.shape[:2]:
        msg = f"dense CRF: planes {list(unary.shape)} do not fit the image {list(pixels.shape)}: wanted [C, H, W]"
        raise ValueError(msg)
    return pixels


@torch.no_grad()
def mean_field(
    image: UInt8Array | Tensor,
    unary: Tensor,
    kernels: Sequence[Pairwise],
    *,
    iterations: int = 10,
    threads: int | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Mean field of a fully connected CRF with any number of kernels.

    Args:
        image: uint8 [H, W, 3], true colours; H * W times the sum of the kernels' dimensions + 1 must be below 2^32.
        unary: [C, H, W] float, what each label costs at each pixel (minus the log of its probability).
        kernels: what it costs that two pixels differ. Without any (or with weights 0 alone): softmax(-unary).
        iterations: updates of all pixels in parallel.
        threads: of ``compiled``; the result does not depend on it. Default: as many as torch uses, 1 outside the main
            thread.
        backend: ``compiled`` (on the CPU), ``torch`` (on the device of ``unary``), or ``auto``: compiled for tensors on
            the CPU, torch for others.

    Returns:
        float32 [C, H, W] on the device of ``unary``, sum 1 over labels. One label alone: all ones.

    Raises:
        ValueError: not a uint8 RGB image, shapes that do not fit, NaN or infinity, iterations < 0, or no such backend.
    """
    if backend not in ("auto", "compiled", "torch"):
        msg = f"dense CRF: backend must be auto, compiled or torch, got '{backend}'"
        raise ValueError(msg)
    pixels, costs, n_labels = _checked_image(image, unary), unary.float(), len(unary)
    # numpy on the CPU: torch would wake its threads for it
    finite = torch.isfinite(costs).all() if costs.device.type != "cpu" else np.isfinite(costs.numpy()).all()
    if iterations < 0 or not finite:
        msg = f"dense CRF: planes must be finite and iterations not negative (iterations {iterations})"
        raise ValueError(msg)
    for kernel in kernels:
        if np.ndim(kernel.compat) and np.shape(kernel.compat) != (n_labels, n_labels):
            msg = f"a matrix of compatibilities must be [{n_labels}, {n_labels}], got {list(np.shape(kernel.compat))}"
            raise ValueError(msg)
    active = [kernel for kernel in kernels if np.any(kernel.compat)]
    if not active or not iterations or n_labels == 1:
        return torch.softmax(-costs, dim=0)
    if backend == "torch" or (backend == "auto" and costs.device.type != "cpu"):
        return _in_torch(pixels, costs.flatten(1), active, iterations).view(unary.shape)
    q = _compiled(pixels, costs.flatten(1).contiguous().cpu().numpy(), active, iterations, threads or _threads())
    return torch.from_numpy(q).view(unary.shape).to(unary.device)
