"""AMN: loss, head and maps against the published implementation and by hand, and its inference on an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from pydantic import ValidationError
from torch.nn import functional

from requests_of import refine_request
from tagmask.backbones.build import BackboneSettings
from tagmask.contracts.optimizer import build_optimizer
from tagmask.functional import balanced_cross_entropy, manipulated_maps
from tagmask.methods.amn.model import AMNetwork, ConditionedPyramid
from tagmask.methods.amn.refiner import AMN, TrainedAMN
from tagmask.ops.losses import nearest_to
from tagmask.ops.transforms import normalise
from tagmask.ops.views import merge_flips, sum_scales
from tagmask.types import IMAGENET

Stored = Mapping[str, np.ndarray[Any, Any]]
SMALL = {"channels": [8, 16, 24, 32], "stem_width": 8}


@pytest.fixture
def stored(golden: Callable[[str], Stored]) -> Stored:
    return golden("amn")


def tensor(stored: Stored, name: str) -> torch.Tensor:
    return torch.from_numpy(np.array(stored[name]))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert_allclose(found.detach().numpy(), expected.numpy(), rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("suffix", ["", "_smoothing_b"])
def test_the_loss_is_the_published_one(stored: Stored, suffix: str) -> None:
    logits = tensor(stored, "loss_logits").requires_grad_()
    terms = balanced_cross_entropy(
        logits, tensor(stored, "loss_labels"), smoothing=float(stored["smoothing_b" if suffix else "smoothing"])
    )
    close(terms.loss, tensor(stored, f"expected_loss{suffix}"))
    close(terms.background, tensor(stored, f"expected_loss_background{suffix}"))
    close(terms.foreground, tensor(stored, f"expected_loss_foreground{suffix}"))
    terms.loss.backward()
    assert logits.grad is not None
    close(logits.grad, tensor(stored, f"expected_grad_logits{suffix}"))
    resized = nearest_to(tensor(stored, "loss_labels"), logits.shape[-2:])
    assert torch.equal(resized, tensor(stored, "expected_labels_resized"))


def test_a_batch_without_foreground_is_not_nan(stored: Stored) -> None:
    assert np.isnan(stored["expected_loss_batch_without_foreground"])  # as published
    logits = tensor(stored, "loss_logits")[1:2].requires_grad_()
    terms = balanced_cross_entropy(logits, tensor(stored, "loss_labels")[1:2])
    close(terms.background, tensor(stored, "expected_loss_background_batch_without_foreground"))
    assert float(terms.foreground.detach()) == 0
    assert float(terms.loss.detach()) == pytest.approx(float(terms.background.detach()) / 2)
    terms.loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_head_is_the_published_one(stored: Stored) -> None:
    head = published_head(stored)
    features = tensor(stored, "head_features").requires_grad_()
    logits = head(features, tensor(stored, "head_labels"))
    close(logits, tensor(stored, "expected_head_logits"))
    (0.5 * logits.square().mean()).backward()
    assert features.grad is not None
    close(features.grad, tensor(stored, "expected_head_grad_features"))
    for name, parameter in (("weight", head.label_enc.weight), ("bias", head.label_enc.bias)):
        assert parameter.grad is not None
        close(parameter.grad, tensor(stored, f"expected_head_grad_label_enc_{name}"))
    for place, convolution in enumerate(head.convs):
        close(convolution.weight.grad, tensor(stored, f"expected_head_grad_aspp_c{place}_weight"))  # type: ignore[union-attr,arg-type]
        close(convolution.bias.grad, tensor(stored, "expected_head_grad_aspp_bias"))  # type: ignore[union-attr,arg-type]


def published_head(stored: Stored) -> ConditionedPyramid:
    dilations = stored["dilations"].tolist()
    head = ConditionedPyramid(8, 20, dilations=dilations, dropout=0.0)
    state = {f"label_enc.{name}": tensor(stored, f"label_enc_{name}") for name in ("weight", "bias")}
    for place in range(len(dilations)):
        state |= {f"convs.{place}.{name}": tensor(stored, f"aspp_c{place}_{name}") for name in ("weight", "bias")}
    head.load_state_dict(state)
    return head


@pytest.mark.parametrize("full", [False, True])
def test_the_maps_are_the_published_ones(stored: Stored, full: bool) -> None:
    height, width = (int(side) for side in stored["image_size"])
    size = (height, width) if full else (-(-height // 4), -(-width // 4))
    head, tags = published_head(stored), tensor(stored, "image_labels")[None]
    per_scale = []
    for scale in ("1p0", "0p5", "1p5", "2p0"):
        logits = head(tensor(stored, f"features_scale_{scale}"), tags.expand(2, -1))
        per_scale.append(merge_flips(logits).detach() / 2)
        close(per_scale[-1], tensor(stored, f"expected_logits_scale_{scale}"))
    mean = sum_scales(per_scale, size) / 4
    if not full:
        close(mean, tensor(stored, "expected_strided_mean_logits"))
    classes = tensor(stored, "expected_class_indices").long() + 1
    expected = tensor(stored, "expected_highres_cam" if full else "expected_strided_cam")
    # The published array has the background in front, which its readers drop.
    close(manipulated_maps(mean, classes, tensor(stored, "stage1_labels")), expected[1:])


def test_the_loss_by_hand() -> None:
    """In float64, written from the formula: pixel by pixel, over both images together."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 4, 3, 5)), rng.choice([0, 1, 2, 3, 255], size=(2, 3, 5))
    labels[1][labels[1] == 0] = 255
    sums: dict[bool, list[float]] = {True: [], False: []}
    for image, row, column in np.ndindex(labels.shape):
        if (label := labels[image, row, column]) == 255:
            continue
        values = logits[image, :, row, column]
        log_softmax = values - np.log(np.exp(values).sum())
        target = np.full(4, 0.3 / 3)
        target[label] = 0.7
        sums[bool(label)].append(float(-(target * log_softmax).sum()))
    expected = sum(np.mean(values) for values in sums.values()) / 2
    terms = balanced_cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), smoothing=0.3)
    assert float(terms.loss) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="smoothing must be in"):
        balanced_cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), smoothing=1.5)


