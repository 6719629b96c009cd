"""Training of the refiners that learn: labels of every train image, the loop over steps, the stored network.

A refiner at position N of the chain (from 1) works in ``refine/N-NAME``: labels, history, the trained network. It
learns from the maps that come to it through the refiners before it, on the train split, and sees no mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tagmask.backbones.build import Backbone, take_classifier_backbone
from tagmask.backbones.channels import fit_input, set_input
from tagmask.contracts.optimizer import build_optimizer, rate_factor
from tagmask.contracts.refiner import Instances, MapRefiner, Refiner, RefineRequest, RefinesMaps
from tagmask.contracts.trainable import TrainableRefiner, TrainedRefiner
from tagmask.data.loading import ImageLoader
from tagmask.engine.engine import Engine
from tagmask.engine.image_loop import process_images
from tagmask.engine.training import Options, train
from tagmask.errors import DataError, RunError
from tagmask.ops.map_grids import MapGrids
from tagmask.ops.maps import check_maps
from tagmask.ops.tags import multi_hot
from tagmask.ops.transforms import colour_view, working_size
from tagmask.runs.context import TRAIN, Context
from tagmask.runs.stage_names import MODEL, REFINE
from tagmask.stages.planes import planes_of
from tagmask.stages.training_length import training_length
from tagmask.storage.arrays import load_planes, save_planes
from tagmask.storage.files import artifact_name
from tagmask.storage.pictures import load_mask, save_mask
from tagmask.storage.weights import (
    load_tensors,
    load_weights,
    read_description,
    save_weights,
    statistics_entry,
    stored_statistics,
)
from tagmask.types import ActivationMaps, InputStatistics, Problem, Sample, UInt8Array

STAGE, TRAINING = REFINE, f"{REFINE} (training)"


def left_out(sample: Sample, error: Exception, stage: str = STAGE) -> Problem:
    """Maps that are not finite or do not fit the image: it is left out, the run goes on."""
    return Problem(stage, sample.id, str(sample.image_path), str(error))


def through_chain(
    context: Context, chain: Sequence[RefinesMaps], sample: Sample, image: UInt8Array
) -> tuple[ActivationMaps, RefineRequest]:
    """An image's activation maps, and the request with what the refiners make of them in order.

    Raises:
        DataError: the image has another size than when its maps were made.
        ValueError: the maps' grid does not fit, or they are not finite.
    """
    stored = context.workspace.load_maps(sample.id)
    (height, width), old = image.shape[:2], stored.image_size
    old_height, old_width = working_size(old, context.recipe.working_size)
    if (height, width) != (old_height, old_width):
        msg = (
            f"the image is {width}x{height} (width x height), and was {old_width}x{old_height} when its maps were "
            "made. Delete localize/maps and run again."
        )
        raise DataError(msg)
    maps = torch.from_numpy(stored.maps)
    check_maps(colour_view(image), maps)
    request = RefineRequest(
        image=image,
        maps=maps.to(context.engine.device),
        classes=torch.from_numpy(stored.classes),
        id=sample.id,
        planes=planes_of(context.workspace, context.recipe.refine.needs, sample),
        names=tuple(context.source.classes.names[label] for label in stored.classes.tolist()),
        grids=MapGrids.of(stored),
    )
    for refiner in chain if len(maps) else ():  # without maps there is nothing to do
        refined = refiner.refine(request)
        grids = None if refiner.cell is None else MapGrids.of_cells(refined, (height, width), refiner.cell)
        request = replace(request, maps=refined, grids=grids)
    return stored, request


def fitted_chain(
    context: Context, refiners: Sequence[Refiner], samples: list[Sample]
) -> tuple[list[RefinesMaps], list[Problem]]:
    """The refiners, those that learn trained (or loaded, if they were); and the inputs that had to be left out.

    Args:
        context: of the refine stage.
        refiners: the chain without the one that makes labels.
        samples: images with activation maps.
    """
    ready: list[RefinesMaps] = []
    problems: list[Problem] = []
    for position, refiner in enumerate(refiners, start=1):
        if isinstance(refiner, MapRefiner):
            ready.append(refiner)
            continue
        assert isinstance(refiner, TrainableRefiner)
        fitting = _Fitting(context, position, refiner, ready)
        # The trained network is written last, so where it is everything before it is whole; only what was left out must
        # be read back to be reported again.
        if fitting.path.exists():
            problems = [problem for problem in context.workspace.problems() if problem.stage == TRAINING]
        else:
            problems = fitting.train(samples, problems)
        ready.append(fitting.trained())
    return ready, problems


class _Fitted(TrainedRefiner):
    """A trained refiner at the engine's precision."""

    def __init__(self, refiner: TrainedRefiner, engine: Engine) -> None:
        self.refiner, self.engine = refiner, engine

    @property
    def cell(self) -> int | None:
        """See :class:`TrainedRefiner`."""
        return self.refiner.cell

    def refine(self, request: RefineRequest) -> Tensor:
        """See :class:`TrainedRefiner`."""
        with self.engine.autocast(), torch.no_grad():
            return self.refiner.refine(request)

    def instances(self, request: RefineRequest) -> Instances:
        """See :class:`TrainedRefiner`."""
        with self.engine.autocast(), torch.no_grad():
            return self.refiner.instances(request)


