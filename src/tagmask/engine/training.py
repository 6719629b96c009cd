"""THE training loop that every trainable stage shares, and its checkpoints.

Exact resume without saving generator states: the order of an epoch, the augmentation of a sample and the
dropout of a step are functions of (seed, epoch), (seed, epoch, index) and (seed, step). So a training that was killed
ends in the same bits as one that was not, with any number of loader workers, which draw ahead of the training and
whose generators could not be stored anyway.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tagmask.engine.engine import Engine
from tagmask.engine.moving_average import MovingAverage
from tagmask.engine.shared_memory import free_bytes, loader_bytes
from tagmask.errors import RunError
from tagmask.progress.listeners import Progress
from tagmask.settings.training_length import training_steps
from tagmask.storage.files import atomic_write
from tagmask.storage.records import read_jsonl
from tagmask.types import Problem


class TrainingSet(Protocol):
    """Random access with all randomness in the arguments; a bad input comes back as a Problem."""

    def __len__(self) -> int: ...

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor] | Problem:
        """One augmented training item."""
        ...


_Loaded = tuple[dict[str, Tensor], list[Problem]]


class Task(Protocol):
    """What a trainable stage supplies to :func:`train`."""

    @property
    def model(self) -> nn.Module:
        """The module that is trained in place."""
        ...

    @property
    def dataset(self) -> TrainingSet:
        """What it is trained on."""
        ...

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups, each with its peak 'lr'."""
        ...

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser over those groups."""
        ...

    def rate(self, step: int, total: int) -> float:
        """Factor on every group's rate at a step."""
        ...

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named loss terms; 'loss' is minimised."""
        ...

    def validate(self, epoch: int) -> dict[str, Any] | None:
        """Scores for the history after an epoch, or None."""
        ...


@dataclass(frozen=True)
class Options:
    """What a training may ask for beside epochs of equal images.

    ``iterations``: updates, instead of epochs; ``accumulate``: batches that one update is made of; ``ema``: decay of
    the moving average of the weights, which then takes their place at the end; ``weights``: how often each input is
    drawn, relative to the others (see :func:`epoch_order`).
    """

    iterations: int | None = None
    accumulate: int = 1
    ema: float | None = None
    weights: Sequence[float] | None = None

    def steps(self, n_items: int, batch_size: int, epochs: int) -> tuple[int, int]:
        """Updates in an epoch, and in all."""
        return training_steps(n_items, batch_size * self.accumulate, epochs, self.iterations)


def epoch_order(n_items: int, rng: np.random.Generator, weights: Sequence[float] | None) -> list[tuple[int, int]]:
    """The inputs of one epoch: (index, how often it came before), ``n_items`` of them.

    Without weights each comes once. With weights an input of share w (of their sum) comes n * w times, rounded up or
    down by one position drawn for all (systematic sampling), in random order.
    """
    if weights is None:
        return [(int(index), 0) for index in rng.permutation(n_items)]
    # Equally spaced marks on a ruler whose sections are as long as the weights: independent draws would leave out, by
    # chance, inputs that ought to come, and make epochs unlike each other.
    ends = np.cumsum(np.asarray(weights, np.float64))
    places = (rng.random() + np.arange(n_items)) * ends[-1] / n_items
    draw = rng.permutation(np.minimum(np.searchsorted(ends, places, side="right"), n_items - 1))
    occurrences: dict[int, int] = {}
    order = []
    for index in draw.tolist():
        order.append((index, occurrences.get(index, 0)))
        occurrences[index] = occurrences.get(index, 0) + 1
    return order


class _Items(Dataset[Any]):
    """The next readable input takes the place of a bad one: batches keep their size, on every rank."""

    def __init__(self, source: TrainingSet, seed: int) -> None:
        self.source, self.seed = source, seed

    def __getitem__(self, key: tuple[int, int, int]) -> _Loaded:
        epoch, first, again = key
        problems: list[Problem] = []
        for step in range(len(self.source)):
            index = (first + step) % len(self.source)
            # The first occurrence draws as if there were no weights, so that trainings without them stay as they are.
            item = self.source.item(index, np.random.default_rng([self.seed, epoch, index, again][: 4 if again else 3]))
            if not isinstance(item, Problem):
                return item, problems
            problems.append(item)
        return {}, problems


def _collate(loaded: list[_Loaded]) -> _Loaded:
    items = [item for item, _ in loaded if item]
    batch = {name: torch.stack([item[name] for item in items]) for name in items[0]} if items else {}
    return batch, [problem for _, problems in loaded for problem in problems]


def _collate_for_pipes(loaded: list[_Loaded]) -> Any:
    """The batch as arrays: tensors would go through shared memory."""
    batch, problems = _collate(loaded)
    return {name: value.numpy() for name, value in batch.items()}, problems


def _loader(engine: Engine, items: _Items, batches: _Batches, batch_size: int, progress: Progress) -> DataLoader[Any]:
    """Batches from ``engine.workers`` processes; through pipes where they might not fit into shared memory: a process
    that finds no room there dies without a word, and its batch is waited for."""
    workers, collate = engine.settings.workers, _collate
    if workers:
        ranks = engine.fabric.world_size
        needed = ranks * loader_bytes(items[0, 0, 0][0], -(-batch_size // ranks), workers)
        free = free_bytes()
        if free is not None and 2 * needed > free:
            collate = _collate_for_pipes
            progress.message(
                f"{needed / 1e6:.0f} MB of batches may be under way and {free / 1e6:.0f} MB of shared memory are free: "
                "they go through pipes, which is slower; a container gets more with --shm-size=1g"
            )
    return DataLoader(items, collate_fn=collate, num_workers=workers, batch_sampler=batches)


def train(
    engine: Engine,
    task: Task,
    *,
    epochs: int,
    batch_size: int,
    folder: Path,
    progress: Progress,
    clip_norm: float | None = None,
    description: str = "train",
    options: Options | None = None,
) -> list[Problem]:
    """Train ``task.model`` in place; resume from ``folder/state.ckpt`` if there is one.

    The global batch is split over the ranks. Returns the problems met (unreadable inputs, left out).

    Raises:
        RunError: the loss is not finite, or there is no input that can be read.
    """
    options = options or Options()
    n_items = len(task.dataset)
    if n_items == 0:
        msg = f"{description}: there is no training image"
        raise RunError(msg)
    per_epoch, total = options.steps(n_items, batch_size, epochs)
    task.model.to(memory_format=torch.channels_last)
    optimizer = task.optimizer(task.parameter_groups())
    model, optimizer = engine.fabric.setup(task.model, optimizer)
    average = None if options.ema is None else MovingAverage(task.model, options.ema)
    state = _Checkpoint(folder, task.model, optimizer, average, engine)
    start = state.load()
    batches_of_ranks = _Batches(engine, n_items, batch_size, options, range(start, total))
    loader = _loader(engine, _Items(task.dataset, engine.seed), batches_of_ranks, batch_size, progress)
    progress.start(description, total, start)
    loaded, nothing = iter(loader), f"{description}: none of the {n_items}"
    for step in range(start, total):
        batches = _readable_batches(islice(loaded, options.accumulate), state.problems, nothing)
        # Dropout: other masks on each rank; hash() of a tuple of ints does not depend on the process.
        torch.manual_seed(hash((engine.seed, step, engine.fabric.global_rank)) & 0x7FFFFFFF)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * task.rate(step, total)
        losses = _step(engine, task, model, optimizer, batches, clip_norm)
        if average is not None:
            average.update(step)
        epoch, last = (step + 1) / per_epoch, step + 1 == total
        state.record({"step": step + 1, "epoch": round(epoch, 3), **losses, "lr": optimizer.param_groups[0]["lr"]})
        # A number of updates may end within an epoch, which then counts as a whole one.
        if (epoch.is_integer() or last) and (validation := task.validate(ceil(epoch))) is not None:
            state.record({"step": step + 1, "epoch": ceil(epoch), **validation})
        state.save(step + 1, force=last)
        progress.advance(1, **losses)
    progress.finish()
    if average is not None:
        task.model.load_state_dict(average.state)
    problems = {problem.id: problem for part in engine.gather(state.problems) for problem in part.values()}
    return [problems[name] for name in sorted(problems)]


def _readable_batches(loaded: Iterable[_Loaded], problems: dict[str, Problem], nothing: str) -> list[dict[str, Tensor]]:
    """The batches of one update; what could not be read is noted.

    Raises:
        RunError: there is nothing that can be; the message begins with ``nothing``.
    """
    batches = []
    for batch, unreadable in loaded:
        problems.update({problem.id: problem for problem in unreadable})
        if not batch:
            msg = f"{nothing} inputs could be read; the first: {unreadable[0].reason}"
            raise RunError(msg)
        batches.append({name: torch.as_tensor(value) for name, value in batch.items()})
    return batches


def _step(
    engine: Engine,
    task: Task,
    model: Any,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[dict[str, Tensor]],
    clip_norm: float | None,
) -> dict[str, float]:
    """One update; all ranks agree on whether the loss is finite, so that none waits for another that has gone."""
    losses: dict[str, float] = {}
    for number, batch in enumerate(batches, start=1):
        # Gradients of all but the last batch are summed here; the ranks exchange them once an update.
        waits = number < len(batches) and engine.fabric.world_size > 1
        with engine.fabric.no_backward_sync(model, enabled=waits):
            terms = task.losses(model, {name: value.to(engine.device) for name, value in batch.items()})
            if engine.sum_over_ranks((~torch.isfinite(terms["loss"].detach())).float()) > 0:
                msg = "the loss is not finite. Lower the learning rate, or use engine.precision=float32."
                raise RunError(msg)
            engine.fabric.backward(terms["loss"] / len(batches))
        for name, value in terms.items():
            losses[name] = losses.get(name, 0.0) + float(value.detach()) / len(batches)
    if clip_norm is not None:
        engine.fabric.clip_gradients(model, optimizer, max_norm=clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {name: round(value, 6) for name, value in losses.items()}


class _Batches:
    """Lists of (epoch, index, occurrence) of this rank for some steps, ``accumulate`` each, never an empty one."""

    def __init__(self, engine: Engine, n_items: int, batch_size: int, options: Options, steps: range) -> None:
        self.engine, self.n_items, self.options, self.steps = engine, n_items, options, steps
        self.size = batch_size * options.accumulate
        self.per_epoch, _ = options.steps(n_items, batch_size, 1)

    def __len__(self) -> int:
        return len(self.steps) * self.options.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        order: list[tuple[int, int]] = []
        of_epoch = -1
        for step in self.steps:
            epoch, place = divmod(step, self.per_epoch)
            if epoch != of_epoch:
                rng = np.random.default_rng([self.engine.seed, epoch])
                order, of_epoch = epoch_order(self.n_items, rng, self.options.weights), epoch
            positions = order[place * self.size : (place + 1) * self.size]
            # The global batch is fixed first and then split, so that any number of ranks trains on the same images.
            for part in range(self.options.accumulate):
                share = -(-len(positions) // self.options.accumulate)
                batch = positions[part * share : (part + 1) * share] or positions[:1]
                rank_share = self.engine.share(batch) or batch[:1]  # a step without forward would hang DDP
                yield [(epoch, *which) for which in rank_share]


class _Checkpoint:
    """state.ckpt and history.jsonl of one training, kept in step with each other, and the inputs left out."""

    def __init__(
        self, folder: Path, model: nn.Module, optimizer: Any, average: MovingAverage | None, engine: Engine
    ) -> None:
        self.path, self.history = folder / "state.ckpt", folder / "history.jsonl"
        self.model, self.optimizer, self.average, self.engine = model, optimizer, average, engine
        self.lines: list[dict[str, Any]] = []
        self.problems: dict[str, Problem] = {}
        self.cost, self.saved_at = 0.0, time.monotonic()

    def load(self) -> int:
        """Step to go on from; history after it is dropped."""
        if not self.path.exists():
            return 0
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load(state["average"])
            self.problems = {problem["id"]: Problem(**problem) for problem in state["problems"]}
            step = int(state["step"])
        except Exception as error:  # a torn file raises nearly anything
            msg = f"{self.path}: not a readable checkpoint. Delete it to train this stage again."
            raise RunError(msg) from error
        # The history is written first: after a kill between the two files it is ahead of the checkpoint, never behind.
        self.lines = [line for line in read_jsonl(self.history) if line["step"] <= step]
        return step

    def record(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    def save(self, step: int, *, force: bool) -> None:
        """Save if the time since the last save keeps the overhead below its bound, or at the end."""
        since = time.monotonic() - self.saved_at
        if not self.engine.is_main or not (force or since * self.engine.settings.checkpoint_overhead >= self.cost):
            return
        start = time.monotonic()
        with atomic_write(self.history, "w") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in self.lines)
        with atomic_write(self.path) as stream:
            state = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": None if self.average is None else self.average.state,
                "step": step,
                "problems": [asdict(problem) for problem in self.problems.values()],
            }
            torch.save(state, stream)
        self.saved_at = time.monotonic()
        self.cost = self.saved_at - start
