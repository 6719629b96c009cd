"""The key ``refine`` of a recipe."""

from __future__ import annotations

from pydantic import field_validator

from tagmask.contracts.labeller import Labeller
from tagmask.contracts.refiner import Refiner, RefinerField
from tagmask.registry.field import by_name
from tagmask.settings.base import Settings


class RefineSettings(Settings):
    """A chain of refiners; the last one makes labels. An empty chain: the recipe ends at its maps."""

    chain: tuple[RefinerField, ...] = by_name(("threshold",))

    @field_validator("chain")
    @classmethod
    def _ends_in_labels(cls, chain: tuple[Refiner, ...]) -> tuple[Refiner, ...]:
        if not chain:
            return chain
        *before, last = chain
        wrong = [refiner.name for refiner in before if refiner.makes != "maps"]
        if wrong:
            msg = f"'{wrong[0]}' makes labels, so it must be the last of the chain"
            raise ValueError(msg)
        if not isinstance(last, Labeller):
            msg = f"the chain must end in a refiner that makes labels, such as threshold; '{last.name}' makes maps"
            raise ValueError(msg)
        return chain

    @property
    def refiners(self) -> tuple[Refiner, ...]:
        """The links that make maps of maps."""
        return self.chain[:-1]

    @property
    def labeller(self) -> Labeller:
        """The last link, which makes labels; there is one unless the chain is empty."""
        last = self.chain[-1]
        assert isinstance(last, Labeller)
        return last

    @property
    def needs(self) -> frozenset[str]:
        """What the links ask for beside maps, see :mod:`tagmask.contracts.planes`."""
        return frozenset().union(*(refiner.needs for refiner in self.chain))

    @property
    def makes_maps(self) -> bool:
        """Whether refiners of maps stand before the one that makes labels."""
        return len(self.chain) > 1
