"""The segment stage: train a segmentation network on pseudo masks (or real ones), predict val.

Further rounds (``segment/2``, ...) train on labels that the network before gave the training images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tagmask.backbones.build import keep_statistics
from tagmask.backbones.channels import fit_input
from tagmask.contracts.loss import Loss, Targets
from tagmask.contracts.network import SegmentationModel
from tagmask.contracts.optimizer import build_optimizer, parameter_groups, rate_factor
from tagmask.contracts.planes import SALIENCY
from tagmask.data.facts import long_sides
from tagmask.data.loading import CACHE_BYTES, ImageLoader
from tagmask.data.working_size import working_size_for
from tagmask.engine.image_loop import process_images
from tagmask.engine.training import train
from tagmask.errors import RunError, TagmaskError
from tagmask.models.classifier import load_classifier
from tagmask.models.inference import Inference
from tagmask.models.segmenter import load_segmenter
from tagmask.models.tag_gate import Segmenter, TagGated
from tagmask.ops.transforms import View, resize_mask, working_size
from tagmask.runs.context import TRAIN, VAL, Context
from tagmask.runs.corrections import NO_CORRECTIONS, Corrections, find_corrections, with_real_masks
from tagmask.runs.stage_names import REFINE, SEGMENT, SEGMENT_FULL
from tagmask.settings.segment import SegmentSettings
from tagmask.stages.planes import plane_of
from tagmask.stages.segment.balance import object_pixel
from tagmask.stages.segment.guides import PlaneReader, PlanesReader, check_saliency, planes_reader, weights_reader
from tagmask.stages.segment.schedule import options, sampling_weights, settled
from tagmask.stages.segment.self_training import relabel
from tagmask.storage.pictures import load_mask, save_mask
from tagmask.storage.pixel_values import pixels_entry
from tagmask.storage.weights import save_weights, statistics_entry
from tagmask.types import InputStatistics, Problem, Sample, UInt8Array

WEAK, FULL = SEGMENT, SEGMENT_FULL
_TOLD = {WEAK: "", FULL: " on real masks"}

MaskReader = Callable[[Sample], UInt8Array]


class MaskSet:
    """Augmented images and label masks."""

    def __init__(
        self,
        loader: ImageLoader,
        samples: list[Sample],
        settings: SegmentSettings,
        read_mask: Callable[[Sample], UInt8Array],
        *,
        statistics: InputStatistics,
        planes: Iterable[str] = (),
        read_planes: PlanesReader | None = None,
        read_weights: PlaneReader | None = None,
    ) -> None:
        self.samples, self.read_mask = samples, read_mask
        self.planes, self.read_planes, self.read_weights = sorted(planes), read_planes, read_weights
        self.loader, self.augment, self.statistics = loader, settings.augment, statistics
        self.aimed = settings.foreground_crops
        self.reduced: dict[str, UInt8Array] = {}
        self.reduced_bytes = 0

    def __len__(self) -> int:
        return len(self.samples)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor] | Problem:
        """One training pair: image [3, crop, crop], labels int64 [crop, crop], and what the loss needs beside them.

        That is 'weights' [crop, crop], and the planes [crop, crop] by name with 'valid': False outside the image and
        where the image lacks one of them.
        """
        sample = self.samples[index]
        image = self.loader.load(sample)
        if isinstance(image, Problem):
            return image
        try:
            mask = self._mask(sample)
            weights = self.read_weights(sample) if self.read_weights else None
            planes = self.read_planes(sample) if self.read_planes else {}
        except TagmaskError as error:
            return Problem(stage=self.loader.stage, id=sample.id, path=str(sample.mask_path or ""), reason=str(error))
        augment, size = self.augment, (image.shape[0], image.shape[1])
        # One view for all planes: saliency or weights of another crop would still train, and wrongly.
        over = object_pixel(mask, rng) if self.aimed and rng.random() < self.aimed else None
        options: dict[str, Any] = {"choices": augment.scale_choices, "short_side": augment.short_side}
        view = View.draw(size, crop=augment.crop, scale=augment.scale, flip=augment.flip, rng=rng, over=over, **options)
        if augment.most_of_one is not None:
            view = view.mixed(mask, augment.most_of_one, rng)
        pixels = view.pixels(image, augment.colour_jitter, rng, self.statistics)
        item = {"image": pixels, "labels": view.labels(mask)}
        if self.read_weights and weights is not None:
            item["weights"] = view.plane(weights)
        # An image that lacks a plane is trained, but not by planes: no pixel of it is valid there.
        if self.planes:
            inside = view.inside()
            for name in self.planes:
                item[name] = view.plane(planes[name]) if name in planes else torch.zeros(inside.shape)
            item["valid"] = inside if all(name in planes for name in self.planes) else torch.zeros_like(inside)
        return item

    def _mask(self, sample: Sample) -> UInt8Array:
        """A mask at the working size; masks are stored at the size of the image's file."""
        if sample.id in self.reduced:
            return self.reduced[sample.id]
        stored = self.read_mask(sample)
        mask = resize_mask(stored, working_size((stored.shape[0], stored.shape[1]), self.loader.max_side))
        # Decoding one of 12 megapixels again and again would take as long as half of the training.
        if mask.shape != stored.shape and self.reduced_bytes + mask.nbytes <= CACHE_BYTES:
            self.reduced[sample.id] = mask
            self.reduced_bytes += mask.nbytes
        return mask


