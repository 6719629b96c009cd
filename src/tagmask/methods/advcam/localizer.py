"""AdvCAM: maps of an image that is changed step by step in favour of a class.

Lee, Kim, Yoon, "Anti-Adversarially Manipulated Attributions for Weakly and Semi-Supervised Semantic Segmentation",
CVPR 2021; docs/methods/advcam.md. Adversarial climbing adds to the image the gradient that raises one class's score,
so that parts of the object which the classifier does not need come to count as well. The maps of all steps are summed.

Three savings over the published loop leave the numbers as they are. The head is linear, so Grad-CAM's channel weights
are known without a backward pass: the gradient of sum_p ReLU(w_c . F_p) is w_c at each place that responds. Parameters
get no gradients. All classes of an image climb in one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from tagmask.contracts.localizer import ImageMaps, Localizer, Trained
from tagmask.methods.cam.localizer import LinearView
from tagmask.ops.views import Views
from tagmask.registry.field import MethodOf, by_name
from tagmask.registry.method import Method
from tagmask.types import UInt8Array

_EPS = 1e-12


class Climbing(Method):
    """How far and how freely to climb (the paper's xi, lambda and tau)."""

    step_size: Annotated[float, Field(gt=0)] = 0.08
    regulariser: Annotated[float, Field(ge=0)] = 7.0
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5


@dataclass(frozen=True, slots=True)
class Step:
    """One step of K climbs, without gradients: ``regions`` [K, h, w] before it, and unless it was the last, ``loss``
    [K], its ``gradient`` and the ``images`` after the step, both [K, V, 3, H, W].
    """

    regions: Tensor
    loss: Tensor | None = None
    gradient: Tensor | None = None
    images: Tensor | None = None


def grad_cam_regions(responses: Tensor, positive_weights: Tensor) -> Tensor:
    """Grad-CAM of a linear head, image and mirror summed.

    The published channel weight is (sum of the gradient over places) / (number of positive gradient entries of image
    and mirror together); here both are counted instead of computed by a backward pass.

    Args:
        responses: [K, V, h, w], ReLU(w_c . F) of one class per row for an image and (V = 2) its mirror.
        positive_weights: [K] number of positive entries of each class's weights.

    Returns:
        [K, h, w] >= 0, in the image's frame; the factors carry no gradient.
    """
    responding = (responses > 0).sum((-2, -1)).to(responses.dtype)
    factor = responding / (positive_weights[:, None] * responding.sum(1, keepdim=True) + _EPS)
    per_view = responses * factor[..., None, None]
    return per_view[:, 0] if per_view.shape[1] == 1 else per_view[:, 0] + per_view[:, 1].flip(-1)


def climb_step(
    images: Tensor,
    features_of: Callable[[Tensor], Tensor],
    class_weights: Tensor,
    channels: Tensor,
    clean: Tensor | None,
    settings: Climbing,
    *,
    move: bool = True,
) -> Step:
    """One step of adversarial climbing for K classes at once.

    Args:
        images: [K, V, 3, H, W] the image (and mirror) of each climb as it is now, float32.
        features_of: [B, 3, H, W] -> [B, D, h, w], differentiable, each image for itself.
        class_weights: [C, D] of all classes.
        channels: int64 [K], the class of each climb.
        clean: regions [K, h, w] of the first step; None: this is the first step.
        settings: step size, regulariser and score threshold.
        move: False: regions only, which needs no gradient.

    Returns:
        The step, with loss = y_c - sum of the other y_j - regulariser * sum_p |R - R0| [R / max R > threshold], where
        y_j is the mean response of class j, image and mirror added.
    """
    count, views = images.shape[:2]
    with torch.set_grad_enabled(move):
        flat = images.detach().flatten(0, 1).requires_grad_(move)
        features = features_of(flat)
        with torch.autocast(features.device.type, enabled=False):  # half precision would blur |R - R0|
            weights = class_weights.float()
            responses = torch.einsum("bdhw,cd->bchw", features.float(), weights).relu()
            responses = responses.reshape(count, views, *responses.shape[1:])
            own = responses[torch.arange(count, device=channels.device), :, channels]
            regions = grad_cam_regions(own, (weights[channels] > 0).sum(1))
            if not move:
                return Step(regions)
            scores = responses.mean((-2, -1)).sum(1)
            # y_c - sum of the others = 2 y_c - sum of all; the others are all other classes, further tags of the image
            # included.
            favour = 2 * own.mean((-2, -1)).sum(1) - scores.sum(1)
            # Which places are strong is asked anew at every step, as in the published code.
            fixed = regions.detach()
            strong = fixed / fixed.amax((-2, -1), keepdim=True) > settings.score_threshold  # 0 / 0 is not above it
            change = (regions - (fixed if clean is None else clean)).abs() * strong
            loss = favour - settings.regulariser * change.sum((-2, -1))
        (gradient,) = torch.autograd.grad(loss.sum(), flat)
    gradient = gradient.reshape(images.shape)
    largest = gradient.abs().amax((1, 2, 3, 4), keepdim=True)
    # Bounds are the extremes of the image as it is now, as published, so they never widen.
    low, high = images.amin((1, 2, 3, 4), keepdim=True), images.amax((1, 2, 3, 4), keepdim=True)
    next_images = (images + settings.step_size * gradient / (largest + _EPS)).clamp(low, high)
    return Step(fixed, loss.detach(), gradient, next_images)


def climb(
    pair: Tensor,
    features_of: Callable[[Tensor], Tensor],
    class_weights: Tensor,
    channels: Tensor,
    steps: int,
    settings: Climbing,
) -> Tensor:
    """Regions summed over all steps of the climbs from one image for K classes, see :func:`climb_step`.

    Args:
        pair: float32 [V, 3, H, W], the normalised image and (V = 2) its mirror; it is not changed.
        features_of: [B, 3, H, W] -> [B, D, h, w], differentiable, each image for itself.
        class_weights: [C, D] of all classes.
        channels: int64 [K].
        steps: number of regions to sum, >= 1; the last one needs no gradient.
        settings: step size, regulariser and score threshold.

    Returns:
        float32 [K, h, w], >= 0, without gradient.
    """
    images = pair.expand(len(channels), *pair.shape)
    total: Tensor | None = None
    clean: Tensor | None = None
    for step in range(1, steps + 1):
        result = climb_step(images, features_of, class_weights, channels, clean, settings, move=step < steps)
        total = result.regions.clone() if total is None else total + result.regions
        clean = result.regions if clean is None else clean
        images = images if result.images is None else result.images
    if total is None:
        msg = f"steps={steps}: at least one is needed"
        raise ValueError(msg)
    return total


def steps_and_factors(scales: tuple[float, ...], steps: int, *, compensate: bool) -> list[tuple[int, float]]:
    """Per scale, in ascending order, the number of steps and the factor of its sum of regions.

    The published code takes fewer steps at its smallest scale (0.5): half of more than 10, and 5 of 6 to 10. Half as
    many steps are made up for by the factor 2, which then stays for all scales (docs/methods/advcam.md);
    ``compensate``: for the smallest only, as intended.
    """
    first, factor = (steps, 1.0) if steps < 6 else (5, 1.0) if steps <= 10 else (steps // 2, 2.0)
    if min(scales) >= 1:
        return [(steps, 1.0)] * len(scales)
    return [(first, factor), *[(steps, 1.0 if compensate else factor)] * (len(scales) - 1)]


class AdvCam(Localizer, Climbing):
    """Driver: climbs with the weights of ``inner``, a view method that is linear in the features."""

    name: ClassVar[str] = "advcam"
    inner: Annotated[LinearView, MethodOf("localizer", Localizer)] = by_name("cam", formerly="seed")
    steps: Annotated[int, Field(ge=1)] = 27
    compensate: bool = False
    classes_at_once: Annotated[int, Field(ge=1)] = 4

    @field_validator("inner")
    @classmethod
    def _linear(cls, inner: Localizer) -> Localizer:
        if not isinstance(inner, LinearView):
            msg = f"advcam climbs the response of a linear view method, such as cam or recam; '{inner.name}' is not one"
            raise ValueError(msg)
        return inner

    def image_maps(self, trained: Trained, image: UInt8Array, channels: Tensor, views: Views) -> ImageMaps:
        """See :meth:`Localizer.image_maps`."""
        ascending = replace(views, scales=tuple(sorted(views.scales)))
        plan = steps_and_factors(ascending.scales, self.steps, compensate=self.compensate)
        # Tensors of inference mode take no part in gradients. Gradients of half floats (fp16) would vanish; those of
        # bfloat16 have the range of float32.
        device = torch.device(trained.device).type
        half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
        autocast = torch.is_autocast_enabled(device) and not half
        with torch.inference_mode(False), torch.autocast(device, enabled=autocast):
            weights = self.inner.weights(trained.classifier).detach().clone()
            per_scale = [
                factor * self._scale(trained, pair.to(trained.device), weights, channels.clone(), steps)
                for pair, (steps, factor) in zip(ascending.of(image), plan, strict=True)
            ]
            return ImageMaps.of_scales(per_scale, (image.shape[0], image.shape[1]))

    def _scale(self, trained: Trained, pair: Tensor, weights: Tensor, channels: Tensor, steps: int) -> Tensor:
        """[K, h, w] of one scale, a few classes at a time: each keeps every layer's activations for its gradient."""
        parts = [
            climb(pair, lambda images: trained.look(images).features, weights, some, steps, self)
            for some in torch.split(channels, self.classes_at_once)
        ]
        return torch.cat(parts)
