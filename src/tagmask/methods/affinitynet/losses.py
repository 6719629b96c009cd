"""AffinityNet's maths: what its network learns from, its loss, and the random walk over what it predicts.

Source: Ahn and Kwak, "Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly Supervised
Semantic Segmentation", CVPR 2018; the published code is jiwoon-ahn/psa (``network/
resnet38_aff``, ``tool/pyutils`` and ``voc12/data.ExtractAffinityLabelInRadius``); docs/methods/affinitynet.md.

An affinity is stored as [P, n]: a row for every offset of ``stencil_offsets(radius)`` (34 for radius 5), a column
for every source, which are the pixels of rows 0..h-radius and columns radius-1..w-radius in row-major order. Only
there do all targets exist; unlike in IRNet's walk, two pixels of the same margin are not connected.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tagmask.ops.pixel_pairs import BACKGROUND_PAIR, FOREGROUND_PAIR, NEGATIVE_PAIR, pair_kinds, source_region
from tagmask.ops.random_walk import stencil_offsets, stencil_walk, working_dtype
from tagmask.types import BACKGROUND, IGNORE_INDEX

_OUTSIDE = 1e-5  # no plane this high: the crop reaches over the image here
_EPS = 1e-5


def affinity_labels(low: Tensor, high: Tensor) -> Tensor:
    """Labels that pairs are drawn from, by two CRFs over [background ** alpha, maps].

    A low alpha makes the background strong: what is foreground there is so for sure. A high one makes it weak:
    what is background there is so for sure, whatever the other says.

    Args:
        low: [..., K + 1, h, w] float, probabilities with the low alpha; background first, zeros outside the image.
        high: the same with the high alpha.

    Returns:
        int64 [..., h, w]: plane 1..K sure foreground, 0 sure background, 255 unsure or outside the image.

    Raises:
        ValueError: shapes differ, or a value is not finite.
    """
    if low.shape != high.shape or low.ndim < 3 or not low.shape[-3]:
        msg = f"two stacks of planes [..., K + 1, h, w] of one shape are needed: {list(low.shape)}, {list(high.shape)}"
        raise ValueError(msg)
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        msg = "the probabilities must be finite, got NaN or infinity"
        raise ValueError(msg)
    foreground, background = low.argmax(dim=-3), high.argmax(dim=-3)
    labels = torch.where(foreground == BACKGROUND, IGNORE_INDEX, foreground)
    # After the foreground, as published: where the two contradict each other, background has the last word.
    labels = torch.where(background == BACKGROUND, BACKGROUND, labels)
    outside = torch.maximum(low.amax(dim=-3), high.amax(dim=-3)) < _OUTSIDE
    return torch.where(outside, IGNORE_INDEX, labels)


class _Affinity(torch.autograd.Function):
    """exp(-mean over channels |x_i - x_j|); differences are made again in backward instead of kept, 34 times x."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, radius: int) -> Tensor:
        sources = source_region(features.shape[-2], features.shape[-1], radius)
        here, offsets = sources.of(features), stencil_offsets(radius)
        affinity = features.new_empty((len(features), len(offsets), sources.height, sources.width))
        for p, offset in enumerate(offsets):
            affinity[:, p] = torch.exp(-(here - sources.of(features, *offset)).abs_().mean(dim=1))
        ctx.save_for_backward(features, affinity)
        ctx.radius = radius
        return affinity.flatten(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        features, affinity = ctx.saved_tensors
        sources = source_region(features.shape[-2], features.shape[-1], ctx.radius)
        # d exp(-|x_i - x_j| / D) / dx_i = -a sign(x_i - x_j) / D, so the sign is all that must be made again.
        slope = grads[0].view_as(affinity) * affinity / -features.shape[1]
        here, total = sources.of(features), torch.zeros_like(features)
        for p, offset in enumerate(stencil_offsets(ctx.radius)):
            change = (here - sources.of(features, *offset)).sign_().mul_(slope[:, p, None])
            sources.of(total).add_(change)
            sources.of(total, *offset).sub_(change)
        return total, None


def feature_affinity(features: Tensor, *, radius: int = 5) -> Tensor:
    """Affinity of pixel pairs: exp(-mean over channels |x_i - x_j|). Differentiable once.

    Args:
        features: [B, D, h, w] float.
        radius: pairs closer than this.

    Returns:
        [B, P, n] in (0, 1], see the module.

    Raises:
        ValueError: radius < 2, or the grid is smaller than radius x (2 radius - 1).
    """
    affinity: Tensor = _Affinity.apply(features, radius)
    return affinity


def affinity_loss(affinity: Tensor, labels: Tensor, *, radius: int = 5) -> dict[str, Tensor]:
    """Cross entropy of pairs: alike within background and within a class, unlike across labels.

    Args:
        affinity: [B, P, n] of :func:`feature_affinity`.
        labels: int [B, h, w] of :func:`affinity_labels`; classes need only differ within an image.
        radius: that of ``affinity``.

    Returns:
        "loss": a quarter of "background" and of "foreground" and half of "negative", each the mean over its pairs of
        the whole batch (0 where there are none).

    Raises:
        ValueError: shapes do not fit.
    """
    kinds = pair_kinds(labels, radius).flatten(2)
    if kinds.shape != affinity.shape:
        msg = f"affinity {list(affinity.shape)} does not fit labels {list(labels.shape)}: wanted {list(kinds.shape)}"
        raise ValueError(msg)
    alike, unlike = -torch.log(affinity + _EPS), -torch.log(1 + _EPS - affinity)
    terms = {}
    for name, kind, values in (
        ("background", BACKGROUND_PAIR, alike),
        ("foreground", FOREGROUND_PAIR, alike),
        ("negative", NEGATIVE_PAIR, unlike),
    ):
        pairs = kinds == kind
        terms[name] = (values * pairs).sum() / (pairs.sum() + _EPS)
    loss = terms["background"] / 4 + terms["foreground"] / 4 + terms["negative"] / 2
    return {"loss": loss, **terms}


def walk_start(maps: Tensor, *, alpha: float = 16.0, stride: int = 8) -> Tensor:
    """Scores that the walk starts from: background and maps, averaged over the cells of the network's grid.

    Args:
        maps: [K, H, W] float in [0, 1], at the image's size.
        alpha: exponent on 1 - the highest map, which makes the background plane.
        stride: of the grid; the image is filled up with 0 on the right and at the bottom to a multiple of it.

    Returns:
        [K + 1, ceil(H / stride), ceil(W / stride)], background first.

    Raises:
        ValueError: not [K, H, W], or alpha <= 0.
    """
    if maps.ndim != 3 or alpha <= 0:
        msg = f"maps must be [K, H, W] and alpha positive, got {list(maps.shape)} and {alpha}"
        raise ValueError(msg)
    highest = maps.amax(dim=0, keepdim=True) if len(maps) else maps.new_zeros((1, *maps.shape[1:]))
    scores = torch.cat([(1 - highest) ** alpha, maps])
    padded = functional.pad(scores, (0, -maps.shape[2] % stride, 0, -maps.shape[1] % stride))
    return functional.avg_pool2d(padded[None], stride)[0]


def affinity_planes(affinity: Tensor, size: tuple[int, int], *, radius: int = 5) -> Tensor:
    """[P, n] affinities on the whole grid: [P, h, w], 0 where the source lies in the margin.

    Raises:
        ValueError: the shape does not fit the grid.
    """
    margin = radius - 1
    rows, columns = max(size[0] - margin, 0), max(size[1] - 2 * margin, 0)
    pairs = len(stencil_offsets(radius))
    if affinity.shape != (pairs, rows * columns):
        msg = (
            f"affinity {list(affinity.shape)} does not fit a grid of {size[0]} x {size[1]} and radius {radius}: "
            f"wanted [{pairs}, {rows * columns}]"
        )
        raise ValueError(msg)
    # As published, a pixel of the margin is reached from inside only: no pair has its source there.
    planes = affinity.new_zeros((pairs, *size))
    if rows and columns:
        planes[:, :rows, margin : margin + columns] = affinity.view(pairs, rows, columns)
    return planes


def affinity_random_walk(
    maps: Tensor, affinity: Tensor, *, radius: int = 5, beta: float = 8.0, steps: int = 256
) -> Tensor:
    """Spread scores over pixels that the network takes to be alike.

    AffinityNet's propagation (Ahn and Kwak, CVPR 2018), in the same sparse steps as IRNet's walk; the N x N transition
    matrix is never made. A grid that is too small to have any pair is left as it is.

    Args:
        maps: [K, h, w] float >= 0, such as :func:`walk_start`.
        affinity: [P, n] in [0, 1], see the module; n = 0 if the grid has no sources.
        radius: that of ``affinity``.
        beta: exponent on the affinities.
        steps: length of the walk; the published code's ``logt`` is log2 of it.

    Returns:
        [K, h, w], same dtype and device, within the range of each input map.

    Raises:
        ValueError: shapes do not fit, a value is not finite, an affinity outside [0, 1], radius < 2 or steps < 0.
    """
    if maps.ndim != 3:
        msg = f"maps must be [K, h, w], got {list(maps.shape)}"
        raise ValueError(msg)
    planes = affinity_planes(affinity, (maps.shape[1], maps.shape[2]), radius=radius)
    if not torch.isfinite(maps).all() or not ((affinity >= 0) & (affinity <= 1)).all():
        msg = "maps must be finite and affinities in [0, 1]"
        raise ValueError(msg)
    working = working_dtype(maps)
    walked = stencil_walk(maps.to(working), planes.to(working) ** beta, radius=radius, steps=steps)
    return walked.to(maps.dtype)
