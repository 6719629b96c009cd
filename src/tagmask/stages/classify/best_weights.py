"""The weights of the best validation of a training, kept in a file until the training ends (``keep: best``)."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tagmask.engine.engine import Engine
from tagmask.storage.weights import load_weights, read_description, save_weights


class BestWeights:
    """A file that holds the best weights so far, with their score and epoch.

    A training that was killed may find a file of a later step than its checkpoint; it comes by that step again with
    the same score, so the end is the same.

    Args:
        path: the file.
        engine: of the run; the first rank writes, all read.
    """

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path, self.engine = path, engine

    def offer(self, model: nn.Module, score: float, epoch: int) -> None:
        """Keep the weights if the score is above all before it; the first of equal ones stays."""
        if self.engine.is_main and (not self.path.exists() or score > read_description(self.path)["score"]):
            save_weights(self.path, model, {"kind": "best", "score": score, "epoch": epoch})
        self.engine.barrier()

    def restore(self, model: nn.Module) -> int | None:
        """Load the best weights into the model; returns their epoch, None where none were offered."""
        if not self.path.exists():
            return None
        load_weights(self.path, model)
        return int(read_description(self.path)["epoch"])

    def drop(self) -> None:
        """Delete the file; the weights are where they belong."""
        if self.engine.is_main:
            self.path.unlink(missing_ok=True)