class _Targets:
    """Images and what they teach, augmented by the refiner."""

    def __init__(
        self,
        refiner: TrainableRefiner,
        samples: Sequence[Sample],
        paths: Sequence[Path],
        loader: ImageLoader,
        statistics: InputStatistics,
        n_classes: int,
    ) -> None:
        self.refiner, self.samples, self.paths, self.loader = refiner, samples, paths, loader
        self.statistics, self.n_classes = statistics, n_classes

    def __len__(self) -> int:
        return len(self.samples)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor] | Problem:
        """One training item of the refiner."""
        image = self.loader.load(self.samples[index])
        if isinstance(image, Problem):
            return image
        load = load_mask if self.refiner.targets_are == "labels" else load_planes
        tags = multi_hot(self.samples[index].tags, self.n_classes)
        return self.refiner.item(image, load(self.paths[index]), tags, rng, self.statistics)


class _FittingTask:
    """The refiner's training step."""

    def __init__(self, refiner: TrainableRefiner, model: nn.Module, dataset: _Targets) -> None:
        self.refiner, self.model, self.dataset = refiner, model, dataset

    def parameter_groups(self) -> list[dict[str, Any]]:
        """As the refiner says."""
        return self.refiner.parameter_groups(self.model)

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """As the recipe says."""
        return build_optimizer(self.refiner.optimizer, groups)

    def rate(self, step: int, total: int) -> float:
        """As the recipe says."""
        return rate_factor(self.refiner.optimizer, step, total)

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The refiner's terms."""
        return self.refiner.losses(model, batch)

    def validate(self, epoch: int) -> dict[str, Any] | None:
        """Nothing: there is no truth to compare with."""
        del epoch
        return None