def test_without_smoothing_it_is_torchs_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 8, 8, generator=generator)
    labels = torch.randint(1, 5, (2, 8, 8), generator=generator)
    terms = balanced_cross_entropy(logits, labels, smoothing=0.0)
    torch.testing.assert_close(terms.foreground, functional.cross_entropy(logits, labels))


def test_maps_are_spread_only_where_labels_see_an_object() -> None:
    logits = torch.randn(4, 6, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(24, 28, dtype=torch.uint8)
    labels[8:, :8], labels[16:, 16:] = 2, 255
    maps, p = manipulated_maps(logits, torch.tensor([3, 1]), labels), logits.softmax(0)[[3, 1]]
    spread = torch.stack([(plane - plane.min()) / (plane.max() - plane.min() + 1e-5) for plane in p])
    objects = torch.zeros(6, 7, dtype=torch.bool)
    objects[2:, :2] = objects[4:, 4:] = True
    torch.testing.assert_close(maps[:, objects], spread[:, objects])
    torch.testing.assert_close(maps[:, ~objects], p[:, ~objects])
    assert manipulated_maps(logits, torch.zeros(0, dtype=torch.long), labels).shape == (0, 6, 7)


def network(seed: int = 0) -> AMNetwork:
    torch.manual_seed(seed)
    return AMN().build(BackboneSettings(backbone="resnet10t", backbone_args=SMALL).build(), 5).eval()


def test_inference_is_the_mean_of_all_views() -> None:
    settings = AMN(scales=(1.0, 2.0), conf_fg=0.7, conf_bg=0.5)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    maps = torch.from_numpy(rng.random((2, 10, 14), dtype=np.float32))
    request, model = refine_request(image, maps, torch.tensor([2, 5])), network()
    tags = torch.tensor([[0.0, 1, 0, 0, 1]])
    small = normalise(image, IMAGENET)[None]
    total = torch.zeros(6, 10, 14)
    with torch.no_grad():
        big = TrainedAMN(AMN(scales=(2.0,)), model).logits(image, request.classes, (10, 14))
        for view, back in ((small, lambda x: x), (small.flip(-1), lambda x: x.flip(-1))):
            logits = back(model(view, tags))
            total += functional.interpolate(logits, (10, 14), mode="bilinear")[0] / 2
    expected = manipulated_maps((total + big) / 2, request.classes, torch.from_numpy(settings.targets(request)))
    torch.testing.assert_close(TrainedAMN(settings, model).refine(request), expected, rtol=1e-4, atol=1e-5)


def test_tags_change_the_maps() -> None:
    model, images = network(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        one, other = (model(images, torch.eye(5)[[place]]) for place in (0, 3))
    assert not torch.allclose(one, other)


def test_batch_norms_and_dropout() -> None:
    """Statistics are never updated; dropout is of training alone, and maps are the same every time."""
    model = network().train()
    assert not any(module.training for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert model.pyramid.dropout.training
    assert not model.eval().pyramid.dropout.training


def test_its_optimiser_is_plain_adam_at_two_constant_rates() -> None:
    settings = AMN()
    optimizer = build_optimizer(settings.optimizer, settings.parameter_groups(network()))
    assert type(optimizer) is torch.optim.Adam
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(5e-6, 1e-4), (1e-4, 1e-4)]
    assert (settings.optimizer.schedule, settings.optimizer.warmup_steps) == ("constant", 0)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"conf_fg": 0.1, "conf_bg": 0.2}, "conf_fg 0.1 must not be below conf_bg 0.2"),
        ({"scale": (1.5, 0.5)}, "smallest <= largest"),
        ({"scales": ()}, "scales"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        AMN(**settings)