class SegmentationTask:
    """The segmentation network's training step."""

    def __init__(
        self, settings: SegmentSettings, model: SegmentationModel, dataset: MaskSet, loss: Loss | None = None
    ) -> None:
        self.settings, self.model, self.dataset = settings, model, dataset
        self.loss = loss or settings.loss

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Encoder at lr, everything else at head_lr."""
        encoder = list(self.model.encoder.parameters())
        encoder_ids = {id(parameter) for parameter in encoder}
        rest = [parameter for parameter in self.model.parameters() if id(parameter) not in encoder_ids]
        return parameter_groups(self.settings.optimizer, encoder, rest, undecayed=self.model.undecayed())

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """As the recipe says."""
        return build_optimizer(self.settings.optimizer, groups)

    def rate(self, step: int, total: int) -> float:
        """As the recipe says."""
        # DeepLab's code renews the rate every ten updates.
        return rate_factor(self.settings.optimizer, step - step % self.settings.hold, total)

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The recipe's loss, over all outputs of the network, each with its weight."""
        if len(batch["image"]) == 1:  # batch norm behind the pooled branch has no variance over a single value
            batch = {name: torch.cat([value, value]) for name, value in batch.items()}
        outputs = model(batch["image"].contiguous(memory_format=torch.channels_last))
        targets = Targets(
            labels=batch["labels"],
            weights=batch.get("weights"),
            planes={name: batch[name] for name in self.loss.needs},
            valid=batch.get("valid"),
            factors=self.model.output_weights,
        )
        return self.loss.terms(outputs, targets)

    def validate(self, epoch: int) -> dict[str, Any] | None:
        """Nothing: real masks are opened in evaluate only."""
        del epoch
        return None


def run(context: Context, stage: str = WEAK) -> list[Problem]:
    """Train on pseudo masks (also in a round of self-training) or on real ones (``SEGMENT_FULL``), and predict val."""
    settings = context.recipe.segment
    if settings is None:
        msg = "segment: the recipe has no segment section"
        raise RunError(msg)
    workspace = context.workspace
    corrections = _hand_made(context) if stage != FULL else NO_CORRECTIONS
    masks = _masks(context, settings, stage, corrections)
    if stage != FULL and SALIENCY in settings.loss.needs:
        samples, read_mask, _ = masks
        check_saliency(context, samples, read_mask, lambda sample: plane_of(workspace, SALIENCY, sample), stage)
    if not workspace.model_path(stage).exists():
        _train(context, settings, stage, *masks, corrections)
    context.engine.barrier()
    problems = [p for p in workspace.problems() if p.stage == f"{stage} (training)"]
    return problems + _predict(context, settings, stage)


def _hand_made(context: Context) -> Corrections:
    """Masks that take the place of pseudo masks."""
    return with_real_masks(find_corrections(context.workspace, context.recipe, context.source), context.source)


def _masks(
    context: Context, settings: SegmentSettings, stage: str, corrections: Corrections
) -> tuple[list[Sample], MaskReader, list[Problem]]:
    """What a training learns from: samples, how their masks are read, and images left out on the way."""
    workspace = context.workspace
    if stage == FULL:
        samples = [s for s in context.samples(TRAIN) if context.source.has_mask(s)]
        return samples, context.source.read_mask, []

    def read(sample: Sample) -> UInt8Array:
        own = sample.id in corrections.ids
        return corrections.read(sample) if own else load_mask(workspace.mask_path(sample.id, masks))

    masks = REFINE if stage == WEAK else stage
    there = [s for s in context.samples(TRAIN) if workspace.mask_path(s.id).exists() or s.id in corrections.ids]
    if stage == WEAK:
        return there, read, []
    before = workspace.model_path(settings.stages[settings.stages.index(stage) - 1])

    # A function: the network is needed only while an image is without its new labels.
    def load() -> Segmenter:
        return context.engine.place(load_segmenter(before, settings.network))

    problems = relabel(context, settings, load, there, stage)
    return [s for s in there if workspace.mask_path(s.id, stage).exists()], read, problems


