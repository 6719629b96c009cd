"""IRNet's losses against its published code, hand figures and the plain definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tagmask.methods.irnet import losses as irnet
from tagmask.ops import pixel_pairs


def reference_losses(logits, labels, displacement, radius):
    """Per pair, from the definition, with autograd."""
    edge = torch.sigmoid(logits)[:, 0]
    sources = pixel_pairs.source_region(*labels.shape[1:], radius)
    totals = {"bg": [], "fg": [], "neg": [], "dfg": [], "dbg": []}
    for offset in pixel_pairs.stencil_offsets(radius):
        points = torch.stack([sources.of(edge, *point) for point in pixel_pairs.path_points(offset)])
        a = 1 - points.amax(0)
        here, there = sources.of(labels), sources.of(labels, *offset)
        valid = (here != 255) & (there != 255)
        bg, fg = valid & (here == 0) & (there == 0), valid & (here == there) & (here > 0)
        totals["bg"].append(-torch.log(a + 1e-5)[bg])
        totals["fg"].append(-torch.log(a + 1e-5)[fg])
        totals["neg"].append(-torch.log(1 + 1e-5 - a)[valid & (here != there)])
        difference = sources.of(displacement) - sources.of(displacement, *offset)
        delta = torch.tensor(offset).view(1, 2, 1, 1)
        totals["dfg"].append(((difference - delta).abs() * fg[:, None]).sum(1)[fg])
        totals["dbg"].append((difference.abs() * bg[:, None]).sum(1)[bg])
    flat = {name: torch.cat(parts) for name, parts in totals.items()}
    mean = {name: flat[name].sum() / (len(flat[name]) + 1e-5) for name in ("bg", "fg", "neg")}
    mean |= {name: flat[name].sum() / (2 * len(flat[name]) + 1e-5) for name in ("dfg", "dbg")}
    return ((mean["bg"] + mean["fg"]) / 2 + mean["neg"]) / 2 + (mean["dfg"] + mean["dbg"]) / 2


def problem(height, width, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, 1, height, width, generator=generator).requires_grad_()
    displacement = (5 * torch.randn(batch, 2, height, width, generator=generator) + 3).requires_grad_()
    choice = torch.randint(0, 4, (batch, height, width), generator=generator)
    return logits, displacement, torch.tensor([0, 1, 2, 255], dtype=torch.uint8)[choice]


def test_golden(golden):
    stored = golden("irn_affinity_loss")
    logits = torch.tensor(stored["edge_logits"], requires_grad=True)
    displacement = torch.tensor(stored["displacement"], requires_grad=True)
    losses = irnet.irnet_losses(logits, torch.tensor(stored["label_map"]), displacement, radius=10)
    names = {
        "positive_background": "positive_bg",
        "positive_foreground": "positive_fg",
        "positive": "positive",
        "negative": "negative",
        "displacement_foreground": "displacement_fg",
        "displacement_background": "displacement_bg",
        "loss": "total",
    }
    assert set(losses) == set(names)
    for ours, theirs in names.items():
        assert losses[ours].item() == pytest.approx(float(stored[f"expected_loss_{theirs}"]), rel=1e-5), ours
    losses["loss"].backward()
    for values, key in ((logits, "edge_logits"), (displacement, "displacement")):
        wanted = stored[f"expected_grad_{key}"]
        np.testing.assert_allclose(values.grad.numpy(), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_golden_affinity(golden):
    stored = golden("irn_affinity_loss")
    published = [tuple(offset) for offset in golden("irn_affinity_index")["r10_search_dst_yx"].tolist()]
    order = [pixel_pairs.stencil_offsets(10).index(offset) for offset in published]
    edge = torch.sigmoid(torch.tensor(stored["edge_logits"]))[:, 0]
    affinity = irnet.pair_affinity(edge, 10)[:, order].flatten(2)
    np.testing.assert_allclose(affinity.numpy(), stored["expected_affinity"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("height", "width", "radius"), [(7, 11, 4), (3, 5, 3), (13, 9, 5), (5, 8, 2)])
def test_losses_and_gradients_are_the_definition(height, width, radius):
    logits, displacement, labels = problem(height, width, seed=height)
    ours = irnet.irnet_losses(logits, labels, displacement, radius=radius)["loss"]
    wanted = reference_losses(logits, labels, displacement, radius)
    assert ours.item() == pytest.approx(wanted.item(), rel=1e-5)
    for found, expected in zip(
        torch.autograd.grad(ours, (logits, displacement)),
        torch.autograd.grad(wanted, (logits, displacement)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_displacement_leaves_the_boundary_alone():
    logits, displacement, labels = problem(9, 13)
    with_it = irnet.irnet_losses(logits, labels, displacement, radius=5)["loss"]
    without = irnet.irnet_losses(logits, labels, radius=5)
    assert set(without) == {"loss", "positive_background", "positive_foreground", "positive", "negative"}
    found, wanted = (torch.autograd.grad(loss, logits)[0] for loss in (with_it, without["loss"]))
    assert torch.equal(found, wanted)


def test_the_gradient_of_affinity_goes_to_the_strongest_pixel():
    edge = torch.tensor([[[0.1, 0.2, 0.3], [0.4, 0.9, 0.5]]], requires_grad=True)
    affinity = irnet.pair_affinity(edge, 2)
    # Source (0, 1): with (0, 2), (1, 0), (1, 1), (1, 2); diagonal paths pass both corners, so (1, 1) too.
    torch.testing.assert_close(affinity.flatten(), torch.tensor([0.7, 0.1, 0.1, 0.1]))
    affinity.sum().backward()
    assert edge.grad.tolist() == [[[0, 0, -1], [0, -3, 0]]]


def test_counts_are_of_all_pairs():
    logits, _, labels = problem(9, 13)
    counts = irnet.decided_pairs(torch.sigmoid(logits)[:, 0], labels, 5)
    kinds = pixel_pairs.pair_kinds(labels, 5)
    for kind in range(4):
        assert counts[:, kind].sum() == (kinds == kind).sum()
    # A pixel above all others decides every pair whose path it lies on.
    edge = torch.zeros(1, 9, 13)
    edge[0, 4, 6] = 1
    decided = irnet.decided_pairs(edge, torch.zeros(1, 9, 13), 5)[0, pixel_pairs.BACKGROUND_PAIR]
    assert decided[4, 6] == (irnet.pair_affinity(edge, 5) == 0).sum() > 0


@pytest.mark.parametrize("label", [0, 7])
def test_one_label_only(label):
    logits, displacement, labels = problem(9, 13)
    labels = torch.full_like(labels, label)
    losses = irnet.irnet_losses(logits, labels, displacement, radius=5)
    absent = "foreground" if label == 0 else "background"
    assert losses["negative"] == losses[f"positive_{absent}"] == losses[f"displacement_{absent}"] == 0
    wanted = reference_losses(logits, labels, displacement, 5)
    assert losses["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_all_unsure_teaches_nothing():
    logits, displacement, labels = problem(9, 13)
    losses = irnet.irnet_losses(logits, torch.full_like(labels, 255), displacement, radius=5)
    assert all(value == 0 for value in losses.values())
    losses["loss"].backward()
    assert logits.grad.abs().sum() == displacement.grad.abs().sum() == 0


def test_saturated_boundaries_stay_finite():
    logits, _, labels = problem(9, 13)
    extreme = (logits.detach() * 1000).requires_grad_()
    loss = irnet.irnet_losses(extreme, labels, radius=5)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(extreme.grad).all()


def test_nan_is_not_hidden():
    logits, _, labels = problem(9, 13)
    broken = logits.detach().clone()
    broken[0, 0, 4, 6] = float("nan")
    assert irnet.irnet_losses(broken, labels, radius=5)["loss"].isnan()


def test_a_large_common_displacement_changes_nothing():
    _, displacement, labels = problem(11, 17)
    here, far = (
        irnet.displacement_losses(displacement.detach() + shift, labels, radius=5)["displacement_foreground"]
        for shift in (0, 1000)
    )
    assert far.item() == pytest.approx(here.item(), rel=1e-4)


def test_more_pixels_than_int16_can_number():
    edge = torch.rand(1, 182, 182, generator=torch.Generator().manual_seed(0))
    ranks, order = irnet.ranked(edge)
    assert ranks.dtype == torch.int32
    assert ranks.flatten()[order[0]].tolist() == list(range(182 * 182))
    ranks, order = irnet.ranked(edge[:, :128, :128])
    assert ranks.dtype == torch.int16
    assert ranks.flatten()[order[0]].tolist() == list(range(128 * 128))


def test_bad_shapes():
    logits, displacement, labels = problem(9, 13)
    with pytest.raises(ValueError, match="do not fit"):
        irnet.irnet_losses(logits, labels[:, 1:], radius=3)
    with pytest.raises(ValueError, match="do not fit"):
        irnet.displacement_losses(displacement, labels[:1], radius=3)
    with pytest.raises(ValueError, match="at least 10 x 19"):
        irnet.irnet_losses(logits, labels, displacement, radius=10)


def test_boundary_is_cut_before_it_is_turned_back():
    generator = torch.Generator().manual_seed(0)
    padded, mirrored = torch.randn(2, 1, 8, 8, generator=generator)
    edge = irnet.boundary_probability(padded, mirrored, (5, 7))
    wanted = torch.sigmoid((padded[:, :5, :7] + mirrored[:, :5, :7].flip(2)) / 2)
    assert torch.equal(edge, wanted)
    with pytest.raises(ValueError, match="smaller than the grid 9 x 8"):
        irnet.boundary_probability(padded, mirrored, (9, 8))


@pytest.mark.parametrize("size", [(512, 512), (511, 333), (6, 1)])
def test_labels_shrink_as_in_pillow(size):
    labels = np.random.default_rng(0).integers(0, 255, size).astype(np.uint8)
    grid = -(-size[0] // 4), -(-size[1] // 4)
    wanted = np.asarray(Image.fromarray(labels).resize(grid[::-1], Image.Resampling.NEAREST))
    np.testing.assert_array_equal(irnet.labels_on_grid(torch.as_tensor(labels), grid).numpy(), wanted)
