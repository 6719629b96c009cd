"""The segment stage: train a segmentation network on pseudo masks (or real ones), predict val."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tagmask.classify.backbones import keep_statistics
from tagmask.context import TRAIN, VAL, Context
from tagmask.data.loading import ImageLoader
from tagmask.data.transforms import augment_pair
from tagmask.engine import each_image
from tagmask.errors import RunError, TagmaskError
from tagmask.interfaces import Problem, Sample, UInt8Array
from tagmask.optim import build_optimizer, parameter_groups, rate_factor
from tagmask.segment.losses import cross_entropy, nearest_to
from tagmask.segment.model import SegmentationModel
from tagmask.segment.predict import predict_probabilities, to_mask
from tagmask.segment.schedule import options, sampling_weights, scaled
from tagmask.settings import SegmentSettings
from tagmask.training import train
from tagmask.weights import load_weights, read_description, save_weights

WEAK, FULL = "segment", "segment/full"


class MaskSet:
    """Augmented images and label masks."""

    def __init__(
        self,
        stage: str,
        samples: list[Sample],
        settings: SegmentSettings,
        read_mask: Callable[[Sample], UInt8Array],
        *,
        max_pixels: int,
    ) -> None:
        self.samples, self.read_mask = samples, read_mask
        self.stage, self.augment = stage, settings.augment
        self.loader = ImageLoader(stage, max_pixels=max_pixels)

    def __len__(self) -> int:
        return len(self.samples)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor] | Problem:
        """One training pair: image [3, crop, crop], labels int64 [crop, crop]."""
        sample = self.samples[index]
        image = self.loader.load(sample)
        if isinstance(image, Problem):
            return image
        try:
            mask = self.read_mask(sample)
        except TagmaskError as error:
            return Problem(stage=self.stage, id=sample.id, path=str(sample.mask_path or ""), reason=str(error))
        augment = self.augment
        pixels, labels = augment_pair(
            image,
            mask,
            crop=augment.crop,
            scale=augment.scale,
            flip=augment.flip,
            colour_jitter=augment.colour_jitter,
            rng=rng,
        )
        return {"image": pixels, "labels": labels}


class SegmentationTask:
    """The segmentation network's training step."""

    def __init__(self, settings: SegmentSettings, model: SegmentationModel, dataset: MaskSet) -> None:
        self.settings, self.model, self.dataset = settings, model, dataset

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Encoder at lr, everything else at head_lr."""
        encoder = list(self.model.encoder.parameters())
        known = {id(parameter) for parameter in encoder}
        rest = [parameter for parameter in self.model.parameters() if id(parameter) not in known]
        settings, fixed = self.settings, self.model.undecayed()
        return parameter_groups(settings.optimizer, encoder, rest, undecayed=fixed, bias_factor=settings.bias_factor)

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """As the recipe says."""
        return build_optimizer(self.settings.optimizer, groups)

    def rate(self, step: int, total: int) -> float:
        """As the recipe says."""
        return rate_factor(self.settings.optimizer, step - step % self.settings.hold, total)

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cross entropy on pixels that are not ignored, over all outputs of the network, each with its weight."""
        images, labels = batch["image"], batch["labels"]
        if len(images) == 1:  # batch norm behind the pooled branch has no variance over a single value
            images, labels = torch.cat([images, images]), torch.cat([labels, labels])
        outputs = model(images.contiguous(memory_format=torch.channels_last))
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        terms = [cross_entropy(logits.float(), nearest_to(labels, logits.shape[-2:])) for logits in outputs]
        return {"loss": torch.stack(terms) @ torch.tensor(self.model.output_weights, device=labels.device)}

    def validate(self, epoch: int) -> dict[str, Any] | None:
        """Nothing: real masks are opened in evaluate only."""
        del epoch
        return None


def run(context: Context, stage: str = WEAK) -> list[Problem]:
    """Train on pseudo masks (``segment``) or real masks (``segment/full``), save, predict val."""
    settings = context.recipe.segment
    if settings is None:
        msg = "segment: the recipe has no segment section"
        raise RunError(msg)
    workspace = context.workspace
    folder = workspace.stage(stage)
    if not (folder / "model.safetensors").exists():
        _train(context, settings, stage)
    context.engine.barrier()
    problems = [p for p in workspace.problems() if p.stage == f"{stage} (training)"]
    return problems + _predict(context, settings, stage)


def _train(context: Context, settings: SegmentSettings, stage: str) -> None:
    """Leave model.safetensors, and before it the list of inputs left out: the one says that the other is whole."""
    workspace = context.workspace
    if stage == WEAK:
        samples = [s for s in context.samples(TRAIN) if workspace.mask_path(s.id).exists()]
        read_mask: Callable[[Sample], UInt8Array] = lambda s: workspace.load_mask(workspace.mask_path(s.id))  # noqa: E731
    else:
        samples = [s for s in context.samples(TRAIN) if context.source.has_mask(s)]
        read_mask = context.source.read_mask
    if not samples:
        msg = (
            f"{stage}: no train image has a mask; full supervision needs real masks"
            if stage == FULL
            else (f"{stage}: there are no pseudo masks to train on; see problems.jsonl")
        )
        raise RunError(msg)
    settings = scaled(settings, len(samples))
    torch.manual_seed(context.recipe.seed)
    classifier = workspace.stage(list(context.recipe.trainings)[-1]) / "model.safetensors"
    names = context.source.classes.names
    model = settings.network.build(len(names), classifier=classifier if classifier.exists() else None)
    model.train()
    if settings.batch_norm == "eval":
        keep_statistics(model.encoder)
    dataset = MaskSet(f"{stage} (training)", samples, settings, read_mask, max_pixels=context.source.max_pixels)
    problems = train(
        context.engine,
        SegmentationTask(settings, model, dataset),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        folder=workspace.stage(stage),
        progress=context.progress,
        clip_norm=settings.optimizer.clip_norm,
        description="train the segmentation network" + (" on real masks" if stage == FULL else ""),
        options=options(settings, sampling_weights(settings, samples, read_mask)),
    )
    if context.engine.is_main:
        workspace.write_problems(f"{stage} (training)", problems)
        description = {
            "kind": "segmenter",
            "classes": list(names),
            "network": settings.network.dump(),
            "scales": list(settings.scales),
            "flip": settings.flip,
        }
        save_weights(workspace.stage(stage) / "model.safetensors", model, description)


def load_segmenter(path: Any, network: Any) -> SegmentationModel:
    """The network stored in a file of :func:`save_weights`, in eval mode."""
    names = read_description(path)["classes"]
    model: SegmentationModel = network.build(len(names), pretrained=False)
    load_weights(path, model)
    return model.eval()


def _predict(context: Context, settings: SegmentSettings, stage: str) -> list[Problem]:
    engine, workspace = context.engine, context.workspace
    model = load_segmenter(workspace.stage(stage) / "model.safetensors", settings.network)
    engine.place(model)
    loader = ImageLoader(stage, max_pixels=context.source.max_pixels, cache_bytes=0)

    def work(sample: Sample) -> Problem | None:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return image
        with engine.autocast():
            probabilities = predict_probabilities(
                model, image, scales=settings.scales, flip=settings.flip, device=engine.device
            )
        workspace.save_mask(workspace.prediction_path(sample.id, stage), to_mask(probabilities))
        return None

    return each_image(
        engine,
        context.samples(VAL),
        work,
        done=lambda s: workspace.prediction_path(s.id, stage).exists(),
        progress=context.progress,
        description="predict val",
    )
