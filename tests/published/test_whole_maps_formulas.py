"""From an image to its maps on the stride-4 grid, written out in float64 for five of the published localizers.

The goldens of the published code say the same where they lie beside the repository; this says it without them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_ssa_formulas import polished, structure
from torch import Tensor, nn
from torch.nn import functional

from formulas import Array, bilinear, close, drawn, softmax
from tagmask.contracts.localizer import Localizer, Trained
from tagmask.methods.advcam.localizer import AdvCam
from tagmask.methods.cam.localizer import Cam
from tagmask.methods.lpcam.localizer import Lpcam
from tagmask.methods.recam.localizer import Recam
from tagmask.methods.ssa.localizer import Ssa
from tagmask.methods.visual_words.head import VisualWordsHead
from tagmask.methods.visual_words.localizer import VisualWords
from tagmask.ops.views import Views
from tagmask.types import IMAGENET, ClassifierOutput

SCALES = (1.0, 0.5, 1.5)
SIZE = (22, 30)
CHANNELS = [2, 0]
FILTERS = drawn(1, 5, 3, 4, 4, low=-1)
WEIGHTS, SECOND = drawn(2, 3, 5, low=-1), drawn(3, 3, 5, low=-1)
VECTORS = drawn(4, 3, 5, low=-1)
PICTURE = np.random.default_rng(5).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


class Small(nn.Module):
    """One convolution of stride 4 and a ReLU; its square is the other stage."""

    input_statistics = IMAGENET
    class_weights = torch.from_numpy(WEIGHTS).float()

    def __init__(self, bias: Array | None = None) -> None:
        super().__init__()
        part = SimpleNamespace(class_weights=self.class_weights, second_weights=torch.from_numpy(SECOND).float())
        self.class_bias = None if bias is None else torch.from_numpy(bias).float()
        self.head = SimpleNamespace(part_with=lambda name: part)

    def forward(self, views: Tensor) -> ClassifierOutput:
        features = functional.conv2d(views, torch.from_numpy(FILTERS).to(views.dtype), stride=4, padding=1).relu()
        return ClassifierOutput(features, {4: features**2, 5: features}, features.mean((-2, -1)))


def view(scale: float, mirror: bool) -> Array:
    """The image at a scale, bicubic on its bytes, then in ImageNet's units; [3, h, w]."""
    size = round(SIZE[1] * scale), round(SIZE[0] * scale)
    pixels = np.asarray(Image.fromarray(PICTURE).resize(size, Image.Resampling.BICUBIC)).astype(np.float64) / 255
    pixels = (pixels - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return (pixels[:, ::-1] if mirror else pixels).transpose(2, 0, 1)


def features_of(pixels: Array) -> Array:
    """The network by its windows, [5, h, w]."""
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1)))
    rows, columns = (padded.shape[1] - 4) // 4 + 1, (padded.shape[2] - 4) // 4 + 1
    result = np.zeros((len(FILTERS), rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = padded[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            result[:, i, j] = [max(0.0, float((window * kernel).sum())) for kernel in FILTERS]
    return result


def on_the_grid(scale_maps: Callable[[float], Array]) -> Array:
    """Maps of every scale, stretched to a quarter of the image, summed; they are divided only afterwards."""
    grid = math.ceil(SIZE[0] / 4), math.ceil(SIZE[1] / 4)
    return sum(bilinear(scale_maps(scale), grid) for scale in SCALES)


def response(weights: Array, features: Array) -> Array:
    return np.maximum(0, np.einsum("cd,dhw->chw", weights[CHANNELS], features))


def image_and_mirror(function: Callable[[Array], Array], scale: float) -> Array:
    """Each view for itself, the mirror's turned back, summed."""
    return function(view(scale, False)) + function(view(scale, True))[..., ::-1]


def maps_of(localizer: Localizer, learnt: Any = None, *, flip: bool = True, bias: Array | None = None) -> Tensor:
    trained = Trained(Small(bias).eval(), learnt or {})
    views = Views(SCALES, flip=flip, statistics=IMAGENET)
    return localizer.image_maps(trained, PICTURE, torch.tensor(CHANNELS), views).maps


def test_the_picture_and_the_network_show_something() -> None:
    expected = on_the_grid(lambda scale: image_and_mirror(lambda pixels: response(WEIGHTS, features_of(pixels)), scale))
    assert expected.shape == (2, 6, 8)
    assert (expected.max((1, 2)) > 0.1).all()
    assert not np.allclose(expected, expected[..., ::-1], atol=0.1)


@pytest.mark.parametrize("flip", [True, False])
def test_cam_is_summed_over_mirrors_and_scales(flip: bool) -> None:
    def own(scale: float) -> Array:
        one = response(WEIGHTS, features_of(view(scale, False)))
        return image_and_mirror(lambda pixels: response(WEIGHTS, features_of(pixels)), scale) if flip else one

    close(maps_of(Cam(), flip=flip), on_the_grid(own), 1e-5)


@pytest.mark.parametrize("used", [False, True])
def test_biases_are_part_of_the_maps_of_object_localisation_alone(used: bool) -> None:
    bias = drawn(6, 3, low=-3, high=3)
    added = bias[CHANNELS, None, None] if used else 0.0

    def one(pixels: Array) -> Array:
        return np.maximum(0, np.einsum("cd,dhw->chw", WEIGHTS[CHANNELS], features_of(pixels)) + added)

    expected = on_the_grid(lambda scale: image_and_mirror(one, scale))
    close(maps_of(Cam(bias=used), bias=bias), expected, 1e-5)


def test_the_larger_of_image_and_mirror_where_vwe_takes_it() -> None:
    def own(scale: float) -> Array:
        first, mirror = (response(WEIGHTS, features_of(view(scale, turned))) for turned in (False, True))
        return np.maximum(first, mirror[..., ::-1])

    close(maps_of(Cam(flip_merge="max")), on_the_grid(own), 1e-5)


@pytest.mark.parametrize("option", ["w", "w2", "sum", "product"])
def test_recam_is_cam_with_other_weights(option: Any) -> None:
    weights = {"w": WEIGHTS, "w2": SECOND, "sum": WEIGHTS + SECOND, "product": WEIGHTS * SECOND}[option]
    expected = on_the_grid(lambda scale: image_and_mirror(lambda pixels: response(weights, features_of(pixels)), scale))
    close(maps_of(Recam(class_weights=option)), expected, 1e-5)


def test_lpcam_sums_the_features_of_image_and_mirror_before_the_similarity() -> None:
    """One rectified map of the summed features' direction, not the sum of two maps."""

    def own(scale: float) -> Array:
        features = image_and_mirror(features_of, scale)
        lengths = np.sqrt((features**2).sum(0, keepdims=True))
        return response(VECTORS, features / np.maximum(lengths, 1e-12))

    learnt = {"lpcam": {"vectors": torch.from_numpy(VECTORS).float(), "has_vector": torch.ones(3, dtype=torch.bool)}}
    maps, expected = maps_of(Lpcam(), learnt), on_the_grid(own)
    # A factor common to all of a map, such as that of a sum over two views, goes with its maximum.
    close(maps / maps.amax((1, 2), keepdim=True), expected / expected.max((1, 2), keepdims=True), 1e-5)


@pytest.mark.parametrize("guidance", ["cross_gate", "none"])
def test_ssa_polishes_each_view_and_lets_the_stages_gate_the_sums(guidance: Any) -> None:
    def stage(scale: float, power: int) -> Array:
        """A view's own structure averages its own responses; image and mirror are then added."""

        def one(pixels: Array) -> Array:
            features = features_of(pixels)
            return polished(response(WEIGHTS, features), structure(features**power))

        return image_and_mirror(one, scale)

    def own(scale: float) -> Array:
        fourth, fifth = stage(scale, 2), stage(scale, 1)
        if guidance == "none":
            return fourth + fifth
        return np.clip(fifth, 0, 1) * fourth + np.clip(fourth, 0, 1) * fifth

    close(maps_of(Ssa(guidance=guidance, stages=(4, 5))), on_the_grid(own), 1e-4)


def test_advcam_climbs_at_every_scale_and_sums_what_it_sees_on_the_way() -> None:
    """Two steps: regions of the image, and of the image after one climb in float64."""

    def regions(features: Tensor, label: int) -> Tensor:
        leaf = features.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(torch.einsum("bdhw,d->bhw", leaf, weights[label]).relu().sum(), leaf)
        factor = slope.sum((2, 3)) / ((slope > 0).sum() + 1e-12)
        both = torch.einsum("bdhw,bd->bhw", features, factor).relu()
        return both[0] + both[1].flip(-1)

    def look(pair: Tensor) -> Tensor:
        return functional.conv2d(pair, torch.from_numpy(FILTERS), stride=4, padding=1).relu()

    def climbed(pair: Tensor, label: int) -> Tensor:
        # In the first step nothing has changed yet, so that the regulariser has no slope.
        leaf = pair.clone().requires_grad_(True)
        scores = torch.einsum("bdhw,cd->bchw", look(leaf), weights).relu().mean((2, 3)).sum(0)
        (slope,) = torch.autograd.grad(2 * scores[label] - scores.sum(), leaf)
        return (pair + 0.08 * slope / (slope.abs().max() + 1e-12)).clamp(pair.min(), pair.max())

    weights = torch.from_numpy(WEIGHTS)

    def own(scale: float) -> Array:
        pair = torch.from_numpy(np.stack([view(scale, False), view(scale, True)]))
        maps = [regions(look(pair), label) + regions(look(climbed(pair, label)), label) for label in CHANNELS]
        return torch.stack(maps).detach().numpy()

    close(maps_of(AdvCam(steps=2)), on_the_grid(own), 1e-4)


@pytest.mark.parametrize("branches", ["image", "word", "both", "both_normalised"])
def test_vwe_takes_the_larger_of_its_branches_in_each_view(branches: Any) -> None:
    words = drawn(7, 6, 5, low=-1)
    to_image = drawn(8, 3, 6, low=-2, high=2)

    class WithWords(Small):
        def __init__(self) -> None:
            super().__init__()
            head = VisualWordsHead(words=6, frequency="mean").build(5, 3).double()
            with torch.no_grad():
                head.class_weights.copy_(torch.from_numpy(WEIGHTS))
                head.codebook.copy_(torch.from_numpy(words))
                head.word_weights.copy_(torch.from_numpy(to_image))
            self.head: Any = head

    def one(pixels: Array) -> Array:
        features = features_of(pixels)
        image = response(WEIGHTS, features)
        lengths = np.maximum(np.sqrt((features**2).sum(0)), 1e-12)
        directions = words / np.sqrt((words**2).sum(1, keepdims=True))
        shares = softmax(np.einsum("kd,dhw->khw", directions, features / lengths), 0)
        word = np.maximum(0, np.einsum("ck,khw->chw", to_image[CHANNELS], shares))
        if branches == "both_normalised":
            image, word = (maps / (maps.max((1, 2), keepdims=True) + 1e-5) for maps in (image, word))
        return {"image": image, "word": word}.get(branches, np.maximum(image, word))

    def own(scale: float) -> Array:
        return np.maximum(one(view(scale, False)), one(view(scale, True))[..., ::-1])

    trained = Trained(WithWords().eval().requires_grad_(False))
    views = Views(SCALES, flip=True, statistics=IMAGENET)
    localizer = VisualWords(branches=branches, flip_merge="max")
    close(localizer.image_maps(trained, PICTURE, torch.tensor(CHANNELS), views).maps, on_the_grid(own), 1e-5)
