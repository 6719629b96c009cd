"""Offsets, paths, path maxima and pair kinds, against IRNet's tables, hand figures and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagmask.ops import pixel_pairs


def test_counts():
    assert len(pixel_pairs.stencil_offsets(5)) == 34
    assert len(pixel_pairs.stencil_offsets(10)) == 152
    assert sum(len(pixel_pairs.path_points(offset)) for offset in pixel_pairs.stencil_offsets(5)) == 242
    assert sum(len(pixel_pairs.path_points(offset)) for offset in pixel_pairs.stencil_offsets(10)) == 2134
    assert max(len(pixel_pairs.path_points(offset)) for offset in pixel_pairs.stencil_offsets(10)) == 22


def test_hand_paths():
    assert set(pixel_pairs.path_points((2, 1))) == {(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)}
    assert set(pixel_pairs.path_points((1, -2))) == {(0, 0), (0, -1), (0, -2), (1, 0), (1, -1), (1, -2)}
    wanted = {(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (2, 2), (3, 1), (3, 2)}
    assert set(pixel_pairs.path_points((3, 2))) == wanted


def test_runs_are_the_points():
    for offset in pixel_pairs.stencil_offsets(12):
        points = [
            (run.y, run.x + i) if run.across else (run.y + i, run.x)
            for run in pixel_pairs.path_runs(offset)
            for i in range(run.length)
        ]
        assert sorted(points) == sorted(pixel_pairs.path_points(offset))


@pytest.mark.parametrize("radius", [5, 10])
def test_golden_index(golden, radius):
    stored = golden("irn_affinity_index")
    prefix = f"r{radius}_"
    height, width = stored[prefix + "grid_size"].tolist()
    offsets = pixel_pairs.stencil_offsets(radius)
    published = [tuple(offset) for offset in stored[prefix + "search_dst_yx"].tolist()]
    assert sorted(offsets) == sorted(published)

    groups = [stored[key] for key in sorted(stored) if key.startswith(prefix + "search_paths")]
    for path in (path for group in groups for path in group):
        assert {tuple(point) for point in path.tolist()} == set(pixel_pairs.path_points(tuple(path[0].tolist())))

    sources = pixel_pairs.source_region(height, width, radius)
    grid = torch.arange(height * width).view(height, width)
    assert sources.of(grid).flatten().tolist() == stored[prefix + "src_indices"].tolist()
    for row, offset in enumerate(published):
        assert sources.of(grid, *offset).flatten().tolist() == stored[prefix + "dst_indices"][row].tolist()

    maxima = pixel_pairs.PathMaxima(torch.as_tensor(stored[prefix + "edge"]), radius)
    affinity = torch.stack([1 - maxima.of(offset, sources).flatten(1) for offset in published], dim=1)
    np.testing.assert_array_equal(affinity.numpy(), stored[prefix + "expected_affinity"])


@settings(max_examples=25)
@given(st.integers(2, 6), st.integers(0, 4), st.integers(0, 4), st.integers(0, 10**6))
def test_path_maxima_are_brute_force(radius, more_rows, more_columns, seed):
    height, width = radius + more_rows, 2 * radius - 1 + more_columns
    values = torch.randint(0, 50, (height, width), generator=torch.Generator().manual_seed(seed))
    sources = pixel_pairs.source_region(height, width, radius)
    maxima = pixel_pairs.PathMaxima(values, radius)
    for offset in pixel_pairs.stencil_offsets(radius):
        found = maxima.of(offset, sources)
        for y in range(sources.height):
            for x in range(sources.width):
                on_path = [values[y + dy, sources.left + x + dx] for dy, dx in pixel_pairs.path_points(offset)]
                assert found[y, x] == max(on_path)


def test_maxima_where_the_grid_is_smaller_than_a_path():
    maxima = pixel_pairs.PathMaxima(torch.tensor([[1, 5, 2]]), radius=5)
    assert maxima.of((0, 2), pixel_pairs.Region(0, 0, 1, 1)).tolist() == [[5]]


def test_kinds_of_a_hand_example():
    # The one source is (0, 1); its partners are right of it, and left below, below and right below.
    kinds = pixel_pairs.pair_kinds(torch.tensor([[[9, 0, 0], [0, 255, 3]]], dtype=torch.uint8), radius=2)
    wanted = [pixel_pairs.BACKGROUND_PAIR, pixel_pairs.BACKGROUND_PAIR, pixel_pairs.NO_PAIR, pixel_pairs.NEGATIVE_PAIR]
    assert kinds.flatten().tolist() == wanted
    kinds = pixel_pairs.pair_kinds(torch.tensor([[[9, 3, 0], [0, 3, 255]]], dtype=torch.uint8), radius=2)
    wanted = [pixel_pairs.NEGATIVE_PAIR, pixel_pairs.NEGATIVE_PAIR, pixel_pairs.FOREGROUND_PAIR, pixel_pairs.NO_PAIR]
    assert kinds.flatten().tolist() == wanted
    assert (pixel_pairs.pair_kinds(torch.tensor([[[0, 255, 0], [0, 0, 3]]]), radius=2) == pixel_pairs.NO_PAIR).all()


def test_golden_kinds(golden):
    stored = golden("irn_affinity_loss")
    published = [tuple(offset) for offset in golden("irn_affinity_index")["r10_search_dst_yx"].tolist()]
    order = [pixel_pairs.stencil_offsets(10).index(offset) for offset in published]
    kinds = pixel_pairs.pair_kinds(torch.as_tensor(stored["label_map"]), 10)[:, order].flatten(2).numpy()
    np.testing.assert_array_equal(kinds == pixel_pairs.BACKGROUND_PAIR, stored["expected_bg_positive"].astype(bool))
    np.testing.assert_array_equal(kinds == pixel_pairs.FOREGROUND_PAIR, stored["expected_fg_positive"].astype(bool))
    np.testing.assert_array_equal(kinds == pixel_pairs.NEGATIVE_PAIR, stored["expected_negative"].astype(bool))


@pytest.mark.parametrize(("label", "kind"), [(0, "BACKGROUND_PAIR"), (7, "FOREGROUND_PAIR"), (255, "NO_PAIR")])
def test_one_label_only(label, kind):
    kinds = pixel_pairs.pair_kinds(torch.full((2, 7, 11), label, dtype=torch.uint8), radius=4)
    assert kinds.shape == (2, len(pixel_pairs.stencil_offsets(4)), 4, 5)
    assert (kinds == getattr(pixel_pairs, kind)).all()


def test_bad_sizes():
    with pytest.raises(ValueError, match="radius must be at least 2"):
        pixel_pairs.stencil_offsets(1)
    with pytest.raises(ValueError, match="at least 10 x 19"):
        pixel_pairs.source_region(10, 18, 10)
    with pytest.raises(ValueError, match="at least 10 x 19"):
        pixel_pairs.pair_kinds(torch.zeros(1, 9, 30, dtype=torch.uint8), 10)
    assert pixel_pairs.source_region(10, 19, 10) == (0, 9, 1, 1)


def test_rows_cover_the_offsets():
    offsets = pixel_pairs.stencil_offsets(6)
    assert [offset for row in pixel_pairs.by_rows(offsets) for offset in row] == offsets
