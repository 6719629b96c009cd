"""Sub-labels of the training images for the head ``subcategory``: clusters of each class's images.

Chang et al. (SC-CAM), CVPR 2020; docs/methods/sc-cam.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tagmask.data.loading import ImageLoader
from tagmask.engine.image_loop import gather_images
from tagmask.errors import RunError
from tagmask.methods.sc_cam.clusters import clusters_of
from tagmask.models.classifier import Classifier
from tagmask.ops.transforms import normalise
from tagmask.runs.context import TRAIN, Context
from tagmask.storage.arrays import SCHEMA
from tagmask.storage.records import read_json, write_json
from tagmask.types import FloatArray, Problem, Sample


def subcategories(
    context: Context, stage: str, clusters: int, previous: Classifier
) -> tuple[dict[str, Tensor], list[Problem]]:
    """Sub-labels of every training image, from the features of the classifier trained before.

    They are kept in the training's folder as ``subcategories.json``; a training that is resumed reads them there.

    Args:
        context: of the training.
        stage: its name.
        clusters: k, sub-categories a class.
        previous: the classifier trained before, in eval mode on the engine's device.

    Returns:
        per image id multi-hot float32 [C * k] (zeros where the image could not be read), and what fell short.

    Raises:
        RunError: features are not finite, or the file cannot be read.
    """
    path = context.workspace.stage(stage) / "subcategories.json"
    if not path.exists():
        vectors = _features(context, previous)
        if context.engine.is_main:
            _write(path, context, clusters, vectors)
        context.engine.barrier()
    stored = read_json(path)
    size = len(context.source.classes.foreground) * clusters
    labels = {}
    for sample in context.samples(TRAIN):
        labels[sample.id] = torch.zeros(size)
        labels[sample.id][stored["images"].get(sample.id, [])] = 1.0
    return labels, [Problem(stage, name, "", reason, left_out=False) for name, reason in stored["notes"]]


def _features(context: Context, model: Classifier) -> dict[str, FloatArray]:
    """Mean of the last features [D] of every training image that can be read: scale 1, not mirrored. On every rank."""
    engine = context.engine
    loader = ImageLoader("classify", max_pixels=context.source.max_pixels, cache_bytes=0)

    def work(sample: Sample) -> tuple[str, FloatArray | None]:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return sample.id, None  # the training lists it
        with engine.autocast(), torch.inference_mode():
            view = normalise(image)[None].to(engine.device, memory_format=torch.channels_last)
            pooled = model(view).features[0].float().mean((1, 2)).cpu().numpy()
        if not np.isfinite(pooled).all():
            msg = f"classify: the features of image '{sample.id}' are not finite. Use engine.precision=float32."
            raise RunError(msg)
        return sample.id, pooled

    title = "sub-categories: features of the training images"
    results = gather_images(engine, context.samples(TRAIN), work, progress=context.progress, description=title)
    return {name: vector for name, vector in results if vector is not None}


def _write(path: Path, context: Context, clusters: int, vectors: dict[str, FloatArray]) -> None:
    notes: list[list[str]] = []
    samples = [sample for sample in context.samples(TRAIN) if sample.id in vectors]
    images: dict[str, list[int]] = {sample.id: [] for sample in samples}
    names = context.source.classes.foreground
    context.progress.start("sub-categories: clusters", len(names))
    for channel, name in enumerate(names):
        members = [sample.id for sample in samples if channel + 1 in sample.tags]
        # A seed for each class: an image more in one leaves the clusters of the others as they are.
        labels, note = clusters_of([vectors[member] for member in members], clusters, [context.recipe.seed, channel])
        for member, label in zip(members, labels, strict=True):
            images[member].append(channel * clusters + label)
        notes += [[name, note]] if note else []
        context.progress.advance(1)
    context.progress.finish()
    write_json(path, {"schema": SCHEMA, "clusters": clusters, "images": images, "notes": notes})
