"""Features of a backbone that is not trained further, one vector an image, kept between calls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from tagmask.backbones.build import Backbone, BackboneSettings
from tagmask.backbones.channels import set_input
from tagmask.data.loading import ImageLoader
from tagmask.engine.engine import Engine
from tagmask.engine.image_loop import gather_images
from tagmask.errors import RunError
from tagmask.ops.transforms import normalise
from tagmask.progress.listeners import Progress
from tagmask.settings.recipe import Recipe
from tagmask.storage.arrays import SCHEMA, stored_arrays
from tagmask.storage.files import atomic_write
from tagmask.types import DataSource, FloatArray, Problem, Sample

#: Longest side of the images that features are made of.
SIDE = 512


def frozen_features(
    source: DataSource,
    samples: Sequence[Sample],
    recipe: Recipe,
    settings: BackboneSettings,
    cache: Path | None,
    progress: Progress,
) -> tuple[dict[str, FloatArray], list[Problem]]:
    """Mean of the last feature map of each image, float32 [D] by id, and the images that cannot be read.

    Args:
        source: of the images.
        samples: each once.
        recipe: its engine and seed.
        settings: the backbone and its weights.
        cache: file that keeps the features: an image whose file is as it was is not read again. None: nothing is kept.
        progress: who to tell.
    """
    key = hashlib.sha256(
        json.dumps([SCHEMA, SIDE, settings.model_dump(mode="json"), repr(source.pixels)]).encode()
    ).hexdigest()
    stamps = {sample.id: _stamp(sample) for sample in samples}
    stored = _stored(cache, key) if cache is not None else {}
    features = {name: value for name, (stamp, value) in stored.items() if stamps.get(name) == stamp}
    waiting = [sample for sample in samples if sample.id not in features]
    problems: list[Problem] = []
    if waiting:
        engine = Engine(recipe.engine.model_copy(update={"devices": 1}), seed=recipe.seed)
        backbone = settings.build()
        if source.input_statistics is not None:  # bands that are no colours
            set_input(backbone, source.input_statistics)
        backbone = engine.place(backbone)
        loader = ImageLoader("doubts", max_pixels=source.max_pixels, max_side=SIDE, pixels=source.pixels, cache_bytes=0)
        results = gather_images(
            engine,
            waiting,
            lambda sample: _feature(engine, backbone, loader, sample),
            progress=progress,
            description="features of the pretrained backbone",
        )
        problems = [result for result in results if isinstance(result, Problem)]
        features |= {
            sample.id: result
            for sample, result in zip(waiting, results, strict=True)
            if not isinstance(result, Problem)
        }
        if cache is not None and features:
            with suppress(RunError):  # a run that may only be read costs the time again, nothing else
                _store(cache, key, stamps, features)
    return features, problems


def _feature(engine: Engine, backbone: Backbone, loader: ImageLoader, sample: Sample) -> FloatArray | Problem:
    image = loader.load(sample)
    if isinstance(image, Problem):
        return image
    with torch.inference_mode(), engine.autocast():
        view = normalise(image, backbone.input_statistics)[None]
        view = view.to(engine.device, memory_format=torch.channels_last)
        pooled = backbone(view)[backbone.n_stages].float().mean((2, 3))[0]
    if not torch.isfinite(pooled).all():
        return Problem("doubts", sample.id, str(sample.image_path), "its features are not finite")
    vector: FloatArray = pooled.cpu().numpy()
    return vector


def _stamp(sample: Sample) -> str:
    """What an image file is known by: its size and time."""
    try:
        status = sample.image_path.stat()
    except OSError:
        return ""  # the loader says why
    return f"{status.st_size} {status.st_mtime_ns}"


def _stored(path: Path, key: str) -> dict[str, tuple[str, FloatArray]]:
    """Features of an earlier call with the same backbone; none where the file is another's or broken."""
    if not path.is_file():
        return {}
    try:
        with stored_arrays(path, "features") as arrays:
            if str(arrays["key"]) != key:
                return {}
            rows = zip(arrays["ids"].tolist(), arrays["stamps"].tolist(), arrays["features"], strict=True)
            return {name: (stamp, value) for name, stamp, value in rows}
    except RunError:
        return {}


def _store(path: Path, key: str, stamps: Mapping[str, str], features: Mapping[str, FloatArray]) -> None:
    ids = sorted(features)
    with atomic_write(path) as stream:
        np.savez(
            stream,
            key=np.array(key),
            ids=np.array(ids),
            stamps=np.array([stamps[name] for name in ids]),
            features=np.stack([features[name] for name in ids]),
        )
