"""The contract of localizers: maps of the tags only, in [0, 1], at stride 4, the same bits every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tagmask import registry
from tagmask.contracts.localizer import Trained, ViewLocalizer
from tagmask.errors import RecipeError, UnknownNameError
from tagmask.methods.cam.localizer import LinearView
from tagmask.models.classifier import Classifier, build_classifier
from tagmask.ops.views import Views
from tagmask.registry.validation import build_method
from tagmask.settings.classify import ClassifySettings
from tagmask.settings.loading import load_recipe
from tagmask.settings.localize import LocalizeSettings
from tagmask.stages.localize.stage import activation_maps
from tagmask.storage.weights import load_tensors, save_tensors
from tagmask.types import ActivationMaps, ClassifierOutput

CLASSES = 6
SIZES = [(64, 64), (47, 61), (33, 7), (1, 1), (5, 90)]


def classifier(head: Any = "gap", n_classes: int = CLASSES, **options: Any) -> Classifier:
    torch.manual_seed(0)
    settings = ClassifySettings(
        backbone="resnet10t", backbone_args={"channels": [8, 16, 24, 32], "stem_width": 8}, head=head, **options
    )
    model = build_classifier(settings, n_classes).eval()
    for parameter in model.head.parameters():
        nn.init.normal_(parameter)  # small first weights would hide most differences
    return model


def head_for(localizer: Any, head: Any = None) -> Any:
    """The head (gap); around it, where it lacks what the localizer asks for, those that have it."""
    head = head or registry.get("head", "gap")()
    for need in sorted(need for part in localizer.parts() for need in part.requires):
        if need not in head.offers():
            having = [other for other in registry.entries("head") if need in registry.get("head", other).provides]
            head = registry.get("head", having[0])(inner=head)
    return head


@pytest.fixture
def model(localizer: Any) -> Classifier:
    return classifier(head_for(localizer))


def image(size: tuple[int, int] = (47, 61)) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(size[0] * 100 + size[1]).integers(0, 256, (*size, 3), dtype=np.uint8)


def locate(
    model: Any, localizer: Any, labels: tuple[int, ...] = (2, 5), size: tuple[int, int] = (47, 61), **options: Any
) -> ActivationMaps:
    settings = LocalizeSettings(method=localizer, **{"scales": (1.0, 0.5), **options})
    return activation_maps(model, image(size), labels, settings, learnt=learnt(model, localizer))


def learnt(
    model: Any,
    localizer: Any,
    tags: tuple[tuple[int, ...], ...] = ((1, 2, 3), (4, 5, 6), ()),
    n_classes: int = CLASSES,
) -> dict[str, Any]:
    """What the localizer and those it works on learn from three images, as the stage has them do."""
    found: dict[str, Any] = {}
    for part in reversed(list(localizer.parts())):
        if part.learns:
            trained, reservoir = Trained(model, found), part.reservoir()
            for number, (index, labels) in enumerate(part.choose(tags, n_classes)):
                channels = torch.tensor([label - 1 for label in labels], dtype=torch.int64)
                views, rng = Views((1.0, 0.5)), np.random.default_rng(number)
                with torch.inference_mode():
                    reservoir.add(number, part.study(trained, image((60 + index, 72)), channels, views, rng))
            with torch.inference_mode():
                result = part.learn(trained, reservoir, [f"class{index}" for index in range(n_classes)], 0)
            found[part.name] = result.tensors
    return found


@pytest.mark.parametrize("size", SIZES)
def test_maps_at_any_size(model: Classifier, localizer: Any, size: tuple[int, int]) -> None:
    found = locate(model, localizer, size=size, scales=(1.0, 0.5, 1.5))
    assert found.maps.shape == (2, -(-size[0] // 4), -(-size[1] // 4))
    assert found.maps.dtype == np.float32
    assert found.classes.tolist() == [2, 5]
    assert found.image_size == size
    assert np.isfinite(found.maps).all()
    assert found.maps.min() >= 0
    assert found.maps.max() <= 1
    assert (found.peak >= 0).all()


def test_every_tag_has_its_map_and_nothing_else_has(model: Classifier, localizer: Any) -> None:
    everything = locate(model, localizer, labels=tuple(range(1, CLASSES + 1)))
    for labels in ((1,), (3, 6), (2, 4, 5)):
        some = locate(model, localizer, labels=labels)
        assert some.classes.tolist() == list(labels)
        if not localizer.classwise:
            continue
        for row, label in enumerate(labels):
            np.testing.assert_allclose(some.maps[row], everything.maps[label - 1], atol=1e-4)


def test_an_image_without_tags(model: Classifier, localizer: Any) -> None:
    found = locate(model, localizer, labels=())
    assert found.maps.shape == (0, 12, 16)
    assert found.classes.shape == found.peak.shape == (0,)


def test_the_same_bits_every_time(model: Classifier, localizer: Any) -> None:
    one, other = locate(model, localizer), locate(model, localizer)
    assert np.array_equal(one.maps, other.maps)
    assert np.array_equal(one.peak, other.peak)


def test_neither_the_mirror_nor_the_batch_changes_a_view(model: Classifier, localizer: Any) -> None:
    """View methods only: the maps of one view are the same beside its mirror and alone."""
    if not isinstance(localizer, LinearView):
        pytest.skip("looks at the image and its mirror together")
    views = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    channels = torch.tensor([1, 4])
    with torch.inference_mode():
        output: ClassifierOutput = model(views)
        both = localizer.view_maps(Trained(model), output, channels)
        alone = localizer.view_maps(Trained(model), model(views[:1]), channels)
    assert both.dtype == torch.float32
    assert both.shape[:2] == (2, 2)
    assert float(both.min()) >= 0
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-4)


def test_the_mirrored_image_gives_the_mirrored_maps(model: Classifier, localizer: Any) -> None:
    if not localizer.symmetric:
        pytest.skip("says of itself that it tells left from right")
    settings = LocalizeSettings(method=localizer, scales=(1.0,))
    picture = image((64, 64))
    known = learnt(model, localizer)
    there = activation_maps(model, picture, (2, 5), settings, learnt=known).maps
    back = activation_maps(model, np.ascontiguousarray(picture[:, ::-1]), (2, 5), settings, learnt=known).maps
    np.testing.assert_allclose(there, back[:, :, ::-1], atol=1e-4)


def test_half_precision_is_close(model: Classifier, localizer: Any) -> None:
    exact = locate(model, localizer)
    with torch.autocast("cpu", torch.bfloat16):
        half = locate(model, localizer)
    assert np.isfinite(half.maps).all()
    assert half.maps.dtype == np.float32
    assert np.abs(half.maps - exact.maps).mean() < 0.02


def test_a_dead_classifier_gives_zeros_not_nan(localizer: Any) -> None:
    dead = classifier(head_for(localizer))
    for parameter in dead.head.parameters():
        nn.init.zeros_(parameter)
    found = locate(dead, localizer)
    assert not found.maps.any()
    assert not found.peak.any()


def test_it_works_on_every_head(localizer: Any, head: Any) -> None:
    found = locate(classifier(head_for(localizer, head)), localizer, labels=tuple(range(1, CLASSES + 1)))
    assert np.isfinite(found.maps).all()
    assert found.maps.max() > 0.9  # each map has its maximum at (just below) 1


@pytest.mark.parametrize(
    ("backbone", "options"), [("mobilenetv2_050", {"final_conv": True}), ("resnet10t", {"output_stride": 8})]
)
def test_it_works_on_other_backbones(localizer: Any, backbone: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = build_classifier(ClassifySettings(backbone=backbone, head=head_for(localizer), **options), CLASSES).eval()
    assert np.isfinite(locate(model, localizer, scales=(1.0,)).maps).all()


def test_a_data_set_of_one_class(localizer: Any) -> None:
    model = classifier(head_for(localizer), n_classes=1)
    known = learnt(model, localizer, ((1,), (1,), ()), n_classes=1)
    settings = LocalizeSettings(method=localizer, scales=(1.0,))
    found = activation_maps(model, image(), (1,), settings, learnt=known)
    assert found.maps.shape == (1, 12, 16)
    assert np.isfinite(found.maps).all()


@pytest.mark.parametrize("frozen", [True, False])
def test_no_gradient_leaks(localizer: Any, frozen: bool) -> None:
    """Neither into the parameters nor out with the maps, also where a method climbs a gradient itself."""
    model = classifier(head_for(localizer)).requires_grad_(not frozen)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trained = Trained(model, learnt(model, localizer))
    maps = localizer.image_maps(trained, image((33, 40)), torch.tensor([1, 4]), Views((1.0,))).maps
    assert not maps.requires_grad
    assert maps.dtype == torch.float32
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad is not frozen for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_learning_depends_on_its_seed_alone(model: Classifier, localizer: Any) -> None:
    if not any(part.learns for part in localizer.parts()):
        pytest.skip("learns nothing")
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        found.append(learnt(model, localizer))
    assert found[0].keys() == found[1].keys()
    for name, tensors in found[0].items():
        assert tensors.keys() == found[1][name].keys()
        assert all(torch.equal(value, found[1][name][key]) for key, value in tensors.items()), name


def test_what_is_learnt_can_be_written(model: Classifier, localizer: Any, tmp_path: Path) -> None:
    """The stage writes it as safetensors and reads it in the next run."""
    for name, tensors in learnt(model, localizer).items():
        save_tensors(tmp_path / name, tensors, {})
        back = load_tensors(tmp_path / name)
        assert all(torch.equal(back[key], value) for key, value in tensors.items())


# -- nests: one localizer on the maps of another ----------------------------------------------------------------------

OUTER = [
    name for name in sorted(registry.entries("localizer")) if "inner" in registry.get("localizer", name).model_fields
]
NESTS = [(outer, inner) for outer in OUTER for inner in sorted(registry.entries("localizer"))]

Quick = dict[str, dict[str, Any]]


def nest_of(quick: Quick, outer: str, inner: str) -> Any:
    """The nest, or why there is none."""
    values = {"name": outer, **quick.get(outer, {}), "inner": {"name": inner, **quick.get(inner, {})}}
    try:
        return build_method("localizer", values, where="here.yaml", base=Path())
    except RecipeError as error:
        return str(error)


@pytest.mark.parametrize(("outer", "inner"), NESTS)
def test_a_nest_works_on_every_head_or_says_why_not(quick: Quick, outer: str, inner: str) -> None:
    nest = nest_of(quick, outer, inner)
    if isinstance(nest, str):
        assert inner != "cam", "every localizer with an inner one takes plain CAM"
        assert nest.startswith("here.yaml: inner: ")
        assert "\n" not in nest
        assert outer in nest
        assert inner in nest
        return
    assert [part.name for part in nest.parts()][:2] == [outer, inner]
    assert build_method("localizer", nest.dump(), where="again", base=Path()) == nest
    for head in sorted(registry.entries("head")):
        model = classifier(head_for(nest, registry.get("head", head)()))
        found = locate(model, nest, size=(40, 56), scales=(1.0,))
        assert found.maps.shape == (2, 10, 14)
        assert np.isfinite(found.maps).all(), head
        assert found.maps.min() >= 0, head


@pytest.mark.parametrize(("outer", "inner"), [nest for nest in NESTS if registry.get("localizer", nest[1]).requires])
def test_a_recipe_asks_for_the_head_that_the_inner_one_needs(quick: Quick, outer: str, inner: str) -> None:
    nest = nest_of(quick, outer, inner)
    if isinstance(nest, str):
        pytest.skip("no such nest")
    with pytest.raises(RecipeError, match=rf"localize: {inner} needs a classifier whose head has"):
        load_recipe({"localize": nest.dump()})
    head = {"name": "recam", "inner": {"name": "visual_words", "inner": "hspp"}}
    assert load_recipe({"classify": {"head": head}, "localize": nest.dump()}).localize.method == nest


def test_a_driver_is_not_inside_a_view_method() -> None:
    """Drivers look at images of their own making; a view method has one view only."""
    drivers = [
        name for name in registry.entries("localizer") if not issubclass(registry.get("localizer", name), ViewLocalizer)
    ]
    assert drivers
    for outer in OUTER:
        if issubclass(registry.get("localizer", outer), ViewLocalizer):
            for inner in drivers:
                with pytest.raises(RecipeError, match=inner):
                    build_method("localizer", {"name": outer, "inner": inner}, where="recipe", base=Path())


@pytest.mark.parametrize("outer", OUTER)
def test_a_head_is_no_inner_localizer(outer: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown localizer 'gap'"):
        build_method("localizer", {"name": outer, "inner": "gap"}, where="recipe", base=Path())