class _Fitting:
    """One refiner's training inside the refine stage."""

    def __init__(
        self, context: Context, position: int, refiner: TrainableRefiner, before: Sequence[RefinesMaps]
    ) -> None:
        self.context, self.refiner, self.before = context, refiner, list(before)
        self.folder = context.workspace.stage(STAGE) / f"{position}-{refiner.name}"
        self.path = self.folder / MODEL
        self.n_classes = len(context.source.classes.foreground)

    def train(self, samples: list[Sample], earlier: list[Problem]) -> list[Problem]:
        """Leave the trained network, and before it the list of inputs left out; returns them behind the ``earlier``."""
        context, engine = self.context, self.context.engine
        train_ids = {sample.id for sample in context.samples(TRAIN)}
        problems = self._make_targets([sample for sample in samples if sample.id in train_ids])
        learnt_from = [s for s in samples if s.id in train_ids and self.target_path(s).exists()]
        if not learnt_from:
            msg = f"refine: {self.refiner.name} has no train image to learn from; see problems.jsonl"
            raise RunError(msg)
        # Here, not once per run: a refiner starts alike whether the ones before it were trained or read back.
        torch.manual_seed(context.recipe.seed)
        backbone = self._backbone(pretrained=True)
        model = self.refiner.build(backbone, self.n_classes)
        model.train()
        loader = context.loader(TRAINING, cached=True)
        paths = [self.target_path(s) for s in learnt_from]
        dataset = _Targets(self.refiner, learnt_from, paths, loader, backbone.input_statistics, self.n_classes)
        length = training_length(
            context,
            STAGE,
            learnt_from,
            iterations=self.refiner.iterations,
            epochs=self.refiner.epochs,
            batch_size=self.refiner.batch_size,
            training=self.folder.name,
        )
        problems += train(
            engine,
            _FittingTask(self.refiner, model, dataset),
            epochs=length.epochs,
            batch_size=self.refiner.batch_size,
            folder=self.folder,
            progress=context.progress,
            clip_norm=self.refiner.optimizer.clip_norm,
            description=f"train {self.refiner.name}",
            options=Options(iterations=length.iterations),
        )
        if engine.is_main:
            self.refiner.finish(model, self._images(learnt_from), engine.device)
            # Before the network: its file says that the training is done, and a kill in between must not lose the list.
            context.workspace.write_problems(TRAINING, [*earlier, *problems])
            description = {"kind": self.refiner.name, "settings": self.refiner.dump()}
            save_weights(self.path, model, {**description, **statistics_entry(backbone.input_statistics)})
            (self.folder / "state.ckpt").unlink(missing_ok=True)
        engine.barrier()
        return [*earlier, *problems]

    def trained(self) -> TrainedRefiner:
        """The refiner with its stored network on the engine's device."""
        backbone = self._backbone(pretrained=False)
        set_input(backbone, stored_statistics(read_description(self.path), self.path))
        model = self.refiner.build(backbone, self.n_classes)
        load_weights(self.path, model)
        self.context.engine.place(model.requires_grad_(False))
        return _Fitted(self.refiner.trained(model, self.context.engine.device), self.context.engine)

    def target_path(self, sample: Sample) -> Path:
        """Where what an image teaches is kept."""
        suffix = "png" if self.refiner.targets_are == "labels" else "npz"
        return self.folder / "labels" / f"{artifact_name(sample.id)}.{suffix}"

    def _make_targets(self, samples: list[Sample]) -> list[Problem]:
        context, loader = self.context, self.context.loader(TRAINING)
        save = save_mask if self.refiner.targets_are == "labels" else save_planes

        def work(sample: Sample) -> Problem | None:
            image = loader.load(sample)
            if isinstance(image, Problem):
                return image
            try:
                _, request = through_chain(context, self.before, sample, image)
                targets = self.refiner.targets(replace(request, maps=request.maps.float()))
            except (DataError, ValueError) as error:
                return left_out(sample, error, TRAINING)
            save(self.target_path(sample), targets)
            return None

        return process_images(
            context.engine,
            samples,
            work,
            done=lambda sample: self.target_path(sample).exists(),
            progress=context.progress,
            description=f"labels for {self.refiner.name}",
        )

    def _images(self, samples: list[Sample]) -> Iterator[UInt8Array]:
        loader = self.context.loader(TRAINING)
        for sample in samples:
            image = loader.load(sample)
            if not isinstance(image, Problem):
                yield image

    def _backbone(self, *, pretrained: bool) -> Backbone:
        """As the refiner or else ``classify`` says."""
        recipe, from_classifier = self.context.recipe, self.refiner.init == "classifier"
        settings = self.refiner.backbone or recipe.classify.backbone_settings
        if pretrained and not from_classifier and settings.weights is None:
            self.context.progress.warning(
                f"{self.refiner.name}: its backbone starts from random weights; with "
                f"refine.{self.refiner.name}.init=classifier it starts from the trained classifier's"
            )
        backbone = settings.build(pretrained=pretrained and not from_classifier)
        if pretrained and from_classifier:
            path = self.context.workspace.model_path(recipe.last_training)
            take_classifier_backbone(backbone, load_tensors(path), path)
        elif pretrained and self.context.source.input_statistics is not None:
            fit_input(backbone, self.context.source.input_statistics)
        return backbone
