"""What a head of a classifier is: its settings, and the module they build."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from torch import Tensor, nn

from tagmask.contracts.preparation import Preparation
from tagmask.registry.field import MethodOf
from tagmask.registry.method import Method


class HeadModule(nn.Module, ABC):
    """Features [B, D, h, w] -> logits [B, C], by a 1x1 classifier whose responses are class activation maps."""

    #: What it has beyond this contract, by attribute name, such as ``second_weights``.
    provides: ClassVar[frozenset[str]] = frozenset()

    @property
    @abstractmethod
    def class_weights(self) -> Tensor:
        """Classifier weights [C, D]."""

    @property
    def class_bias(self) -> Tensor | None:
        """The classifier's biases [C], None without; part of its class maps, not of activation maps."""
        return None

    @abstractmethod
    def forward(self, features: Tensor, tags: Tensor | None = None) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Logits [B, C] and what else :meth:`losses` needs.

        Args:
            features: [B, D, h, w].
            tags: multi-hot [B, C]; they come in training only, and nothing that predicts may depend on them.
        """

    @abstractmethod
    def losses(self, logits: Tensor, tags: Tensor, extras: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named scalar terms, of which 'loss' is minimised.

        Args:
            logits: float32 [B, C].
            tags: multi-hot [B, C].
            extras: what :meth:`forward` returned, and what the head's preparations gave with the images.
        """

    def wrapped(self) -> HeadModule | None:
        """The head that this one goes around."""
        return None

    def part_with(self, name: str) -> HeadModule:
        """The outermost of this module and those it wraps that provides ``name``.

        Raises:
            AttributeError: none does (a recipe is checked for that, see ``Localizer.requires``).
        """
        part: HeadModule | None = self
        while part is not None:
            if name in part.provides:
                return part
            part = part.wrapped()
        msg = f"no part of the head {type(self).__name__} has {name}"
        raise AttributeError(msg)


class Head(Method):
    """Settings of a head. One that goes around another has a field annotated :data:`HeadField`."""

    #: What the module has beyond the contract; localizers ask for it in ``requires``.
    provides: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def build(self, channels: int, n_classes: int) -> HeadModule:
        """The head's module for D = ``channels`` and C = ``n_classes``."""

    def preparations(self) -> tuple[Preparation, ...]:
        """What must be made of the classifier trained before, so that this head can learn; each gives extras."""
        return ()

    def parts(self) -> Iterator[Head]:
        """This head and those it goes around, outermost first."""
        yield self
        for value in self.settings_of(Head):
            yield from value.parts()

    def offers(self) -> frozenset[str]:
        """What this head or one it goes around provides."""
        return frozenset().union(*(part.provides for part in self.parts()))


HeadField = Annotated[Head, MethodOf("head")]
