"""SSA (Sun and Li, arXiv 2021), equations 2 to 8, entry by entry: the structure, and maps guided by two stages."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from formulas import bilinear, close, drawn
from tagmask.functional import semantic_structure, ssa
from tagmask.methods.ssa import semantic_structure as module
from tagmask.methods.ssa.localizer import guided
from tagmask.methods.ssa.semantic_structure import polish

NORMS = ("channel_l2", "spatial_l2", "spatial_sqrt")


def normalised(features: np.ndarray, norm: str) -> np.ndarray:
    """Equation 2 and its two readings that fit what follows; features [D, n]."""
    result = np.zeros_like(features)
    depth, n = features.shape
    for d, p in product(range(depth), range(n)):
        if norm == "channel_l2":
            length = math.sqrt(sum(features[e, p] ** 2 for e in range(depth)))
        elif norm == "spatial_l2":
            length = math.sqrt(sum(features[d, q] ** 2 for q in range(n)))
        else:
            length = math.sqrt(sum(max(0.0, features[d, q]) for q in range(n)))
        value = max(0.0, features[d, p]) if norm == "spatial_sqrt" else features[d, p]
        result[d, p] = value / (length + 1e-10)
    return result


def columns_to_one(matrix: np.ndarray) -> np.ndarray:
    result = np.zeros_like(matrix)
    for b in range(len(matrix)):
        total = sum(matrix[:, b])
        for a in range(len(matrix)):
            result[a, b] = matrix[a, b] / (total + 1e-10)
    return result


def structure(features: np.ndarray, blocks: int = 2, norm: str = "channel_l2", epsilon: Any = "identity",
              clip: bool = False) -> np.ndarray:  # fmt: skip
    """Equations 2 to 6."""
    unit = normalised(features.reshape(len(features), -1), norm)
    n = unit.shape[1]
    first = np.zeros((n, n))
    for a, b in product(range(n), range(n)):
        alike = float(unit[:, a] @ unit[:, b])
        if epsilon != "identity":
            alike -= epsilon
        elif a == b:
            alike = 0.0 if norm == "channel_l2" else alike - 1
        if clip:
            alike = max(0.0, alike)
        first[a, b] = math.tanh(alike) * alike
    result = columns_to_one(first)
    for _ in range(blocks - 1):
        second = np.zeros((n, n))
        for a, b in product(range(n), range(n)):
            # The diagonal is at most 1, which the ReLU takes away.
            second[a, b] = 0.0 if a == b else max(0.0, float(result[:, a] @ result[:, b]))
        result = columns_to_one(second)
    return result


def polished(maps: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """C S: the map from the left, so that each column's weights average it."""
    flat = maps.reshape(len(maps), -1)
    result = np.zeros_like(flat)
    for k, b in product(range(len(flat)), range(flat.shape[1])):
        result[k, b] = sum(flat[k, a] * matrix[a, b] for a in range(flat.shape[1]))
    return result.reshape(maps.shape)


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("epsilon", ["identity", 0.1])
def test_the_structure_is_that_of_equations_2_to_6(blocks: Any, norm: Any, epsilon: Any) -> None:
    features = drawn(blocks, 4, 3, 2)
    result = semantic_structure(torch.from_numpy(features), blocks=blocks, norm=norm, epsilon=epsilon)
    close(result, structure(features, blocks, norm, epsilon), 1e-8)