def _train(
    context: Context,
    settings: SegmentSettings,
    stage: str,
    samples: list[Sample],
    read_mask: MaskReader,
    left_out: list[Problem],
    corrections: Corrections,
) -> None:
    """Leave the trained network, and before it the list of inputs left out: the one says that the other is whole."""
    workspace = context.workspace
    if not samples:
        msg = (
            f"{stage}: no train image has a mask; full supervision needs real masks"
            if stage == FULL
            else (f"{stage}: there are no pseudo masks to train on; see problems.jsonl")
        )
        raise RunError(msg)
    settings = settled(context, settings, stage, samples)
    model = _new_model(context, settings)
    weak = stage != FULL
    confidence = settings.confidence if weak else None
    dataset = MaskSet(
        context.loader(f"{stage} (training)", cached=True),
        samples,
        settings,
        read_mask,
        statistics=model.input_statistics,
        planes=settings.loss.needs if weak else (),
        read_planes=planes_reader(context, settings.loss.needs, corrections),
        read_weights=weights_reader(context, confidence, stage, corrections) if confidence else None,
    )
    problems = train(
        context.engine,
        SegmentationTask(settings, model, dataset, settings.loss if weak else settings.plain_loss),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        folder=workspace.stage(stage),
        progress=context.progress,
        clip_norm=settings.optimizer.clip_norm,
        description="train the segmentation network" + _TOLD.get(stage, f" again ({stage})"),
        options=options(settings, sampling_weights(settings, samples, read_mask, corrections.ids)),
    )
    if context.engine.is_main:
        # Before the network, whose file says that the training is whole: killed in between, the list would be lost.
        workspace.write_problems(f"{stage} (training)", [*left_out, *problems])
        description = _description(context, settings, model)
        whole: nn.Module = model
        if weak and (settings.tag_gate, settings.clean_gate) != (None, None):
            description["tag_gate"], whole = _gated(context, model, settings)
        save_weights(workspace.model_path(stage), whole, description)


def _description(context: Context, settings: SegmentSettings, model: SegmentationModel) -> dict[str, Any]:
    """What the network's file says of it: how to build it, to feed it, and to predict with it."""
    seen = working_size_for(long_sides(context.samples(TRAIN), context.source.max_pixels)).long_side
    return {
        "kind": "segmenter",
        "classes": list(context.source.classes.names),
        "network": settings.network.dump(),
        **asdict(Inference.of(settings, context.recipe.working_size)),
        **statistics_entry(model.input_statistics),
        **pixels_entry(context.source.pixels),
        "trained_long_side": min(seen, context.recipe.working_size or seen),
    }


def _gated(context: Context, model: SegmentationModel, settings: SegmentSettings) -> tuple[dict[str, Any], TagGated]:
    """The network behind the gate of the run's classifier, and how to build that again."""
    threshold, clean = settings.tag_gate or 0.0, settings.clean_gate or 0.0
    name, classify = list(context.recipe.trainings.items())[-1]
    path = context.workspace.model_path(name)
    classifier = load_classifier(path, classify, context.source.classes)
    description = {
        "threshold": threshold,
        **({"clean": clean} if clean else {}),
        "heir": settings.gate_heir,
        "classifier": classify.model_dump(mode="json"),
        **statistics_entry(classifier.input_statistics),
    }
    return description, TagGated(model, classifier, threshold, clean, settings.gate_heir)


def _new_model(context: Context, settings: SegmentSettings) -> SegmentationModel:
    """A network at its first weights, the same for every training of a run."""
    # At each training: rounds and full supervision start from the very weights that the first did.
    torch.manual_seed(context.recipe.seed)
    classifier = context.workspace.model_path(context.recipe.last_training)
    n_labels = len(context.source.classes.names)
    model: SegmentationModel = settings.network.build(n_labels, classifier=classifier if classifier.exists() else None)
    if context.source.input_statistics is not None and not settings.network.starts_from_classifier:
        fit_input(model, context.source.input_statistics)
    model.train()
    if settings.batch_norm == "eval":
        keep_statistics(model.encoder)
    return model


def _predict(context: Context, settings: SegmentSettings, stage: str) -> list[Problem]:
    engine, workspace = context.engine, context.workspace
    model = load_segmenter(workspace.model_path(stage), settings.network)
    engine.place(model)
    loader = context.loader(stage)
    n_labels = len(context.source.classes.names)
    inference = Inference.of(settings, context.recipe.working_size)

    def work(sample: Sample) -> Problem | None:
        image = loader.load(sample)
        if isinstance(image, Problem):
            return image
        with engine.autocast():
            mask = inference.labels(
                model, image, n_labels=n_labels, device=engine.device, size=loader.full_size(sample, image)
            )
        save_mask(workspace.prediction_path(sample.id, stage), mask)
        return None

    return process_images(
        engine,
        context.samples(VAL),
        work,
        done=lambda s: workspace.prediction_path(s.id, stage).exists(),
        progress=context.progress,
        description="predict val",
    )
