"""The localize stage: activation maps of every image for its tags, one file an image.

Images are computed one by one (with their mirror), so that an artifact does not depend on how the images were
sharded, batched or resumed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tagmask.context import TRAIN, VAL, Context
from tagmask.data.loading import ImageLoader
from tagmask.engine import each_image
from tagmask.interfaces import ActivationMaps, ClassifierOutput, Problem, Sample, UInt8Array
from tagmask.localize.multi_scale import multi_scale_maps, strided_size, sum_scales
from tagmask.settings import LocalizeSettings

STAGE = "localize"


def activation_maps(
    model: torch.nn.Module,
    image: UInt8Array,
    labels: tuple[int, ...],
    settings: LocalizeSettings,
    *,
    device: torch.device | str = "cpu",
) -> ActivationMaps:
    """Maps of one image for the given labels (1..C); call it under the autocast you want.

    Returns float32 maps [K, ceil(H/4), ceil(W/4)] in [0, 1] and each map's maximum before division.
    """
    channels = torch.tensor([label - 1 for label in labels], dtype=torch.int64, device=device)
    size = strided_size((image.shape[0], image.shape[1]))
    if not labels:
        merged = torch.zeros(0, *size)
    else:

        def view_maps(views: Tensor) -> Tensor:
            output: ClassifierOutput = model(views.to(device, memory_format=torch.channels_last))
            maps: Tensor = settings.method.view_maps(output, model.class_weights, channels)
            return maps

        with torch.inference_mode():
            per_scale = multi_scale_maps(image, view_maps, settings.scales, flip=settings.flip)
            merged = sum_scales(per_scale, size).cpu()
    peak = merged.amax(dim=(-2, -1)) if labels else torch.zeros(0)
    return ActivationMaps(
        classes=(channels.cpu() + 1).numpy(),
        maps=(merged / (peak[:, None, None] + 1e-5)).numpy(),
        peak=peak.numpy(),
        image_size=(image.shape[0], image.shape[1]),
    )


def run(context: Context, model: torch.nn.Module) -> list[Problem]:
    """Write ``localize/maps/ID.npz`` for train and val; returns the images left out."""
    settings, workspace, engine = context.recipe.localize, context.workspace, context.engine
    loader = ImageLoader(STAGE, max_pixels=context.source.max_pixels, cache_bytes=0)

    def work(sample: Sample) -> Problem | None:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return image
        with engine.autocast():
            maps = activation_maps(model, image, sample.tags, settings, device=engine.device)
        workspace.save_maps(sample.id, maps)
        return None

    return each_image(
        engine,
        context.samples(TRAIN, VAL),
        work,
        done=lambda sample: workspace.map_path(sample.id).exists(),
        progress=context.progress,
        description="activation maps",
    )