@pytest.mark.parametrize("clip", [False, True])
def test_opposite_features_count_as_alike_unless_they_are_clipped(clip: bool) -> None:
    features = drawn(3, 4, 3, 2, low=-1)
    result = semantic_structure(torch.from_numpy(features), clip=clip)
    close(result, structure(features, clip=clip), 1e-8)
    assert not np.allclose(result, structure(features, clip=not clip)), "signed features make a difference"


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("held", [True, False])
def test_the_fast_form_averages_by_the_same_structure(
    blocks: Any, norm: Any, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not held:  # two rows at a time
        monkeypatch.setattr(module, "HELD", 14)
    features, maps = drawn(11, 5, 2, 3), drawn(12, 2, 2, 3) * 3
    result = polish(torch.from_numpy(maps), torch.from_numpy(features), blocks=blocks, norm=norm)
    close(result, polished(maps, structure(features, blocks, norm)), 1e-7)


def guided_by_hand(maps: np.ndarray, fourth: np.ndarray, fifth: np.ndarray, guidance: str) -> np.ndarray:
    """Equation 8 and our readings of the guidance: SM = clamp(CP, 0, 1) of one stage on the other."""
    cp4, cp5 = polished(maps, fourth), polished(maps, fifth)
    sm4, sm5 = np.clip(cp4, 0, 1), np.clip(cp5, 0, 1)
    if guidance == "cross_gate":
        return sm4 * cp5 + sm5 * cp4
    if guidance == "cross_seed":
        return polished(sm4 * maps, fifth) + polished(sm5 * maps, fourth)
    if guidance == "cross_replace":
        return polished(sm4, fifth) + polished(sm5, fourth)
    return cp4 + cp5


@pytest.mark.parametrize("guidance", ["cross_gate", "cross_seed", "cross_replace", "none"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_two_stages_guide_each_other(guidance: Any, blocks: Any) -> None:
    # One class above 1 everywhere, one on both sides, one below: the clamp is met.
    maps = np.array([4.0, 2.0, 0.6])[:, None, None] * drawn(1, 3, 2, 3)
    fourth, fifth = drawn(2, 6, 4, 6), drawn(3, 3, 2, 3)
    result = ssa(*map(torch.from_numpy, (maps, fourth, fifth)), guidance=guidance, blocks=blocks)
    small = bilinear(fourth, (2, 3))
    stages = structure(small, blocks), structure(fifth, blocks)
    assert polished(maps, stages[0]).max() > 1 > polished(maps, stages[0]).min()
    close(result, guided_by_hand(maps, *stages, guidance), 1e-6)


def test_with_three_stages_each_is_guided_by_the_mean_of_the_others() -> None:
    maps = torch.from_numpy(3 * drawn(4, 1, 2, 2))
    matrices = [torch.from_numpy(structure(drawn(5 + i, 3, 2, 2))) for i in range(3)]

    def stage(matrix: Tensor) -> Any:
        return lambda seeds: (seeds.flatten(1) @ matrix).view_as(seeds)

    cp = [(maps.flatten(1) @ matrix).view_as(maps) for matrix in matrices]
    sm = [one.clamp(0, 1) for one in cp]
    expected = sum(cp[i] * (sm[(i + 1) % 3] + sm[(i + 2) % 3]) / 2 for i in range(3))
    close(guided(maps, [stage(matrix) for matrix in matrices], "cross_gate"), expected.numpy())
    close(guided(maps, [stage(matrices[0])], "cross_gate"), cp[0].numpy())


@settings(max_examples=25)
@given(st.integers(0, 5000), st.floats(0.1, 100), st.permutations(range(2)))
def test_the_structure_does_not_see_the_length_of_features_nor_the_order_of_classes(
    seed: int, factor: float, order: list[int]
) -> None:
    maps, features = torch.from_numpy(drawn(seed, 2, 2, 3)), torch.from_numpy(drawn(seed + 1, 3, 2, 3) + 0.05)
    lengths = torch.from_numpy(drawn(seed + 2, 2, 3, low=0.1, high=9))
    plain = polish(maps, features)
    close(polish(maps, features * lengths), plain.numpy(), 1e-6)
    close(polish(factor * maps, features), factor * plain.numpy(), 1e-6)
    close(polish(maps[order], features), plain[order].numpy(), 1e-9)
    close(polish(maps.flip(-1), features.flip(-1)), plain.flip(-1).numpy(), 1e-6)
    matrix = semantic_structure(features)
    close(matrix.sum(0), np.ones(6), 1e-6)
    assert not matrix.diagonal().any()
    assert float(plain.max()) <= float(maps.max()) + 1e-9
