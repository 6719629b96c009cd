"""The classify stage: train the tag classifier, measure it on val, save it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tagmask.backbones.channels import fit_input, set_input
from tagmask.contracts.optimizer import build_optimizer, parameter_groups, rate_factor
from tagmask.data.loading import ImageLoader
from tagmask.engine.training import Options, train
from tagmask.errors import InputError
from tagmask.models.classifier import Classifier, build_classifier
from tagmask.ops.tags import multi_hot
from tagmask.ops.transforms import augment_image, normalise
from tagmask.runs.context import TRAIN, VAL, Context
from tagmask.runs.stage_names import CLASSIFY
from tagmask.runs.trained import trained_classifier
from tagmask.settings.classify import ClassifySettings, RetrainSettings
from tagmask.settings.presets import CROP_SIZES
from tagmask.stages.classify.best_weights import BestWeights
from tagmask.stages.classify.given import check_channels, given_classifier, warn_of_unknown_tags
from tagmask.stages.classify.preparations import Prepared, prepare
from tagmask.stages.classify.tag_precision import tag_precision
from tagmask.stages.classify.warm_start import start_from
from tagmask.stages.training_length import training_length
from tagmask.storage.files import atomic_write
from tagmask.storage.pixel_values import pixels_entry
from tagmask.storage.records import json_text
from tagmask.storage.weights import load_tensors, read_description, save_weights, statistics_entry, stored_statistics
from tagmask.types import InputStatistics, Problem, Sample

STAGE = CLASSIFY
TRAIN_IMAGES = 100  # whose tags are ranked after the training


class TagSet:
    """Augmented images and multi-hot tags, and what was prepared for this training."""

    def __init__(
        self,
        settings: ClassifySettings,
        n_classes: int,
        samples: list[Sample],
        loader: ImageLoader,
        prepared: Prepared | None = None,
        *,
        statistics: InputStatistics,
    ) -> None:
        self.samples, self.loader = samples, loader
        self.augment, self.n_classes, self.statistics = settings.augment, n_classes, statistics
        self.prepared = prepared or Prepared()

    def __len__(self) -> int:
        return len(self.samples)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor] | Problem:
        """One training view: image [3, crop, crop], tags [C], and the prepared extras."""
        sample = self.samples[index]
        image = self.loader.load(sample)
        if isinstance(image, Problem):
            return image
        image = self.prepared.view(sample, image, rng)
        options = self.augment.model_dump(exclude={*CROP_SIZES})  # those are of crops with masks
        return {
            "image": augment_image(image, rng=rng, statistics=self.statistics, **options),
            "tags": multi_hot(sample.tags, self.n_classes),
            **{key: values[sample.id] for key, values in self.prepared.extras.items()},
        }


class TagTask:
    """The classifier's training step and validation."""

    def __init__(
        self,
        context: Context,
        model: Classifier,
        stage: str = STAGE,
        carried: Set[str] = frozenset(),
        prepared: Prepared | None = None,
    ) -> None:
        self.context, self.model, self.carried = context, model, carried
        self.settings = settings = context.recipe.trainings[stage]
        self.epochs = settings.epochs
        loader = context.loader(STAGE, cached=True)
        n_classes, statistics = len(context.source.classes.foreground), model.input_statistics
        self.dataset = TagSet(settings, n_classes, context.samples(TRAIN), loader, prepared, statistics=statistics)
        self.loader = loader
        self.problems: list[Problem] = []
        self.warned = False
        self.best: BestWeights | None = None
        if settings.keep == "best":
            self.best = BestWeights(context.workspace.stage(stage) / "best.safetensors", context.engine)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Backbone and whatever an earlier training brought at lr, new parameters at head_lr."""
        named = dict(self.model.named_parameters())
        # What was trained before must not be torn away at the rate of what begins from nothing.
        old = {name for name in named if name.startswith("backbone.") or name in self.carried}
        return parameter_groups(
            self.settings.optimizer,
            [value for name, value in named.items() if name in old],
            [value for name, value in named.items() if name not in old],
        )

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """As the recipe says."""
        return build_optimizer(self.settings.optimizer, groups)

    def rate(self, step: int, total: int) -> float:
        """As the recipe says."""
        whole = self.settings.schedule_epochs
        return rate_factor(self.settings.optimizer, step, total if whole is None else total * whole // self.epochs)

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The head's loss terms."""
        tags = batch["tags"]
        output = model(batch["image"].contiguous(memory_format=torch.channels_last), tags)
        extras = {**output.extras, **{key: value for key, value in batch.items() if key not in ("image", "tags")}}
        terms: dict[str, Tensor] = self.model.head.losses(output.logits.float(), tags, extras)
        return terms

    def validate(self, epoch: int) -> dict[str, Any] | None:
        """Average precision on val, at evenly spaced epochs and the last; warns of classes not learnt.

        After the last epoch also that of training images: what is not learnt there is no matter of new images. With
        ``keep: best`` the model then has the best weights, which these figures are of, and ``best_epoch`` is theirs.
        """
        every, last = max(1, self.epochs // self.settings.validations), epoch == self.epochs
        if epoch % every and not last:
            return None
        figures = self.average_precision()
        if figures and 2 * epoch >= self.epochs and not self.warned:
            self._warn_unlearnt(figures)
        if self.best is not None and figures:
            self.best.offer(self.model, figures["val_map"], epoch)
        if not last:
            return figures
        best_epoch = None if self.best is None else self.best.restore(self.model)
        if best_epoch is not None:
            figures = {**(self.average_precision() or {}), "best_epoch": best_epoch}
        return {**(self.average_precision(TRAIN) or {}), **(figures or {})} or None

    def average_precision(self, split: str = VAL) -> dict[str, Any] | None:
        """Average precision per class and its mean over the classes that occur (:func:`tag_precision`).

        Of all images of ``val``, of at most ``TRAIN_IMAGES`` of ``train``. None without any that can be read, or tags.
        """
        context = self.context
        samples = context.samples(split)
        if split == TRAIN:
            # Drawn, not the first ones: ids are often sorted by class.
            indices = np.random.default_rng(context.recipe.seed).permutation(len(samples))[:TRAIN_IMAGES]
            samples = [samples[index] for index in sorted(indices)]
        if not samples:
            return None
        n_classes = self.dataset.n_classes
        # One row per image and a column that says who was read: ranks fill in their own, and a sum gathers them.
        scores = torch.zeros(len(samples), n_classes + 1, device=context.engine.device)
        self.model.eval()
        for index in context.engine.share(range(len(samples))):
            image = self.loader.load(samples[index])
            if isinstance(image, Problem):
                continue
            with torch.inference_mode(), context.engine.autocast():
                view = normalise(image, self.model.input_statistics)[None]
                view = view.to(context.engine.device, memory_format=torch.channels_last)
                scores[index, :-1] = self.model(view).logits[0].float()
            scores[index, -1] = 1
        self.model.train()
        scores = context.engine.sum_over_ranks(scores).cpu()
        readable = scores[:, -1] > 0
        targets = torch.stack([multi_hot(sample.tags, n_classes) for sample in samples])[readable]
        return tag_precision(scores[readable, :-1], targets, context.source.classes.foreground, split)

    def _warn_unlearnt(self, figures: dict[str, Any]) -> None:
        """A class whose ranking is hardly better than chance half way is worth a word before the night is over."""
        self.warned = True
        samples = self.context.samples(VAL)
        for label, (name, value) in enumerate(figures["val_ap"].items(), start=1):
            share = sum(label in sample.tags for sample in samples) / len(samples)
            # Average precision of a random ranking is the class's share: warn when it is hardly above that.
            if value is not None and value < min(0.9, 1.5 * share + 0.05):
                self.context.progress.warning(
                    f"classify: '{name}' is not learnt half way (average precision {value:.2f}, chance {share:.2f})"
                )


def run(context: Context, stage: str = STAGE) -> list[Problem]:
    """Train and save the classifier, the first or a retraining's; returns the inputs left out.

    Raises:
        InputError: the best validation is asked for, and no image is held out.
    """
    settings, engine = context.recipe.trainings[stage], context.engine
    if settings.classifier is not None:
        return _use_given(context, stage)
    if settings.keep == "best" and not context.samples(VAL):
        msg = f"{stage}: keep: best needs images that are held out; set data.val_fraction, or leave keep: last"
        raise InputError(msg)
    prepared = _prepared(context, stage)
    # Behind the preparations: a resumed training reads those from its folder, and must still start from the same
    # weights.
    torch.manual_seed(context.recipe.seed)
    model, carried = _starting_model(context, stage)
    model.train()
    task = TagTask(context, model, stage, carried, prepared)
    length = training_length(
        context,
        stage,
        task.dataset.samples,
        iterations=settings.iterations,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
    )
    task.epochs = length.epochs
    folder = context.workspace.stage(stage)
    problems = train(
        engine,
        task,
        epochs=length.epochs,
        batch_size=settings.batch_size,
        folder=folder,
        progress=context.progress,
        clip_norm=settings.optimizer.clip_norm,
        description="train the tag classifier" if stage == STAGE else f"train the tag classifier again ({stage})",
        options=Options(iterations=length.iterations),
    )
    _save(context, stage, model)
    if task.best is not None:
        task.best.drop()
    return [*prepared.problems, *problems]


def _save(context: Context, stage: str, model: Classifier) -> None:
    if context.engine.is_main:
        description = {
            "kind": "classifier",
            "classes": list(context.source.classes.names),
            "settings": context.recipe.trainings[stage].model_dump(mode="json"),
            **statistics_entry(model.input_statistics),
            **pixels_entry(context.source.pixels),
        }
        save_weights(context.workspace.model_path(stage), model, description)
    context.engine.barrier()


def _use_given(context: Context, stage: str) -> list[Problem]:
    """Take a classifier as it is: measured like a trained one, its history one line, no update."""
    model = given_classifier(context)
    task = TagTask(context, context.engine.place(model.eval()), stage)
    figures = {**(task.average_precision(TRAIN) or {}), **(task.average_precision() or {})}
    warn_of_unknown_tags(context, figures)
    if context.engine.is_main:
        path = context.workspace.stage(stage) / "history.jsonl"
        with atomic_write(path, "w") as stream:
            stream.write(json_text({"step": 0, "epoch": 0, **figures}) + "\n")
    _save(context, stage, model)
    return []


def _starting_model(context: Context, stage: str) -> tuple[Classifier, set[str]]:
    """The classifier before the training, and the names of the tensors that an earlier training brought."""
    settings, n_classes = context.recipe.trainings[stage], len(context.source.classes.foreground)
    if isinstance(settings, RetrainSettings) and settings.start == "previous":
        model = build_classifier(settings, n_classes, pretrained=False)
        return model, _carry_over(context.workspace.model_path(_before(context, stage)), model)
    if settings.warm_start is not None:
        model = build_classifier(settings, n_classes, pretrained=False)
        return model, _warm_start(context, settings.warm_start, model)
    model = build_classifier(settings, n_classes)
    if context.source.input_statistics is not None:
        fit_input(model.backbone, context.source.input_statistics)
    return model, set()


def _warm_start(context: Context, path: Path, model: Classifier) -> set[str]:
    """Start from an earlier classifier, and say so; returns the names of the tensors taken over whole.

    Raises:
        InputError: it is none, of another backbone, or of images with other channels.
    """
    classes = context.source.classes.foreground
    taken, file = start_from(path, model, classes)
    check_channels(context, model, f"classify.warm_start: {file}")
    n_new = len(classes) - len(taken.classes)
    also = f"; new: {n_new} classes" if n_new else ""
    context.progress.message(
        f"{STAGE}: starts from {file}: {len(taken.tensors)} of {len(model.state_dict())} tensors, "
        f"rows of {len(taken.classes)} of {len(classes)} classes{also}"
    )
    return set(taken.tensors)


def _prepared(context: Context, stage: str) -> Prepared:
    """What the head and the settings of a training ask for, made with the classifier trained before."""
    preparations = context.recipe.trainings[stage].preparations
    if not preparations:
        return Prepared()
    return prepare(context, stage, preparations, trained_classifier(context, _before(context, stage)))


def _before(context: Context, stage: str) -> str:
    """The training before this one."""
    stages = list(context.recipe.trainings)
    return stages[stages.index(stage) - 1]


def _carry_over(path: Path, model: Classifier) -> set[str]:
    """Start from the classifier trained before; returns the names of the tensors taken over.

    A head that wraps the old one finds its tensors under ``head.inner``. New tensors keep their first values.

    Raises:
        InputError: the backbones differ.
    """
    set_input(model.backbone, stored_statistics(read_description(path), path))
    tensors, model_state = load_tensors(path), model.state_dict()
    for name in list(tensors):
        wrapped = name.replace("head.", "head.inner.", 1) if name.startswith("head.") else name
        if name not in model_state and wrapped in model_state:
            tensors[wrapped] = tensors.pop(name)
    names = {name for name, value in tensors.items() if name in model_state and model_state[name].shape == value.shape}
    missing = [name for name in model_state if name.startswith("backbone.") and name not in names]
    if missing:
        msg = (
            f"{path}: its backbone is not the one of this retraining ({missing[0]} does not fit); set start: weights, "
            "or leave the backbone as in classify"
        )
        raise InputError(msg)
    model.load_state_dict({**model_state, **{name: tensors[name] for name in names}})
    return names
