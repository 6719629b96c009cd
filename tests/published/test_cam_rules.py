"""CAM, IRNet's rule for scales and flips, and the background plane: against the formulas, in float64 or by counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formulas import bilinear, close, drawn
from tagmask.functional import cam, maps_to_labels, merge_scales, normalize_maps, upsample_maps
from tagmask.ops.views import image_and_mirror, merge_flips, strided_size
from tagmask.types import IMAGENET, InputStatistics

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 6))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def responses(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    batch, channels, height, width = features.shape
    result = np.zeros((batch, len(weights), height, width))
    for b in range(batch):
        for c in range(len(weights)):
            for y in range(height):
                for x in range(width):
                    value = sum(weights[c, d] * features[b, d, y, x] for d in range(channels))
                    result[b, c, y, x] = max(0.0, value)
    return result


def test_cam_is_the_rectified_product_of_weights_and_features() -> None:
    features, weights = drawn(1, 2, 5, 3, 4), drawn(2, 3, 5, low=-1)
    result = cam(torch.from_numpy(features), torch.from_numpy(weights))
    close(result, responses(features, weights))
    assert (result == 0).any(), "the case must exercise the ReLU"
    assert (result > 0).any()


def test_the_bias_is_added_before_the_relu() -> None:
    features, weights, bias = drawn(3, 1, 4, 2, 3), drawn(4, 2, 4, low=-1), np.array([-0.4, 0.3])
    ones = np.concatenate([features, np.ones((1, 1, 2, 3))], axis=1)
    close(
        cam(*map(torch.from_numpy, (features, weights, bias))),
        responses(ones, np.concatenate([weights, bias[:, None]], 1)),
    )


@given(st.integers(0, 10_000), st.permutations(range(4)), st.floats(0.01, 50))
def test_classes_permute_the_scale_factors_out_and_a_mirror_mirrors(seed: int, order: list[int], factor: float) -> None:
    features, weights = torch.from_numpy(drawn(seed, 2, 3, 3, 5)), torch.from_numpy(drawn(seed + 1, 4, 3, low=-1))
    plain = cam(features, weights)
    close(cam(features, weights[order]), plain[:, order].numpy())
    close(cam(factor * features, weights), (factor * plain).numpy())
    close(cam(features.flip(-1), weights), plain.flip(-1).numpy())
    close(cam(features[1:], weights), plain[1:].numpy())


def test_the_mean_response_of_a_head_without_bias_is_its_logit() -> None:
    features, weights = drawn(7, 3, 6, 4, 4), drawn(8, 2, 6)  # positive: the ReLU does nothing
    close(
        cam(torch.from_numpy(features), torch.from_numpy(weights)).mean((2, 3)),
        features.mean((2, 3)) @ weights.T,
    )


@given(st.integers(0, 10_000), st.floats(0.1, 100))
def test_normalised_maps_are_divided_by_their_maximum_plus_epsilon(seed: int, factor: float) -> None:
    maps = factor * drawn(seed, 3, 4, 5)
    maps[1] = 0
    expected = np.stack([one / (one.max() + 1e-5) for one in maps])
    result = normalize_maps(torch.from_numpy(maps))
    close(result, expected)
    assert float(result.max()) < 1
    assert not result[1].any()


def test_normalising_is_not_stretching_from_the_minimum() -> None:
    close(normalize_maps(torch.tensor([[[1.0, 2.0]]], dtype=torch.float64)), [[[1 / 2.00001, 2 / 2.00001]]])


@pytest.mark.parametrize("image_size", [(16, 16), (17, 30), (33, 9), (375, 500)])
def test_strided_sizes_are_rounded_up(image_size: tuple[int, int]) -> None:
    assert strided_size(image_size) == tuple(-(-side // 4) for side in image_size)


def merged(per_scale: list[np.ndarray], image_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Both products of IRNet's rule: stretched to the strided size; resized to the next multiple of 16 and cut."""
    height, width = image_size
    strided = sum(bilinear(maps, (-(-height // 4), -(-width // 4))) for maps in per_scale)
    aligned = (16 * -(-height // 16), 16 * -(-width // 16))
    full = sum(bilinear(maps, aligned) for maps in per_scale)[:, :height, :width]
    return tuple(np.stack([one / (one.max() + 1e-5) for one in maps]) for maps in (strided, full))


@pytest.mark.parametrize("image_size", [(17, 30), (32, 16), (20, 21)])
def test_scales_are_resized_summed_and_only_then_normalised(image_size: tuple[int, int]) -> None:
    # Heights differ by scale: a rule that normalises each scale gives other maps.
    per_scale = [drawn(1, 2, 3, 4) * 5, drawn(2, 2, 2, 2), drawn(3, 2, 4, 5) * 0.1]
    strided, full = merge_scales([torch.from_numpy(maps) for maps in per_scale], image_size)
    expected = merged(per_scale, image_size)
    close(strided, expected[0], 1e-6)
    close(full, expected[1], 1e-6)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.permutations(range(3)))
def test_the_order_of_scales_and_the_unit_of_maps_do_not_count(seed: int, order: list[int]) -> None:
    per_scale = [torch.from_numpy(drawn(seed + i, 2, 2 + i, 3)) + 0.1 for i in range(3)]
    first = merge_scales(per_scale, (21, 18))
    for one, other in zip(first, merge_scales([1000 * per_scale[i] for i in order], (21, 18)), strict=True):
        close(other, one.numpy(), 2e-4)  # 1e-5 beside the maximum is all that the unit can change
    for one, other in zip(first, merge_scales([maps[:1] for maps in per_scale], (21, 18)), strict=True):
        close(other, one[:1].numpy(), 0)


def test_maps_of_a_mirror_are_turned_back_before_they_are_merged() -> None:
    pair = drawn(4, 2, 3, 2, 5)
    back = pair[1][..., ::-1]
    close(merge_flips(torch.from_numpy(pair)), pair[0] + back)
    close(merge_flips(torch.from_numpy(pair), "max"), np.maximum(pair[0], back))
    close(merge_flips(torch.from_numpy(pair[:1])), pair[0])


@pytest.mark.parametrize("statistics", [InputStatistics(MEAN, STD), InputStatistics((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))])
def test_the_second_view_is_the_mirror_of_the_first_both_normalised(statistics: InputStatistics) -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    pair = image_and_mirror(image, 1.0, flip=True, statistics=statistics)
    expected = ((image / 255.0) - np.array(statistics.mean)) / np.array(statistics.std)
    close(pair[0], expected.transpose(2, 0, 1), 1e-6)
    close(pair[1], expected[:, ::-1].transpose(2, 0, 1), 1e-6)


def test_backbones_see_imagenets_statistics_unless_they_say_otherwise() -> None:
    close(IMAGENET.mean, MEAN)
    close(IMAGENET.std, STD)


@pytest.mark.parametrize(("scale", "size"), [(0.5, (2, 4)), (1.5, (8, 14)), (2.0, (10, 18))])
def test_scaled_sides_are_rounded_half_to_even(scale: float, size: tuple[int, int]) -> None:
    image = np.zeros((5, 9, 3), np.uint8)
    assert tuple(image_and_mirror(image, scale, flip=False, statistics=IMAGENET).shape[2:]) == size


@given(SIZES, SIZES, st.integers(0, 1000))
def test_upsampling_is_bilinear_with_half_pixel_centres(small: tuple[int, int], large: tuple[int, int], seed: int
                                                        ) -> None:  # fmt: skip
    maps = drawn(seed, 2, *small)
    close(upsample_maps(torch.from_numpy(maps), large), bilinear(maps, large), 1e-6)


def label_of(scores: list[float], names: list[int], low: list[float], high: list[float]) -> int:
    """The plane of thresholds first: what does not exceed its own is out, the first of the highest wins."""
    best, winner = -1.0, 0
    for k, score in enumerate(scores):
        if score > low[k] and score > best:
            best, winner = score, k + 1
    if winner == 0:
        return 0
    return names[winner - 1] if best > high[winner - 1] else 255


GRID = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])  # ties with thresholds and among maps come often


@given(st.lists(st.lists(GRID, min_size=3, max_size=3), min_size=1, max_size=8), GRID)
def test_a_pixel_is_foreground_where_a_map_exceeds_the_threshold(pixels: list[list[float]], threshold: float) -> None:
    maps = torch.tensor(pixels).T[:, None]
    expected = [label_of(scores, [7, 2, 9], [threshold] * 3, [threshold] * 3) for scores in pixels]
    assert maps_to_labels(maps, [7, 2, 9], threshold)[0].tolist() == expected


@given(
    st.lists(st.lists(GRID, min_size=3, max_size=3), min_size=1, max_size=8),
    st.lists(st.tuples(GRID, GRID), min_size=3, max_size=3),
)
def test_bands_and_thresholds_of_each_class(pixels: list[list[float]], bands: list[tuple[float, float]]) -> None:
    low, high = [min(band) for band in bands], [max(band) for band in bands]
    expected = [label_of(scores, [1, 2, 3], low, high) for scores in pixels]
    assert maps_to_labels(torch.tensor(pixels).T[:, None], [1, 2, 3], (low, high))[0].tolist() == expected
