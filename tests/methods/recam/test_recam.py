"""ReCAM's loss and head: the published code's numbers and gradients, a case by hand, any inner head, empty images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tagmask.errors import RecipeError
from tagmask.functional import reactivation_loss
from tagmask.methods.cam.head import GapHead
from tagmask.methods.recam.head import RecamHead, class_features, positive_channels, single_label_loss
from tagmask.methods.softmax_ce.head import SoftmaxCeHead, softmax_tag_loss
from tagmask.models.classifier import build_classifier
from tagmask.settings.loading import load_recipe
from tagmask.stages.classify.stage import TagTask, _carry_over
from tagmask.storage.weights import save_weights

Stored = Mapping[str, np.ndarray[Any, Any]]
C, D = 4, 6


@pytest.fixture(scope="module")
def published(golden: Callable[[str], Stored]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in golden("recam").items()}


def leaves(published: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    features = published["features"].clone().requires_grad_()
    first, second = (published[f"{name}_weight"].flatten(1).clone().requires_grad_() for name in ("fc1", "fc2"))
    return features, first, second


def close(found: Tensor | None, expected: Tensor) -> None:
    """Within 1e-5, relative to the largest of the array."""
    assert found is not None
    expected = expected.reshape(found.shape).float()
    atol = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(found.float(), expected, rtol=1e-5, atol=atol)


def test_every_published_intermediate(published: Mapping[str, Tensor]) -> None:
    features, first, second = leaves(published)
    everything = torch.arange(5).expand(2, -1)
    cut = class_features(features, first, everything)
    close(cut, published["expected_single_label_feature"])
    close(cut @ second.T, published["expected_fc2_logits"])
    close(features.mean((2, 3)) @ first.T, published["expected_logits"])


def test_losses_are_the_published_ones(published: Mapping[str, Tensor]) -> None:
    terms = reactivation_loss(*leaves(published), published["labels"], weight=float(published["loss_weight"]))
    for key, name in (("bce", "loss_bce"), ("sce", "loss_sce"), ("total", "loss_total"), ("accuracy", "accuracy")):
        close(terms[key], published[f"expected_{name}"])


@pytest.mark.parametrize(("term", "prefix"), [("total", "grad"), ("sce", "grad_sce"), ("bce", "grad_bce")])
def test_gradients_are_the_published_ones(published: Mapping[str, Tensor], term: str, prefix: str) -> None:
    inputs = leaves(published)
    reactivation_loss(*inputs, published["labels"])[term].backward()
    for leaf, name in zip(inputs, ("features", "fc1_weight", "fc2_weight"), strict=True):
        expected = published.get(f"expected_{prefix}_{name}")
        if expected is None:  # the first term does not see the second classifier
            assert leaf.grad is None
        else:
            close(leaf.grad, expected)


def test_an_image_without_tags_counts_in_the_mean(published: Mapping[str, Tensor]) -> None:
    terms = reactivation_loss(*leaves(published), published["labels_with_empty_row"])
    close(terms["sce"], published["expected_loss_sce_with_empty_row"])
    close(terms["accuracy"], published["expected_accuracy_with_empty_row"])


def test_by_hand() -> None:
    """Formulas of docs/methods/recam.md on two positions, computed independently in double precision."""
    features = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]], dtype=torch.float64)
    first = torch.eye(2, dtype=torch.float64)
    second = 0.5 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    tags = torch.tensor([[1.0, 0.0]])
    terms = reactivation_loss(features, first, second, tags)
    assert float(terms["bce"]) == pytest.approx(0.720095, abs=5e-7)
    assert float(terms["sce"]) == pytest.approx(0.233963, abs=5e-7)
    cut = class_features(features, first, torch.tensor([[0]]))
    torch.testing.assert_close(cut[0, 0], torch.tensor([1.666661, 0.333332], dtype=torch.float64), rtol=0, atol=5e-7)
    weighted = reactivation_loss(features, first, second, tags, weight=0.1)["total"]
    assert float(weighted) == pytest.approx(0.720095 + 0.0233963, abs=1e-6)


def random_case(seed: int, batch: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(batch, D, 3, 4, generator=generator, dtype=torch.float64)
    first, second = torch.randn(2, C, D, generator=generator, dtype=torch.float64)
    tags = (torch.rand(batch, C, generator=generator) < 0.4).double()
    return features, first, second, tags


def published_way(features: Tensor, first: Tensor, second: Tensor, tags: Tensor) -> Tensor:
    """As the released code does it: every class of every image as a full masked feature map."""
    maps = torch.einsum("bdhw,cd->bchw", features, first).relu()
    masks = maps / (maps.flatten(2).amax(2)[..., None, None] + 1e-5)
    cut = (masks[:, :, None] * features[:, None]).mean((3, 4))
    loss = features.new_zeros(())
    for rows, row_tags in zip(cut @ second.T, tags, strict=True):
        positive = row_tags.nonzero()[:, 0]
        if len(positive):
            loss = loss + functional.cross_entropy(rows[positive], positive)
    return loss / len(features)


@given(st.integers(0, 200), st.integers(1, 4))
def test_positive_classes_alone_give_the_same_as_all(seed: int, batch: int) -> None:
    features, first, second, tags = random_case(seed, batch)
    expected = published_way(features, first, second, tags)
    torch.testing.assert_close(reactivation_loss(features, first, second, tags)["sce"], expected)


@given(st.integers(0, 200))
def test_gradients_reach_the_first_classifier_unless_masks_are_detached(seed: int) -> None:
    features, first, second, tags = random_case(seed)
    tags[0, 0] = 1
    first[0] = first[0].abs()  # a map that is not zero everywhere
    first.requires_grad_()
    kept = reactivation_loss(features, first, second, tags)["sce"]
    (gradient,) = torch.autograd.grad(kept, first)
    assert gradient.abs().sum() > 0
    assert not gradient[tags.sum(0) == 0].any()
    detached = reactivation_loss(features, first, second, tags, detach_masks=True)["sce"]
    torch.testing.assert_close(detached, kept)
    assert not detached.requires_grad


def test_nothing_tagged_at_all() -> None:
    features, first, second, tags = random_case(0)
    terms = reactivation_loss(features, first, second, torch.zeros_like(tags))
    assert float(terms["sce"]) == float(terms["accuracy"]) == 0
    assert float(terms["total"]) == float(terms["bce"])


def test_a_map_that_is_zero_everywhere_has_a_finite_gradient() -> None:
    features, first, second, _ = random_case(0)
    features.requires_grad_()
    loss = reactivation_loss(features, -first.abs(), second, torch.ones(3, C))["total"]
    loss.backward()
    assert torch.isfinite(features.grad).all()


def test_positives_come_first() -> None:
    tags = torch.tensor([[0.0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]])
    channels = positive_channels(tags)
    assert channels.shape == (3, 2)
    assert tags.gather(1, channels).tolist() == [[1, 1], [0, 0], [1, 0]]
    assert positive_channels(torch.zeros(2, 3)).shape == (2, 1)


def test_accuracy_counts_positives() -> None:
    second = torch.tensor([[[2.0, 1.0], [2.0, 1.0]]])  # row of class 0 is right, row of class 1 is not
    channels = torch.tensor([[0, 1]])
    assert float(single_label_loss(second, channels, torch.ones(1, 2))[1]) == 0.5
    assert float(single_label_loss(second, channels, torch.tensor([[1.0, 0.0]]))[1]) == 1.0


# -- the head ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["gap", "hspp", {"name": "visual_words", "words": 5, "inner": "hspp"}])
def test_any_inner_head_keeps_its_own_loss(inner: Any) -> None:
    torch.manual_seed(0)
    module = RecamHead(inner=inner, weight=0.3).build(D, C).train()
    features, _, _, tags = random_case(1)
    features, tags = features.float().requires_grad_(), tags.float()
    logits, extras = module(features, tags)
    terms = module.losses(logits, tags, extras)
    alone = module.inner.losses(*(lambda out: (out[0], tags, out[1]))(module.inner(features, tags)))["loss"]
    cut = class_features(features, module.class_weights, positive_channels(tags))
    sce = single_label_loss(cut @ module.second_weights.T, positive_channels(tags), tags)[0]
    torch.testing.assert_close(terms["loss"], alone + 0.3 * sce)
    terms["loss"].backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_the_head_is_the_function() -> None:
    torch.manual_seed(0)
    module = RecamHead(inner=GapHead(dropout=0.0)).build(D, C).train()
    features, _, _, tags = random_case(2)
    features, tags = features.float(), tags.float()
    logits, extras = module(features, tags)
    terms = module.losses(logits, tags, extras)
    expected = reactivation_loss(features, module.class_weights, module.second_weights, tags)
    torch.testing.assert_close(terms["loss"], expected["total"])
    torch.testing.assert_close(terms["second_accuracy"], expected["accuracy"])


def test_prediction_is_the_inner_head_s_alone() -> None:
    torch.manual_seed(0)
    module = RecamHead().build(D, C).eval()
    features = torch.rand(2, D, 3, 3)
    logits, extras = module(features)
    assert torch.equal(logits, module.inner(features)[0])
    assert extras == {}


def test_detached_masks_leave_the_first_classifier_to_its_own_loss() -> None:
    torch.manual_seed(0)
    features, _, _, tags = random_case(3)
    features, tags = features.float(), tags.float()
    found = []
    for detach in (False, True):
        module = RecamHead(detach_masks=detach).build(D, C).train()
        logits, extras = module(features, tags)
        sce = module.losses(logits, tags, extras)["sce"]
        found.append(torch.autograd.grad(sce, module.inner.weight.weight, allow_unused=True)[0])
    assert found[0].abs().sum() > 0
    assert found[1] is None


def test_second_weights_start_as_the_published_ones() -> None:
    torch.manual_seed(0)
    bound = 1 / 500**0.5  # torch's default is uniform in +- 1/sqrt(channels)
    first = RecamHead().build(500, 20).second_weights.detach()
    assert 0.95 * bound < float(first.abs().max()) <= bound
    assert float(RecamHead(init_std=0.2).build(500, 20).second_weights.detach().std()) == pytest.approx(0.2, rel=0.05)


def test_recam_around_recam_is_refused() -> None:
    with pytest.raises(RecipeError, match="cannot go around another recam"):
        load_recipe({"classify": {"head": {"name": "recam", "inner": "recam"}}})


def test_maps_of_the_second_classifier_need_one() -> None:
    with pytest.raises(RecipeError, match="recam needs a classifier whose head has second_weights"):
        load_recipe({"localize": "recam"})


def test_the_trained_classifier_goes_inside_and_learns_slowly(context_of: Any, tiny: dict[str, Any]) -> None:
    """As published, the first classifier has the backbone's rate, only the second one is fast."""
    recipe = {**tiny, "retrain": [{"head": "recam", "optimizer": {"lr": 1e-5, "head_lr": 1e-4}}]}
    context = context_of(recipe)
    before = build_classifier(context.recipe.classify, 8)
    save_weights(context.workspace.stage("classify") / "model.safetensors", before, {})
    model = build_classifier(context.recipe.retrain[0], 8, pretrained=False)
    carried = _carry_over(context.workspace.stage("classify") / "model.safetensors", model)
    assert torch.equal(model.class_weights, before.class_weights)
    rates = {
        id(parameter): group["lr"]
        for group in TagTask(context, model, "classify/2", carried).parameter_groups()
        for parameter in group["params"]
    }
    assert {name: rates[id(parameter)] for name, parameter in model.head.named_parameters()} == {
        "inner.weight.weight": 1e-5,
        "second.weight": 1e-4,
    }


