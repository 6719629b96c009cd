"""What a data format is: settings that open a data source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from pydantic import BaseModel, ConfigDict

from tagmask.registry.field import MethodOf
from tagmask.types import DataSource


class Source(BaseModel, ABC):
    """Base of the settings of all data formats."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @abstractmethod
    def open(self) -> DataSource:
        """Load the samples; no image is opened.

        Raises:
            DataError: the data is not there, or not of this format.
        """


SourceField = Annotated[Source, MethodOf("data")]
