"""What a data format is: settings that open a data source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
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

    def list_path(self, name: str) -> Path | None:
        """The file that a name of a list of images means in this data; None: the data has no folder."""
        del name
        return None

    def missing_files(self) -> dict[str, Path]:
        """Files and folders that these settings name and that are not there, by setting; no image is looked for."""
        return {}


SourceField = Annotated[Source, MethodOf("data")]
