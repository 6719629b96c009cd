"""The contract of refiners: maps stay maps of the same image, labels are labels of its tags."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from requests_of import label_request, refine_request
from tagmask.backbones.build import BackboneSettings
from tagmask.contracts.trainable import TrainableRefiner
from tagmask.errors import DataError
from tagmask.types import IMAGENET

SMALL = {"channels": [8, 16, 24, 32], "stem_width": 8}
#: Of an image with the classes 3 and 7 of 8, multi-hot.
TAGS = torch.tensor([0.0, 0, 1, 0, 0, 0, 1, 0])
SIZES = [(48, 64), (47, 61), (1, 1), (5, 90), (2, 3)]


def image(size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)


def maps(size: tuple[int, int], k: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(k)
    values = torch.rand(k, -(-size[0] // 4), -(-size[1] // 4), generator=generator)
    return values / values.amax((1, 2), keepdim=True)


def test_it_says_what_it_makes(refiner: Any) -> None:
    assert refiner.makes in ("maps", "labels")


@pytest.mark.parametrize("size", SIZES)
def test_maps_keep_their_shape_and_range(mapper: Any, size: tuple[int, int]) -> None:
    given = maps(size)
    before = given.clone()
    found = mapper.refine(refine_request(image(size), given))
    assert found.shape == given.shape
    assert torch.isfinite(found).all()
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert torch.equal(given, before), "the maps that were handed in are somebody else's"


def test_maps_of_nothing_stay_nothing(mapper: Any) -> None:
    assert not mapper.refine(refine_request(image((48, 64)), torch.zeros(2, 12, 16))).any()


def test_no_map_gives_no_map(mapper: Any) -> None:
    assert mapper.refine(refine_request(image((47, 61)), torch.zeros(0, 12, 16))).shape == (0, 12, 16)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_maps_that_are_not_finite_are_refused(mapper: Any, value: float) -> None:
    broken = maps((48, 64))
    broken[1, 3, 4] = value
    with pytest.raises(ValueError, match="finite"):
        mapper.refine(refine_request(image((48, 64)), broken))


@pytest.mark.parametrize("shape", [(2, 16, 12), (2, 12, 40), (2, 0, 16), (12, 16)])
def test_maps_of_another_image_are_refused(mapper: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"fit|must be \[K, h, w\]"):
        mapper.refine(refine_request(image((48, 64)), torch.rand(shape)))


def test_only_a_colour_image_will_do(mapper: Any) -> None:
    with pytest.raises(ValueError, match="uint8"):
        mapper.refine(refine_request(image((48, 64))[..., 0], maps((48, 64))))
    with pytest.raises(ValueError, match="uint8"):
        mapper.refine(refine_request(image((48, 64)).astype(np.float32), maps((48, 64))))


@pytest.mark.parametrize("colour", [0, 255])
def test_an_image_of_one_colour(mapper: Any, colour: int) -> None:
    """Nothing to go by: no NaN, and maps stay within 0..1."""
    found = mapper.refine(refine_request(np.full((48, 64, 3), colour, np.uint8), maps((48, 64))))
    assert torch.isfinite(found).all()
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_one_label_alone(mapper: Any) -> None:
    found = mapper.refine(refine_request(image((48, 64)), maps((48, 64), 1)))
    assert found.shape == (1, 12, 16)
    assert torch.isfinite(found).all()


def test_maps_are_refined_the_same_every_time(mapper: Any) -> None:
    one, other = (mapper.refine(refine_request(image((47, 61)), maps((47, 61)))) for _ in range(2))
    assert torch.equal(one, other)


def test_the_order_of_maps_does_not_matter(mapper: Any) -> None:
    given, classes = maps((48, 64), 3), torch.tensor([2, 3, 7])
    found = mapper.refine(refine_request(image((48, 64)), given, classes))
    turned = mapper.refine(refine_request(image((48, 64)), given.flip(0), classes.flip(0))).flip(0)
    torch.testing.assert_close(turned, found, rtol=1e-4, atol=1e-5)


def test_a_map_does_not_mind_half_precision(mapper: Any) -> None:
    exact = mapper.refine(refine_request(image((48, 64)), maps((48, 64))))
    stored = mapper.refine(refine_request(image((48, 64)), maps((48, 64)).half().float()))  # as the artifacts are
    assert float((exact - stored).abs().max()) < 0.01


@pytest.mark.parametrize("size", [(48, 64), (47, 61), (5, 90)])
@pytest.mark.parametrize("k", [0, 2])
def test_what_it_learns_from_is_drawn_from_image_and_maps_alone(
    trainable: TrainableRefiner, size: tuple[int, int], k: int
) -> None:
    given, classes = (
        maps(size, k) if k else torch.zeros(0, -(-size[0] // 4), -(-size[1] // 4)),
        torch.tensor([3, 7][:k]),
    )
    targets = trainable.targets(refine_request(image(size), given, classes))
    assert targets.dtype == np.uint8
    assert targets.shape[-2:] == size
    assert targets.ndim == {"labels": 2, "planes": 3}[trainable.targets_are]
    assert np.array_equal(targets, trainable.targets(refine_request(image(size), given, classes)))
    items = [trainable.item(image(size), targets, TAGS, np.random.default_rng(seed), IMAGENET) for seed in (1, 1, 2)]
    assert items[0].keys() == items[1].keys()
    assert all(torch.equal(items[0][key], items[1][key]) for key in items[0]), "all chance comes from the generator"
    assert any(not torch.equal(items[0][key], items[2][key]) for key in items[0])


def test_items_of_all_images_fit_into_one_batch_that_teaches(trainable: TrainableRefiner) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    items = []
    for size, k in (((48, 64), 2), ((61, 47), 1)):
        targets = trainable.targets(refine_request(image(size), maps(size, k), torch.tensor([3, 7][:k])))
        items.append(trainable.item(image(size), targets, TAGS, rng, IMAGENET))
    network = trainable.build(BackboneSettings(backbone="resnet10t", backbone_args=SMALL).build(), len(TAGS)).train()
    terms = trainable.losses(network, {key: torch.stack([item[key] for item in items]) for key in items[0]})
    terms["loss"].backward()
    groups = [parameter for group in trainable.parameter_groups(network) for parameter in group["params"]]
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in groups)
    named = dict(network.named_parameters())
    assert {id(p) for p in groups} == {id(p) for p in named.values() if p.requires_grad}


CLASSES = torch.tensor([3, 7])


@pytest.mark.parametrize("size", SIZES)
def test_labels_at_any_size_are_the_tags(labeller: Any, size: tuple[int, int]) -> None:
    found = labeller.labels(label_request(maps(size), CLASSES, size, 0.4))
    assert found.shape == size
    assert found.dtype == np.uint8
    assert set(np.unique(found)) <= {0, 3, 7, 255}


def test_without_tags_all_is_background(labeller: Any) -> None:
    found = labeller.labels(label_request(torch.zeros(0, 12, 16), torch.zeros(0, dtype=torch.int64), (48, 64), 0.4))
    assert found.shape == (48, 64)
    assert not found.any()


def test_labels_of_maps_that_are_not_finite_are_refused(labeller: Any) -> None:
    broken = maps((48, 64))
    broken[0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="finite"):
        labeller.labels(label_request(broken, CLASSES, (48, 64), 0.4))


def test_labels_and_maps_are_as_many(labeller: Any) -> None:
    with pytest.raises(DataError, match="do not fit"):
        labeller.labels(label_request(maps((48, 64), 3), CLASSES, (48, 64), 0.4))


def test_one_class_alone(labeller: Any) -> None:
    found = labeller.labels(label_request(maps((48, 64), 1), CLASSES[:1], (48, 64), 0.4))
    assert set(np.unique(found)) <= {0, 3, 255}


def test_a_higher_threshold_leaves_less(labeller: Any) -> None:
    areas = [
        int((labeller.labels(label_request(maps((48, 64)), CLASSES, (48, 64), t)) > 0).sum())
        for t in (0.0, 0.3, 0.6, 0.9, 1.0)
    ]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > areas[-1] == 0


def test_the_highest_map_wins(labeller: Any) -> None:
    given = torch.zeros(2, 4, 8)
    given[0, :, :4], given[1, :, 4:] = 1.0, 0.9
    found = labeller.labels(label_request(given, CLASSES, (16, 32), 0.5))
    assert (found[:, :12] == 3).all()
    assert (found[:, 20:] == 7).all()


def test_labels_are_the_same_every_time(labeller: Any) -> None:
    one, other = (labeller.labels(label_request(maps((47, 61)), CLASSES, (47, 61), 0.4)) for _ in range(2))
    assert np.array_equal(one, other)


def test_a_labeller_has_a_threshold(labeller: Any) -> None:
    assert labeller.background == "auto" or 0 <= labeller.background <= 1
