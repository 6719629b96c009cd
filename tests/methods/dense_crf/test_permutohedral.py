"""The compiled lattice: the same numbers whatever the threads, the keys, and the width of the rows."""

from __future__ import annotations

import numpy as np
import pytest

from tagmask.methods.dense_crf.lattice import geometry as lattice_geometry
from tagmask.methods.dense_crf.lattice.filter import Lattice, Team
from tagmask.methods.dense_crf.mean_field import Pairwise


def picture(height, width, seed=0):
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width] // 2 + generator.integers(
        0, 9, (height, width, 3), np.uint8
    )


KERNELS = [Pairwise(3, 3), Pairwise(40, 10, 9)]


def built(image, threads=1, kernels=KERNELS):
    with Team(threads) as team:
        return Lattice.of([kernel.features(image) for kernel in kernels], [kernel.compat for kernel in kernels], team)


def arrays(lattice):
    return [
        lattice.vertices,
        lattice.weights,
        *lattice.neighbours,
        lattice.starts,
        lattice.points,
        lattice.splat_weights,
    ]


@pytest.mark.parametrize("threads", [2, 5])
def test_the_same_lattice_whatever_the_threads(threads):
    image = picture(67, 90)
    for one, other in zip(arrays(built(image)), arrays(built(image, threads)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_arbitrary_keys_number_the_same_vertices(monkeypatch):
    image = picture(40, 50)
    exact = built(image)
    monkeypatch.setattr(lattice_geometry, "_LARGEST", 1)
    for one, other in zip(arrays(exact), arrays(built(image)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_kernel_too_narrow_for_exact_keys():
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    lattice = built(image, kernels=[Pairwise(0.01, 1, 0.01)])
    assert lattice.begins[-1] == 9 * 11 * 6  # no two pixels meet


def test_neighbours_are_mutual():
    for pairs in built(picture(30, 40)).neighbours:
        there = np.flatnonzero(pairs[:, 0] < len(pairs))
        np.testing.assert_array_equal(pairs[pairs[there, 0], 1], there)


@pytest.mark.parametrize("width", [4, 12, 28, 56])
def test_one_round_is_the_sums_written_out(width):
    image = picture(20, 30)
    lattice, generator = built(image), np.random.default_rng(1)
    q = generator.random((600, width), np.float32)
    negative = generator.random((600, width), np.float32)
    m, entries = lattice.begins[-1], np.repeat(np.arange(lattice.begins[-1]), np.diff(lattice.starts))
    values = np.zeros((m + 1, width))
    np.add.at(values, entries, lattice.splat_weights[:, None] * q[lattice.points])
    for begin, end in zip(lattice.begins, lattice.begins[1:], strict=False):
        for pairs in lattice.neighbours:
            if len(pairs) >= end:
                values[begin:end] += 0.5 * values[pairs[begin:end]].sum(1)
    energy = negative + (values[lattice.vertices] * lattice.weights[..., None]).sum(1)
    expected = np.exp(energy - energy.max(1, keepdims=True))
    with Team(2) as team:
        blurred = lattice.blurred(q, lattice.buffers(width), team)
        np.testing.assert_allclose(blurred, values, rtol=1e-4, atol=1e-4)
        out = np.empty_like(q)
        lattice.update(blurred, negative, out, team)
    np.testing.assert_allclose(out, expected / expected.sum(1, keepdims=True), rtol=1e-3, atol=1e-5)


def test_rows_of_one_are_normalised():
    """In one colour and wide, a filter is a mean over the image, and that of ones is one."""
    lattice = built(np.full((30, 30, 3), 90, np.uint8), kernels=[Pairwise(200, 1, 50)])
    with Team(1) as team:
        blurred = lattice.blurred(np.ones((900, 4), np.float32), lattice.buffers(4), team)
    sums = (blurred[lattice.vertices, 0] * lattice.weights).sum(1)
    np.testing.assert_allclose(sums, 1, atol=0.05)
