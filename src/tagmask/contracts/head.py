"""What every head of a classifier offers; a head's file subclasses :class:`Head` and builds its module.

The module of a head takes features [B, D, h, w] and has

- ``class_weights`` [C, D]: the 1x1 classifier whose responses are class activation maps,
- ``forward(features, tags=None)`` -> logits [B, C] and a mapping of extras; ``tags`` (multi-hot [B, C]) come in
  training only, and nothing that predicts may depend on them,
- ``losses(logits, tags, extras)`` -> named scalar terms, of which 'loss' is minimised. ``extras`` holds what
  ``forward`` returned and whatever else the training set gave with the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from tagmask.contracts.method import Method


class Head(Method):
    """Settings of a head. A head that wraps another one names it in a field ``inner``."""

    #: What the module has beyond the contract, by attribute name; localizers ask for it in ``requires``.
    provides: ClassVar[frozenset[str]] = frozenset()
    #: What the training set must give with the images, as keys of the extras; see ``classify.stage``.
    needs: ClassVar[frozenset[str]] = frozenset()

    def build(self, channels: int, n_classes: int) -> Any:
        """The head's module for D = ``channels`` and C = ``n_classes``."""
        raise NotImplementedError

    def parts(self) -> Iterator[Head]:
        """This head and those it wraps, outermost first."""
        yield self
        inner = getattr(self, "inner", None)
        if isinstance(inner, Head):
            yield from inner.parts()

    def offers(self) -> frozenset[str]:
        """What this head or one it wraps provides."""
        return frozenset().union(*(part.provides for part in self.parts()))


def part_with(module: Any, name: str) -> Any:
    """The module of a head, or of one it wraps, that has the attribute ``name``: the outermost one.

    Raises:
        AttributeError: none has it (a recipe is checked for that, see ``Localizer.requires``).
    """
    part = module
    while not hasattr(part, name):
        part = getattr(part, "inner", None)
        if part is None:
            msg = f"no part of the head {type(module).__name__} has {name}"
            raise AttributeError(msg)
    return part
