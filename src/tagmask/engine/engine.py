"""Device, precision, ranks and threads of one process; image_loop.py walks over images, training.py over steps."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.utils.deterministic
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from tagmask.engine.threads import map_in_threads
from tagmask.errors import RunError
from tagmask.settings.engine import EngineSettings

Item = TypeVar("Item")
Result = TypeVar("Result")
Model = TypeVar("Model", bound=nn.Module)
IMAGES_AT_ONCE = 16  # images in flight on a CPU; each holds its own features
_PRECISIONS: dict[str, Any] = {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


class Engine:
    """What a stage may know of the machine: device, autocast, its rank's share, collectives."""

    def __init__(self, settings: EngineSettings, *, seed: int) -> None:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.settings = settings
        self.seed = seed
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the manifest says precision and ranks
        accelerator = _accelerator(settings.device)
        self.precision = settings.precision if settings.precision != "auto" else _best_precision(accelerator)
        local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "0"))  # set by torchrun
        devices = local_ranks or settings.devices
        several = devices > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1
        self.fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
            # The others wait while the first rank evaluates and writes the report: longer than torch's 30 minutes on
            # very large data.
            strategy=DDPStrategy(timeout=timedelta(days=1)) if several else "auto",
            precision=_PRECISIONS[self.precision],
        )
        self.fabric.launch()
        if several:
            atexit.register(_leave_group)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Nothing reads memory before it is written, and filling it takes 6 % of a network's time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    @property
    def device(self) -> torch.device:
        """This rank's device."""
        return self.fabric.device

    @property
    def is_main(self) -> bool:
        """Whether this process prints, evaluates and writes what exists once."""
        return self.fabric.global_rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This rank's part of an image-wise stage."""
        # Dealt out in turn: neighbours in a list are alike in size, so that blocks would not end together.
        return items[self.fabric.global_rank :: self.fabric.world_size]

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision as chosen for this device."""
        return self.fabric.autocast()

    def full_precision(self) -> AbstractContextManager[Any]:
        """Float32, inside of :meth:`autocast` too."""
        return torch.autocast(self.device.type, enabled=False)

    def map(
        self, work: Callable[[Item], Result], items: Sequence[Item], *, at_once: int
    ) -> Generator[Result, None, None]:
        """Results of ``work`` in the order of ``items``.

        On a CPU each item is computed by one thread, several items at a time. Threads within an item would change
        the order of floating-point sums with their number; so every bit is the same on any number of threads and
        ranks (and it is faster, too).
        """
        yield from map(work, items) if self.device.type != "cpu" else self.map_in_threads(work, items, at_once=at_once)

    def map_in_threads(
        self, work: Callable[[Item], Result], items: Sequence[Item], *, at_once: int = IMAGES_AT_ONCE
    ) -> Generator[Result, None, None]:
        """:meth:`map` for what is the CPU's work on any device."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            workers = min(threads, at_once)
            yield from map_in_threads(work, items, workers, initializer=torch.set_num_threads, arguments=(1,))
        finally:
            torch.set_num_threads(threads)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.fabric.barrier()

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Element-wise sum over ranks; the same tensor on each."""
        if self.fabric.world_size == 1:
            return values
        total = self.fabric.all_reduce(values, reduce_op="sum")
        assert isinstance(total, Tensor)
        return total

    @contextmanager
    def follow_first_rank(self) -> Iterator[None]:
        """Around the work of every rank but the first: when that one leaves, it has said why, and this one follows.

        Raises:
            RunError: the connection to another rank is lost.
        """
        try:
            yield
        except RuntimeError as error:  # torch has no class of its own for it on gloo
            if not any(word in str(error) for word in ("onnection", "Broken pipe", "NCCL")):
                raise
            msg = f"another process of this run has ended ({' '.join(str(error).split())})"
            raise RunError(msg) from error

    def gather(self, value: Item) -> list[Item]:
        """One Python value of every rank, on every rank."""
        if self.fabric.world_size == 1:
            return [value]
        parts: list[Any] = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(parts, value)
        return parts

    def place(self, model: Model) -> Model:
        """Move a model for inference: channels last is 1.4x on CPUs and no loss on GPUs."""
        model.to(self.device)
        model.to(memory_format=torch.channels_last)
        return model.eval()


def _leave_group() -> None:
    # A rank whose gloo threads are still up when the interpreter has gone is aborted (SIGABRT), its work done.
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _accelerator(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[device]:
        msg = f"engine.device={device}: this machine has none that torch can use. 'tagmask doctor' says more."
        raise RunError(msg)
    return device


def _best_precision(accelerator: str) -> str:
    """bf16 where the hardware multiplies it natively; elsewhere it is emulated and slower than float32."""
    if accelerator == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if accelerator == "cpu" and torch.cpu._is_avx512_bf16_supported():  # no public query exists
        return "bf16"
    return "float32"