# -- softmax cross entropy alone ---------------------------------------------------------------------------------


def test_softmax_alone_by_hand() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0]] * 3)
    tags = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0]])
    log_z = float(torch.tensor([1.0, 0.0, -1.0]).logsumexp(0))
    assert float(softmax_tag_loss(logits, tags)) == pytest.approx(((log_z - 1) + (log_z - 0.5) + 0) / 3)
    margin = functional.multilabel_soft_margin_loss(logits[1:], tags[1:], reduction="none")
    mixed = softmax_tag_loss(logits, tags, only_single=True)
    assert float(mixed) == pytest.approx(float((log_z - 1 + margin.sum()) / 3))


def test_softmax_couples_classes_and_sigmoid_does_not() -> None:
    """d/dz of the softmax loss is softmax(z) - onehot, of the soft margin (sigmoid(z) - y) / C (docs/analysis.md)."""
    logits = torch.tensor([[2.0, 1.0, -1.0]], requires_grad=True)
    tags = torch.tensor([[1.0, 0.0, 0.0]])
    (coupled,) = torch.autograd.grad(softmax_tag_loss(logits, tags), logits)
    torch.testing.assert_close(coupled, logits.softmax(1) - tags)
    module = GapHead().build(D, 3)
    (separate,) = torch.autograd.grad(module.losses(logits, tags, {})["loss"], logits)
    torch.testing.assert_close(separate, (logits.sigmoid() - tags) / 3)


@pytest.mark.parametrize("only_single", [False, True])
def test_the_head_hands_its_setting_on(only_single: bool) -> None:
    torch.manual_seed(0)
    module = SoftmaxCeHead(only_single=only_single).build(D, C)
    logits, tags = torch.randn(3, C), torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    loss = module.losses(logits, tags, {})["loss"]
    torch.testing.assert_close(loss, softmax_tag_loss(logits, tags, only_single=only_single))
