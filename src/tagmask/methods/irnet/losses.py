"""IRNet: class boundaries and displacements learnt from pixel pairs.

Source: Ahn, Cho, Kwak, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations",
CVPR 2019, section 4; ``net/resnet50_irn.py`` and ``step/train_irn.py`` of jiwoon-ahn/irn.

A pair's affinity is a = 1 - (strongest boundary on its path). The published code gathers the boundary at every
point of every path and takes logarithms per pair. Deliberate deviation (same numbers, less work and memory):

- A maximum depends on the order of the values only, so paths are searched on ranks (whole numbers), which say
  *which pixel* is strongest. A pair's loss is a function of that one pixel: the sum over pairs is a sum over
  pixels, weighted by how many pairs of each kind they decide. Counts are constants; the gradient goes through
  the pixels' own terms. Of equal values the later pixel counts as the strongest.
- The displacement loss is piecewise linear, sum s (D_i - D_j - delta) with signs s: it and its gradient follow
  from the sum of signs at each pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tagmask.ops.pixel_pairs import (
    BACKGROUND_PAIR,
    FOREGROUND_PAIR,
    NEGATIVE_PAIR,
    PairKinds,
    PathMaxima,
    by_rows,
    source_region,
    stencil_offsets,
)

_EPS = 1e-5
_KINDS = 4


def ranked(edge: Tensor) -> tuple[Tensor, Tensor]:
    """Ranks of the values of each map.

    Args:
        edge: [B, h, w] float.

    Returns:
        ranks int16 (int32 for more than 32,768 pixels) [B, h, w], 0 for the lowest, and the pixel (row-major)
        of each rank, int64 [B, h * w].
    """
    flat = edge.detach().flatten(1)
    # Stable, so that of equal boundaries the later pixel counts as the strongest on every device.
    order = flat.argsort(dim=1, stable=True)
    # Half the bytes of a float: the maxima below are bound by memory, not by arithmetic.
    dtype = torch.int16 if flat.shape[1] <= 2**15 else torch.int32
    numbers = torch.arange(flat.shape[1], dtype=dtype, device=edge.device).expand_as(flat)
    ranks = torch.empty_like(flat, dtype=dtype).scatter_(1, order, numbers)
    return ranks.view_as(edge), order


def pair_affinity(edge: Tensor, radius: int) -> Tensor:
    """Affinity of every pair, differentiable: for looking at; the losses below need no array of pairs.

    Args:
        edge: [B, h, w] float, boundary probability in [0, 1].
        radius: pairs closer than this.

    Returns:
        [B, P, h - radius + 1, w - 2 radius + 2], pairs in the order of ``stencil_offsets``, sources of
        ``source_region``.

    Raises:
        ValueError: radius < 2, or the grid is too small for it.
    """
    offsets = stencil_offsets(radius)
    sources = source_region(edge.shape[1], edge.shape[2], radius)
    ranks, order = ranked(edge)
    maxima = PathMaxima(ranks, radius)
    top = torch.stack([maxima.of(offset, sources) for offset in offsets], dim=1)
    strongest = order.gather(1, top.flatten(1).long())
    return 1 - edge.flatten(1).gather(1, strongest).view(top.shape)


def decided_pairs(edge: Tensor, labels: Tensor, radius: int) -> Tensor:
    """How many pairs of each kind have their strongest boundary at each pixel.

    Args:
        edge: [B, h, w] float.
        labels: int [B, h, w], 0 background, 1..254 classes, 255 unsure.
        radius: pairs closer than this.

    Returns:
        int64 [B, 4, h, w]: index 1 background pairs, 2 foreground pairs, 3 negative pairs, 0 pairs without
        supervision (see :func:`tagmask.ops.pixel_pairs.pair_kinds`). Their sum is the number of pairs.

    Raises:
        ValueError: shapes do not fit, radius < 2, or the grid is too small for it.
    """
    _check_fit(edge, labels)
    batch, height, width = edge.shape
    sources = source_region(height, width, radius)
    ranks, order = ranked(edge)
    maxima, kinds = PathMaxima(ranks, radius), PairKinds(labels)
    n = height * width
    # One number for image, kind and deciding pixel of a pair, so that all of a row's pairs are counted by one bincount;
    # 32 bits while they suffice, as the keys are the largest array of the loss.
    bins = batch * _KINDS * n
    whole = torch.int32 if bins < 2**31 else torch.int64
    start = torch.arange(batch, dtype=whole, device=edge.device)[:, None, None] * (_KINDS * n)
    counts = torch.zeros(bins, dtype=torch.int64, device=edge.device)
    for row in by_rows(stencil_offsets(radius)):
        keys = ranks.new_empty((len(row), batch, sources.height, sources.width), dtype=whole)
        for key, offset in zip(keys, row, strict=True):
            key.copy_(kinds.of(offset, sources)).mul_(n).add_(start).add_(maxima.of(offset, sources))
        counts += torch.bincount(keys.flatten(), minlength=bins)
    by_rank = counts.view(batch, _KINDS, n)
    pixels = order[:, None].expand_as(by_rank)
    return torch.empty_like(by_rank).scatter_(2, pixels, by_rank).view(batch, _KINDS, height, width)


def boundary_losses(edge_logits: Tensor, labels: Tensor, *, radius: int = 10) -> dict[str, Tensor]:
    """Losses of the boundary branch (eq. 3 and 4 of the paper, with the published code's balance).

    ``positive`` is half the mean of -log(a + 1e-5) over background pairs and half that over foreground pairs,
    ``negative`` the mean of -log(1 + 1e-5 - a) over pairs of different labels. Means are over the batch with
    1e-5 added to the number of pairs, so a kind without pairs adds 0.

    Args:
        edge_logits: [B, 1, h, w] float, before the sigmoid.
        labels: int [B, h, w], 0 background, 1..254 classes, 255 unsure.
        radius: pairs closer than this.

    Returns:
        scalars ``positive_background``, ``positive_foreground``, ``positive``, ``negative``.

    Raises:
        ValueError: shapes do not fit, radius < 2, or the grid is too small for it.
    """
    # float32: in half precision 1 + 1e-5 is 1, and the logarithm of a sure pair infinite.
    edge = torch.sigmoid(edge_logits.float()).squeeze(1)
    counts = decided_pairs(edge, labels, radius)
    affinity = 1 - edge
    alike, different = -torch.log(affinity + _EPS), -torch.log(1 + _EPS - affinity)

    def mean(term: Tensor, kind: int) -> Tensor:
        # A constant: which pixel is a path's strongest does not change by a small step, where it could there is a kink.
        number = counts[:, kind]
        return (term * number).sum() / (number.sum() + _EPS)

    background, foreground = mean(alike, BACKGROUND_PAIR), mean(alike, FOREGROUND_PAIR)
    return {
        "positive_background": background,
        "positive_foreground": foreground,
        "positive": (background + foreground) / 2,
        "negative": mean(different, NEGATIVE_PAIR),
    }


def displacement_losses(displacement: Tensor, labels: Tensor, *, radius: int = 10) -> dict[str, Tensor]:
    """Losses of the displacement branch (eq. 1 and 2 of the paper).

    With D_i - D_j the difference of a pair (source i, partner j = i + delta): ``displacement_foreground`` is
    the sum of |D_i - D_j - delta| over foreground pairs, ``displacement_background`` that of |D_i - D_j| over
    background pairs, each over (2 * number of pairs + 1e-5).

    Args:
        displacement: [B, 2, h, w] float, (dy, dx) from each pixel to its object's centre, in grid pixels.
        labels: int [B, h, w], 0 background, 1..254 classes, 255 unsure.
        radius: pairs closer than this.

    Returns:
        the two scalars by name.

    Raises:
        ValueError: shapes do not fit, radius < 2, or the grid is too small for it.
    """
    _check_fit(displacement[:, 0], labels)
    # The signs of a map sum to 0, so a constant changes nothing; without it less is lost to rounding.
    displacement = displacement.float()
    centred = displacement - displacement.detach().mean(dim=(2, 3), keepdim=True)
    slopes, shifts, numbers = _signs(centred.detach(), labels, radius)
    losses = [
        ((centred * slope).sum() - shift) / (2 * number + _EPS)
        for slope, shift, number in zip(slopes, shifts, numbers, strict=True)
    ]
    return {"displacement_foreground": losses[0], "displacement_background": losses[1]}


def _signs(field: Tensor, labels: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of signs at each pixel [2, B, 2, h, w], sums of sign * delta [2] and numbers of pairs [2]; the first
    axis is foreground, background."""
    sources = source_region(field.shape[2], field.shape[3], radius)
    kinds = PairKinds(labels)
    slopes = field.new_zeros((2, *field.shape))
    shifts, numbers = field.new_zeros(2), torch.zeros(2, dtype=torch.int64, device=field.device)
    for offset in stencil_offsets(radius):
        kind = kinds.of(offset, sources)[:, None]
        difference = sources.of(field) - sources.of(field, *offset)
        delta = torch.tensor(offset, dtype=field.dtype, device=field.device)
        for i, pair_kind in enumerate((FOREGROUND_PAIR, BACKGROUND_PAIR)):
            pairs = kind == pair_kind
            numbers[i] += pairs.sum()
            error = difference - delta.view(2, 1, 1) if pair_kind == FOREGROUND_PAIR else difference
            sign = torch.sign(error).mul_(pairs)
            # d|D_i - D_j| / dD_i = sign, / dD_j = -sign: the gradient is all that is ever needed of the pairs.
            sources.of(slopes[i]).add_(sign)
            sources.of(slopes[i], *offset).sub_(sign)
            if pair_kind == FOREGROUND_PAIR:
                shifts[i] += (sign.sum(dim=(0, 2, 3)) * delta).sum()
    return slopes, shifts, numbers


def irnet_losses(
    edge_logits: Tensor, labels: Tensor, displacement: Tensor | None = None, *, radius: int = 10
) -> dict[str, Tensor]:
    """The loss of a training step and its terms.

    (positive + negative) / 2, and with a displacement field + (foreground + background displacement) / 2. The
    branches share no parameter, so the boundary learns the same with and without the second half.

    Args:
        edge_logits: [B, 1, h, w] float, before the sigmoid.
        labels: int [B, h, w], 0 background, 1..254 classes, 255 unsure.
        displacement: [B, 2, h, w] float, or None.
        radius: pairs closer than this.

    Returns:
        ``loss`` and the terms of :func:`boundary_losses` and :func:`displacement_losses`, scalars.

    Raises:
        ValueError: shapes do not fit, radius < 2, or the grid is too small for it.
    """
    terms = boundary_losses(edge_logits, labels, radius=radius)
    loss = (terms["positive"] + terms["negative"]) / 2
    if displacement is not None:
        more = displacement_losses(displacement, labels, radius=radius)
        terms |= more
        loss = loss + (more["displacement_foreground"] + more["displacement_background"]) / 2
    return {"loss": loss, **terms}


def boundary_probability(logits: Tensor, flipped: Tensor, size: tuple[int, int]) -> Tensor:
    """Boundary map from the logits of an image and of its mirror image.

    Each is cut to ``size`` in its own frame *before* the mirrored one is turned back: sigmoid of the mean logit.

    Args:
        logits: [..., h, w] float.
        flipped: [..., h, w] float, of the image mirrored left to right.
        size: (h, w) of the image's grid, (ceil(H / 4), ceil(W / 4)).

    Returns:
        [..., *size] in [0, 1].

    Raises:
        ValueError: a map is smaller than ``size``.
    """
    height, width = size
    for values in (logits, flipped):
        if values.shape[-2] < height or values.shape[-1] < width:
            msg = f"boundary logits {list(values.shape)} are smaller than the grid {height} x {width}"
            raise ValueError(msg)
    # Padding is on the right in both frames; turned back first, the mirror's would be on the left.
    straight = logits[..., :height, :width].float()
    return torch.sigmoid((straight + flipped[..., :height, :width].float().flip(-1)) / 2)


def labels_on_grid(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Label maps [..., H, W] at [..., *size] by nearest neighbour with half-pixel centres, as Pillow does it."""
    index = [
        ((torch.arange(small, device=labels.device, dtype=torch.float32) + 0.5) * (full / small)).long()
        for small, full in zip(size, labels.shape[-2:], strict=True)
    ]
    return labels[..., index[0][:, None], index[1]]


def _check_fit(grid: Tensor, labels: Tensor) -> None:
    if grid.shape != labels.shape:
        msg = f"predictions [B, h, w] and labels do not fit: {list(grid.shape)} and {list(labels.shape)}"
        raise ValueError(msg)
